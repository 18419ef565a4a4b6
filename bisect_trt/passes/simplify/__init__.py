"""Everything but the nodes, made simple: one menu of passes, run until nothing changes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

from bisect_trt.model.edit import close_draft, open_draft
from bisect_trt.model.edit_bodies import scopes
from bisect_trt.model.edit_infer import Invalid
from bisect_trt.outcome import Stage
from bisect_trt.passes.simplify.at_once import all_at_once
from bisect_trt.passes.simplify.attributes import simple_attributes
from bisect_trt.passes.simplify.boundary import fewer_inputs, fewer_outputs, fewer_samples
from bisect_trt.passes.simplify.bypass import bypass, without_nodes
from bisect_trt.passes.simplify.dimensions import smaller_dimensions
from bisect_trt.passes.simplify.names import plain_names
from bisect_trt.passes.simplify.propose import OutOfBudget, tally
from bisect_trt.passes.simplify.texts import simple_texts
from bisect_trt.passes.simplify.types import lower_opset, narrower_types
from bisect_trt.passes.simplify.values import generators, simple_inputs, simple_weights, sparse_values
from bisect_trt.problem import Problem
from bisect_trt.result import OnEvent, Step

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
