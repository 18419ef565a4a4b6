"""From here on the best candidate has to show its failure by itself, as the written reproducer will."""

from __future__ import annotations

from dataclasses import replace

from bisect_trt.hybrid import compared_alone, in_own_words, only_for
from bisect_trt.problem import Problem


def stand_alone(problem: Problem) -> None:
    """Compare the best candidate's own outputs, with a tolerance at which what it does shows.

    The words for it change, since its outputs are others than the model's.
    """
    hybrid, best = problem.hybrid, problem.best
    if hybrid is None or best is None or best.rest is None or problem.wanted is None:
        return
    accuracy = problem.prober.oracle.accuracy
    if hybrid.accumulated and hybrid.output in best.expected[0]:
        hybrid.alone = only_for(accuracy, hybrid.output)
    else:
        own = problem.outcomes[best.digest].facts.get("own", [])
        hybrid.alone = compared_alone(accuracy, own)
    problem.prober.compare(hybrid.alone, alone=True)
    bare = replace(best, rest=None)
    hybrid.stand_in = in_own_words(problem.wanted, problem.observe(bare))
    if hybrid.stand_in is not None:
        problem.verdict(bare)
        problem.best = bare
