"""Errors add up, and some of the nodes are wrong by themselves: then one of these is the reproducer.

The same operator computed wrongly in every block of a model may be too little for the model's output where it
is once, and is a fault all the same. Where only rounding adds up, nobody is accused and nothing changes here.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Outcome, Symptom, Verdict
from bisect_trt.reduction.at_outputs import Hybrid, in_own_words
from bisect_trt.reduction.passes.strongest import TRIED, failing, seen_alone
from bisect_trt.reduction.problem import Problem

Part = tuple[tuple[str, ...], Candidate, Outcome]
"""Nodes, the candidate of them, and what it shows at its own outputs."""


def wrong_alone(problem: Problem) -> None:
    """Keep the part that adds most of those that no rounding explains, if the error accumulates.

    It has to be one of those that fail together, and to fail by itself at the user's tolerance.
    """
    hybrid, wanted = problem.hybrid, problem.wanted
    if hybrid is None or wanted is None or not hybrid.accumulated:
        return
    wrong = list(_wrong(problem, hybrid))
    if not wrong:
        return
    share = {name: part.error for part in hybrid.accumulated for name in part.nodes}
    nodes, candidate, seen = max(wrong, key=lambda part: max(share[name] for name in part[0]))
    named = tuple(problem.graph.sorted(name for part in wrong for name in part[0]))
    chosen = replace(hybrid, source=nodes, accumulated=(), wrong=named)
    _keep(problem, chosen, candidate, in_own_words(wanted, seen))
    if problem.best is not candidate:
        problem.compare_at(hybrid)


def _wrong(problem: Problem, hybrid: Hybrid) -> Iterator[Part]:
    """Yield the parts that are wrong by themselves of those that fail together, the largest error first."""
    parts = [part for part in failing(problem, hybrid) if set(part.nodes) <= set(hybrid.together)]
    for part in parts[:TRIED]:
        candidate = replace(problem.cut(part.nodes), rest=None)
        seen = seen_alone(problem, hybrid, candidate)
        rounding = seen.measured.rounding
        mismatch = [failure.symptom for failure in seen.failures] == [Symptom.MISMATCH]
        if mismatch and rounding.get("explained") is False and "unknown" not in rounding:
            yield part.nodes, candidate, seen


def _keep(problem: Problem, hybrid: Hybrid, candidate: Candidate, stand_in: Failure | None) -> None:
    """Keep the candidate if it shows the failure in its own words; they are what counts from here on."""
    before = problem.prober.oracle.accuracy
    problem.prober.compare(hybrid.own_accuracy, by_itself=True)
    problem.compare_at(replace(hybrid, stand_in=stand_in))
    if problem.verdict(candidate) is Verdict.REPRODUCES:
        problem.keep(candidate)
    else:
        problem.prober.compare(before)
