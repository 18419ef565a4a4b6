"""Which option of the target avoids the failure: for whoever cannot wait until it is fixed.

What the search saw on its way that avoids the failure. Only what was tried is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.cutting.cutter import CutStyle
from bisect_trt.outcome import Stage, Symptom, Verdict
from bisect_trt.reduction.passes.neighbour import Neighbour
from bisect_trt.reduction.problem import Problem
from bisect_trt.settings import TargetSettings

LONGEST = 30.0
"""Seconds; a candidate that takes longer is not tried with other options."""

_LEVEL = 3  # what builders take where nobody says otherwise
_LEVELS = (2, 1, 0, 4, 5)  # the nearest ones first


def avoiding(problem: Problem) -> list[str]:
    """Sentences on options with which the best candidate does not fail; of levels the nearest that helps.

    Only builders of TensorRT have options that are ours to vary, and its parser heeds none of them.
    """
    best, wanted = problem.best, problem.wanted
    target = problem.prober.oracle.target
    if best is None or wanted is None or wanted.stage is Stage.PARSE or wanted.symptom is Symptom.HANG:
        return []
    known = problem.outcomes.get(best.digest)
    if target.spec not in ("tensorrt", "tensorrt-rtx") or (known and known.seconds > LONGEST):
        return []
    found: dict[str, str] = {}
    for kind, sentence, other in _others(target):
        if kind not in found and _vanishes(problem, other):
            found[kind] = sentence
    return list(found.values())


def _others(target: TargetSettings) -> Iterator[tuple[str, str, TargetSettings]]:
    """What is varied, what is to be told should it help, and the settings."""
    if target.tf32 is not False:
        yield "tf32", "Seen: without TF32 it does not fail (--no-tf32).", replace(target, tf32=False)
    if target.precision:
        told = f"Seen: without --precision {target.precision} it does not fail."
        yield "precision", told, replace(target, precision="")
    for level in _LEVELS:
        if level != (_LEVEL if target.opt_level is None else target.opt_level):
            told = f"Seen: at builder optimization level {level} it does not fail (--opt-level {level})."
            yield "level", told, replace(target, opt_level=level)


def _vanishes(problem: Problem, target: TargetSettings) -> bool:
    assert problem.best is not None
    best, ask = problem.best, problem.prober.observe
    outcomes = (ask(best, run, target=target) for run in range(problem.runs))
    return all(problem.judge(outcome) is Verdict.VANISHES for outcome in outcomes)


_WHY = {
    CutStyle.UNFROZEN: "giving the shape-like inputs of these nodes as constants avoids it",
    CutStyle.DYNAMIC: "fixing the dynamic dimensions of the inputs of these nodes avoids it",
}


def workarounds(
    problem: Problem, found: Candidate, neighbour: Neighbour | None, avoided: list[str]
) -> tuple[str, ...]:
    """Sentences; `found` is the reduced model as it was cut, before it was simplified.

    `avoided` are those on options of the target.
    """
    told = list(avoided)
    if found.form.is_cut and found.form is not Form.DEFAULT:
        plain = problem.cut(found.nodes)
        if problem.peek(plain) is Verdict.VANISHES:
            told.append(_by_cutting(found, plain))
    if neighbour is not None:
        told.append(f"The reduced model {neighbour.difference} does not fail (it is passing.onnx).")
    return tuple(text for text in told if text)


def _by_cutting(found: Candidate, plain: Candidate) -> str:
    style = CutStyle(found.form)
    if style in _WHY:
        return f"Seen: {_WHY[style]}."
    hidden = set(_outputs(plain)) - set(_outputs(found))
    names = ", ".join(sorted(hidden)[:4])
    return f"Seen: making {names} an output of the network as well hides the failure." if names else ""


def _outputs(candidate: Candidate) -> list[str]:
    return [output.name for output in onnx.load_model_from_string(candidate.model).graph.output]
