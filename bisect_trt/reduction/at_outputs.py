"""Judging accuracy at the outputs of the whole model, and what is to be compared by itself at the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from bisect_trt.accuracy.tolerance import ALONE, LOST
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.continuation import Rests
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom, Verdict, judge
from bisect_trt.settings import AccuracySettings

SHARE = 0.01
"""Part of the whole model's damage (see `diff.TensorDiff.damage`) that a part of it has to do.

Everything beyond the user's tolerance counts; this keeps out what crosses it by noise alone while
something else does the damage.
"""


@dataclass(frozen=True)
class Contribution:
    """What some nodes do to the model's outputs when only they run on the target; RMS error over RMS."""

    nodes: tuple[str, ...]
    error: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {"nodes": list(self.nodes), "error": self.error}


@dataclass
class Hybrid:
    """How a failure of stage compare is judged.

    Attributes:
        rests: continues candidates to the outputs of the model.
        output: of the model, whose failure is wanted.
        damage: of the whole model there.
        stand_in: the failure as the smallest part shows it when it is compared by itself.
        alone: how that is compared.
        accumulated: contributions, the largest first, when no part of the model fails by itself.
        together: the fewest nodes with the largest contributions that fail when they run on the target.
    """

    rests: Rests
    output: str
    damage: float
    stand_in: Failure | None = None
    alone: AccuracySettings = field(default_factory=AccuracySettings)
    accumulated: tuple[Contribution, ...] = ()
    together: tuple[str, ...] = ()

    def judge(self, outcome: Outcome, wanted: Failure) -> Verdict:
        """Whether an outcome shows the wanted failure, and enough of it."""
        if self.stand_in is not None and judge(outcome, self.stand_in) is Verdict.REPRODUCES:
            return Verdict.REPRODUCES
        verdict = judge(outcome, wanted)
        done = outcome.facts.get("damage", {}).get(self.output, 0.0)
        if verdict is Verdict.REPRODUCES and done < SHARE * self.damage:
            return Verdict.VANISHES
        return verdict

    def words(self, wanted: Failure) -> Failure:
        """The failure as written files show it: by themselves."""
        lost = wanted.symptom is Symptom.NOT_FINITE
        return self.stand_in or replace(wanted, signature=LOST if lost else ALONE)

    def written(self, accuracy: AccuracySettings, best: Candidate) -> AccuracySettings:
        """How the outputs of written files are compared; the whole model has the user's own outputs."""
        return replace(accuracy, judge="local") if best.cut == "original" else self.alone

    def notes(self) -> list[str]:
        """Sentences for the report."""
        found = []
        if self.accumulated:
            first, most = self.accumulated[0], len(self.accumulated)
            found.append(
                "No single part of the model fails by itself: the error accumulates, no node is to blame. Of "
                f"{most} parts run by themselves the largest contribution is {first.error:.3g} (RMS "
                f"error over RMS of {self.output}), by {_names(first.nodes)}. The fewest of the largest "
                f"that fail together on the target: {_names(self.together)}."
            )
        if self.alone.alone is not None:
            found.append(
                f"By itself the part that is written is compared with rtol {self.alone.alone:.3g}, half of "
                "what it would agree at: what it does is small there, and grows on the way to the outputs."
            )
        return found


def facts(accuracy: AccuracySettings, hybrid: Hybrid | None, whole: Outcome) -> dict[str, Any]:
    """What is known of the differences, for the report: plain JSON data, empty for other failures.

    `tensors` are metrics of the whole model's outputs, the worst first, with the tolerances used.
    """
    if "tensors" not in whole.facts:
        return {}
    found: dict[str, Any] = {
        "judge": accuracy.judge,
        "metric": accuracy.metric,
        "ignored": list(accuracy.ignore),
        "tensors": whole.facts["tensors"],
        "samples": whole.facts["failing_samples"],
    }
    if hybrid is not None:
        found |= {"output": hybrid.output, "alone_rtol": hybrid.alone.alone}
        found["accumulated"] = [part.to_json() for part in hybrid.accumulated]
        found["together"] = list(hybrid.together)
    return found


def _names(nodes: tuple[str, ...]) -> str:
    return ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")


def output_of(failure: Failure, outcome: Outcome) -> str:
    """The output of the model that a failure of stage compare is about."""
    for diff in outcome.facts.get("tensors", ()):
        if failure.signature.startswith(f"output {diff['name']} "):
            return str(diff["name"])
    return ""


def only_for(accuracy: AccuracySettings, output: str) -> AccuracySettings:
    """The user's tolerance of one output for all that is compared: for a part that ends in it."""

    def value(given: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
        known = dict(given)
        found = known.get(output, known.get(""))
        return () if found is None else (("", found),)

    return replace(accuracy, judge="local", rtol=value(accuracy.rtol), atol=value(accuracy.atol))


def compared_alone(accuracy: AccuracySettings, own: list[dict[str, Any]]) -> AccuracySettings:
    """How a part is compared by itself so that what it does still shows.

    `own` are the metrics of its own outputs with default tolerances, as in `Outcome.facts`. When these show
    nothing, half of the tolerance at which it would agree is taken.
    """
    plain = replace(accuracy, rtol=(), atol=(), metric="max", ignore=(), topk=(), judge="outputs")
    if not own or not all(diff["ok"] for diff in own):
        return plain
    return replace(plain, alone=max(float(diff["agrees_at"]) for diff in own) / 2)


def in_own_words(failure: Failure, outcome: Outcome) -> Failure | None:
    """The failure of stage compare that a part shows by itself, if it has the same symptom."""
    shown = [f for f in outcome.failures if f.stage is Stage.COMPARE]
    same = [f for f in shown if f.symptom is failure.symptom]
    worse = [f for f in shown if f.symptom is Symptom.NOT_FINITE]
    return next(iter((*same, *worse, *shown)), None)
