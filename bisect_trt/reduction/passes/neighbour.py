"""The nearest neighbour of the result that passes: what a maintainer compares the reproducer with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from msgspec import Struct

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.editing.draft import close_draft, open_draft
from bisect_trt.model.editing.inference import Invalid
from bisect_trt.outcome import Verdict
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.attributes import drop_attribute
from bisect_trt.reduction.simplify.bypass import cut_off
from bisect_trt.reduction.simplify.propose import Edit

MOST_PROBES = 6  # probes that are spent on it


class Neighbour(Struct, frozen=True):
    """A candidate that passes; `difference` says what it is besides the result, `without node X`."""

    candidate: Candidate
    difference: str


def nearest_passing(problem: Problem) -> Neighbour | None:
    """Return a neighbour of the best candidate that the target takes; None when none was found.

    First what the sweep tried: one node less. Then, with at most `MOST_PROBES` probes, one attribute less,
    or an edited result with one node less. Only a verdict of VANISHES counts: a neighbour that fails
    in another way is no help.
    """
    before = problem.counts.asked
    for neighbour in _neighbours(problem):
        known = neighbour.candidate.digest in problem.verdicts
        if not known and problem.counts.asked - before >= MOST_PROBES:
            continue
        if problem.verdict(neighbour.candidate) is Verdict.VANISHES:
            return neighbour
    return None


def _neighbours(problem: Problem) -> Iterator[Neighbour]:
    best = problem.best
    if best is None or best.rest is not None or best.form is Form.ORIGINAL:
        return  # of the user's own file every edited form passes, whatever was edited
    if best.form.is_cut:
        for left_out in best.nodes if len(best.nodes) > 1 else ():
            rest = (name for name in best.nodes if name != left_out)
            candidate = problem.cut(rest, best.form)
            op = problem.graph.node(left_out).op_type
            if problem.rerecord is None and not any(candidate.expected):
                continue  # nothing is known of what it makes
            yield Neighbour(candidate, f"without the node {left_out} ({op})")
    if problem.rerecord is not None:
        yield from _edited(problem, best)


def _edited(problem: Problem, best: Candidate) -> Iterator[Neighbour]:
    try:
        base = open_draft(best)
    except (OSError, ValueError):
        return
    simplified = problem.simplifying.draft
    base.typed = simplified[1].typed if simplified else base.typed
    base.strict = False  # the reference is asked first, and says more than a checker
    base.confirm = problem.simplifying.confirm
    nodes = base.graph.node
    edits: list[tuple[Edit, str]] = [
        (partial(drop_attribute, node.name, a.name), "") for node in nodes for a in node.attribute
    ]
    edits += [(partial(cut_off, n.name), f"without the node {n.name} ({n.op_type})") for n in nodes]
    for edit, text in edits:
        draft = base.copy()
        what = edit(draft)
        if not what:
            continue
        try:
            yield Neighbour(close_draft(draft), text or f"with {what}")
        except Invalid:
            continue
