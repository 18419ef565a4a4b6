"""Attributes and optional inputs: left out, or set to what says least."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx
from onnx import AttributeProto, helper

from bisect_trt.model.editing.attributes import LONG, give_values, values_of
from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.graph import is_onnx
from bisect_trt.model.seeded_values import parse, three_digits
from bisect_trt.model.walk import inner_nodes, refill
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.propose import Edit, attempt, attempt_each, best_draft, together
from bisect_trt.reduction.simplify.values import Value, ladder
from bisect_trt.writing.text import counted

_SIMPLE_INTS = (0, 1)


def simple_attributes(problem: Problem) -> None:
    """Drop each attribute (its default holds), else make its numbers 0 or 1; drop optional inputs."""
    attempt(problem, [_drop_all])
    for node in list(inner_nodes(best_draft(problem).graph)):
        for attribute in node.attribute:
            attempt(problem, _simpler(node.name, attribute))
            attempt(problem, _other_values(problem, node.name, attribute))
    optional = list(_optional_inputs(best_draft(problem)))
    if len(optional) < 2 or not attempt(problem, [partial(together, optional)]):
        attempt_each(problem, optional)
    attempt_each(problem, list(_optional_outputs(best_draft(problem))))


def schema_of(node: onnx.NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    """Return what ONNX says of the operator; None for others' operators."""
    if not is_onnx(node.domain):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def _droppable(node: onnx.NodeProto, opset: int) -> set[str]:
    """Return the names of the attributes that the node may be without, as far as that is known."""
    schema = schema_of(node, opset)
    known = schema.attributes if schema is not None else {}
    required = {name for name, attribute in known.items() if attribute.required}
    return {a.name for a in node.attribute} - required if schema is not None else set()


def _drop_all(draft: Draft) -> str:
    count = 0
    for node in inner_nodes(draft.graph):
        gone = _droppable(node, draft.opset)
        count += len(gone)
        refill(node.attribute, [a for a in node.attribute if a.name not in gone])
    return f"{counted(count, 'attribute')} left out" if count else ""


def _simpler(name: str, attribute: AttributeProto) -> Iterator[Edit]:
    """Offer the node without the attribute, then with simple numbers."""
    yield partial(drop_attribute, name, attribute.name)
    values: Iterator[int | float | list[int] | list[float]] = iter(())
    if attribute.type == AttributeProto.INT:
        values = (n for n in (*_SIMPLE_INTS, attribute.i // 2) if abs(n) < abs(attribute.i))
    elif attribute.type == AttributeProto.INTS and 0 < len(attribute.ints) <= LONG:
        values = _simpler_list(list(attribute.ints))
    elif attribute.type == AttributeProto.FLOAT:
        values = (value for value in (0.0, 1.0, three_digits(attribute.f)) if value != attribute.f)
    elif attribute.type == AttributeProto.FLOATS and 0 < len(attribute.floats) <= LONG:
        mean = three_digits(float(np.mean(attribute.floats)))
        values = ([value] * len(attribute.floats) for value in (0.0, 1.0, mean))
    for value in values:
        yield partial(_set, name, attribute.name, value)


def _other_values(problem: Problem, name: str, attribute: AttributeProto) -> Iterator[Edit]:
    """Yield the ladder of weights, for numbers that are values rather than options."""
    state = problem.simplifying
    values = ladder(values_of(attribute), parse(attribute.doc_string), state.seed, state.synthetic)
    yield from (partial(_give, name, attribute.name, value) for value in values)


def _give(node_name: str, name: str, value: Value, draft: Draft) -> str:
    text, values, recipe = value
    node = draft.node(node_name)
    found = [a for a in node.attribute if a.name == name] if node is not None else []
    if node is None or not found:
        return ""
    give_values(found[0], values, recipe)
    return f"{node.op_type}.{name}: {text}"


def _simpler_list(old: list[int]) -> Iterator[list[int]]:
    """Offer lists of the same simple number, then one number changed."""
    yield from ([number] * len(old) for number in _SIMPLE_INTS)
    for k, value in enumerate(old):
        for number in _SIMPLE_INTS:
            if abs(number) < abs(value):
                yield [*old[:k], number, *old[k + 1 :]]


def drop_attribute(node_name: str, attribute: str, draft: Draft) -> str:
    """Leave out an attribute of a node, unless it is required: its default holds."""
    node = draft.node(node_name)
    if node is None or attribute not in _droppable(node, draft.opset):
        return ""
    refill(node.attribute, [a for a in node.attribute if a.name != attribute])
    return f"{node.op_type}.{attribute} at its default"


def _set(node_name: str, attribute: str, value: int | float | list[int] | list[float], draft: Draft) -> str:
    node = draft.node(node_name)
    if node is None or attribute not in {a.name for a in node.attribute}:
        return ""
    rest = [a for a in node.attribute if a.name != attribute]
    refill(node.attribute, [*rest, helper.make_attribute(attribute, value)])
    return f"{node.op_type}.{attribute} = {value}"


def _optional_inputs(draft: Draft) -> Iterator[Edit]:
    for node in inner_nodes(draft.graph):
        schema = schema_of(node, draft.opset)
        for k, name in enumerate(node.input):
            if schema is None or not name or k >= len(schema.inputs) or node.op_type == "Loop":
                continue  # a Loop without its count or condition may never end
            if schema.inputs[k].option == onnx.defs.OpSchema.FormalParameterOption.Optional:
                yield partial(_blank, "input", node.name, k)


def _optional_outputs(draft: Draft) -> Iterator[Edit]:
    for node in inner_nodes(draft.graph):
        for k, name in enumerate(node.output):
            if k and name and not draft.is_read(name):
                yield partial(_blank, "output", node.name, k)


def _blank(side: str, node_name: str, k: int, draft: Draft) -> str:
    """Leave out the k-th name of the `input` or `output` of a node; what has no name at the end is gone."""
    node = draft.node(node_name)
    names = getattr(node, side) if node is not None else []
    if node is None or k >= len(names) or not names[k]:
        return ""
    names[k] = ""
    while len(names) > (side == "output") and not names[-1]:  # an output stays, named or not
        del names[-1]
    if side == "input":
        draft.drop_unused()
    return f"{node.op_type} without {side} {k}" if draft.graph.input or side == "output" else ""
