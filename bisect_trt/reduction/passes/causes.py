"""When no node is to blame: vary the form of the model, and name what the failure depends on."""

from __future__ import annotations

import onnx
from msgspec.structs import replace

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.store import shape_of
from bisect_trt.model.summary import type_text
from bisect_trt.model.variants import frame, frames, variants
from bisect_trt.outcome import Stage, Verdict
from bisect_trt.reduction.problem import Problem

FEW_NODES = 3  # nodes that are left of a model when none of them is to blame
LONGEST_MESSAGE = 200  # characters of a message in a sentence


def causes(problem: Problem) -> list[str]:
    """Return sentences on what removes a failure that needs one form of the model; empty if unknown.

    Where the search ended with the user's own file, or with a part that needs dynamic dimensions or types
    that are not declared, the form of the model is varied. All other results are typed and fed plainly,
    and their nodes are to blame, unless their inputs and versions fail without them.
    """
    best = problem.best
    if problem.rerecord is None or best is None or best.rest is not None:
        return []
    if best.form in (Form.ORIGINAL, Form.DYNAMIC, Form.UNTYPED):
        return _forms(problem, best)
    return _frames(problem, best)


def _forms(problem: Problem, best: Candidate) -> list[str]:
    """Return what of the form of a model its failure depends on."""
    found, otherwise = [_profile(problem, best)], list[str]()
    proto = onnx.load_model_from_string(best.model)
    for variant in variants(proto, _fed(best)):
        made = replace(best, content=variant.model.SerializeToString(), form=Form.VARIANT, expected=())
        # Dynamic dimensions come with all that was found already, and a converter declares what was missing.
        if any(found) and (variant.cause == "dynamic dimensions" or not variant.same_meaning):
            continue
        if problem.verdict(made) is Verdict.VANISHES:
            found.append(_sentence(variant.cause, variant.change))
        elif variant.same_meaning and (other := _other_failure(problem, made)):
            otherwise.append(f"With {variant.change} it fails in another way instead: {other}")
    return [text for text in found if text] or otherwise[:1]


def _frames(problem: Problem, best: Candidate) -> list[str]:
    """Return what else than its nodes a small part fails for; asked when the target does not name a node."""
    wanted = problem.wanted
    if wanted is None or wanted.nodes or wanted.stage is Stage.COMPARE or len(best.nodes) > FEW_NODES:
        return []
    plain = frame(onnx.load_model_from_string(best.model))
    if plain is None or problem.verdict(_with(best, plain)) is not Verdict.REPRODUCES:
        return []
    for variant in frames(plain):
        if problem.verdict(_with(best, variant.model)) is Verdict.VANISHES:
            return [_sentence(variant.cause, variant.change)]
    kinds = ", ".join(f"{value.name} ({type_text(value.type)})" for value in plain.graph.input)
    return [f"No node is to blame: a model that only hands on its inputs fails so as well: {kinds}."]


def _with(best: Candidate, proto: onnx.ModelProto) -> Candidate:
    """Return the candidate with another model of the same inputs, or of some of them."""
    names = {value.name for value in proto.graph.input}
    feeds = tuple({name: path for name, path in sample.items() if name in names} for sample in best.feeds)
    nodes = tuple(node.name for node in proto.graph.node)
    made = replace(best, content=proto.SerializeToString(), form=Form.VARIANT)
    return replace(made, nodes=nodes, feeds=feeds, expected=(), bytes=0)


def _other_failure(problem: Problem, made: Candidate) -> str:
    """Return what a candidate shows that does not show the wanted failure."""
    outcome = problem.prober.peek(made)
    if outcome is None or not outcome.failures or problem.judge(outcome) is Verdict.REPRODUCES:
        return ""
    return " ".join(outcome.failures[0].message.split())[:LONGEST_MESSAGE]


def _profile(problem: Problem, best: Candidate) -> str:
    """Say whether a profile that takes only the sizes that were fed removes it."""
    target = problem.prober.oracle.target
    if not (target.min_shapes or target.max_shapes):
        return ""
    narrow = replace(target, min_shapes=(), max_shapes=(), opt_shapes=())
    if problem.judge(problem.prober.observe(best, target=narrow)) is not Verdict.VANISHES:
        return ""
    return _sentence("the optimisation profile", "a profile of nothing but the sizes that were fed")


def _fed(best: Candidate) -> dict[str, tuple[int, ...]]:
    sample = {**(best.expected[0] if best.expected else {}), **(best.feeds[0] if best.feeds else {})}
    return {name: shape_of(path) for name, path in sample.items()}


def _sentence(cause: str, change: str) -> str:
    return f"No node is to blame but {cause}: with {change} the failure is gone."
