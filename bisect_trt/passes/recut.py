"""VANISHES is weak evidence while cutting itself can hide a failure: try the other ways of cutting."""

from __future__ import annotations

from bisect_trt.model.cut import CutStyle
from bisect_trt.passes.drop import minimise
from bisect_trt.problem import Problem

RESERVE = (CutStyle.HIDDEN, CutStyle.UNFROZEN, CutStyle.DYNAMIC)


def recut(problem: Problem) -> None:
    """Drop nodes again in each reserve style that also reproduces, while it makes a difference.

    An exposed tensor cannot be fused away (HIDDEN), a frozen one is no longer computed (UNFROZEN),
    a static dimension is no longer dynamic (DYNAMIC).
    """
    for style in RESERVE:
        best = problem.best
        if best is not None and len(best.nodes) == 1:
            return
        again = problem.cut(best.nodes if best else problem.scope, style)
        if best is not None and again.digest == best.digest:
            continue
        if problem.attempt(again):
            minimise(problem, again)
