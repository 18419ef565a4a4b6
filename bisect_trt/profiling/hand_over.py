"""The folder `slow/`: the nodes that make the difference as a model, and a script that measures both."""

from __future__ import annotations

import pprint
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct

from bisect_trt._version import __version__
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.precision import narrowed
from bisect_trt.model.weight_values import save_whole
from bisect_trt.reproducer.script import session_words
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import TargetInfo, as_declared
from bisect_trt.writing import templates
from bisect_trt.writing.files import written_aside
from bisect_trt.writing.text import printable

MODEL, INPUTS, SCRIPT = "slow.onnx", "inputs.npz", "measure.py"
FRESH_LIMIT = 180.0  # seconds that the script may take when it is tried
MEASURING = "20"  # and those of them that it may measure


class Handed(Struct, frozen=True):
    """A side as the script has it; `python` is the interpreter of another release."""

    target: TargetSettings
    info: TargetInfo
    python: Path | None = None


class End(Struct, frozen=True):
    """How the script ended in a fresh process: its exit code (None: too slow), and what it printed last."""

    code: int | None
    said: str


def write(
    candidate: Candidate, sides: Sequence[Handed], limit: float, out: Path, story: Sequence[str] = ()
) -> None:
    """Write the model with its weights, its inputs, and the script, which begins with lines of `story`.

    Raises OSError.
    """
    with written_aside(out, SCRIPT) as folder:
        proto = onnx.load_model_from_string(candidate.model)
        [arrays] = as_declared(proto.graph, candidate.folder, candidate.feeds[:1] or ({},))
        np.savez(folder / INPUTS, **arrays)  # type: ignore[arg-type]
        save_whole(proto, candidate.folder, folder / MODEL)
        descriptions = [_described(side, candidate, folder) for side in sides]
        needs = ", ".join(dict.fromkeys(str(words["needs"]) for words in descriptions))
        text = templates.environment("bisect_trt.profiling").get_template("measure.py.j2").render(
            sides=pprint.pformat(descriptions, width=100, sort_dicts=False),
            limit=limit, version=__version__, needs=needs, story=[one_line(text) for text in story],
        )  # fmt: skip
        (folder / SCRIPT).write_text(text, encoding="utf-8")


def _described(side: Handed, candidate: Candidate, folder: Path) -> dict[str, Any]:
    """Return what the script has to know of a side; its model with casts, if it needs one, is written."""
    target, narrow = side.target, ""
    if target.precision:
        narrow = f"slow-{target.precision}.onnx"
        with temporary_folder() as scratch:
            made = narrowed(candidate.model, candidate.folder, target.precision, scratch)
            save_whole(onnx.load_model_from_string(made.model), made.folder, folder / narrow)
    other = {"python": str(side.python)} if side.python else {}
    return {**side_words(target, side.info, narrow), **other}


def one_line(text: str) -> str:
    """Return a line of a docstring, whatever a name of a model holds."""
    return " ".join(printable(text).split()).replace("\\", "/").replace('"', "'")


def side_words(target: TargetSettings, info: TargetInfo, narrow: str) -> dict[str, Any]:
    """Return what the script has to know of a side."""
    kind = target.spec.partition(":")[0]
    if kind == "ort":
        return _ort_words(target, info, narrow)
    if kind == "command":
        command = target.spec.partition(":")[2]
        return {"kind": kind, "name": info.title, "needs": "a program", "model": MODEL, "command": command}
    module = kind.replace("-", "_")
    return {
        "kind": "tensorrt",
        "name": named(info, target),
        "needs": module,
        "model": MODEL,
        "narrow": narrow,
        "module": module,
        "tf32": target.tf32,
        "precision": target.precision,
        "opt_level": target.opt_level,
        "workspace": target.workspace,
        "plugins": [str(path) for path in target.plugins],
    }


def _ort_words(target: TargetSettings, info: TargetInfo, narrow: str) -> dict[str, Any]:
    provider = info.name.partition(":")[2]
    options, library, package = session_words(target, provider)
    return {
        "kind": "ort",
        "name": named(info, target),
        "needs": package.distribution if package is not None else "onnxruntime",
        "model": narrow or MODEL,
        "provider": provider,
        "options": options,
        "plugin": library is not None or package is not None,
        "library": str(library or ""),
        "module": package.module if package is not None else "",
    }


def named(info: TargetInfo, target: TargetSettings) -> str:
    """Return the title of a target with the options that change what it computes."""
    extra = [target.precision] if target.precision else []
    extra += [] if target.tf32 is None else ["TF32" if target.tf32 else "no TF32"]
    return f"{info.title} ({', '.join(extra)})" if extra else info.title


def tried(out: Path) -> End:
    """Run the script in a fresh process, as whoever gets the folder does."""
    words = [sys.executable, str((out / SCRIPT).absolute()), "--seconds", MEASURING]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=FRESH_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return End(None, f"no answer within {FRESH_LIMIT:g} s")
    lines = done.stdout.strip().splitlines()[-2:] or done.stderr.strip().splitlines()[-1:]
    return End(done.returncode, "; ".join(lines))
