"""Which values a model accepts for inputs that it uses as indices, counts, axes or shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model.graph import dims_of, without_symbols
from bisect_trt.model.inputs.made_up import Accepted
from bisect_trt.model.skeleton import inferred, set_sizes, skeleton
from bisect_trt.model.walk import integer
from bisect_trt.outcome import Array

Shape = tuple[int | None, ...]
Shapes = Mapping[str, tuple[int, ...]]

_SAME_VALUES = frozenset(
    {"Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Tile", "Transpose", "Unsqueeze"}
)
_SMALL_SIZE = 4  # repetitions, steps of a range: what is larger only makes tensors large
_LARGE_SIZE = 15


def accepted_values(proto: onnx.ModelProto, shapes: Shapes) -> dict[str, Accepted]:
    """Say for each input that reaches such a slot of an operator what the slot takes.

    `shapes` are those of dynamic inputs. Followed are operators that only move values, and the addition
    of a constant. Of several slots an index counts first, then the narrowest.
    """
    weights = {t.name for t in proto.graph.initializer}
    source = {v.name: (v.name, 0.0) for v in proto.graph.input if v.name not in weights}
    model = _Model(proto, shapes)
    found: dict[str, Accepted] = {}
    for node in proto.graph.node:
        for slot, name in enumerate(node.input):
            if name not in source:
                continue
            origin, offset = source[name]
            rule = _RULES.get(node.op_type, {}).get(slot)
            taken = rule(node, model) if rule else None
            if taken is not None and taken.high - offset >= taken.low:
                low = taken.low - min(0.0, offset)
                shifted = Accepted(low, taken.high - offset, taken.index, taken.pattern)
                either = found.get(origin, shifted), shifted
                found[origin] = min(either, key=lambda item: (not item.index, item.high - item.low))
        source.update(_moved(node, source, model))
    return found


def require_inside(where: str, name: str, value: Array, accepted: Accepted) -> None:
    """Raises UsageError when an index is out of range: what happens then is not defined."""
    if not accepted.index or value.dtype.kind not in "iu" or not value.size:
        return
    limit = int(accepted.high) + 1
    low, high = int(np.min(value)), int(np.max(value))
    if low < -limit or high >= limit:
        raise UsageError(
            f"{where}: {name} holds {high if high >= limit else low}, but selects one of {limit} rows",
            f"values have to lie in 0..{limit - 1}",
        )


class _Model:
    """Shapes and constants of a model; shapes are inferred when the first one is asked for."""

    def __init__(self, proto: onnx.ModelProto, shapes: Shapes) -> None:
        self._proto = proto
        self._given = shapes
        self._constants = {t.name: t for t in proto.graph.initializer if np.prod(t.dims, dtype=int) == 1}
        for node in proto.graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.name == "value" and np.prod(attribute.t.dims, dtype=int) == 1:
                    self._constants[node.output[0]] = attribute.t

    def number(self, name: str) -> float | None:
        """Return the value of a constant of one element."""
        tensor = self._constants.get(name)
        try:
            return None if tensor is None else float(numpy_helper.to_array(tensor).reshape(-1)[0])
        except (ValueError, TypeError, IndexError):  # strings, external data
            return None

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Dimensions by name, as far as they are known."""
        light = skeleton(self._proto)
        for value in light.graph.input:
            set_sizes(value, self._given.get(value.name, ()))
        graph = inferred(light, data_prop=True).graph
        values = (*graph.value_info, *graph.output, *graph.input)
        known = {v.name: dims for v in values if (dims := without_symbols(dims_of(v.type))) is not None}
        return known | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _moved(
    node: onnx.NodeProto, source: Mapping[str, tuple[str, float]], model: _Model
) -> dict[str, tuple[str, float]]:
    """Return the outputs that hold values of an input, and what was added to these."""
    if node.op_type in _SAME_VALUES:
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        known = next((source[name] for name in inputs if name in source), None)
        return {} if known is None else dict.fromkeys(node.output, known)
    if node.op_type == "Add" and len(node.input) == 2:
        for one, other in (node.input, node.input[::-1]):
            added = model.number(other)
            if one in source and added is not None:
                return {node.output[0]: (source[one][0], source[one][1] + added)}
    return {}


Rule = Callable[[onnx.NodeProto, _Model], Accepted | None]


def _size_along(node: onnx.NodeProto, model: _Model, default: int, attribute: str = "axis") -> int:
    """Return the size of the first input along the axis that an attribute names; 0 where it is not known."""
    shape, axis = model.shapes.get(node.input[0]), integer(node, attribute, default)
    return shape[axis] or 0 if shape and -len(shape) <= axis < len(shape) else 0


def _along(default: int, *, index: bool = True) -> Rule:
    """Return a rule for an index along the node's axis of its first input."""

    def rule(node: onnx.NodeProto, model: _Model) -> Accepted | None:
        size = _size_along(node, model, default)
        return Accepted(0, size - 1, index) if size else None

    return rule


def _places(node: onnx.NodeProto, model: _Model) -> Accepted | None:
    """Return an index of several dimensions (GatherND, ScatterND): within the least of those."""
    shape, batch = model.shapes.get(node.input[0]), integer(node, "batch_dims", 0)
    tuples = model.shapes.get(node.input[1])
    count = tuples[-1] if tuples else None
    if shape is None:
        return None
    sizes = [size for size in (shape[batch:] if count is None else shape[batch : batch + count]) if size]
    # Not an index of one size alone: other places may take more.
    return Accepted(0, min(sizes) - 1) if sizes else None


def _depth(node: onnx.NodeProto, model: _Model) -> Accepted | None:
    """Return the indices of a OneHot.

    One beyond the depth is legal and selects nothing, so no value is refused.
    """
    depth = model.number(node.input[1])
    return Accepted(0, depth - 1) if depth and depth >= 1 else None


def _count(node: onnx.NodeProto, model: _Model) -> Accepted | None:
    """Return the K of a TopK."""
    return Accepted(1, min(_size_along(node, model, -1) or 1, _LARGE_SIZE))


def _ones(node: onnx.NodeProto, model: _Model) -> Accepted | None:
    """Return the axes of Squeeze: from the first one on that has the size 1."""
    shape = model.shapes.get(node.input[0]) or ()
    return Accepted(shape.index(1) if 1 in shape else 0, _LARGE_SIZE, pattern="axes")


def _parts(node: onnx.NodeProto, model: _Model) -> Accepted | None:
    """Return the sizes of Split, all alike."""
    size = _size_along(node, model, 0)
    return Accepted(size // len(node.output), size // len(node.output)) if size else None


def _between(low: float, high: float, pattern: str = "") -> Rule:
    """Return a rule that gives the same whatever the node is."""
    return lambda node, model: Accepted(low, high, pattern=pattern)


def _times(node: onnx.NodeProto, model: _Model) -> Accepted | None:
    """Return the lengths that ReverseSequence takes, up to the time axis."""
    size = _size_along(node, model, 0, "time_axis")
    return Accepted(size, size) if size else None


_axes = _between(0, _LARGE_SIZE, "axes")
_boxes = _between(0, _SMALL_SIZE, "boxes")

# A loss may be told to ignore a class that there is not.
_RULES: dict[str, dict[int, Rule]] = {
    "ConstantOfShape": {0: _between(1, _SMALL_SIZE)},
    "CumSum": {1: _between(0, 0)},
    "Expand": {1: _between(1, 1)},
    **{op: {1: _along(0)} for op in ("Gather", "GatherElements", "ScatterElements")},
    **{op: {1: _places} for op in ("GatherND", "ScatterND")},
    **{op: {1: _along(1, index=False)} for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")},
    "NonMaxSuppression": {0: _boxes, 2: _between(1, _LARGE_SIZE), 3: _between(0.1, 0.9), 4: _between(0, 0.5)},
    "OneHot": {0: _depth, 1: _between(1, _LARGE_SIZE)},
    "Pad": {1: _between(0, 1)},
    "Range": {0: _between(0, 0), 1: _between(1, _LARGE_SIZE), 2: _between(1, 1)},
    **{op: {1: _axes} for op in ("ReduceMax", "ReduceMean", "ReduceSum", "Unsqueeze")},
    "Reshape": {1: _between(-1, 1, "shape")},
    "Resize": {2: _between(1, 2), 3: _between(1, _LARGE_SIZE)},
    "ReverseSequence": {1: _times},
    "RoiAlign": {1: _boxes, 2: _along(0)},  # the number of an image
    "Slice": {1: _between(0, 0), 2: _between(1, _LARGE_SIZE), 3: _axes, 4: _between(1, 1)},
    "Split": {1: _parts},
    "Squeeze": {1: _ones},
    "Tile": {1: _between(1, _SMALL_SIZE)},
    "TopK": {1: _count},
}
"""By operator and slot."""
