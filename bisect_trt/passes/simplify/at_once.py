"""The simplest of everything in one probe: most failures of parsers and builders survive it."""

from __future__ import annotations

from bisect_trt.model.edit import Draft
from bisect_trt.model.edit_attributes import option_inputs
from bisect_trt.model.edit_bodies import inner_nodes
from bisect_trt.outcome import Stage
from bisect_trt.passes.simplify.dimensions import all_halved, all_ones
from bisect_trt.passes.simplify.names import plain
from bisect_trt.passes.simplify.propose import Edit, attempt, together
from bisect_trt.passes.simplify.texts import all_texts
from bisect_trt.passes.simplify.types import lowest_opset
from bisect_trt.passes.simplify.values import all_inputs, all_weights
from bisect_trt.problem import Problem


def all_at_once(problem: Problem) -> bool:
    """Plain names, zeros, sizes of 1 and the lowest operator set together, else less of it.

    Values that are all the same hardly ever show a mismatch, so there they stay.
    """
    names = plain(problem.simplifying.profiled)
    values = (names, _plain_values)
    ways: tuple[tuple[Edit, ...], ...] = ((*values, all_ones, lowest_opset), (*values, all_ones), values)
    if problem.wanted is not None and problem.wanted.stage is Stage.COMPARE:
        ways = ((names, all_ones, lowest_opset), (names, all_halved, lowest_opset))
    return attempt(problem, (together(edits) for edits in ways))


def _plain_values(draft: Draft) -> str:
    """Zeros, but ones for scales and other options, of which few can be zero; no texts."""
    options = {name for node in inner_nodes(draft.graph) for name in option_inputs(node)}
    edits = (
        all_weights("zeros", but=options), all_weights("ones"), all_inputs("zeros"), all_texts(numbered=True)
    )  # fmt: skip
    return together(edits)(draft)
