"""The simplification as one step of a reduction: its budget, its table, and the values at the end."""

from __future__ import annotations

from dataclasses import replace

import onnx

from bisect_trt.graph import dims_of
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.edit import SIMPLIFIED
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure
from bisect_trt.passes.simplify import simplify
from bisect_trt.prober import BudgetSpent
from bisect_trt.problem import Problem
from bisect_trt.references.base import Record
from bisect_trt.result import Simplification, Simplifying
from bisect_trt.settings import Settings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

LEAST_BUDGET = 0.25
"""Target seconds that a simplification has by default, also where the search took less.

Below, what is kept would hang on how busy the machine is."""

INTERRUPTED = "interrupted"


def simplify_best(
    problem: Problem, pool: Pool, settings: Settings, recorded: Record
) -> Simplification | None:
    """Simplify the best candidate of a search that is done; None: it is not to be, or cannot be.

    An interrupt, or the budget of the whole run, ends it early; what was won so far is kept.
    """
    best, run = problem.best, settings.run
    if not run.simplify or best is None or best.cut == "original" or problem.rerecord is None:
        return None
    began, asked = problem.counts.asked_seconds, problem.counts.asked
    budget = max(LEAST_BUDGET, began) if run.simplify_budget is None else run.simplify_budget
    state = problem.simplifying = Simplifying(
        until=began + budget,
        confirm=not recorded.error,
        synthetic=run.anonymise,
        profiled=_profiled(settings, best),
        seed=run.seed,
    )
    stopped = ""
    try:
        simplify(problem)
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    except BudgetSpent as spent:
        stopped = spent.message
    finally:
        problem.prober.close()
    assert problem.best is not None
    if problem.best.cut == SIMPLIFIED:
        problem.outcomes[LAST] = problem.outcomes[problem.best.digest]
        problem.best = _with_expected(problem.best, pool, problem.prober.oracle.deadline)
    return Simplification(
        nodes=best.nodes,
        rows=tuple((name, row) for name, row in state.tallies.items() if row.tried),
        probes=problem.counts.asked - asked,
        seconds=problem.counts.asked_seconds - began,
        budget=budget,
        ended=stopped or state.ended,
        stopped=stopped,
        before=carried(best),
        after=carried(problem.best),
    )


LAST = "simplified"


def shown_at_last(problem: Problem) -> Failure:
    """The wanted failure as the target tells it of the simplified candidate, with its names."""
    assert problem.best is not None
    shown = problem.shown_by(problem.best)
    outcome = problem.outcomes.get(LAST)
    same = (f for f in outcome.failures if f.same_as(shown)) if outcome else iter(())
    return next(same, shown)


def carried(candidate: Candidate) -> int:
    """Bytes of a candidate with its weights and input values, as far as files tell."""
    values = {path for sample in candidate.feeds for path in sample.values()}
    return len(candidate.model) + candidate.bytes + sum(path.stat().st_size for path in values)


def _profiled(settings: Settings, best: Candidate) -> frozenset[str]:
    """Dynamic inputs that the settings give shapes for: a profile is found by name."""
    target = settings.target
    shapes = (target.shapes, target.min_shapes, target.opt_shapes, target.max_shapes)
    given = {name for some in shapes for name, _ in some}
    inputs = onnx.load_model_from_string(best.model).graph.input
    dims = {info.name: dims_of(info.type) or (None,) for info in inputs}
    return frozenset(n for n in given if any(not isinstance(d, int) for d in dims.get(n, ())))


def _with_expected(candidate: Candidate, pool: Pool, timeout: float) -> Candidate:
    """With what the reference gives for it, where it gives anything."""
    reply = pool.submit(jobs.reference_values, candidate, timeout=timeout).result()
    if reply.death is not None:
        return candidate
    store = Store(candidate.folder)
    expected: list[Feeds] = [
        {name: store.put(name, value) for name, value in sample.items()} for sample in reply.value
    ]
    return replace(candidate, expected=tuple(expected))
