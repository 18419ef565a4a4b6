"""Which option of the target avoids the failure: for whoever cannot wait until it is fixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bisect_trt.outcome import Stage, Symptom, Verdict
from bisect_trt.problem import Problem
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
    oracle = problem.prober.oracle.on(target)
    outcomes = (oracle.observe(problem.best) for _ in range(problem.runs))
    return all(problem.judge(outcome) is Verdict.VANISHES for outcome in outcomes)
