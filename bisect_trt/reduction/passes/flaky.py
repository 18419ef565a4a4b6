"""Does the failure show every time? If not, every later probe is repeated often enough."""

from __future__ import annotations

import math

from bisect_trt.errors import FlakyFailure
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Stage, Verdict
from bisect_trt.reduction import list_search
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.selections import Selections

LOOKS = 4  # at a small part that was found by halving, where a look is cheap; fresh runs follow at the end
MISSES = 0.002  # accepted chance that one probe overlooks a failure that is there
HITS = 6  # runs that show a flaky failure, after which its rate is known well enough
CAUTION = 0.7  # of the measured rate: it may have been measured by luck
MOST_RUNS = 120  # per probe; a failure that would need more is too rare to bisect


def steady(problem: Problem) -> None:
    """Look again at what fails; when it comes and goes, set `problem.runs` and localise again.

    Parsing is deterministic and not repeated. What a hint found is looked at `repeats` times, what
    halving found at least `LOOKS` times.

    Raises:
        FlakyFailure: it shows too seldom to be bisected.
    """
    if problem.failure.stage is Stage.PARSE:
        return
    again = problem.best or problem.cut(problem.scope)
    small = 2 * len(again.nodes) <= len(problem.scope) and not problem.failure.nodes
    looks = max(problem.repeats, LOOKS) if small else problem.repeats
    if not always(problem, again, looks):
        distrust(problem)


def distrust(problem: Problem) -> None:
    """Measure how often the failure shows, and repeat every probe accordingly.

    The number of runs is that of a sequential test: a probe ends with the first run that reproduces,
    and only all of them together say VANISHES.

    Raises:
        FlakyFailure: it shows too seldom to be bisected.
    """
    again = problem.best or problem.cut(problem.scope)
    if problem.best is None and _fails_otherwise(problem, again):
        return  # not flaky: only the file as it is fails so
    hits, runs = _measure(problem, again)
    if hits == 0 and problem.best is None:
        return  # not flaky: only the file as it is fails
    problem.repeat_probes(*runs_needed(hits, runs, f"{len(again.nodes)} nodes"))
    judge = Selections(problem, again.form)
    judge.run(lambda asked: list_search.localise(again.nodes, asked, problem.graph.weight))


def runs_needed(hits: int, runs: int, what: str) -> tuple[int, float]:
    """Say how many runs a probe takes so that it overlooks a failure with a chance of `MISSES`, and its rate.

    Raises:
        FlakyFailure: more than `MOST_RUNS`; `what` was run.
    """
    rate = max(hits - 0.5, 0.25) / runs  # one hit is no evidence: it made us look
    needed = max(1, math.ceil(math.log(MISSES) / math.log1p(-min(0.99, CAUTION * rate))))
    if needed > MOST_RUNS:
        raise FlakyFailure(
            f"the failure shows in {hits} of {runs} runs of {what}: too seldom to bisect",
            "--timing-cache, other --inputs or --seed, or --workers 1 may make it steadier",
        )
    return needed, rate


def always(problem: Problem, candidate: Candidate, runs: int) -> bool:
    """Return whether each of so many runs shows the failure."""
    seen = problem.observations(candidate, runs)
    return all(problem.judge(outcome) is Verdict.REPRODUCES for outcome in seen)


def _fails_otherwise(problem: Problem, candidate: Candidate) -> bool:
    """Return whether each of a few looks shows the same other failure: then more of them would, too."""
    looks = list(problem.observations(candidate, max(problem.repeats, LOOKS)))
    seen = {frozenset(failure.key for failure in outcome.failures) for outcome in looks}
    other = all(problem.judge(outcome) is Verdict.UNRESOLVED for outcome in looks)
    return other and len(seen) == 1 and frozenset() not in seen


def _measure(problem: Problem, candidate: Candidate) -> tuple[int, int]:
    """Return the runs that show the failure, up to `HITS`, and all runs until then."""
    hits = 0
    for runs, outcome in enumerate(problem.observations(candidate, MOST_RUNS), start=1):
        hits += problem.judge(outcome) is Verdict.REPRODUCES
        if hits == HITS:
            return hits, runs
    return hits, MOST_RUNS
