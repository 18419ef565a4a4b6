"""What a failure is: a fault of the target, or rounding that the model makes large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from bisect_trt.accuracy.amplifiers import LARGE, Amplifier, amplifier
from bisect_trt.accuracy.arithmetic import Arithmetic, arithmetic_of
from bisect_trt.outcome import Outcome, Stage, Symptom
from bisect_trt.reduction.at_outputs import few_names
from bisect_trt.reduction.problem import Problem
from bisect_trt.references.spec import SELF
from bisect_trt.results import Finding, Judgement
from bisect_trt.settings import AccuracySettings
from bisect_trt.writing.text import counted

_ENDED = (Symptom.CRASH, Symptom.HANG, Symptom.OUT_OF_MEMORY)


def find_out(problem: Problem, accuracy: AccuracySettings) -> Judgement:
    """Find out whether what is left of the model is wrong on the target, or only rounded.

    What is no mismatch is wrong: an overflow or a NaN is never rounding. `accuracy` is how the user's own
    file is compared, for a failure that is the whole model's.
    """
    best, wanted = problem.best, problem.wanted
    if best is None or wanted is None or wanted.stage is not Stage.COMPARE or accuracy.reference == SELF:
        return Judgement(Finding.WRONG)  # a target that contradicts itself is at fault, too
    if problem.hybrid is None or problem.hybrid.stand_in is None:
        problem.prober.compare(accuracy, by_itself=True)
    bare = replace(best, rest=None)
    seen = next((o for o in problem.observations(bare, problem.runs) if o.failures), Outcome())
    rounding: Mapping[str, Any] = seen.measured.rounding
    hybrid = problem.hybrid
    source = hybrid.source if hybrid is not None else ()
    if any(f.symptom is Symptom.NOT_FINITE for f in seen.failures):
        return _lost(arithmetic_of(problem.prober.oracle.target), seen.measured.origin, best.nodes)
    if wanted.symptom is Symptom.MISMATCH and any(f.symptom in _ENDED for f in seen.failures):
        return not_told("the probe ended while it was held against rounding", source=source)
    if any(f.symptom is not Symptom.MISMATCH for f in seen.failures):
        return Judgement(Finding.WRONG, source=source)
    if not rounding:
        return not_told("it does not show when the reduced model runs by itself", source=source)
    steps = [amplifier(s["node"], s["op"], s["before"], s["behind"]) for s in rounding.get("steps", ())]
    if hybrid is not None:  # what the target itself was seen to do, where that is more
        steps += [amplifier(p.node, p.op, p.before, p.behind) for p in hybrid.way if p.node in best.nodes]
    worst = max(steps, key=lambda step: step.growth, default=None)
    return judgement_of(rounding, worst if worst and worst.growth >= LARGE else None, source)


def not_told(why: str, name: str = "", source: tuple[str, ...] = ()) -> Judgement:
    """Nobody is accused: outputs differ, and what rounding explains of it is not known."""
    sentence = f"Whether this is a fault or rounding is not told: {why}."
    return Judgement(Finding.NOT_TOLD, name, source=source, told=(sentence,))


def _lost(arithmetic: Arithmetic, origin: Sequence[str], nodes: tuple[str, ...]) -> Judgement:
    """NaN or Inf where the reference has none: how it may arise, from the values of the reference."""
    name, sentences = arithmetic.name, []
    if "overflow" in origin:
        most = f"{arithmetic.largest:.6g}"
        limit = f"{most}, the largest of {name}"
        if not arithmetic.narrow:  # a tensor that the model itself has in FP16 overflows long before
            limit = f"what their type holds ({most} in {name}, 65504 where the model says FP16)"
        sentences.append(f"Overflow: the reference computes numbers here beyond {limit}.")
    if "zero divisor" in origin:
        least = f"{2 * arithmetic.tiny:.2g}"
        sentences.append(
            "Underflow: what is divided by, or what a root or logarithm is taken of, is 0 here or below "
            f"{least}, the smallest number of {name}."
        )
    if "outside the domain" in origin:
        sentences.append("Outside the domain: a root or a logarithm of a number below zero.")
    advice = (_kept(few_names(nodes)),) if sentences and arithmetic.narrow else ()
    return Judgement(Finding.WRONG, name, source=nodes, told=tuple(sentences), advice=advice)


def of_the_export(found: Judgement) -> Judgement:
    """Say of the export what was said of the target, where that one is on trial."""
    sentences = (one.replace("The target is wrong", "The export is wrong", 1) for one in found.told)
    return replace(found, told=tuple(sentences))


def _size(figures: Mapping[str, Any], name: str) -> str:
    """Say how far the worst element is off, and what rounding may do to it."""
    if not figures:
        return "a difference"
    tensor, bound = figures["tensor"], figures["bound"]
    if isinstance(figures["reference"], bool | int):
        may = "which rounding may do" if bound else "which no rounding does"
        return f"{tensor} is {figures['target']}, not {figures['reference']}, {may} in {name}"
    return f"an error of {figures['error']:.3g} in {tensor}, where rounding in {name} explains {bound:.3g}"


def judgement_of(rounding: Mapping[str, Any], worst: Amplifier | None, source: tuple[str, ...]) -> Judgement:
    """Return the judgement in words and figures."""
    name, explained = str(rounding["arithmetic"]), bool(rounding.get("explained", False))
    figures = rounding.get("worst") or {}
    if "unknown" in rounding:
        return not_told(str(rounding["unknown"]), name, source)
    error, bound = figures.get("error"), figures.get("bound")
    size = _size(figures, name)
    runs = counted(int(rounding["runs"]), "run")
    if not explained:
        sentence = f"The target is wrong: {size} (probabilistic bound, {runs} with rounding errors put in)."
        if beyond := tuple(rounding.get("beyond", ())):
            gives = "gives" if len(beyond) == 1 else "give"
            sentence = f"The target is wrong: {few_names(beyond)} {gives} what no rounding in {name} makes of"
            sentence += f" its inputs ({size}, {runs} with rounding errors put in)."
            source = source or beyond
        if rounding.get("overflows"):
            nodes = few_names(rounding["overflows"])
            sentence = f"Overflow: {nodes} has values that {name} cannot hold."
        return Judgement(Finding.WRONG, name, error, bound, source, worst, (sentence,))
    if rounding.get("step_by_step"):
        size = f"a difference, although each step by itself is within what rounding in {name} explains"
    found = f"{size} (probabilistic bound, {runs} with rounding errors put in at every step)"
    sentences = [f"Rounding in {name} explains the difference, and no node is at fault: {found}."]
    if worst:
        sentences = [
            f"The model is ill-conditioned here, and no node is at fault: {found}.",
            f"Amplifier: {worst.node} ({worst.op}) is {worst.why}; the relative error grows from "
            f"{_span(worst)}.",
        ]
    if source and worst and source != (worst.node,):
        sentences.insert(1, f"Source: {few_names(source)}, whose own error is too small to count.")
    advice = _advice(name, float(rounding["roundoff"]), worst, source)
    return Judgement(Finding.SENSITIVE, name, error, bound, source, worst, tuple(sentences), advice)


def _advice(name: str, roundoff: float, worst: Amplifier | None, source: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    if name == "TF32":
        found.append("Forbid TF32 (--no-tf32): FP32 rounds 8192 times finer.")
    elif name != "FP32":
        kept = dict.fromkeys((*source[:3], *([worst.node] if worst else [])))
        what = few_names(tuple(kept)) if kept else "what is left here"
        found.append(f"{_kept(what)} A single rounding of {name} is {roundoff:.2g}.")
    if worst:
        advice = worst.advice
        found.append(f"{advice[:1].upper()}{advice[1:]}.")
    else:
        found.append(f"Allow for it: a tolerance below {roundoff:.2g} asks for more than {name} can give.")
    return tuple(found)


def _kept(what: str) -> str:
    """Say what has to stay in FP32; a node by itself seldom helps, as what it reads is rounded before."""
    more = "bisect-trt precision finds the smallest set that helps, and proves it"
    return f"Keep {what} in FP32, with as much of what leads there as is needed: {more}."


def _span(worst: Amplifier) -> str:
    return f"{worst.before:.2g} to {worst.behind:.2g}"
