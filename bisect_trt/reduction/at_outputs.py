"""Judging accuracy at the outputs of the whole model, and what is to be compared by itself at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from bisect_trt.accuracy.tolerance import ALONE, LOST
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.cutting.continuation import Rests
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom, Verdict, judge
from bisect_trt.settings import AccuracySettings
from bisect_trt.writing.text import counted, some_names

SHARE = 0.01
"""Part of the whole model's damage (see `diff.TensorDiff.damage`) that a part of it has to do.

Everything beyond the user's tolerance counts; this keeps out what crosses it by noise alone while
something else does the damage.
"""


OTHERS = 3  # parts that fail besides, which are named
few_names = partial(some_names, most=3)


class Contribution(Struct, frozen=True):
    """What some nodes do to the model's outputs when only they run on the target; RMS error over RMS."""

    nodes: tuple[str, ...]
    error: float


class Passage(Struct, frozen=True):
    """What a node makes of an error that reaches it: errors before and behind it, RMS error over RMS."""

    node: str
    op: str
    before: float
    behind: float


class Culprit(Struct, frozen=True):
    """A part that fails at its own outputs, fed with recorded values.

    Attributes:
        nodes: names.
        op: their operators.
        effect: what it does to the model's output, see `diff.TensorDiff.damage`; None: it was not tried, or
            is not what makes that output differ.
        rounding: whether it was looked at, and rounding explains it.
    """

    nodes: tuple[str, ...]
    op: str
    effect: float | None = None
    rounding: bool = False

    def __str__(self) -> str:
        """Name its nodes and operators."""
        return f"{few_names(self.nodes)} ({self.op})"


class Hybrid(Struct, frozen=True):
    """How it is decided whether a candidate shows a failure of stage compare.

    Attributes:
        rests: continues candidates to the outputs of the model.
        output: of the model, whose failure is wanted.
        damage: of the whole model there.
        own_accuracy: how a part is compared by itself: at the tolerance that the user has for `output`.
        stand_in: the failure as the smallest part shows it when it is compared by itself.
        by_itself: whether a candidate has to fail by itself, too, as a reproducer does that is handed over.
        source: the smallest set of nodes whose error makes the model's outputs differ.
        way: what becomes of that error on its way to the outputs, see `Passage`.
        accumulated: contributions, the largest first, when no part of the model fails by itself.
        together: the fewest nodes with the largest contributions that fail when they run on the target.
        wrong: those of them that fail by themselves beyond what rounding explains, of those looked at.
        culprits: parts that fail by themselves, where they were looked for: first the one that was chosen,
            then the others by their own errors.
    """

    rests: Rests
    output: str
    damage: float
    own_accuracy: AccuracySettings
    stand_in: Failure | None = None
    by_itself: bool = False
    source: tuple[str, ...] = ()
    way: tuple[Passage, ...] = ()
    accumulated: tuple[Contribution, ...] = ()
    together: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    culprits: tuple[Culprit, ...] = ()

    def judge(self, outcome: Outcome, wanted: Failure) -> Verdict:
        """Return the verdict of an outcome on the wanted failure, if it shows enough of it."""
        if self.stand_in is not None and judge(outcome, self.stand_in) is Verdict.REPRODUCES:
            return Verdict.REPRODUCES
        verdict = judge(outcome, wanted)
        done = outcome.measured.damage.get(self.output, 0.0)
        if verdict is Verdict.REPRODUCES and done < SHARE * self.damage:
            return Verdict.VANISHES
        if verdict is Verdict.REPRODUCES and self.by_itself and not self.fails_alone(outcome):
            return Verdict.VANISHES
        return verdict

    def own(self, outcome: Outcome) -> list[Mapping[str, Any]]:
        """Return the metrics of a candidate's own outputs at the user's tolerance, the worst first."""
        known = outcome.measured.own
        return list(known.get(self.output, known.get("", ())))

    def fails_alone(self, outcome: Outcome) -> bool:
        """Return whether a candidate's own outputs disagree at the user's tolerance."""
        return any(not diff["ok"] for diff in self.own(outcome))

    def words(self, wanted: Failure) -> Failure:
        """Return the failure as written files show it: by themselves."""
        lost = wanted.symptom is Symptom.NOT_FINITE
        return self.stand_in or replace(wanted, signature=LOST if lost else ALONE)

    def written(self, accuracy: AccuracySettings, best: Candidate) -> AccuracySettings:
        """Say how the outputs of written files are compared; the whole model has the user's own outputs."""
        return replace(accuracy, judge="local") if best.form is Form.ORIGINAL else self.own_accuracy

    def notes(self) -> list[str]:
        """Return sentences for the report."""
        found = []
        if self.accumulated:
            first, most = self.accumulated[0], len(self.accumulated)
            found.append(
                f"No single part of the model makes {self.output} disagree: the error accumulates. Of "
                f"{most} parts run by themselves the largest contribution is {first.error:.3g} (RMS "
                f"error over RMS of {self.output}), by {few_names(first.nodes)}. The fewest of the largest "
                f"that fail together on the target: {few_names(self.together)}."
            )
        if self.wrong:
            found.append(
                f"No single part of the model makes {self.output} disagree: errors add up, and the fewest of "
                f"the largest that fail together are {few_names(self.together)}. What is written is "
                f"{few_names(self.source)}, which adds most of those that rounding does not explain: "
                f"{few_names(self.wrong)}."
            )
        if len(self.culprits) > 1:
            found.append(_besides(self.output, self.culprits[0], self.culprits[1:]))
        return found


def _besides(output: str, chosen: Culprit, others: Sequence[Culprit]) -> str:
    """Return a sentence on what fails by itself besides, and on which of all does most."""
    one = len(others) == 1
    named = some_names([str(other) for other in others], OTHERS)
    verb = "fails by itself" if one else "fail by themselves"
    text = f"{counted(len(others), 'other part')} of the model {verb}, too: {named}. "
    larger = max(others, key=lambda other: other.effect or 0.0)
    most, less = larger.effect or 0.0, chosen.effect or 0.0
    if most > less:
        text += f"{larger} does more to {output} ({most:.2g}, not {less:.2g}), but by rounding"
    else:
        text += f"{chosen} does most to {output} of those that were tried"
    return f"{text}. --all reduces each different failure, scan ranks all tensors."


def facts(accuracy: AccuracySettings, hybrid: Hybrid | None, whole: Outcome) -> dict[str, Any]:
    """Return what is known of the differences, for the report: plain JSON data, empty for other failures.

    `tensors` are metrics of the whole model's outputs, the worst first, with the tolerances used.
    """
    if not whole.measured.compared:
        return {}
    found: dict[str, Any] = {
        "judge": accuracy.judge,
        "metric": accuracy.metric,
        "ignored": list(accuracy.ignore),
        "tensors": list(whole.measured.tensors),
        "samples": list(whole.measured.failing_samples),
    }
    if hybrid is not None:
        found |= {"output": hybrid.output, "source": list(hybrid.source)}
        found["together"] = list(hybrid.together)
        for name in ("way", "accumulated", "culprits"):
            found[name] = [asdict(part) for part in getattr(hybrid, name)]
    return found


def output_of(failure: Failure, outcome: Outcome) -> str:
    """Return the output of the model that a failure of stage compare is about."""
    names = (str(diff["name"]) for diff in outcome.measured.tensors)
    return next((name for name in names if failure.signature.startswith(f"output {name} ")), "")


def in_own_words(failure: Failure, outcome: Outcome) -> Failure | None:
    """Return the failure of stage compare that a part shows by itself: the same symptom, else wrong numbers.

    A probe that ended while numbers were compared, or held against rounding, is another failure.
    """
    numbers = (failure.symptom, Symptom.NOT_FINITE, Symptom.MISMATCH)
    shown = [f for f in outcome.failures if f.stage is Stage.COMPARE and f.symptom in numbers]
    return min(shown, key=lambda f: numbers.index(f.symptom), default=None)
