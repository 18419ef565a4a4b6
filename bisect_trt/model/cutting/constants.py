"""Which cut tensors have to stay constants: what builders want to know at build time."""

from __future__ import annotations

from onnx import TensorProto

from bisect_trt.model.graph import Graph

MAX_ELEMENTS = 64
"""Elements of an integer or bool tensor that still looks like a shape, axes or a count."""


def types_named(*beginnings: str) -> frozenset[int]:
    """Return the element types whose names in ONNX begin so."""
    return frozenset(kind for name, kind in TensorProto.DataType.items() if name.startswith(beginnings))


_SHAPE_TYPES = types_named("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL")

INNER_TYPES = types_named("FLOAT8", "FLOAT4", "COMPLEX", "INT2", "INT4", "UINT")
"""Types that flow inside an engine but are no network inputs everywhere: TensorRT-RTX 1.7.1 dequantizes
uint8 only where it is made, takes int4, float8 and float4 only right beside a (de)quantization, and the
other ones not at all."""

_AT_1 = "AffineGrid CenterCropPad CumSum Expand OneHot Reshape Split Squeeze TopK Trilu Unsqueeze Upsample"
_AT_1_AND_2 = "Col2Im DFT DequantizeLinear Dropout QuantizeLinear Tile"
_SLOTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(_AT_1.split(), (1,)),
    **dict.fromkeys(_AT_1_AND_2.split(), (1, 2)),
    **dict.fromkeys(("Pad", "Resize"), (1, 2, 3)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), (1, 2, 4, 5, 6, 7)),
    "ConstantOfShape": (0,),
    "MaxUnpool": (2,),
    "NonMaxSuppression": (2, 3, 4),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
}
_REDUCE_AXES = (1,)

SHAPE_SLOTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("CenterCropPad", "Expand", "Reshape", "Split", "Tile", "TopK"), (1,)),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Resize": (3,),
    "Slice": (1, 2, 4),
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
