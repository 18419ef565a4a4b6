"""`repro.py`: a script that shows the failure to somebody who has never heard of bisect-trt."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from bisect_trt._version import __version__
from bisect_trt.model.operators import unknown_operators
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.references.spec import SELF
from bisect_trt.reproducer import seeded
from bisect_trt.reproducer.files import MODEL, narrow_file
from bisect_trt.reproducer.markdown import FILTERS
from bisect_trt.reproducer.script_values import MODULES, failure_words, model_words, raw_types
from bisect_trt.results import Reduction
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.ort.ep_libraries import Package, bare, find_package
from bisect_trt.targets.ort.provider import parse_spec

if TYPE_CHECKING:
    import jinja2

NEEDS_US = "needs_us.py.j2"
"""The script for targets that are a part of bisect-trt."""

OPENVINO = "openvino"
"""The name of a target that a script asks through OpenVINO's own interface, without ONNX Runtime."""

# What ONNX Runtime says of a node that it may not leave to the CPU.
_REFUSED = "fallback to CPU EP has been explicitly disabled"

FindPackage = Callable[[str], Package | None]


def render(reduction: Reduction, find: FindPackage = find_package) -> str:
    """Return the script's text, under 120 lines.

    Every name and message is written as a Python literal or a comment: nothing that comes from the
    model can become code. `find` gives the package with an execution provider where the script will run.
    """
    wanted, target = reduction.wanted, reduction.target
    words: dict[str, Any] = {
        "headline": f"{target.title} fails on repro.onnx: {wanted.stage}, {wanted.symptom}.",
        "version": __version__,
        "symptom": wanted.symptom.value,
    }
    words |= failure_words(reduction) | model_words(reduction)
    needed = unknown_operators(onnx.load_model_from_string(reduction.best.model))
    words["custom_ops"] = [str(path) for path in reduction.settings.accuracy.custom_ops if needed]
    words["seeded"] = (reduction.out / seeded.SCRIPT).exists()
    name = template_for(reduction)
    if name == "repro.py.j2":
        words["module"] = MODULES[target.name]
    elif name == "ort.py.j2":
        place = _emulated(reduction)
        words |= _emulated_words(reduction, place) if place else _provider_words(reduction, words, find)
    elif name == "openvino.py.j2":
        words |= _openvino_words(reduction, words)
    elif name == "command.py.j2":
        words |= _command_words(reduction, words)
    else:
        words |= {"spec": reduction.settings.target.spec, "given": _given(reduction)}
    return environment().get_template(name).render(words)


def template_for(reduction: Reduction) -> str:
    """Say which script it is: for TensorRT, for ONNX Runtime, for a command, else one that needs us."""
    accuracy, wanted, name = reduction.compared_as, reduction.wanted, reduction.target.name
    by_itself = accuracy.reference == SELF
    by_rows = accuracy.metric == "boxes" or bool(accuracy.topk)
    if wanted.stage is Stage.COMPARE and (by_rows or by_itself):
        return NEEDS_US  # these ways to compare are more than a page of code
    if name in MODULES:
        return "repro.py.j2"
    if raw_types(onnx.load_model_from_string(reduction.best.model)):
        return NEEDS_US
    if name == OPENVINO:
        stored = bool(reduction.best.expected) and all(reduction.best.expected)
        return "openvino.py.j2" if stored or wanted.stage is not Stage.COMPARE else NEEDS_US
    made = (reduction.out / seeded.FILE).exists()  # a command is to find all weights inside
    if name.startswith("command:") and wanted.symptom is not Symptom.OUT_OF_MEMORY and not made:
        return "command.py.j2"
    return "ort.py.j2" if name.startswith("ort:") or _emulated(reduction) else NEEDS_US


def _emulated(reduction: Reduction) -> Path | None:
    """Return the model as an emulation runs it, where that is written."""
    kind, _, precision = reduction.target.name.partition(":")
    place = reduction.out / f"repro-{precision}.onnx"
    return place if kind == "emulate" and place.exists() else None


def _given(reduction: Reduction) -> str:
    """Return the libraries and the expression that no report may ask for, as arguments in Python."""
    target = reduction.settings.target
    texts = {"fail_regex": ascii(target.fail_regex)} if target.fail_regex else {}
    if target.plugins:
        texts["plugins"] = "".join(f"Path({str(path)!a}), " for path in target.plugins).join("()")
    if target.ep_libraries:
        named = (f"({name!a}, Path({str(path)!a})), " for name, path in target.ep_libraries)
        texts["ep_libraries"] = "".join(named).join("()")
    return ", ".join(f"{name}={text}" for name, text in texts.items())


def session_words(
    target: TargetSettings, provider: str, find: FindPackage = find_package
) -> tuple[dict[str, str], Path | None, Package | None]:
    """Return the options of a session on a provider; of a plugin also its library or the package that has it.

    A session on a plugin is given devices, so options that choose one are left out.
    """
    asked, options = parse_spec(target.spec)
    given = [path for name, path in target.ep_libraries if bare(name) in (bare(provider), bare(asked))]
    package = None if given else find(provider)
    if given or package is not None:
        options = {k: v for k, v in options.items() if k not in ("device_type", "device_id")}
    return options, next(iter(given), None), package


def _provider_words(reduction: Reduction, words: Mapping[str, Any], find: FindPackage) -> dict[str, Any]:
    """Say how to open a session on an execution provider."""
    target = reduction.settings.target
    provider = reduction.target.name.partition(":")[2]
    options, library, package = session_words(target, provider, find)
    plugin = repr(str(library)) if library else f"{package.module}.get_library_path()" if package else ""
    return {
        "file": narrow_file(target.precision) if target.precision else MODEL,
        "renamed": {},
        "provider": provider,
        "options": options,
        "plugin": plugin,
        "plugin_package": package,
        "parts": [_REFUSED]
        if " does not take " in reduction.wanted.signature
        else _as_said(words["parts"], reduction.log),
    }


def _openvino_words(reduction: Reduction, words: Mapping[str, Any]) -> dict[str, Any]:
    """Say how to compile the model by OpenVINO itself as its provider would."""
    options = parse_spec(reduction.settings.target.spec)[1]
    device = options.get("device_type", "CPU").partition("_")[0]
    properties = json.loads(options.get("load_config") or "{}")
    parts = words["parts"]
    refused = " does not take " in reduction.wanted.signature
    op = reduction.wanted.signature.rpartition(" ")[2]
    return {
        "device": device,
        "properties": {str(k): str(v) for k, v in dict(properties.get(device, {})).items()},
        # Of an operator that is not known OpenVINO says which it is, in all releases with the same words.
        "parts": [f"operations: {op}"] if refused else [re.sub(r"^[A-Z_]+: ", "", part) for part in parts],
    }


def _as_said(parts: list[str], log: str) -> list[str]:
    """Return the parts as they stand in ONNX Runtime's own words.

    What was put together for people is left out.
    """
    said = " ".join(log.split())
    plain = [re.sub(r"^[A-Z_]+: ", "", part) for part in parts]
    return [part for part in plain if part in said] or plain


def _emulated_words(reduction: Reduction, place: Path) -> dict[str, Any]:
    """Say how to run the rewritten model: on the CPU, as it stands."""
    rewritten = onnx.load_model(str(place), load_external_data=False)
    inputs = onnx.load_model_from_string(reduction.best.model).graph.input
    renamed = {old.name: new.name for old, new in zip(inputs, rewritten.graph.input, strict=True)}
    return {
        "file": place.name,
        "renamed": renamed,
        "provider": "CPUExecutionProvider",
        "options": {},
        "plugin": "",
        "plugin_package": None,
    }


def _command_words(reduction: Reduction, words: dict[str, Any]) -> dict[str, Any]:
    """Say how to start the command of a user."""
    target = reduction.settings.target
    text = target.spec.partition(":")[2]
    return {
        "command": shlex.split(text),
        "takes_inputs": "{inputs}" in text,
        "fail_regex": target.fail_regex,
        "stage": {Symptom.HANG: "hang", Symptom.CRASH: "crash"}.get(reduction.wanted.symptom, words["stage"]),
        "parts": [] if reduction.wanted.symptom in (Symptom.HANG, Symptom.CRASH) else words["parts"],
        "in_child": False,
    }


def _pieces(parts: list[str]) -> str:
    """Return a list as Python code, a line for each element."""
    return "[\n" + "".join(f"    {part!a},\n" for part in parts) + "]"


def comment(text: str) -> str:
    """Return text that can stand in a docstring of one line whatever it holds."""
    safe = "".join(c if c.isprintable() else " " for c in text.replace("\\", "/").replace('"', "'"))
    return textwrap.shorten(safe, 100, placeholder=" ...")


@cache
def environment() -> jinja2.Environment:
    """Return the templates of this package: Python and Markdown."""
    from bisect_trt.writing import templates  # jinja2 takes a while, and `check` writes nothing

    return templates.environment(
        "bisect_trt.reproducer", literal=ascii, comment=comment, pieces=_pieces, **FILTERS
    )
