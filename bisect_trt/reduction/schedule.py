"""Steps of a reduction that ask the target: the passes, and what comes after the smallest set is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bisect_trt.errors import ClusterLost, StoppedEarly
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.cutter import CutStyle
from bisect_trt.reduction.context import Run
from bisect_trt.reduction.passes.bodies import enter_bodies
from bisect_trt.reduction.passes.causes import causes
from bisect_trt.reduction.passes.drop import drop, is_one_minimal, recut
from bisect_trt.reduction.passes.flaky import LOOKS, always, distrust, steady
from bisect_trt.reduction.passes.localise import follow_hints, localise
from bisect_trt.reduction.passes.neighbour import nearest_passing
from bisect_trt.reduction.passes.outputs import accumulate
from bisect_trt.reduction.passes.standing import stand_alone
from bisect_trt.reduction.passes.tactics import by_tactic
from bisect_trt.reduction.passes.workarounds import avoiding
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.run import simplify_best
from bisect_trt.reduction.simplify.secrecy import require_synthetic
from bisect_trt.results import Reduction, Simplification
from bisect_trt.session.prober import GO_ON, BudgetSpent

INTERRUPTED = "interrupted"

Pass = Callable[[Problem], None]


@dataclass(frozen=True)
class Schedule:
    """The passes of a search in the order in which they run.

    `proves_minimal`: the last ones try every single node without, so that what is left is 1-minimal.
    """

    passes: tuple[Pass, ...]
    proves_minimal: bool


def as_it_is(problem: Problem) -> None:
    """All nodes, in the first way of cutting in which they fail by themselves."""
    for style in (CutStyle.DEFAULT, CutStyle.DYNAMIC, CutStyle.UNFROZEN, CutStyle.HIDDEN):
        if problem.attempt(problem.cut(problem.scope, style)):
            return


SEARCH = Schedule(
    (
        follow_hints,  # nodes that the target names: one probe often ends the search
        localise,  # halves, until nothing smaller fails
        steady,  # where nothing smaller failed: does the failure come and go?
        accumulate,  # where no range fails by itself: the fewest nodes that fail together
        drop,  # each node without; this proves 1-minimality
        recut,  # other ways of cutting the same nodes
        stand_alone,  # judged at its own outputs, as the written files are; grows where it has to
        enter_bodies,  # nodes of an If, Loop or Scan in place of it
    ),
    proves_minimal=True,
)
"""What `reduce` does."""

AS_IT_IS = Schedule((as_it_is,), proves_minimal=False)
"""What `simplify` does: no look for fewer nodes."""


def search(run: Run, problem: Problem, schedule: Schedule) -> str:
    """Run the passes; what ends them early (an interrupt, the budget, no cluster) is told in the answer."""
    run.one_minimal = False
    try:
        for one_pass in schedule.passes:
            problem.phase = one_pass.__name__.replace("_", " ")
            _timed(run, problem, one_pass)
        run.one_minimal = schedule.proves_minimal and is_one_minimal(problem)
        spent = problem.counts
        run.spent |= {"search_probes": spent.probes, "search_nodes_built": spent.nodes_built}
    except KeyboardInterrupt:
        return INTERRUPTED
    except BudgetSpent as over:
        return over.message
    except ClusterLost as lost:
        run.reachable = False
        return lost.message
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


def refine(run: Run, problem: Problem, stop_reason: str) -> tuple[Simplification | None, str]:
    """What comes after the smallest set is known, unless the search did not end, and what ended it early.

    What a failure hangs on that no node is to blame for, simple values, a neighbour that passes, options of
    the target that avoid the failure. An error that accumulates keeps its values: simple ones would add up
    to less.

    Raises:
        StoppedEarly: with `anonymise`, it did not end.
        Leak: with `anonymise`, values of the original are needed.
    """
    run.causes, run.neighbour, run.avoided, simple = [], None, [], None
    smallest = problem.best
    try:
        if not stop_reason:
            problem.phase = "causes"
            run.causes = causes(problem)
            if not (problem.hybrid and problem.hybrid.accumulated):
                simple = simplify_best(problem, run.pool, run.settings, run.recording.record)
                stop_reason = simple.stopped if simple else ""
        if not stop_reason:
            problem.phase = "neighbour"
            run.neighbour = nearest_passing(problem)
            run.causes += by_tactic(problem)
            run.avoided = avoiding(problem)
    except KeyboardInterrupt:
        stop_reason = INTERRUPTED
    except BudgetSpent as over:
        stop_reason = over.message
    except ClusterLost as lost:
        run.reachable, stop_reason = False, lost.message
        problem.best, simple = smallest, None  # what it was half simplified to was not looked at again
    finally:
        run.prober.close()
    if run.settings.run.anonymise and stop_reason:
        raise StoppedEarly(f"{stop_reason}: nothing was anonymised", GO_ON)
    if run.settings.run.anonymise:
        require_synthetic(problem, simple, run.out.name)
    return simple, stop_reason


def unsteady(run: Run, problem: Problem, found: Candidate, result: Reduction) -> bool:
    """Whether fresh runs differ although the failure was taken for a steady one; measures it then.

    One node that shows it at all cannot get smaller, and a search that was ended stays so. What only fresh
    processes never show is no failure that comes and goes.

    Raises:
        FlakyFailure: what was found shows too seldom.
    """
    shown, size = result.verified, len(result.best.nodes)
    if shown == result.repeats or problem.runs > 1 or not result.finished or (shown and size == 1):
        return False
    # As it was cut, before it was simplified; the user's own file is none of our cuts.
    problem.best = found if found.cut in set(CutStyle) else None
    if not shown and (problem.best is None or always(problem, problem.best, LOOKS)):
        problem.best = result.best
        return False
    if problem.hybrid is not None and problem.best is not None and not problem.inside:  # at the outputs again
        run.prober.compare(run.settings.accuracy)
        problem.hybrid = run.hybrid(problem.wanted)
        problem.best = problem.cut(found.nodes, CutStyle(found.cut))
    distrust(problem)
    return problem.runs > 1
