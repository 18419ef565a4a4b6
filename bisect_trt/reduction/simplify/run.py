"""The simplification as one step of a reduction: its budget, its table, and the values at the end.

Everything but the nodes, made simple: one menu of passes, run until nothing changes.

The simplest of everything in one probe: most failures of parsers and builders survive it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import onnx
from msgspec.structs import replace

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.editing.attributes import option_inputs
from bisect_trt.model.editing.draft import Draft, Shapes, close_draft, open_draft
from bisect_trt.model.editing.inference import Invalid
from bisect_trt.model.graph import dims_of
from bisect_trt.model.store import Store
from bisect_trt.model.walk import inner_nodes, scopes
from bisect_trt.outcome import Ended, Failure, Stage, Verdict
from bisect_trt.reduction.cause import Cause
from bisect_trt.reduction.menu import SECRET, SIMPLIFY, Pass
from bisect_trt.reduction.problem import Problem, end_of
from bisect_trt.reduction.simplify.dimensions import all_halved, all_ones, may_leap
from bisect_trt.reduction.simplify.names import plain
from bisect_trt.reduction.simplify.propose import Edit, OutOfBudget, attempt, tally, together, verdict_of
from bisect_trt.reduction.simplify.types import lowest_opset
from bisect_trt.reduction.simplify.values import all_inputs, all_texts, all_weights
from bisect_trt.reduction.state import Simplifying
from bisect_trt.references.base import Record
from bisect_trt.results import Simplification
from bisect_trt.settings import Settings
from bisect_trt.workers import jobs, reference
from bisect_trt.workers.pool import Pool

LEAST_BUDGET = 0.25
"""Target seconds that a simplification has by default, also where the search took less.

Below, what is kept would depend on how busy the machine is."""

LEAST_ASKED = 40
"""Questions that it may ask by default, however long they take, where a probe is not dear.

Most simplifications end of themselves before, so the same command gives the same bytes on a busy machine: of
about 240 real ones 20 were ended by their seconds there, most of these after fewer than 16 probes."""

MOST_WHERE_DEAR = 10.0
"""Target seconds that it has at most on TensorRT, looks at what is not kept among them.

Most of a search is the first build there, and each new shape has its tactics measured."""


def simplify_best(
    problem: Problem, pool: Pool, settings: Settings, recorded: Record
) -> Simplification | None:
    """Simplify what a search found; None: it cannot or must not be. What is won by an early end is kept."""
    best, run = problem.best, settings.run
    if not run.simplify or best is None or best.form is Form.ORIGINAL or problem.rerecord is None:
        return None
    began, asked = problem.counts.asked_seconds, problem.counts.asked
    budget, least = _allowed(settings, began)
    state = Simplifying(
        until=began + budget,
        until_asked=asked + least,
        budget=budget,
        confirm=not recorded.error,
        synthetic=run.anonymise,
        profiled=_profiled(settings, best),
        seed=run.seed,
        once=_is_dear(settings) and not run.anonymise,
        beside=not _is_dear(settings),
        shapes=None if recorded.error else _shapes(pool, problem.prober.oracle.deadline),
    )
    problem.simplify_by(state)
    end = end_of(problem.prober, lambda: simplify(problem))
    if end.how is Ended.CLUSTER_LOST:
        return Simplification(nodes=best.nodes, end=end)
    if problem.smallest.form is Form.SIMPLIFIED:
        seen = problem.outcomes[problem.smallest.digest]
        problem.keep(_with_expected(problem.smallest, pool, problem.prober.oracle.deadline), seen)
    return Simplification(
        nodes=best.nodes,
        rows=tuple((name, row) for name, row in state.tallies.items() if row.tried),
        probes=problem.counts.asked - asked,
        seconds=problem.counts.asked_seconds - began,
        budget=budget,
        end=end if end.is_early else state.end,
        before=carried(best),
        after=carried(problem.smallest),
        sizes=tuple(state.sizes.values()),
    )


def _allowed(settings: Settings, searched: float) -> tuple[float, int]:
    """Return the target seconds that it may take, and how many questions it has in any case."""
    if settings.run.simplify_budget is not None:
        return settings.run.simplify_budget, 0
    seconds = max(LEAST_BUDGET, searched)
    return (min(seconds, MOST_WHERE_DEAR), 0) if _is_dear(settings) else (seconds, LEAST_ASKED)


def _is_dear(settings: Settings) -> bool:
    """Return whether a probe takes seconds, as TensorRT measures tactics."""
    return jobs.warm_job(settings.target) is not None


def shown_at_last(problem: Problem) -> Failure:
    """Return the wanted failure as the target words it for the simplified candidate."""
    shown = problem.shown_by(problem.smallest)
    outcome = problem.outcomes.get(problem.smallest.digest)
    same = (f for f in outcome.failures if f.same_as(shown)) if outcome else iter(())
    return next(same, shown)


def carried(candidate: Candidate) -> int:
    """Return the bytes of a candidate with its weights and input values, as far as files show."""
    values = {path for sample in candidate.feeds for path in sample.values()}
    return len(candidate.model) + candidate.bytes + sum(path.stat().st_size for path in values)


def _shapes(pool: Pool, timeout: float) -> Shapes:
    """Return a function that asks a worker which shapes tensors have in a run of the reference."""

    def ask(candidate: Candidate, names: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
        reply = pool.submit(reference.shapes, candidate, list(names), timeout=timeout).result()
        return {} if reply.death else dict(reply.value)

    return ask


def _profiled(settings: Settings, best: Candidate) -> frozenset[str]:
    """Return the dynamic inputs that the settings give shapes for: a profile is found by name."""
    target = settings.target
    shapes = (target.shapes, target.min_shapes, target.opt_shapes, target.max_shapes)
    given = {name for some in shapes for name, _ in some}
    inputs = onnx.load_model_from_string(best.model).graph.input
    dims = {info.name: dims_of(info.type) or (None,) for info in inputs}
    return frozenset(n for n in given if any(not isinstance(d, int) for d in dims.get(n, ())))


def _with_expected(candidate: Candidate, pool: Pool, timeout: float) -> Candidate:
    """Add the values that the reference gives for it, where it gives any."""
    reply = pool.submit(reference.values, candidate, timeout=timeout).result()
    if reply.death is not None:
        return candidate
    store, (values, _) = Store(candidate.folder), reply.value
    files = ({name: store.put(name, value) for name, value in sample.items()} for sample in values)
    return replace(candidate, expected=tuple(files))


VANISHES_ANEW = "the failure vanishes as soon as the model is written anew"
ROUNDS = 8
SHOWN_EDITS = 3  # edits of a pass that its event names


def simplify(problem: Problem) -> None:
    """Run the menu on the best candidate until a whole round changes nothing or the budget is spent."""
    rules, best = problem.simplifying, problem.smallest
    with problem.edited():
        if problem.failure.stage is Stage.COMPARE:
            rules.keep_cause(Cause.of(problem.observe(best)))
        try:
            if not _shortcut(problem) and not _open(problem):
                rules.end_early(Ended.NOT_EDITABLE, VANISHES_ANEW)
            else:
                _rounds(problem)
        except OutOfBudget:
            rules.end_early(Ended.SPENT, "budget")
            if rules.synthetic:
                rules.go_on_without_limit()  # nothing may be shared before this is done
                _run(problem, SECRET)
        finally:
            rules.keep_cause(None)
            problem.begin("simplify")


def _rounds(problem: Problem) -> None:
    for _ in range(ROUNDS):
        before = problem.best
        _run(problem, SIMPLIFY, tell=True)
        if problem.best is before:
            return
    problem.simplifying.end_early(Ended.ROUNDS, f"{ROUNDS} rounds")


def _run(problem: Problem, passes: Sequence[Pass], *, tell: bool = False) -> None:
    for one_pass in passes:
        problem.begin(one_pass.name)
        won = len(tally(problem).won)
        one_pass.run(problem)
        if tell:
            _tell(problem, tally(problem).won[won:])


def _tell(problem: Problem, won: list[str]) -> None:
    """Report in one event what a pass won."""
    if won:
        more = f" and {len(won) - SHOWN_EDITS} more" if len(won) > SHOWN_EDITS else ""
        problem.tell("; ".join(won[:SHOWN_EDITS]) + more, accepted=True)


def _open(problem: Problem) -> bool:
    """Make the best candidate one that can be edited: without types of interior tensors, else with them.

    Weights of bodies are edited like all others, unless the failure needs them where they are. Where it needs
    a declared shape that inference cannot derive, each edited candidate declares what the reference shows.
    """
    problem.begin("write anew")
    best = problem.smallest
    within = any(part.initializer for part in list(scopes(open_draft(best, hoisted=False).graph))[1:])
    places = (True, False) if within else (True,)
    given = dict.fromkeys((None, problem.simplifying.shapes))
    ways = product(given, places, (True, False), (False, True), (False, True))
    for shapes, hoisted, strict, typed, empty in ways:
        draft = open_draft(best, hoisted=hoisted)
        draft.shapes = shapes
        draft.typed, draft.strict, draft.empty = typed, strict, empty
        draft.confirm, draft.parse_only = problem.simplifying.confirm, problem.failure.stage is Stage.PARSE
        try:
            candidate = close_draft(draft)
        except Invalid:
            continue
        if problem.attempt(candidate) and problem.best is candidate:
            problem.simplifying.hold(candidate, draft)
            return True
    return False


def _shortcut(problem: Problem) -> bool:
    """Begin with everything at once: then even writing the model anew needs no probe of its own."""
    problem.begin("all at once")
    draft = open_draft(problem.smallest)
    draft.typed, draft.confirm = False, problem.simplifying.confirm
    draft.parse_only = problem.failure.stage is Stage.PARSE
    problem.simplifying.hold(problem.smallest, draft)
    if all_at_once(problem):
        _tell(problem, tally(problem).won)
        return True
    problem.simplifying.forget()
    return False


def all_at_once(problem: Problem) -> bool:
    """Try plain names, zeros, sizes of 1 and the lowest operator set together, else less of it.

    Values that are all the same hardly ever show a mismatch, so there they stay.
    """
    names = partial(plain, problem.simplifying.profiled)
    values = (names, _plain_values)
    ways: tuple[tuple[Edit, ...], ...] = ((*values, all_ones, lowest_opset), (*values, all_ones), values)
    if problem.failure.stage is Stage.COMPARE:
        ways = ((names, all_ones, lowest_opset), (names, all_halved, lowest_opset))
    if verdict_of(problem, partial(together, ways[0])) is Verdict.REPRODUCES and not may_leap(problem):
        ways = tuple(edits for edits in ways if all_ones not in edits)
    return attempt(problem, (partial(together, edits) for edits in ways))


def _plain_values(draft: Draft) -> str:
    """Make all zeros, but ones for scales and other options, of which few can be zero; leave out texts."""
    options = {name for node in inner_nodes(draft.graph) for name in option_inputs(node)}
    edits = (
        partial(all_weights, "zeros", options), partial(all_weights, "ones", ()),
        partial(all_inputs, "zeros", ()), partial(all_texts, True),
    )  # fmt: skip
    return together(edits, draft)
