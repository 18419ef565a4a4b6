"""Does the error accumulate? Then no node is guilty: rank what each contributes, and say so."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from bisect_trt.outcome import Outcome, Verdict
from bisect_trt.reduction.at_outputs import Contribution, Hybrid
from bisect_trt.reduction.problem import Problem

FEW_NODES = 3  # nodes that are searched as usual
PARTS = 48  # that are run by themselves, at most
ADDS_UP = 0.5  # part of the whole error that all contributions together have to explain
DOMINATES = 0.75  # part of the whole error from which on one contribution is to blame


def accumulate(problem: Problem) -> None:
    """Say so when what is left fails only as a whole, and the errors of its parts add up to that.

    The best candidate stays as it is, in one piece; the parts with the largest contributions, as few as
    still fail together, are named.
    """
    hybrid = problem.hybrid
    if hybrid is None or (problem.best is not None and len(problem.best.nodes) <= FEW_NODES):
        return
    if problem.best is None and not problem.attempt(problem.cut(problem.scope)):
        return
    best = problem.smallest
    whole, parts = _error(problem.outcomes[best.digest], hybrid), _contributions(problem, hybrid, best.nodes)
    if parts is None or not _adds_up(parts, whole):
        return
    if len(best.nodes) < len(problem.scope):
        parts = _contributions(problem, hybrid, problem.scope) or parts
    ranked = tuple(sorted(parts, key=lambda part: -part.error))
    problem.compare_at(replace(hybrid, accumulated=ranked, together=_fewest(problem, ranked)))


def _contributions(problem: Problem, hybrid: Hybrid, nodes: Sequence[str]) -> list[Contribution] | None:
    """Measure each part of the nodes by itself; None when one of them fails, and so is to blame."""
    found = []
    for part in _parts(nodes, problem):
        candidate = problem.cut(part)
        if problem.attempt(candidate):
            return None
        found.append(Contribution(tuple(part), _error(problem.observe(candidate), hybrid)))
    return found


def _parts(nodes: Sequence[str], problem: Problem) -> Iterator[list[str]]:
    """Neighbours in topological order, of about equal weight; single nodes when there are few."""
    weights = {name: problem.graph.weight(name) for name in nodes}
    share = sum(weights.values()) / PARTS if len(nodes) > PARTS else 0.0
    part: list[str] = []
    for name in nodes:
        part.append(name)
        if sum(weights[n] for n in part) >= share:
            yield part
            part = []
    if part:
        yield part


def _error(outcome: Outcome, hybrid: Hybrid) -> float:
    return float(outcome.measured.errors.get(hybrid.output, 0.0))


def _adds_up(parts: Sequence[Contribution], whole: float) -> bool:
    errors = [part.error for part in parts]
    return sum(errors) >= ADDS_UP * whole > 0 and max(errors) < DOMINATES * whole


def _fewest(problem: Problem, ranked: Sequence[Contribution]) -> tuple[str, ...]:
    """Return the nodes of the fewest of the largest contributions that fail together."""

    def fail(count: int) -> bool:
        together = problem.cut(name for part in ranked[:count] for name in part.nodes)
        return problem.verdict(together) is Verdict.REPRODUCES

    fewest = bisect_left(range(len(ranked)), True, lo=1, key=fail)  # all of them are not asked
    return tuple(problem.graph.sorted(name for part in ranked[:fewest] for name in part.nodes))
