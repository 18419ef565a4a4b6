"""Without a usable hint: halve the model by cost."""

from __future__ import annotations

from bisect_trt import search
from bisect_trt.passes.selections import Selections
from bisect_trt.problem import Problem


def localise(problem: Problem) -> None:
    """Find a small part of the whole model that reproduces, unless a hint already gave one."""
    if problem.best is None:
        search.localise(problem.graph.order, Selections(problem), problem.graph.weight)
