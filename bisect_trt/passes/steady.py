"""Does the failure come every time? If not, every later probe is repeated enough to tell."""

from __future__ import annotations

import math

from bisect_trt import search
from bisect_trt.errors import FlakyFailure
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cut import CutStyle
from bisect_trt.outcome import Stage, Verdict
from bisect_trt.passes.selections import Selections
from bisect_trt.problem import Problem

MISSES = 0.002  # accepted chance that one probe overlooks a failure that is there
SAMPLE = 12  # runs that estimate how often a flaky failure shows
MOST_RUNS = 40  # per probe; a failure that would need more is too rare to bisect


def steady(problem: Problem) -> None:
    """Repeat what fails; when it comes and goes, set `problem.runs` and localise again.

    Parsing is deterministic and not repeated. The number of runs is that of a sequential test: a
    probe ends with the first run that reproduces, and only all of them together say VANISHES.

    Raises:
        FlakyFailure: it shows too seldom to be bisected.
    """
    if problem.wanted is not None and problem.wanted.stage is Stage.PARSE:
        return
    again = problem.best or problem.cut(problem.scope)
    if _hits(problem, again, problem.repeats) == problem.repeats:
        return
    sample = max(SAMPLE, problem.repeats)
    hits = _hits(problem, again, sample)
    if hits == 0 and problem.best is None:
        return  # not flaky: only the file as it is fails
    rate = (hits + 0.5) / (sample + 1)
    needed = math.ceil(math.log(MISSES) / math.log(1 - rate))
    if needed > MOST_RUNS:
        raise FlakyFailure(
            f"the failure shows in {hits} of {sample} runs: too seldom to bisect",
            "--timing-cache, a fixed --seed or --workers 1 may make it steadier",
        )
    problem.repeat_probes(needed, rate)
    judge = Selections(problem, CutStyle(again.cut))
    judge.run(lambda asked: search.localise(again.nodes, asked, problem.graph.weight))


def _hits(problem: Problem, candidate: Candidate, runs: int) -> int:
    seen = problem.observations(candidate, runs)
    return sum(problem.judge(outcome) is Verdict.REPRODUCES for outcome in seen)
