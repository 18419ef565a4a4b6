"""The simplification as one step of a reduction: its budget, its table, and the values at the end.

Everything but the nodes, made simple: one menu of passes, run until nothing changes.

The simplest of everything in one probe: most failures of parsers and builders survive it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import onnx

from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.editing.attributes import option_inputs
from bisect_trt.model.editing.draft import SIMPLIFIED, Draft, close_draft, open_draft
from bisect_trt.model.editing.inference import Invalid
from bisect_trt.model.graph import dims_of
from bisect_trt.model.store import Store
from bisect_trt.model.walk import inner_nodes, scopes
from bisect_trt.outcome import Failure, Stage
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.attributes import simple_attributes
from bisect_trt.reduction.simplify.boundary import fewer_inputs, fewer_outputs, fewer_samples
from bisect_trt.reduction.simplify.bypass import bypass, without_nodes
from bisect_trt.reduction.simplify.dimensions import all_halved, all_ones, smaller_dimensions
from bisect_trt.reduction.simplify.names import plain, plain_names
from bisect_trt.reduction.simplify.propose import Edit, OutOfBudget, attempt, tally, together
from bisect_trt.reduction.simplify.types import lower_opset, lowest_opset, narrower_types
from bisect_trt.reduction.simplify.values import (
    all_inputs,
    all_texts,
    all_weights,
    generators,
    simple_inputs,
    simple_texts,
    simple_weights,
    sparse_values,
)
from bisect_trt.references.base import Record
from bisect_trt.results import OnEvent, Simplification, Simplifying, Step
from bisect_trt.session.prober import BudgetSpent
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


MENU = (
    plain_names,
    fewer_outputs,
    fewer_samples,
    simple_weights,
    simple_inputs,
    simple_texts,
    smaller_dimensions,
    bypass,
    without_nodes,
    fewer_inputs,
    simple_attributes,
    narrower_types,
    lower_opset,
    sparse_values,
    generators,
)
"""Names first: they cost one probe, and whatever comes later is worth less while a secret is in it."""

BUDGET = "budget"
"""`Simplifying.ended` when its budget was used up."""

ROUNDS = 8
SHOWN = 3  # edits of a pass that its event names


def simplify(problem: Problem) -> None:
    """Run the menu on the best candidate until a whole round changes nothing or the budget is spent.

    The failure has to stay what it is in the words in which it is told of the best candidate.
    """
    best, wanted = problem.best, problem.wanted
    if best is None or wanted is None:
        return
    state, also_seen = problem.simplifying, dict(problem.also_seen)
    on_event, hybrid = problem.on_event, problem.hybrid
    problem.wanted, problem.hybrid = problem.shown_by(best), None
    problem.on_event = lambda step: on_event(replace(step, accepted=False))
    try:
        if not _shortcut(problem, on_event) and not _open(problem):
            state.ended = "the failure vanishes as soon as the model is written anew"
            return
        for _ in range(ROUNDS):
            before = problem.best
            for one_pass in MENU:
                problem.phase = one_pass.__name__.replace("_", " ")
                won = len(tally(problem).won)
                one_pass(problem)
                _tell(problem, on_event, tally(problem).won[won:])
            if problem.best is before:
                return
        state.ended = f"{ROUNDS} rounds"
    except OutOfBudget:
        state.ended = BUDGET
        if state.synthetic:
            _replace_what_is_secret(problem)
    finally:
        problem.phase = "simplify"
        problem.on_event, problem.hybrid = on_event, hybrid
        problem.wanted, problem.also_seen = wanted, also_seen  # odd models have failures of their own


def _replace_what_is_secret(problem: Problem) -> None:
    """No budget ends this: nothing may be shared before it is done."""
    problem.simplifying.until = math.inf
    for one_pass in (plain_names, simple_weights, simple_inputs, simple_texts, simple_attributes):
        problem.phase = one_pass.__name__.replace("_", " ")
        one_pass(problem)


def _tell(problem: Problem, on_event: OnEvent, won: list[str]) -> None:
    """One event for what a pass won."""
    if won:
        c = problem.counts
        text = "; ".join(won[:SHOWN]) + (f" and {len(won) - SHOWN} more" if len(won) > SHOWN else "")
        spent = (c.probes, c.cached, c.unresolved, c.target_seconds)
        on_event(Step(problem.phase, text, problem.nodes_left, *spent, accepted=True))


def _open(problem: Problem) -> bool:
    """Make the best candidate one that can be edited: without types of interior tensors, else with them.

    Weights of bodies are edited like all others, unless the failure needs them where they are.
    """
    problem.phase = "write anew"
    assert problem.best is not None
    within = any(part.initializer for part in list(scopes(open_draft(problem.best, hoisted=False).graph))[1:])
    places = (True, False) if within else (True,)
    for hoisted, strict, typed, empty in product(places, (True, False), (False, True), (False, True)):
        draft = open_draft(problem.best, hoisted=hoisted)
        draft.typed, draft.strict, draft.empty = typed, strict, empty
        draft.confirm, draft.parse_only = problem.simplifying.confirm, _is_of_the_parser(problem)
        try:
            candidate = close_draft(draft)
        except Invalid:
            continue
        if problem.attempt(candidate) and problem.best is candidate:
            problem.simplifying.draft = (candidate.digest, draft)
            return True
    return False


def _is_of_the_parser(problem: Problem) -> bool:
    return problem.wanted is not None and problem.wanted.stage is Stage.PARSE


def _shortcut(problem: Problem, on_event: OnEvent) -> bool:
    """Begin with everything at once: then even writing the model anew needs no probe of its own."""
    assert problem.best is not None
    problem.phase = "all at once"
    draft = open_draft(problem.best)
    draft.typed, draft.confirm = False, problem.simplifying.confirm
    draft.parse_only = _is_of_the_parser(problem)
    problem.simplifying.draft = (problem.best.digest, draft)
    if all_at_once(problem):
        _tell(problem, on_event, tally(problem).won)
        return True
    problem.simplifying.draft = None
    return False


def all_at_once(problem: Problem) -> bool:
    """Plain names, zeros, sizes of 1 and the lowest operator set together, else less of it.

    Values that are all the same hardly ever show a mismatch, so there they stay.
    """
    names = plain(problem.simplifying.profiled)
    values = (names, _plain_values)
    ways: tuple[tuple[Edit, ...], ...] = ((*values, all_ones, lowest_opset), (*values, all_ones), values)
    if problem.wanted is not None and problem.wanted.stage is Stage.COMPARE:
        ways = ((names, all_ones, lowest_opset), (names, all_halved, lowest_opset))
    return attempt(problem, (together(edits) for edits in ways))


def _plain_values(draft: Draft) -> str:
    """Zeros, but ones for scales and other options, of which few can be zero; no texts."""
    options = {name for node in inner_nodes(draft.graph) for name in option_inputs(node)}
    edits = (
        all_weights("zeros", but=options), all_weights("ones"), all_inputs("zeros"), all_texts(numbered=True)
    )  # fmt: skip
    return together(edits)(draft)
