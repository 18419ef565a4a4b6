"""All that the reference computes inside a model, and how NaN or Inf may arise from it. In workers only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from bisect_trt.accuracy.arithmetic import Arithmetic
from bisect_trt.accuracy.operators import GROWING, PLACED, SUMS
from bisect_trt.model.walk import copied
from bisect_trt.model.weight_values import values_of
from bisect_trt.outcome import Array
from bisect_trt.references import ort

MAGNITUDE, SEEN = "#magnitude", "#value"
"""What follows the name of a tensor: |A||B| of the sum that it is, the value of a weight."""
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
LARGEST = 1 << 27  # elements of all tensors together
_SMALL = 1 << 20  # elements of a weight that is looked at
_DIVISORS = {"Div": 1, "Mod": 1, "Reciprocal": 0, "Log": 0, "Sqrt": 0, "Pow": 0}


class Unknown(Exception):
    """Nothing can be said of the rounding of this model; the message says why."""


def inner_values(
    model: onnx.ModelProto,
    folder: Path,
    feeds: Mapping[str, Array],
    arithmetic: Arithmetic,
    known: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return values of inputs, weights and all that nodes make, and magnitudes of sums (`NAME#magnitude`).

    What the reference gave for the model before, `known`, is enough where there is no more to see.

    Raises:
        Unknown: ONNX Runtime does not show them, or they are too many.
    """
    shown = copied(model)
    graph = shown.graph
    names, same, weights = {o.name for o in graph.output}, list[str](), dict[str, Array]()
    for weight in model.graph.initializer:
        small = int(np.prod(weight.dims)) <= _SMALL or arithmetic.narrow
        if weight.data_type in FLOATS and small:
            weights[weight.name + SEEN] = values_of(weight, folder)
    for node in model.graph.node:
        names.update(t for t in node.output if t)
        if node.op_type in SUMS and node.domain in ("", "ai.onnx", "com.microsoft"):
            if node.op_type in PLACED and node.input[0] in feeds and not np.any(feeds[node.input[0]] < 0):
                same.append(node.output[0])  # the operator of the magnitudes is itself
                continue
            graph.node.extend(_magnitude(node))
            names.add(node.output[0] + MAGNITUDE)
    there = {o.name for o in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - there))
    try:
        enough = known is not None and names <= known.keys()
        given = dict(known or {}) if enough else ort.run(shown.SerializeToString(), folder, [feeds])[0]
    except ort.OrtError as error:
        raise Unknown(f"the reference does not show all that it computes: {error}") from error
    found = {**feeds, **given, **weights, **{name + MAGNITUDE: given[name] for name in same if name in given}}
    if sum(value.size for value in found.values()) > LARGEST:
        raise Unknown("it is too large")
    return found


def overflown(model: onnx.ModelProto, seen: Mapping[str, Array]) -> Iterable[str]:
    """Yield the tensors that are Inf in a narrow type of the model's own, and were made of finite numbers.

    ONNX Runtime computes float16 in float32 and shows Inf only of a tensor that somebody looks at.
    """
    for node in model.graph.node:
        given = (seen.get(t, seen.get(t + SEEN)) for t in node.input)
        finite = all(v is None or v.dtype.kind != "f" or np.isfinite(v).all() for v in given)
        made = seen.get(node.output[0]) if node.output else None
        if made is None or made.dtype != np.float16 or node.op_type not in GROWING:
            continue
        if finite and np.isinf(made).any():
            yield node.output[0]


def hazards(
    model: onnx.ModelProto, folder: Path, feeds: Mapping[str, Array], arithmetic: Arithmetic
) -> set[str]:
    """Say how a model may give NaN or Inf: overflow, a divisor of zero, a root of less than zero.

    Raises:
        Unknown: the reference does not show what it computes.
    """
    shown = inner_values(model, folder, feeds, arithmetic).items()
    seen = {k: v for k, v in shown if not k.endswith(MAGNITUDE) and v.dtype.kind == "f"}
    found = set()
    for value in seen.values():
        if is_beyond(value, arithmetic.largest):
            found.add("overflow")
    if any(overflown(model, seen)):
        found.add("overflow")
    for node in model.graph.node:
        slot = _DIVISORS.get(node.op_type)
        name = node.input[slot] if slot is not None and slot < len(node.input) else ""
        known = seen.get(name, seen.get(name + SEEN, np.ones(1)))
        if name and np.any(np.abs(known.astype(np.float64)) <= arithmetic.tiny):
            found.add("zero divisor")
        if node.op_type in ("Log", "Sqrt") and np.any(known < 0):
            found.add("outside the domain")
    return found


def _magnitude(node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
    """Yield the same operator of the magnitudes of its data."""
    twin = copied(node)
    data = 1 if node.op_type in PLACED else 3
    for slot in range(min(data, len(node.input))):
        if node.input[slot]:
            name = f"{node.output[0]}{MAGNITUDE}{slot}"
            yield helper.make_node("Abs", [node.input[slot]], [name])
            twin.input[slot] = name
    for attribute in twin.attribute:
        if attribute.name in ("alpha", "beta"):
            attribute.f = abs(attribute.f)
    twin.name = ""
    del twin.output[1:]
    twin.output[0] += MAGNITUDE
    yield twin


def is_beyond(value: Array, largest: float) -> bool:
    """Return whether a tensor has finite numbers that are larger than `largest`."""
    if value.dtype.kind != "f":
        return False
    size = np.abs(value.astype(np.float64))
    return bool(np.any(np.isfinite(size) & (size > largest)))
