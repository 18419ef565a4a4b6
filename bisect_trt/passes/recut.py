"""VANISHES is weak evidence while cutting itself can hide a failure: try the other ways of cutting."""

from __future__ import annotations

from bisect_trt.model.cut import CutStyle
from bisect_trt.passes.drop import minimise
from bisect_trt.problem import Problem

RESERVE = (CutStyle.NARROW, CutStyle.HIDDEN, CutStyle.UNFROZEN, CutStyle.DYNAMIC)
FEW = 16


def recut(problem: Problem) -> None:
    """Drop nodes again in each reserve style that also reproduces, while it makes a difference.

    Types like int4 may be cut after all and sequences be outputs (NARROW), an exposed tensor cannot be
    fused away (HIDDEN), a frozen one is no longer computed (UNFROZEN), a static dimension is no longer
    dynamic (DYNAMIC).
    """
    if problem.hybrid is not None and problem.hybrid.accumulated:
        return
    for style in RESERVE:
        best = problem.best
        if best is not None and len(best.nodes) == 1:
            return
        again = problem.cut(best.nodes if best else problem.scope, style)
        if best is not None and again.digest == best.digest and len(best.nodes) > FEW:
            continue  # cut alike as a whole; that its parts would not be is not worth many probes
        if problem.attempt(again):
            minimise(problem, again)
