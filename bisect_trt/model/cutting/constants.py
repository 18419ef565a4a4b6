"""Which cut tensors have to stay constants: what builders want to know at build time."""

from __future__ import annotations

from onnx import TensorProto

from bisect_trt.model.graph import Graph

MAX_ELEMENTS = 64
"""Elements of an integer or bool tensor that still looks like a shape, axes or a count."""

_SHAPE_TYPES = frozenset(
    kind
    for name, kind in TensorProto.DataType.items()
    if name.endswith(("INT8", "INT16", "INT32", "INT64", "BOOL"))
)

INNER_TYPES = frozenset(
    kind
    for name, kind in TensorProto.DataType.items()
    if name.startswith(("FLOAT8", "FLOAT4", "COMPLEX", "INT2", "INT4", "UINT"))
)
"""Types that flow inside an engine but are no network inputs everywhere: TensorRT-RTX 1.7.1 dequantizes
uint8 only where it is made, takes int4, float8 and float4 only right beside a (de)quantization, and the
other ones not at all."""

_SLOTS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "MaxUnpool": (2,),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
_REDUCE_AXES = (1,)

SHAPE_SLOTS: dict[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
"""Inputs whose values are dimensions, or places in them."""


def is_shape_like(elem_type: int, shape: tuple[int, ...]) -> bool:
    """Return whether it is of integers or bools, at most `MAX_ELEMENTS` of them in at most one dimension."""
    return elem_type in _SHAPE_TYPES and (not shape or (len(shape) == 1 and shape[0] <= MAX_ELEMENTS))


def feeds_build_time_slot(graph: Graph, consumer: str, tensor: str) -> bool:
    """Return whether `tensor` is wired to an input of `consumer` that builders want at build time."""
    node = graph.node(consumer)
    slots = _REDUCE_AXES if node.op_type.startswith("Reduce") else _SLOTS.get(node.op_type, ())
    return any(slot < len(node.input) and node.input[slot] == tensor for slot in slots)
