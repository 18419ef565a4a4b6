"""How graphs are read and changed: bodies in bodies, attributes, copies, and parts that are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import onnx
from onnx import TensorProto

from bisect_trt.model.graph import bodies, consumed

M = TypeVar("M")


def copied(message: M) -> M:
    """Return a protobuf message that says the same, for whoever changes it."""
    made = type(message)()
    made.CopyFrom(message)  # type: ignore[attr-defined]
    return made


def refill(field: Any, messages: Iterable[Any]) -> None:
    """Put messages into a repeated field of protobuf in place of its own, some of which they may be."""
    kept = list(messages)  # what is deleted lives on as long as somebody holds it
    del field[:]
    field.extend(kept)


def drop(field: Any, unwanted: Callable[[Any], bool]) -> None:
    """Take messages out of a repeated field of protobuf; the others stay where they are."""
    for i in reversed([i for i, message in enumerate(field) if unwanted(message)]):
        del field[i]


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute; 0 of one that has another type, as a broken model may have it."""
    return next((a.i for a in node.attribute if a.name == name), default)


def integers(node: onnx.NodeProto, name: str) -> list[int]:
    """Return an attribute that is a list of integers; empty where there is none."""
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def inner_nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Yield all nodes of a graph or local function, those of bodies too, each before those inside it."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from inner_nodes(body)


def scopes(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all bodies in it."""
    yield graph
    for node in inner_nodes(graph):
        yield from bodies(node)


def tensor_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of the tensors of a graph and of all bodies in it, as often as they stand there."""
    for part in scopes(graph):
        yield from (info.name for info in (*part.input, *part.initializer))
        yield from (name for node in part.node for name in (*node.input, *node.output) if name)


def rename(graph: onnx.GraphProto, new: dict[str, str]) -> None:
    """Give tensors other names, in bodies too; what is not named keeps its own."""
    for part in scopes(graph):
        for info in (*part.input, *part.output, *part.value_info, *part.initializer):
            info.name = new.get(info.name, info.name)
        for sparse in part.sparse_initializer:
            sparse.values.name = new.get(sparse.values.name, sparse.values.name)
        for node in part.node:
            for names in (node.input, node.output):
                for k, name in enumerate(names):
                    names[k] = new.get(name, name)


def unique_names(graph: onnx.GraphProto) -> None:
    """Rename tensors of bodies until each name means one tensor: bodies beside each other may share some."""
    taken: set[str] = set()
    for part in scopes(graph):
        new = {}
        made = [t for node in part.node for t in node.output if t]
        for name in dict.fromkeys([*(info.name for info in (*part.input, *part.initializer)), *made]):
            k, free = 1, name
            while free in taken:
                k, free = k + 1, f"{name}_{k}"
            taken.add(free)
            if free != name:
                new[name] = free
        if new:
            rename(part, new)


def hoist(graph: onnx.GraphProto) -> None:
    """Make the weights of bodies weights of the graph, which the bodies capture. Names are unique.

    The meaning stays the same, and each weight has one place, whatever reads it.
    """
    for body in list(scopes(graph))[1:]:
        fixed = {info.name for info in body.input}
        made = {output.name for output in body.output}
        moved = [t for t in body.initializer if t.data_type != TensorProto.STRING and t.name not in fixed]
        for tensor in moved:
            copy = copied(tensor)
            if tensor.name in made:  # a body makes its outputs itself
                copy.name = f"{tensor.name}_value"
                body.node.add(
                    op_type="Identity", name=f"{tensor.name}_out", input=[copy.name], output=[tensor.name]
                )
            graph.initializer.append(copy)
        gone = {tensor.name for tensor in moved}
        refill(body.initializer, [tensor for tensor in body.initializer if tensor.name not in gone])


def needed_for_outputs(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], set[str]]:
    """Return the nodes that an output of the graph needs, in their order, and all tensors that are needed."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # so that a chain is known to be needed in one sweep
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(consumed(node))
    return kept[::-1], needed
