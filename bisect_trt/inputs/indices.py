"""How large integers may be that a model uses as indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from bisect_trt.errors import UsageError

Array = npt.NDArray[Any]

_SAME_VALUES = frozenset(
    {"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand"}
)


def index_limits(proto: onnx.ModelProto) -> dict[str, int]:
    """For each input that selects rows (of a weight, or of a one-hot vector): how many there are.

    Followed are operators that only move values; indices run from 0 to below the limit.
    """
    shapes = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    values = {t.name: t for t in proto.graph.initializer if not t.dims or list(t.dims) == [1]}
    source = {value.name: value.name for value in proto.graph.input if value.name not in shapes}
    limits: dict[str, int] = {}
    for node in proto.graph.node:
        if node.op_type in _SAME_VALUES and node.input and node.input[0] in source:
            source.update(dict.fromkeys(node.output, source[node.input[0]]))
        limit = _limit(node, shapes, values)
        name = _indices(node)
        if limit is not None and name in source:
            limits[source[name]] = min(limit, limits.get(source[name], limit))
    return limits


def _indices(node: onnx.NodeProto) -> str:
    at = {"Gather": 1, "OneHot": 0}.get(node.op_type, -1)
    return node.input[at] if 0 <= at < len(node.input) else ""


def _limit(
    node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, onnx.TensorProto]
) -> int | None:
    if node.op_type == "Gather" and node.input[0] in shapes:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        shape = shapes[node.input[0]]
        return shape[axis] if -len(shape) <= axis < len(shape) else None
    if node.op_type == "OneHot" and len(node.input) > 1 and node.input[1] in values:
        try:
            return int(numpy_helper.to_array(values[node.input[1]]).reshape(-1)[0])
        except (ValueError, IndexError):
            return None
    return None


def require_inside(where: str, name: str, value: Array, limit: int) -> None:
    """Raises UsageError when an index is out of range: what happens then is not defined."""
    if value.dtype.kind not in "iu" or not value.size:
        return
    low, high = int(np.min(value)), int(np.max(value))
    if low < -limit or high >= limit:
        raise UsageError(
            f"{where}: {name} holds {high if high >= limit else low}, but selects one of {limit} rows",
            f"values have to lie in 0..{limit - 1}",
        )
