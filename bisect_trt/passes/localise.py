"""Without a usable hint: halve the model by cost."""

from __future__ import annotations

from collections.abc import Callable

from bisect_trt import search
from bisect_trt.passes.selections import Selections
from bisect_trt.problem import Problem
from bisect_trt.search import Judge


def localise(problem: Problem) -> None:
    """Find a small part of the whole model that reproduces, unless a hint already gave one."""
    if problem.best is None:
        Selections(problem).run(halving(problem))


def halving(problem: Problem) -> Callable[[Judge[str]], list[str]]:
    """The search of this pass, to be run or to be looked ahead in."""
    return lambda judge: search.localise(problem.scope, judge, problem.graph.weight)
