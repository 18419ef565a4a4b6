"""`simplify`: the passes that make a model simple, alone, on one that is already small."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from bisect_trt.model.cut import CutStyle
from bisect_trt.problem import Problem
from bisect_trt.reduction import open_run, reduce_one
from bisect_trt.result import OnEvent, Reduction
from bisect_trt.settings import Settings
from bisect_trt.writing import finish


def simplify(
    model: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    force: bool = False,
    on_event: OnEvent = lambda step: None,
) -> Reduction:
    """Make a failing model simple without looking for fewer nodes first, and write the reproducer folder.

    It goes on until nothing changes any more, unless the settings have a budget.

    Raises:
        As `reduction.reduce` does.
    """
    run = settings.run
    budget = math.inf if run.simplify_budget is None else run.simplify_budget
    settings = replace(settings, run=replace(run, simplify=True, simplify_budget=budget))
    with open_run(model, settings, out=out, force=force, on_event=on_event) as opened:
        opened.menu = (as_it_is,)
        return finish(opened, [reduce_one(opened, opened.confirm(), opened.out)])[0]


def as_it_is(problem: Problem) -> None:
    """All nodes, in the first way of cutting in which they fail by themselves."""
    for style in (CutStyle.DEFAULT, CutStyle.DYNAMIC, CutStyle.UNFROZEN, CutStyle.HIDDEN):
        if problem.attempt(problem.cut(problem.scope, style)):
            return
