"""Which cut tensors have to stay constants: what builders want to know at build time.

Which nodes compute with shapes: numbers of dimensions, and places in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

from bisect_trt.model.graph import Graph, topological

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
    slots = (1,) if node.op_type.startswith("Reduce") else _SLOTS.get(node.op_type, ())
    return any(slot < len(node.input) and node.input[slot] == tensor for slot in slots)


# What shapes are computed with; anything else ends the way back from a shape to where it comes from.
_ON_SHAPES = frozenset(
    {"Add", "Cast", "Ceil", "Concat", "Div", "Floor", "Gather", "Identity", "Max"}
    | {"Min", "Mul", "Reshape", "Round", "Slice", "Squeeze", "Sub", "Unsqueeze"}
)


def shape_arithmetic(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that compute shapes: made from shapes and constants alone, or used as a shape."""
    constant = {tensor.name for tensor in graph.initializer}
    shapes: set[str] = set()
    found: set[str] = set()
    maker = {name: node for node in graph.node for name in node.output if name}
    for node in (graph.node[k] for k in topological(list(graph.node))):
        reads = [name for name in node.input if name]
        made = any(name in shapes for name in reads) and all(n in shapes or n in constant for n in reads)
        if node.op_type in ("Shape", "Size") or made:
            shapes.update(node.output)
            found.update(node.output)
        elif not reads or all(name in constant for name in reads):
            constant.update(node.output)
    found.update(name for node in _behind(graph, maker) for name in node.output)
    return found - {""}


def _behind(graph: onnx.GraphProto, maker: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield what leads to an input that holds dimensions, as far as it is the usual arithmetic."""
    todo = [
        node.input[slot]
        for node in graph.node
        for slot in SHAPE_SLOTS.get(node.op_type, ())
        if slot < len(node.input)
    ]
    seen = set()
    while todo:
        name = todo.pop()
        node = maker.get(name)
        if node is None or name in seen or node.op_type not in _ON_SHAPES:
            continue
        seen.add(name)
        yield node
        todo += node.input
