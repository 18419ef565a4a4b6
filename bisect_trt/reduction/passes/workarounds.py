"""Ways around the failure, for whoever cannot wait until it is fixed: options of the target, other cuts.

Only what was tried is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from msgspec import Struct

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Stage, Symptom, Verdict
from bisect_trt.reduction.decisions import Trial, decide
from bisect_trt.reduction.passes.neighbour import Neighbour
from bisect_trt.reduction.problem import Problem
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.knobs import US, Knob, switched
from bisect_trt.targets.registry import knobs_of

LONGEST_PROBE = 30.0
"""Seconds; a candidate that takes longer is not tried with other options."""


class Avoided(Struct, frozen=True):
    """Options that avoid a failure.

    Attributes:
        sentences: on each decision of the builder with which the failure is gone.
        targets: the target with each of these.
    """

    sentences: tuple[str, ...] = ()
    targets: tuple[TargetSettings, ...] = ()


def avoiding(problem: Problem) -> Avoided:
    """Find decisions of the builder with which the best candidate does not fail.

    A parser heeds none of them. Raises BudgetSpent.
    """
    best, wanted, target = problem.best, problem.wanted, problem.prober.oracle.target
    if best is None or wanted is None or wanted.stage is Stage.PARSE or wanted.symptom is Symptom.HANG:
        return Avoided()
    known = problem.outcomes.get(best.digest)
    if known and known.seconds > LONGEST_PROBE:
        return Avoided()
    trial = Trial(problem.prober, best, problem.judge, problem.runs)
    found = decide(knobs_of(target), trial, thorough=False)
    helping = [knobs for knobs in (found.helps, found.also) if knobs]
    return Avoided(tuple(map(sentence, helping)), tuple(switched(target, knobs) for knobs in helping))


def sentence(knobs: Sequence[Knob]) -> str:
    """Return what decisions avoid the failure, and how bisect-trt itself is asked for them."""
    ways = [knob.paste[US] for knob in knobs if US in knob.paste]
    how = f" ({', '.join(ways)})" if len(ways) == len(knobs) else ""
    return f"Seen: {' and '.join(knob.told for knob in knobs)} it does not fail{how}."


_WHY = {
    Form.UNFROZEN: "giving the shape-like inputs of these nodes as constants avoids it",
    Form.DYNAMIC: "fixing the dynamic dimensions of the inputs of these nodes avoids it",
}


def workarounds(
    problem: Problem, found: Candidate, neighbour: Neighbour | None, avoided: list[str]
) -> tuple[str, ...]:
    """Return sentences; `found` is the reduced model as it was cut, before it was simplified.

    `avoided` are those on options of the target.
    """
    sentences = list(avoided)
    if found.form.is_cut and found.form is not Form.DEFAULT:
        plain = problem.cut(found.nodes)
        if problem.peek(plain) is Verdict.VANISHES:
            sentences.append(_by_cutting(found, plain))
    if neighbour is not None:
        sentences.append(f"The reduced model {neighbour.difference} does not fail (it is passing.onnx).")
    return tuple(text for text in sentences if text)


def _by_cutting(found: Candidate, plain: Candidate) -> str:
    style = found.form
    if style in _WHY:
        return f"Seen: {_WHY[style]}."
    hidden = set(_outputs(plain)) - set(_outputs(found))
    names = ", ".join(sorted(hidden)[:4])
    return f"Seen: making {names} an output of the network as well hides the failure." if names else ""


def _outputs(candidate: Candidate) -> list[str]:
    return [output.name for output in onnx.load_model_from_string(candidate.model).graph.output]
