"""How the passes of the simplification propose: edits of the best candidate, judged like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.editing.attributes import divisor_inputs
from bisect_trt.model.editing.draft import Draft, close_draft, open_draft
from bisect_trt.model.editing.inference import Invalid
from bisect_trt.model.walk import inner_nodes
from bisect_trt.outcome import Stage, Verdict
from bisect_trt.reduction.problem import Problem
from bisect_trt.results import Tally

Edit = Callable[[Draft], str]
"""Changes a draft in place and says what it did, in a few words; empty: there is nothing to do."""


class OutOfBudget(Exception):
    """The target seconds of `Simplifying.until` are used up, and its questions are."""


def divisors(draft: Draft) -> set[str]:
    """Return the tensors by which a node divides."""
    return {name for node in inner_nodes(draft.graph) for name in divisor_inputs(node)}


def zero_divisors(draft: Draft) -> set[str]:
    """Return the weights and inputs with a zero by which a node divides."""
    given, names = (draft.weights, *draft.samples), divisors(draft)
    return {name for name in names for values in given if name in values and not np.all(values[name])}


def best_draft(problem: Problem) -> Draft:
    """Return the best candidate, opened. Copy it before changing it."""
    best, state = problem.smallest, problem.simplifying
    if state.draft is not None and state.draft[0] == best.digest:
        return state.draft[1]
    draft = open_draft(best)
    state.hold(best, draft)
    return draft


def attempt(problem: Problem, edits: Iterable[Edit]) -> bool:
    """Keep the first of these edits, each of the best candidate, that still fails and is simpler.

    Raises:
        OutOfBudget: no more target seconds.
    """
    offers = _offers(problem, edits)
    while chunk := list(islice(offers, max(1, problem.workers))):
        over = problem.counts.asked_seconds + _a_probe(problem) > problem.simplifying.until
        if over and problem.counts.asked >= problem.simplifying.until_asked:
            raise OutOfBudget
        if _attempt_chunk(problem, chunk):
            return True
    return False


def verdict_of(problem: Problem, edit: Edit) -> Verdict | None:
    """Return what the target does with an edit of the best candidate, which is not kept.

    None: it is not possible, or too much was spent on such looks.
    """
    draft, state = best_draft(problem).copy(), problem.simplifying
    if not state.may_look() or not edit(draft):
        return None
    try:
        candidate = close_draft(draft)
    except Invalid:
        return None
    before = problem.counts.asked_seconds
    verdict = problem.verdict(candidate)
    state.look(problem.counts.asked_seconds - before)
    return verdict


def attempt_each(problem: Problem, edits: Iterable[Edit]) -> bool:
    """Try one edit after the other, each of what is best by then; whether any was kept."""
    return any([attempt(problem, [edit]) for edit in edits])


def together(edits: Sequence[Edit], draft: Draft) -> str:
    """Make one edit of several, one after the other."""
    return "; ".join(said for one in edits if (said := one(draft)))


def _a_probe(problem: Problem) -> float:
    """Target seconds that the next probe may take: as many as one of the slowest pass did."""
    counts = [(count.seconds, count.tried - count.invalid) for count in problem.simplifying.tallies.values()]
    return max((seconds / asked for seconds, asked in counts if asked), default=0.0)


def tally(problem: Problem) -> Tally:
    """Return the counts of the pass that runs."""
    return problem.simplifying.tallies.setdefault(problem.phase, Tally())


def _attempt_chunk(problem: Problem, chunk: list[tuple[Candidate, Draft, str]]) -> bool:
    count, before = tally(problem), problem.counts.asked_seconds
    found = problem.attempt_first([candidate for candidate, _, _ in chunk])
    count.tried += len(chunk) if found is None else found + 1
    count.seconds += problem.counts.asked_seconds - before
    problem.simplifying.give_up(problem.phase, (what for _, _, what in chunk[:found]))
    if found is None:
        return False
    candidate, draft, what = chunk[found]
    count.kept += 1
    count.won.append(what)
    problem.simplifying.hold(candidate, draft)
    return True


def _offers(problem: Problem, edits: Iterable[Edit]) -> Iterator[tuple[Candidate, Draft, str]]:
    """Yield the candidates that are valid and simpler than the best, each with its draft and what it is."""
    base = best_draft(problem)
    compared = problem.failure.stage is Stage.COMPARE
    for edit in edits:
        draft = base.copy()
        what, state = edit(draft), problem.simplifying
        if not what or (state.once and (problem.phase, what) in state.vanished):
            continue
        # What a target makes of x / 0 is another question than why its numbers are off.
        if compared and (zeros := zero_divisors(draft)) and zeros - zero_divisors(base):
            continue
        try:
            candidate = close_draft(draft)
        except Invalid:
            count = tally(problem)
            count.tried, count.invalid = count.tried + 1, count.invalid + 1
            continue
        if candidate.size < problem.smallest.size:
            yield candidate, draft, what
