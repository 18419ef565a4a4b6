"""`repro.py`: a script that shows the failure to somebody who has never heard of bisect-trt."""

from __future__ import annotations

import re
import shlex
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper

from bisect_trt.compare import default_rtol
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.validate import unknown_operators
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.reproducer import seeded
from bisect_trt.result import Reduction
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.targets.ep_libraries import bare, find_package
from bisect_trt.targets.ort_provider import parse_spec
from bisect_trt.tolerance import alone, precision_rtol

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Targets that a script can use without us, and the Python modules of them."""

NEEDS_US = "needs_us.py.j2"
"""The script for targets that are a part of bisect-trt."""

# What ONNX Runtime says of a node that it may not leave to the CPU.
_REFUSED = "fallback to CPU EP has been explicitly disabled"
_HANGS = 60.0  # seconds, where no time limit was given
_PARTS = 3
_SHORTEST, _LONGEST = 4, 80  # characters of a part of a message

Shape = tuple[int, ...]
_INTEGERS = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)


def render(reduction: Reduction, version: str) -> str:
    """The script's text, under 120 lines.

    Every name and message is written as a Python literal or a comment: nothing that comes from the
    model can become code.
    """
    wanted, target = reduction.wanted, reduction.target
    words: dict[str, Any] = {
        "headline": f"{target.title} fails on repro.onnx: {wanted.stage}, {wanted.symptom}.",
        "version": version,
        "symptom": wanted.symptom.value,
        "failure_stage": wanted.stage.value,
    }
    words |= _failure_words(reduction) | _model_words(reduction)
    needed = unknown_operators(onnx.load_model_from_string(reduction.best.model))
    words["custom_ops"] = [str(path) for path in reduction.settings.accuracy.custom_ops if needed]
    words["seeded"] = (reduction.out / seeded.SCRIPT).exists()
    name = template_for(reduction)
    if name == "repro.py.j2":
        module = MODULES[target.name]
        decoder = ["ml_dtypes"] if words["compares"] and words["raw"] else []
        asked = ["onnxruntime as ort"] if words["compares"] and not words["stored"] else []
        words["asks"] = bool(asked) or not words["runs"]
        words |= {"module": module, "libraries": [*decoder, "numpy as np", *asked, f"{module} as trt"]}
        words["imports"] = _imports(words, ctypes=words["runs"] or bool(words["plugins"]))
    elif name == "ort.py.j2":
        words |= _emulated_words(reduction) if _emulated(reduction) else _provider_words(reduction)
        words["imports"] = _imports(words, ctypes=False)
    elif name == "command.py.j2":
        words |= _command_words(reduction, words)
        words["imports"] = sorted({*_imports(words, ctypes=False), "subprocess", "tempfile", *words["more"]})
    else:
        words["spec"] = reduction.settings.target.spec
    return environment().get_template(name).render(words)


def template_for(reduction: Reduction) -> str:
    """Which script it is: for TensorRT, for ONNX Runtime, for a command, else one that needs us."""
    accuracy, wanted, name = alone(reduction.alone), reduction.wanted, reduction.target.name
    if wanted.stage is Stage.COMPARE and (accuracy.metric != "max" or accuracy.topk):
        return NEEDS_US  # these metrics are more than a page of code
    if name in MODULES:
        return "repro.py.j2"
    if raw_types(onnx.load_model_from_string(reduction.best.model)):
        return NEEDS_US
    if name.startswith("command:") and wanted.symptom is not Symptom.OUT_OF_MEMORY:
        return "command.py.j2"
    return "ort.py.j2" if name.startswith("ort:") or _emulated(reduction) else NEEDS_US


def _emulated(reduction: Reduction) -> Path | None:
    """The model as an emulation runs it, where that is written."""
    kind, _, precision = reduction.target.name.partition(":")
    place = reduction.out / f"repro-{precision}.onnx"
    return place if kind == "emulate" and place.exists() else None


def _failure_words(reduction: Reduction) -> dict[str, Any]:
    wanted, run = reduction.wanted, reduction.settings.run
    died = wanted.signature.startswith(f"{wanted.symptom}: ")  # as the oracle writes it when a worker died
    compared = wanted.stage is Stage.COMPARE
    in_child = wanted.symptom in (Symptom.CRASH, Symptom.HANG)
    in_child = in_child or (wanted.symptom is Symptom.OUT_OF_MEMORY and died)
    return {
        "stage": f"compare: {wanted.symptom}" if compared else wanted.stage.value,
        "in_child": in_child,
        "runs": wanted.stage in (Stage.LOAD, Stage.RUN, Stage.COMPARE),
        "compares": compared and not in_child,
        "parts": [] if compared or died else constant_parts(wanted),
        "timeout": run.timeout or _HANGS,
        "memory": run.memory_limit or int(psutil.virtual_memory().total * 0.8 / run.workers),
    }


def _model_words(reduction: Reduction) -> dict[str, Any]:
    target, best = reduction.settings.target, reduction.best
    proto = onnx.load_model_from_string(best.model)
    shapes = profile_ranges(target, proto, best)
    constant = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.type.tensor_type for value in proto.graph.input if value.name not in constant]
    return {
        "raw": raw_types(proto),
        "plugins": [str(path) for path in target.plugins],
        "options": builder_lines(target),
        "precision": target.precision if reduction.target.name in MODULES else "",
        "timing": reduction.target.name == "tensorrt" and (reduction.out / "timing.cache").exists(),
        "shapes": shapes,
        # short integer vectors may turn out to be what TensorRT calls shape tensors
        "shape_inputs": any(len(t.shape.dim) <= 1 and t.elem_type in _INTEGERS for t in inputs),
        "stored": bool(best.expected) and all(best.expected),
        "bounds": {
            v.name: _bounds(v, alone(reduction.alone), precision_rtol(target))
            for v in proto.graph.output
            if v.type.tensor_type.elem_type  # sequences and maps are not compared
        },
        "ignored": alone(reduction.alone).ignore,
    }


def _provider_words(reduction: Reduction) -> dict[str, Any]:
    """How to open a session on an execution provider."""
    target = reduction.settings.target
    provider = reduction.target.name.partition(":")[2]
    asked, options = parse_spec(target.spec)
    given = [path for name, path in target.ep_libraries if bare(name) in (bare(provider), bare(asked))]
    package = None if given else find_package(provider)
    plugin = ""
    if given:
        plugin = repr(str(given[0]))
    elif package is not None:
        plugin = f"{package.module}.get_library_path()"
    if plugin:
        options = {k: v for k, v in options.items() if k not in ("device_type", "device_id")}
    imported = [package.module] if package is not None else []
    return {
        "file": "repro.onnx",
        "renamed": {},
        "provider": provider,
        "options": options,
        "plugin": plugin,
        "plugin_package": package.distribution if package is not None else "",
        "libraries": ["numpy as np", "onnxruntime as ort", *imported],
        "parts": [_REFUSED] if " does not take " in reduction.wanted.signature else
        _failure_words(reduction)["parts"],
    }


def _emulated_words(reduction: Reduction) -> dict[str, Any]:
    """How to run the rewritten model: on the CPU, as it stands."""
    place = _emulated(reduction)
    assert place is not None
    rewritten = onnx.load_model(str(place), load_external_data=False)
    inputs = onnx.load_model_from_string(reduction.best.model).graph.input
    renamed = {old.name: new.name for old, new in zip(inputs, rewritten.graph.input, strict=True)}
    return {
        "file": place.name,
        "renamed": renamed,
        "provider": "CPUExecutionProvider",
        "options": {},
        "plugin": "",
        "plugin_package": "",
        "libraries": ["numpy as np", "onnxruntime as ort"],
    }


def _command_words(reduction: Reduction, words: dict[str, Any]) -> dict[str, Any]:
    """How to start the command of a user."""
    target = reduction.settings.target
    text = target.spec.partition(":")[2]
    return {
        "command": shlex.split(text),
        "takes_inputs": "{inputs}" in text,
        "fail_regex": target.fail_regex,
        "more": ["re"] if target.fail_regex else [],
        "libraries": ["numpy as np"] if words["compares"] else [],
        "stage": {Symptom.HANG: "hang", Symptom.CRASH: "crash"}.get(reduction.wanted.symptom, words["stage"]),
        "parts": [] if reduction.wanted.symptom in (Symptom.HANG, Symptom.CRASH) else words["parts"],
        "in_child": False,
    }


def _imports(words: dict[str, Any], *, ctypes: bool) -> list[str]:
    needed = {
        "ctypes": ctypes,
        "os": True,
        "runpy": words["seeded"],
        "subprocess": words["in_child"],
        "sys": True,
        "time": words["in_child"],
    }
    return [name for name, there in needed.items() if there]


def constant_parts(failure: Failure) -> list[str]:
    """Pieces of the message that are the same in every model: what the signature does not mask.

    At most three, the longest ones. A parse failure's signature starts with `CODE:OP:FUNCTION: `,
    of which the script sees `[OP in FUNCTION]`.
    """
    signature, parts = failure.signature, []
    if failure.stage is Stage.PARSE and re.match(r"\w+:\w*:[^\s:]*: ", signature):
        where, signature = signature.split(": ", 1)
        _, op, function = where.split(":")
        parts.append(f"[{op} in {function}]")
    message = " ".join(failure.message.split())
    pieces = [_shorten(piece.strip()) for piece in re.split(r"<\w+>", signature)]
    pieces = [piece for piece in dict.fromkeys(pieces) if len(piece) >= _SHORTEST and piece in message]
    return parts + sorted(pieces, key=len, reverse=True)[:_PARTS]


def raw_types(proto: onnx.ModelProto) -> dict[str, str]:
    """Inputs and outputs whose type numpy does not know, with the name that ml_dtypes has for it."""
    found = {}
    for value in (*proto.graph.input, *proto.graph.output):
        elem = value.type.tensor_type.elem_type
        if elem not in (TensorProto.UNDEFINED, TensorProto.STRING):
            dtype = helper.tensor_dtype_to_np_dtype(elem)
            if dtype.isbuiltin != 1:
                found[value.name] = dtype.name
    return found


def builder_lines(target: TargetSettings) -> list[str]:
    """Python lines that configure the builder as it was."""
    lines = []
    if target.workspace is not None:
        lines.append(f"config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, {target.workspace})")
    if target.opt_level is not None:
        lines.append(f"config.builder_optimization_level = {target.opt_level}")
    if target.tf32 is not None:
        lines.append(f"config.{'set' if target.tf32 else 'clear'}_flag(trt.BuilderFlag.TF32)")
    return lines


def profile_ranges(
    target: TargetSettings, proto: onnx.ModelProto, best: Candidate
) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Least, best and most dimensions of each dynamic input: as given, else as fed, else ones."""
    sides = [
        dict(target.shapes) | dict(given)
        for given in (target.min_shapes, target.opt_shapes, target.max_shapes)
    ]
    constant = {tensor.name for tensor in proto.graph.initializer}
    found = {}
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in constant or all(d.HasField("dim_value") for d in dims):
            continue
        fed = [
            np.load(s[value.name], mmap_mode="r", allow_pickle=False).shape
            for s in best.feeds
            if value.name in s
        ]
        ones = tuple(d.dim_value or 1 for d in dims)
        usual = (
            (tuple(map(min, *fed, fed[0])), fed[0], tuple(map(max, *fed, fed[0])))
            if fed
            else (ones, ones, ones)
        )
        low, mid, high = (side.get(value.name) for side in sides)
        mid = mid or high or low  # as the target takes what is given in part
        found[value.name] = (low or mid, mid, high or mid) if mid else usual
    return found


def _bounds(
    value: onnx.ValueInfoProto, accuracy: AccuracySettings, least: float
) -> tuple[float, float | None]:
    """Relative and absolute tolerance of an output; None: relative to the RMS of the tensor.

    `least` is the smallest default, of a target that computes in another precision.
    """
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if dtype.kind in "iubOU" or dtype.name.startswith(("int", "uint")):
        return 0.0, 0.0
    rtol, atol = (
        dict(given).get(value.name, dict(given).get("")) for given in (accuracy.rtol, accuracy.atol)
    )
    if rtol is None:
        rtol = max(least, default_rtol(dtype)) if atol is None else 0.0
    return rtol, atol


def _shorten(text: str) -> str:
    """At most `_LONGEST` characters, cut between words."""
    return text if len(text) <= _LONGEST else text[: _LONGEST + 1].rsplit(" ", 1)[0][:_LONGEST]


def _pieces(parts: list[str]) -> str:
    """A list as Python code, a line for each element."""
    return "[\n" + "".join(f"    {part!a},\n" for part in parts) + "]"


def comment(text: str) -> str:
    """Text that can stand in a docstring of one line whatever it holds."""
    safe = "".join(c if c.isprintable() else " " for c in text.replace("\\", "/").replace('"', "'"))
    return textwrap.shorten(safe, 100, placeholder=" ...")


@cache
def environment() -> jinja2.Environment:
    """Templates of this package; a name that is not given is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("bisect_trt.reproducer"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Python and Markdown, not HTML; see the filters
    )
    made.filters.update(literal=ascii, comment=comment, pieces=_pieces)
    return made
