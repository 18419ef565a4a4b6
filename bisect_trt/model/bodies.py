"""A control flow node replaced by what it runs: the branch taken, or the first iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper

from bisect_trt.model.graph import is_onnx, opset_of, topological
from bisect_trt.model.walk import copied, integer, integers, refill, rename, tensor_names

CONTROL = frozenset({"If", "Loop", "Scan"})
"""Operators that have bodies."""

IsTrue = Callable[[str], bool | None]
"""The recorded value of a condition by the name of its tensor; None: it is not known."""


def has_body(node: NodeProto) -> bool:
    """Return whether a node is control flow of ONNX."""
    return node.op_type in CONTROL and is_onnx(node.domain)


def opened(
    proto: onnx.ModelProto, name: str, is_true: IsTrue, *, all_branches: bool = False
) -> Iterator[onnx.ModelProto]:
    """Yield the model with the node `name` replaced by each body that it may run, the likeliest first.

    An If becomes the branch that the recorded run took (then the other one, with `all_branches` or when
    that is not known), a Loop or Scan its first iteration: that means the same only when there is one, so
    the caller has to ask the target whether the failure survives. Interior types are left out; normalise
    the result.
    """
    node = next(node for node in proto.graph.node if node.name == name)
    for body in filter(partial(_fits, node), _likely(node, is_true, all_branches)):
        made = copied(proto)
        _Inliner(made, node, body).run()
        yield made


def _likely(node: NodeProto, is_true: IsTrue, all_branches: bool) -> list[onnx.GraphProto]:
    by_name = {a.name: a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}
    if node.op_type != "If":
        return [by_name["body"]]
    taken = is_true(node.input[0])
    branches = [by_name["else_branch"], by_name["then_branch"]]
    if taken is not False:
        branches.reverse()
    return branches if taken is None or all_branches else branches[:1]


def _fits(node: NodeProto, body: onnx.GraphProto) -> bool:
    """Return whether a body takes as many inputs as its node gives; a broken model may say otherwise."""
    if node.op_type == "If":
        return not body.input
    given = len(node.input) if node.op_type == "Scan" else max(2, len(node.input))
    return len(body.input) == given


class _Inliner:
    """Puts one body in the place of its node."""

    def __init__(self, model: onnx.ModelProto, node: NodeProto, body: onnx.GraphProto) -> None:
        self.graph = model.graph
        self.opset = opset_of(model)
        self.node = node
        self.body = copied(body)
        self.taken = set(tensor_names(self.graph))
        self.added: list[NodeProto] = []

    def run(self) -> None:
        """Change the model."""
        self._rename_all()
        bind = {"If": self._branch, "Loop": self._iteration, "Scan": self._step}[self.node.op_type]
        made, states = bind()
        self._pass_on(made[:states], list(self.node.output))
        self._stack(made[states:], list(self.node.output)[states:])
        kept = [node for node in self.graph.node if node.name != self.node.name]
        nodes = [*kept, *self.body.node, *self.added]
        refill(self.graph.node, (nodes[i] for i in topological(nodes)))
        self.graph.initializer.extend(self.body.initializer)
        del self.graph.value_info[:]

    def _rename_all(self) -> None:
        """Give names to what the body makes that the model does not have."""
        own = [i.name for i in self.body.input] + [t.name for t in self.body.initializer]
        own += [t for node in self.body.node for t in node.output if t]
        self.renamed = {name: self._fresh(name) for name in own}
        rename(self.body, self.renamed)

    def _fresh(self, name: str) -> str:
        if name in self.taken:
            name = f"{self.node.name}/{name}"
            while name in self.taken:
                name += "_"
        self.taken.add(name)
        return name

    def _add(self, op: str, inputs: Iterable[str], output: str, **attributes: Any) -> None:
        self.added.append(helper.make_node(op, list(inputs), [output], f"{op}/{output}", **attributes))

    def _constant(self, name: str, value: int, *dims: int, kind: int = TensorProto.INT64) -> str:
        self.graph.initializer.append(helper.make_tensor(name, kind, dims, [value]))
        return name

    def _pass_on(self, made: list[str], due: list[str]) -> None:
        """Hand tensors on by Identity nodes: into the body, or from it to the outputs of the node."""
        for inner, outer in zip(made, due, strict=False):
            if outer:
                self._add("Identity", [inner], outer)

    def _branch(self) -> tuple[list[str], int]:
        return [o.name for o in self.body.output], len(self.body.output)

    def _iteration(self) -> tuple[list[str], int]:
        trip, condition, *carried = [i.name for i in self.body.input]
        self._constant(trip, 0)
        given = self.node.input[1] if len(self.node.input) > 1 else ""
        if given:
            self._add("Identity", [given], condition)
        else:
            self._constant(condition, True, kind=TensorProto.BOOL)
        self._pass_on(list(self.node.input[2:]), carried)
        return [o.name for o in self.body.output][1:], len(carried)

    def _step(self) -> tuple[list[str], int]:
        node = self.node
        states = len(self.body.input) - integer(node, "num_scan_inputs", 0)
        names = [i.name for i in self.body.input]
        self._pass_on(list(node.input[:states]), names[:states])
        axes, backward = integers(node, "scan_input_axes"), integers(node, "scan_input_directions")
        for k, (source, inner) in enumerate(zip(node.input[states:], names[states:], strict=True)):
            first = -1 if backward[k : k + 1] == [1] else 0
            place = self._constant(self._fresh(f"{inner}/place"), first)
            self._add("Gather", [source, place], inner, axis=axes[k] if k < len(axes) else 0)
        return [o.name for o in self.body.output], states

    def _stack(self, made: list[str], due: list[str]) -> None:
        """Stack what each iteration gives along a new axis."""
        axes = integers(self.node, "scan_output_axes")
        for k, (inner, outer) in enumerate(zip(made, due, strict=False)):
            if not outer:
                continue
            axis = axes[k] if k < len(axes) else 0
            if self.opset >= 13:
                name = self._fresh(f"{self.node.name}/constant")
                self._add("Unsqueeze", [inner, self._constant(name, axis, 1)], outer)
            else:
                self._add("Unsqueeze", [inner], outer, axes=[axis])
