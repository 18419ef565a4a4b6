"""Outputs, samples and inputs: fewer."""

from __future__ import annotations

from functools import partial

import numpy as np
from onnx import TensorProto, helper

from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.editing.simplicity import level
from bisect_trt.model.walk import refill
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.propose import attempt, attempt_each, best_draft


def fewer_outputs(problem: Problem) -> None:
    """Keep one output alone, else drop each; nodes that are then good for nothing go too."""
    names = [output.name for output in best_draft(problem).graph.output]
    if len(names) > 1 and not attempt(problem, (partial(_keep_outputs, {name}) for name in names)):
        attempt_each(problem, (partial(_drop_output, name) for name in reversed(names)))


def fewer_samples(problem: Problem) -> None:
    """Keep one sample of input values alone."""
    count = len(best_draft(problem).samples)
    if count > 1:
        attempt(problem, (partial(_keep_sample, k) for k in range(count)))


def fewer_inputs(problem: Problem) -> None:
    """Make each input a constant of its value; values needed as constants are fed instead, if zeros do.

    One input stays: a model without any is a constant, which builders fold away.
    """
    attempt_each(problem, (partial(_freeze, i.name) for i in best_draft(problem).graph.input))
    draft = best_draft(problem)  # weights whose values have to travel
    heavy = [n for n, array in draft.weights.items() if level(array, draft.recipes.get(n))[0] > 0]
    attempt_each(problem, (partial(_thaw, name) for name in heavy))


def _keep_outputs(names: set[str], draft: Draft) -> str:
    before = len(draft.graph.output)
    refill(draft.graph.output, [o for o in draft.graph.output if o.name in names])
    draft.drop_unused()
    return f"outputs: {before} -> {len(draft.graph.output)}" if draft.graph.input else ""


def _drop_output(name: str, draft: Draft) -> str:
    rest = {output.name for output in draft.graph.output} - {name}
    return _keep_outputs(rest, draft) if rest else ""


def _keep_sample(k: int, draft: Draft) -> str:
    before = len(draft.samples)
    draft.samples = [draft.samples[k]]
    draft.fed = {(0, name): recipe for (j, name), recipe in draft.fed.items() if j == k}
    return f"samples: {before} -> 1"


def _freeze(name: str, draft: Draft) -> str:
    values = [sample.get(name) for sample in draft.samples]
    first = values[0] if values else None
    if len(draft.graph.input) < 2 or first is None or first.dtype.kind in "OU":
        return ""
    if not all(v is not None and np.array_equal(v, first) for v in values[1:]):
        return ""
    recipe = draft.fed.get((0, name))
    draft.drop_inputs({name})
    draft.set_weight(name, first, recipe)
    return f"input {name} is a constant"


def _thaw(name: str, draft: Draft) -> str:
    value = draft.weights[name]
    draft.drop_weight(name)
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    if kind == TensorProto.UNDEFINED:
        return ""
    draft.graph.input.add(name=name, type=helper.make_tensor_type_proto(kind, value.shape))
    for sample in draft.samples:
        sample[name] = np.zeros(value.shape, value.dtype)
    return f"constant {name} is an input"
