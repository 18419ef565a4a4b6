"""Steps of a reduction that ask the target: the passes, and what comes after the smallest set is known."""

from __future__ import annotations

import time
from typing import Any

from bisect_trt.anonymise import (
    require_synthetic,
)
from bisect_trt.errors import StoppedEarly
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cut import CutStyle
from bisect_trt.passes import MENU
from bisect_trt.passes.causes import causes
from bisect_trt.passes.drop import is_one_minimal
from bisect_trt.passes.neighbour import Neighbour, nearest_passing
from bisect_trt.passes.options import avoiding
from bisect_trt.passes.simplify.step import simplify_best
from bisect_trt.passes.steady import distrust
from bisect_trt.prober import BudgetSpent
from bisect_trt.problem import Problem
from bisect_trt.result import Reduction, Simplification
from bisect_trt.run import Run

INTERRUPTED = "interrupted"


def search(run: Run, problem: Problem) -> str:
    """Run the passes; an interrupt or the budget ends them early and is told in the answer."""
    run.one_minimal = False
    try:
        for one_pass in run.menu:
            problem.phase = one_pass.__name__.replace("_", " ")
            _timed(run, problem, one_pass)
        run.one_minimal = run.menu is MENU and is_one_minimal(problem)
        spent = problem.counts
        run.spent |= {"search_probes": spent.probes, "search_nodes_built": spent.nodes_built}
    except KeyboardInterrupt:
        return INTERRUPTED
    except BudgetSpent as over:
        return over.message
    finally:
        run.prober.close()
    return ""


def _timed(run: Run, problem: Problem, one_pass: Any) -> None:
    """Run one pass and note what it did."""
    began, probes, nodes = time.monotonic(), problem.counts.probes, problem.nodes_left
    one_pass(problem)
    run.phases.append(
        {
            "name": problem.phase,
            "probes": problem.counts.probes - probes,
            "nodes_before": nodes,
            "nodes_after": problem.nodes_left,
            "seconds": round(time.monotonic() - began, 3),
        }
    )


def simplified(run: Run, problem: Problem, stop_reason: str) -> Simplification | None:
    """Make the best candidate simple, unless the search did not end or an error accumulates.

    Raises:
        StoppedEarly: with `anonymise`, the search did not end.
        Leak: with `anonymise`, values of the original are needed.
    """
    if stop_reason and run.settings.run.anonymise:
        raise StoppedEarly(f"{stop_reason}: nothing was anonymised", "the same command goes on from here")
    simplified = None
    # simple values would add up to less
    if not stop_reason and not (problem.hybrid and problem.hybrid.accumulated):
        simplified = simplify_best(problem, run.pool, run.settings, run.recording.record)
    if run.settings.run.anonymise:
        require_synthetic(problem, simplified, run.out.name)
    return simplified


def what_it_hangs_on(run: Run, problem: Problem) -> list[str]:
    """What a failure hangs on that no node is to blame for, as far as the budget allows to ask."""
    problem.phase = "causes"
    try:
        return causes(problem)
    except (KeyboardInterrupt, BudgetSpent):
        return []
    finally:
        run.prober.close()


def passing(run: Run, problem: Problem) -> Neighbour | None:
    """A neighbour that passes, unless the budget or a person ends the look for it."""
    problem.phase = "neighbour"
    try:
        return nearest_passing(problem)
    except (KeyboardInterrupt, BudgetSpent):
        return None
    finally:
        run.prober.close()


def avoided(problem: Problem) -> list[str]:
    """Options of the target that avoid the failure, unless a person ends the look for them."""
    try:
        return avoiding(problem)
    except KeyboardInterrupt:
        return []


def unsteady(run: Run, problem: Problem, found: Candidate, result: Reduction) -> bool:
    """Whether fresh runs differ although the failure was taken for a steady one; measures it then.

    One node cannot get smaller, and a search that was ended stays so.
    """
    flaky = 0 < result.verified < result.repeats and problem.runs == 1
    if not flaky or len(result.best.nodes) == 1 or not result.finished:
        return False
    # As it was cut, before it was simplified; the user's own file is none of our cuts.
    problem.best = found if found.cut in set(CutStyle) else None
    distrust(problem)
    return problem.runs > 1
