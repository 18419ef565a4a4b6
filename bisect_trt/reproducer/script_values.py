"""What `repro.py` has to know of a failure and of a model, as values of its template."""

from __future__ import annotations

import re
from typing import Any

import onnx
import psutil
from onnx import TensorProto, helper

from bisect_trt.accuracy.compare import default_rtol, kind_of
from bisect_trt.accuracy.tolerance import precision_rtol
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.operators import unordered_outputs
from bisect_trt.model.store import shape_of
from bisect_trt.outcome import BY_PARSER, Failure, Stage, Symptom
from bisect_trt.results import Reduction
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.targets.tensorrt.defaults import is_misread_default
from bisect_trt.targets.tensorrt.ignored import is_ignored
from bisect_trt.workers.network_outputs import names_of, real_outputs

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Targets that a script can use without us, and the Python modules of them."""

_HANGS = 60.0  # seconds, where no time limit was given
_PARTS = 3
_SHORTEST_PART, _LONGEST_PART = 4, 80  # characters of a part of a message

Shape = tuple[int, ...]
_INTEGERS = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)


def failure_words(reduction: Reduction) -> dict[str, Any]:
    """Return the values that describe the failure and distinguish it from others."""
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
        "other": constant_parts(reduction.reworded) if reduction.reworded else [],
        "timeout": run.timeout or _HANGS,
        "memory": run.memory_limit or int(psutil.virtual_memory().total * 0.8 / run.workers),
    }


def model_words(reduction: Reduction) -> dict[str, Any]:
    """Return the values that say how the model is built, fed and compared."""
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
        "tactics": target.with_tactics,
        "timing": reduction.target.name == "tensorrt" and (reduction.out / "timing.cache").exists(),
        "shapes": shapes,
        # short integer vectors may turn out to be what TensorRT calls shape tensors
        "shape_inputs": any(len(t.shape.dim) <= 1 and t.elem_type in _INTEGERS for t in inputs),
        "stored": bool(best.expected) and all(best.expected),
        "bounds": {
            v.name: bounds(v, reduction.compared_as, precision_rtol(target))
            for v in proto.graph.output
            if _is_tensor(v)  # sequences and maps are not compared
        },
        "agrees": agreement(reduction.compared_as.metric),
        "metric": reduction.compared_as.metric,
        "exact": [v.name for v in proto.graph.output if _is_tensor(v) and not _is_float(v)],
        "ignored": reduction.compared_as.ignore,
        "unordered": unordered_outputs(proto),
        "network_outputs": _network_outputs(reduction),
        "spelled": reduction.wanted.message if _by_engines(reduction.wanted) else "",
        "ignores": is_ignored(reduction.wanted),
    }


def _by_engines(wanted: Failure) -> bool:
    """Return whether two engines show it: what the parser reads otherwise, or ignores."""
    return is_misread_default(wanted) or is_ignored(wanted)


def _network_outputs(reduction: Reduction) -> list[tuple[Any, ...]]:
    """Return names, types and shapes that the parsed network has to have, where that is what fails."""
    wanted = reduction.wanted
    shown = wanted.stage is Stage.PARSE and wanted.symptom is Symptom.MISMATCH
    if not shown or _by_engines(wanted):
        return []
    typed = not reduction.settings.target.precision
    return [(o.name, names_of(o.type) if typed else (), o.dims) for o in real_outputs(reduction.best)]


def constant_parts(failure: Failure) -> list[str]:
    """Return the pieces of the message that are the same in every model: what the signature does not mask.

    At most three, the longest ones. Of who refuses a node (`outcome.BY_PARSER`) the script sees
    `[OP in FUNCTION]`; functions of a parser have other names in other releases, so that one counts only
    where the message says nothing.
    """
    parsed = BY_PARSER.match(failure.signature) if failure.stage is Stage.PARSE else None
    signature = parsed["said"] if parsed else failure.signature
    message = " ".join(failure.message.split())
    pieces = [_shorten(piece.strip()) for piece in re.split(r"<\w+>", signature)]
    pieces = [piece for piece in dict.fromkeys(pieces) if len(piece) >= _SHORTEST_PART and piece in message]
    longest = sorted(pieces, key=len, reverse=True)[:_PARTS]
    if parsed:
        return [f"[{parsed['op']} in " if longest else f"[{parsed['op']} in {parsed['function']}]", *longest]
    return longest


def raw_types(proto: onnx.ModelProto) -> dict[str, str]:
    """Return inputs and outputs whose type numpy does not know, with the name that ml_dtypes has for it."""
    found = {}
    for value in (*proto.graph.input, *proto.graph.output):
        elem = value.type.tensor_type.elem_type
        if elem not in (TensorProto.UNDEFINED, TensorProto.STRING):
            dtype = helper.tensor_dtype_to_np_dtype(elem)
            if dtype.isbuiltin != 1:
                found[value.name] = dtype.name
    return found


def builder_lines(target: TargetSettings) -> list[str]:
    """Return Python lines that configure the builder as it was."""
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
    """Return least, best and most dimensions of each dynamic input: as given, else as fed, else ones."""
    ranges = target.min_shapes, target.opt_shapes, target.max_shapes
    sides = [dict(target.shapes) | dict(given) for given in ranges]
    constant = {tensor.name for tensor in proto.graph.initializer}
    found = {}
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in constant or all(d.HasField("dim_value") for d in dims):
            continue
        ones = tuple(d.dim_value or 1 for d in dims)
        fed = [shape_of(s[value.name]) for s in best.feeds if value.name in s] or [ones]
        usual = (tuple(map(min, *fed, fed[0])), fed[0], tuple(map(max, *fed, fed[0])))
        low, mid, high = (side.get(value.name) for side in sides)
        mid = mid or high or low  # as the target takes what is given in part
        found[value.name] = (low or mid, mid, high or mid) if mid else usual
    return found


def agreement(metric: str) -> str:
    """When finite values `x` of the reference and `y` of the target agree, in Python; empty: each has to.

    The same as `accuracy.sums.Limits.accepts`, for a tensor that is in memory as a whole.
    """
    kind, _, part = metric.partition(":")
    known = {
        "quantile": "wrong.sum() <= (1 - {part}) * wrong.size",
        "mean": "abs(y - x).sum() <= given * x.size + rtol * abs(x).sum()",
        "rms": "np.linalg.norm(y - x) <= given * x.size**0.5 + rtol * np.linalg.norm(x)",
        "cosine": "x @ y >= (1 - rtol) * np.linalg.norm(x) * np.linalg.norm(y) and x.any() == y.any()",
        "snr": "x @ x >= (y - x) @ (y - x) * 10 ** ({part} / 10)",
        "psnr": "abs(x).max(initial=0) ** 2 * x.size >= (y - x) @ (y - x) * 10 ** ({part} / 10)",
    }
    return known.get(kind, "").format(part=part)


def _is_tensor(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    elem = value.type.tensor_type.elem_type
    return elem != TensorProto.STRING and kind_of(helper.tensor_dtype_to_np_dtype(elem)) == "float"


def bounds(
    value: onnx.ValueInfoProto, accuracy: AccuracySettings, least: float
) -> tuple[float, float | None]:
    """Return the relative and absolute tolerance of an output; None: relative to the RMS of the tensor.

    `least` is the smallest default, of a target that computes in another precision.
    """
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if dtype.kind in "iubOU" or dtype.name.startswith(("int", "uint")):
        return 0.0, 0.0
    known = dict(accuracy.rtol), dict(accuracy.atol)
    rtol, atol = (given.get(value.name, given.get("")) for given in known)
    if rtol is None:
        rtol = max(least, default_rtol(dtype)) if atol is None else 0.0
    return rtol, atol


def _shorten(text: str) -> str:
    """Return at most `_LONGEST_PART` characters, cut between words."""
    return text if len(text) <= _LONGEST_PART else text[: _LONGEST_PART + 1].rsplit(" ", 1)[0][:_LONGEST_PART]
