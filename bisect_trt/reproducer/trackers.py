"""Trackers of bugs: which template their issues follow, and how their titles are written."""

from __future__ import annotations

import re

from msgspec import Struct

from bisect_trt.errors import UsageError
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.results import Finding, Reduction
from bisect_trt.writing.text import counted


class Style(Struct, frozen=True):
    """A tracker; the template of an issue is `issue-NAME.md.j2`.

    Attributes:
        prefix: of every title.
        new_issue: page that opens an issue; empty where there is none.
        latest: page of the newest release.
    """

    prefix: str = ""
    new_issue: str = ""
    latest: str = ""


# As their templates were in autumn 2026 (.github/ISSUE_TEMPLATE of each repository).
STYLES = {
    "tensorrt": Style(
        new_issue="https://github.com/NVIDIA/TensorRT/issues/new?template=bug_report.md",
        latest="https://developer.nvidia.com/tensorrt",
    ),
    "tensorrt-rtx": Style(
        prefix="[BUG] ",
        new_issue="https://github.com/NVIDIA/TensorRT-RTX/issues/new?template=bug_report.md",
        latest="https://developer.nvidia.com/tensorrt-rtx",
    ),
    "onnxruntime": Style(
        new_issue="https://github.com/microsoft/onnxruntime/issues/new?template=08-general.yml",
        latest="https://github.com/microsoft/onnxruntime/releases",
    ),
    "openvino": Style(
        prefix="[Bug]: ",
        new_issue="https://github.com/openvinotoolkit/openvino/issues/new?template=bug.yml",
        latest="https://github.com/openvinotoolkit/openvino/releases",
    ),
    "plain": Style(),
}

_WORDS = {
    Symptom.CRASH: "crash",
    Symptom.HANG: "hang",
    Symptom.OUT_OF_MEMORY: "out-of-memory failure",
    Symptom.NOT_FINITE: "NaN/Inf failure",
    Symptom.MISMATCH: "accuracy failure",
}
_STAGES = {
    Stage.PARSE: "ONNX parser failure",
    Stage.BUILD: "engine build failure",
    Stage.LOAD: "engine load failure",
    Stage.RUN: "inference failure",
    Stage.COMPARE: "accuracy failure",
}
_DOING = {Stage.PARSE: "parsing", Stage.BUILD: "building", Stage.LOAD: "loading"}


def style_of(reduction: Reduction) -> str:
    """Return the name of the style that was asked for, else the one that fits the target."""
    asked = reduction.settings.report.style
    if asked:
        require(asked)
        return asked
    target = reduction.target.name
    if target.startswith("ort:"):
        return "openvino" if "openvino" in target.lower() else "onnxruntime"
    return target if target in STYLES else "plain"


def emulated(reduction: Reduction) -> bool:
    """Return whether the target only emulates a precision: such a failure has no bug tracker."""
    return reduction.target.name.startswith("emulate:")


def require(style: str) -> None:
    """Raises UsageError for a style that does not exist."""
    if style not in STYLES:
        raise UsageError(f"--style {style!r}: no such style", f"Styles: {', '.join(STYLES)}.")


def title(reduction: Reduction, operators: str, gpu: str) -> str:
    """Return a title as NVIDIA's template asks: `X failure of TensorRT Y when running Z on GPU W`."""
    if reduction.judgement.kind is Finding.SENSITIVE:
        words = sensitive(reduction)
        return _line(words[:1].upper() + words[1:])
    count = len(reduction.best.nodes)
    what = f"{operators} ({counted(count, 'node')})"
    where = f" on GPU {gpu}" if gpu else " without a GPU" if "tensorrt" in reduction.target.name else ""
    doing, kind = _DOING.get(reduction.wanted.stage, "running"), _kind(reduction.wanted)
    if emulated(reduction):
        return _line(f"{reduction.target.title}: {kind} of {what}")
    if reduction.judgement.kind is Finding.NOT_TOLD:
        kind = "different outputs (a fault or rounding: not told)"
    words = _line(f"{kind} of {reduction.target.title} when {doing} {what}{where}")
    return STYLES[style_of(reduction)].prefix + words[:1].upper() + words[1:]


def sensitive(reduction: Reduction) -> str:
    """Say that no node is at fault: what makes small errors large, or that the tolerance is too fine."""
    found = reduction.judgement
    worst = found.amplifier
    if worst is None:
        return f"rounding of {found.arithmetic} explains the difference, and no node is at fault"
    grown = f"makes the rounding of {found.arithmetic} {worst.growth:,.0f} times larger"
    return f"the model is ill-conditioned here: {worst.op} {worst.node} {grown}"


def _line(words: str) -> str:
    # names of operators may hold anything, and a title is one line and no Markdown
    return " ".join(re.sub(r"[<>`|\\]", "", words).split())


def failure_words(failure: Failure) -> str:
    """Return `ONNX parser failure`, `crash while building`, `accuracy failure`."""
    if failure.symptom not in _WORDS or failure.stage is Stage.COMPARE or _is_misread(failure):
        return _kind(failure)
    return f"{_kind(failure)} while {_DOING.get(failure.stage, 'running')}"


def _kind(failure: Failure) -> str:
    if _is_misread(failure):
        return "wrong outputs of the parsed network"
    return _WORDS.get(failure.symptom, _STAGES[failure.stage])


def _is_misread(failure: Failure) -> bool:
    """Return whether the parser took the model and made something else of it."""
    return failure.stage is Stage.PARSE and failure.symptom is Symptom.MISMATCH
