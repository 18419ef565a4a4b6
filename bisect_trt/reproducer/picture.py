"""The reduced graph as boxes and arrows: what ISSUE.md draws with Mermaid and the page as SVG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from bisect_trt.model.graph import consumed, is_onnx
from bisect_trt.model.skeleton import inferred, skeleton
from bisect_trt.model.summary import type_text

MOST_NODES = 60
"""More than that nobody looks at; a viewer for models does it better."""

_MOST_LINES = 5  # of attributes and weights in a box
_LONGEST_LINE = 48  # characters of a line


class Box(Struct, frozen=True):
    """An input, an operator or an output; `lines` are what stands in it, the first one its headline."""

    kind: str
    lines: tuple[str, ...]
    blamed: bool = False


class Arrow(Struct, frozen=True):
    """A tensor on its way from one box to another; `label` is its type and shape."""

    source: int
    target: int
    tensor: str
    label: str


class Picture(Struct, frozen=True):
    """Boxes in topological order, and arrows between their positions; empty for too large a graph."""

    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()


def picture(model: bytes, blamed: tuple[str, ...] = ()) -> Picture:
    """Return the picture of a serialised model; `blamed` are the nodes that the target names."""
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    if len(graph.node) > MOST_NODES:
        return Picture()
    types = _types(proto)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    boxes: list[Box] = []
    made: dict[str, int] = {}
    for value in graph.input:
        if value.name not in weights:
            made[value.name] = len(boxes)
            boxes.append(Box("input", (_short(value.name),)))
    arrows = []
    for node in graph.node:
        for tensor in dict.fromkeys(consumed(node)):
            if tensor in made:
                arrows.append(Arrow(made[tensor], len(boxes), tensor, types.get(tensor, "")))
        made.update((tensor, len(boxes)) for tensor in node.output if tensor)
        boxes.append(Box("node", tuple(_lines(node, weights)), node.name in blamed))
    for value in graph.output:
        if value.name in made:
            arrows.append(Arrow(made[value.name], len(boxes), value.name, types.get(value.name, "")))
        boxes.append(Box("output", (_short(value.name),)))
    return Picture(tuple(boxes), tuple(arrows))


def mermaid(drawn: Picture) -> str:
    """Return the picture in Mermaid's language, which GitHub draws; empty when there is nothing to draw."""
    lines = ["flowchart TD"] if drawn.boxes else []
    for k, box in enumerate(drawn.boxes):
        left, right = ('["', '"]') if box.kind == "node" else ('(["', '"])')
        lines.append(f"    b{k}{left}{'<br/>'.join(map(_escape, box.lines))}{right}")
    for arrow in drawn.arrows:
        label = f'-- "{_escape(arrow.label)}" -->' if arrow.label else "-->"
        lines.append(f"    b{arrow.source} {label} b{arrow.target}")
    blamed = [f"b{k}" for k, box in enumerate(drawn.boxes) if box.blamed]
    if blamed:
        lines += ["    classDef blamed stroke:#c00,stroke-width:3px", f"    class {','.join(blamed)} blamed"]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Return text as Mermaid shows it as it is: all that means something is written by its code."""
    return re.sub(r"[^\w ./,:+=()-]|--", lambda m: "".join(f"#{ord(c)};" for c in m[0]), text)


def _types(proto: onnx.ModelProto) -> dict[str, str]:
    graph = inferred(skeleton(proto), data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: type_text(value.type) for value in values}


def _lines(node: onnx.NodeProto, weights: dict[str, TensorProto]) -> Iterator[str]:
    """Yield the operator, the name, and as many of the attributes and weights as there is room for."""
    domain = f"{node.domain}." if not is_onnx(node.domain) else ""
    yield _short(domain + node.op_type)
    if node.name:
        yield _short(node.name)
    more = [f"{a.name} = {_value(a)}" for a in node.attribute]
    more += [f"{_short(t, 20)}: {_weight(weights[t])}" for t in node.input if t in weights]
    yield from (_short(line) for line in more[:_MOST_LINES])
    if len(more) > _MOST_LINES:
        yield f"and {len(more) - _MOST_LINES} more"


def _value(attribute: AttributeProto) -> str:
    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        return "a graph"
    if attribute.type in (AttributeProto.TENSOR, AttributeProto.TENSORS, AttributeProto.SPARSE_TENSOR):
        return "a tensor"
    value: Any = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return f"{value:g}"
    return str(list(value)) if not isinstance(value, int) else str(value)


def _weight(tensor: TensorProto) -> str:
    """Return the values of a small weight, else its type and shape."""
    kind = type_text(helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)))
    if np.prod(tensor.dims, dtype=np.int64) > 6 or tensor.data_location == TensorProto.EXTERNAL:
        return kind
    return f"{kind.partition('[')[0]} {numpy_helper.to_array(tensor).tolist()}"


def _short(text: str, most: int = _LONGEST_LINE) -> str:
    """Make it one line of printable characters, not too long."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
