"""Which nodes compute with shapes: numbers of dimensions, and places in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from bisect_trt.model.cutting.constants import SHAPE_SLOTS
from bisect_trt.model.graph import topological

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
