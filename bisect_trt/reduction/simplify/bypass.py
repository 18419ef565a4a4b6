"""Nodes that only pass something on, and chains of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.graph import consumed
from bisect_trt.model.walk import inner_nodes, refill, scopes
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.propose import attempt, attempt_each, best_draft

Kind = tuple[int, tuple[int, ...]]
"""Element type and static dimensions."""

_PLAIN = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "DepthToSpace"}
_PLAIN |= {"SpaceToDepth", "Cast", "Dropout"}  # these change the layout only, the others go by elements
_PLAIN |= {"Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Exp", "Log", "Sqrt", "Erf", "Floor", "Ceil"}
_PLAIN |= {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip", "LeakyRelu", "Elu", "Gelu"}
_PLAIN |= {"HardSigmoid", "HardSwish", "Sign", "Sin", "Cos", "Reciprocal", "Mish", "Selu", "Round"}


def bypass(problem: Problem) -> None:
    """Leave out nodes whose input and output agree in shape and type; a chain becomes one node."""
    graph = best_draft(problem).graph
    nodes = list(inner_nodes(graph))
    if len(nodes) < 2:
        return
    for part in scopes(graph):
        for first, last in _chains(best_draft(problem), part):
            attempt(problem, (partial(_chain, first, last, one) for one in (False, True)))
    attempt_each(problem, (partial(_bypass, node.name) for node in reversed(nodes)))


def without_nodes(problem: Problem) -> None:
    """Try without each single node again: what other edits changed may have made it needless."""
    names = [node.name for node in reversed(best_draft(problem).graph.node)]
    if len(names) > 1:
        attempt_each(problem, (partial(cut_off, name) for name in names))
    for body in list(scopes(best_draft(problem).graph))[1:]:
        attempt_each(problem, (partial(_ones_instead, node.name) for node in reversed(body.node)))


def kinds(draft: Draft) -> dict[str, Kind]:
    """Return the tensors whose element type and whole shape are known."""
    return {
        name: (kind, tuple(d for d in dims if d is not None))
        for name, (kind, dims) in draft.known_dims().items()
        if None not in dims
    }


def _scope(draft: Draft, name: str) -> onnx.GraphProto | None:
    """Return the graph or body that a node is in; None when it is gone."""
    return next((part for part in scopes(draft.graph) if any(n.name == name for n in part.node)), None)


def _bypass(name: str, draft: Draft) -> str:
    node, scope = draft.node(name), _scope(draft, name)
    if node is None or scope is None or (scope is draft.graph and len(scope.node) < 2):
        return ""
    known = kinds(draft)
    made = node.output[0]
    fed = (t for t in node.input if t and t not in draft.weights)
    same = next((t for t in fed if made in known and known.get(t) == known[made]), None)
    if same is None or any(draft.is_read(t) for t in node.output[1:] if t):
        return ""
    if not _pass_on(scope, made, same):
        return ""
    refill(scope.node, [n for n in scope.node if n.name != name])
    draft.drop_unused()
    return f"bypassed {node.op_type}"


def _pass_on(scope: onnx.GraphProto, made: str, source: str) -> bool:
    """Let everybody read `source` instead of `made`; False: an output would not be made in its graph."""
    outputs = [output.name for output in scope.output]
    if made in outputs:
        here = {t for node in scope.node for t in node.output}
        if source in outputs or source not in here:
            return False
        for output in scope.output:
            output.name = source if output.name == made else output.name
    for part in scopes(scope):
        if part is not scope and any(output.name == made for output in part.output):
            return False
        for node in part.node:
            for k, name in enumerate(node.input):
                if name == made:
                    node.input[k] = source
    return True


def _chains(draft: Draft, part: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Yield the ends of chains of at least two ops that only rearrange or go element by element."""
    nodes = {t: node for node in part.node for t in node.output if t}
    for last in reversed(part.node):
        first = last
        while first.op_type in _PLAIN:
            fed = [t for t in first.input if t and t not in draft.weights]
            before = nodes.get(fed[0]) if len(fed) == 1 else None
            if before is None or before.op_type not in _PLAIN or len(list(draft.readers(fed[0]))) > 1:
                break
            first = before
        if first is not last:
            yield first.name, last.name


def _chain(first: str, last: str, one: bool, draft: Draft) -> str:
    """Leave out all from `first` to `last`, or put one Reshape or Cast in their place."""
    head, tail, scope = draft.node(first), draft.node(last), _scope(draft, last)
    if head is None or tail is None or scope is None or head.name == tail.name:
        return ""
    known = kinds(draft)
    fed = [t for t in head.input if t and t not in draft.weights]
    if len(fed) != 1 or fed[0] not in known or tail.output[0] not in known:
        return ""
    node = _one_node(draft, known, fed[0], tail) if one else None
    same = known[fed[0]] == known[tail.output[0]]
    if node is None and (one or not same or not _pass_on(scope, tail.output[0], fed[0])):
        return ""
    before = len(scope.node)
    put = [node] if node is not None else []
    refill(scope.node, [n for old in scope.node for n in (put if old.name == last else [old])])
    draft.drop_unused()
    gone = before - len(scope.node) + len(put)
    if node is None:
        return f"bypassed {gone} nodes"
    return f"{gone} nodes are one {node.op_type}" if gone > 1 else ""


def _one_node(
    draft: Draft, known: dict[str, Kind], source: str, tail: onnx.NodeProto
) -> onnx.NodeProto | None:
    made = tail.output[0]
    (kind, shape), (old_kind, old_shape) = known[made], known[source]
    if kind == old_kind and math.prod(shape) == math.prod(old_shape):
        target = f"{made}_shape"
        draft.set_weight(target, np.array(shape, np.int64))
        return helper.make_node("Reshape", [source, target], [made], tail.name)
    if shape == old_shape and TensorProto.STRING not in (kind, old_kind):
        return helper.make_node("Cast", [source], [made], tail.name, to=kind)
    return None


def cut_off(name: str, draft: Draft) -> str:
    """Leave out a node: what it made is fed as ones, what only it read becomes an output."""
    node = draft.node(name)
    if node is None or len(draft.graph.node) < 2:
        return ""
    known, read = kinds(draft), set(consumed(node))
    outputs = {output.name for output in draft.graph.output}
    refill(draft.graph.node, [n for n in draft.graph.node if n.name != name])
    for made in (t for t in node.output if t):
        refill(draft.graph.output, [o for o in draft.graph.output if o.name != made])
        if not draft.is_read(made):
            continue
        if made not in known:
            return ""
        draft.graph.input.add(name=made, type=helper.make_tensor_type_proto(*known[made]))
        ones = _ones(*known[made])
        for sample in draft.samples:
            sample[made] = ones
    produced = {t for n in draft.graph.node for t in n.output} - outputs
    for left in sorted(produced & read):
        if not draft.is_read(left):
            draft.graph.output.add(name=left).type.tensor_type.elem_type = known.get(left, (1, ()))[0]
    draft.drop_unused()
    return f"without {node.op_type}" if draft.graph.output and draft.graph.node else ""


def _ones(kind: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if kind == TensorProto.STRING:
        return np.full(shape, "1", dtype=object)
    return np.ones(shape, helper.tensor_dtype_to_np_dtype(kind))


def _ones_instead(name: str, draft: Draft) -> str:
    """Put a constant of ones in the place of what a node of a body makes."""
    node, scope = draft.node(name), _scope(draft, name)
    if node is None or scope is None or not {o.name for o in scope.output}.isdisjoint(node.output):
        return ""
    known = kinds(draft)
    for made in (t for t in node.output if t):
        if draft.is_read(made, scope):
            if made not in known:
                return ""
            draft.set_weight(made, _ones(*known[made]))
    refill(scope.node, [n for n in scope.node if n.name != name])
    draft.drop_unused()
    return f"without {node.op_type}"
