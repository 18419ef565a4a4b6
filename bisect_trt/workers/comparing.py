"""What a target gave for a candidate, held against what it should be."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.accuracy.boxes import sorted_along
from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences, failures, only_for, precision_rtol
from bisect_trt.model.candidate import Candidate, Form, state_of
from bisect_trt.model.inputs import formats
from bisect_trt.model.load import read_without_weights
from bisect_trt.model.operators import unordered_outputs
from bisect_trt.outcome import Failure, Measured, Symptom, Values
from bisect_trt.references import self_check
from bisect_trt.references.spec import SELF
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.workers import continue_rest, reference

GIVEN, RIGHT = "target.npz", "reference.npz"  # files of the values of both sides, of the first sample
HASHED = 1 << 24  # bytes of outputs that go nowhere: to hash more takes longer than may be gained
SHOWN_TENSORS = 8  # tensors whose metrics are kept with an outcome, the worst first

Compared = tuple[tuple[Failure, ...], str, Measured]
"""Failures, why nothing can be said, and what was measured."""


class Comparison(Struct, frozen=True, dict=True):
    """How the outputs of one candidate are compared.

    Attributes:
        settings: of the target, whose precision says how far off it may be at least.
        candidate: what ran.
        accuracy: tolerances, and what is right.
        run: runs another candidate on the target.
        explain: a mismatch is held against what rounding explains.
    """

    settings: TargetSettings
    candidate: Candidate
    accuracy: AccuracySettings
    run: Callable[[Candidate], Values | None]
    explain: bool

    def compare(self, outputs: Values, known: Values, save: Path | None) -> Compared:
        """Return failures, why nothing can be said (if so), and what was measured.

        Args:
            outputs: what the target gave, one mapping a sample.
            known: what the reference gave on the spot; empty where it was not asked.
            save: folder that gets the values of both sides.
        """
        key = None if save or known else self._key(outputs)
        if key is None:
            return self._compared(outputs, known, save)
        if not _last or _last[0][0] != key:  # equal bytes are found sooner than their hash
            _last[:] = [(key, self._compared(outputs, known, save))]
        return _last[0][1]

    def _key(self, outputs: Values) -> Any:
        """Return what the answer follows from; None where it hangs on more, or that is too much to look at.

        Repeats and other options of the target most often give the same outputs, which are compared once.
        """
        candidate, rest = self.candidate, self.candidate.rest
        if self.accuracy.reference == SELF or self.explain or not all(candidate.expected or [{}]):
            return None
        if rest and rest.inner:
            return None  # it is asked once
        values = [value for sample in outputs for value in sample.values()]
        size = sum(value.nbytes for value in values)
        if any(value.dtype.hasobject for value in values) or (rest is None and size > HASHED):
            return None
        sides = (candidate.expected, rest.feeds, rest.expected) if rest else (candidate.expected,)
        files = sorted({path for side in sides for sample in side for path in sample.values()})
        files += [candidate.content] if isinstance(candidate.content, Path) else []
        try:
            states = tuple((path, state_of(path)) for path in files)
        except OSError:  # a value that is only promised
            return None
        return candidate, states, self.accuracy, self._least, _hash(outputs)

    def _compared(self, outputs: Values, known: Values, save: Path | None) -> Compared:
        itself = self.accuracy.reference == SELF
        expected, unresolved = (known, "") if known or itself else reference.expected(self.candidate)
        unresolved = unresolved or ("" if itself else _not_compared(expected, outputs))
        if save is not None:
            formats.write_samples(save / GIVEN, outputs)
            if self.candidate.form is not Form.WRITTEN:  # what that should give lies beside it
                formats.write_samples(save / RIGHT, expected)
        measured = Measured()
        if itself:
            diffs = self._by_itself(outputs)
        elif self.candidate.rest is None or unresolved:
            expected, given = self._in_one_order(expected, outputs)
            diffs = self._differences(expected, given)
            if self.explain:
                measured = self._explained(expected, given, diffs)
        else:
            if not self.candidate.rest.inner:
                measured = Measured(own=self._own(*self._in_one_order(expected, outputs)))
            right, actual, unresolved = continue_rest.finish(self.candidate, expected, outputs)
            diffs = self._differences(*self._in_one_order(right, actual))
        found = failures(diffs, by_name=self.candidate.rest is not None)
        return found, "" if found else unresolved, _metrics(diffs, measured)

    @property
    def _least(self) -> float:
        return precision_rtol(self.settings)

    @cached_property
    def _unordered(self) -> Mapping[str, int]:
        """Outputs whose order along an axis means nothing."""
        return unordered_outputs(read_without_weights(self.candidate.content))

    def _differences(self, expected: Values, given: Values) -> list[TensorDiff]:
        rough = self.candidate.form is Form.SEGMENTS  # many nodes side by side: which of them are wrong?
        rest = self.candidate.rest
        full = 1 if rough or (rest and rest.inner) else SHOWN_TENSORS
        return differences(expected, given, self.accuracy, self._least, full=full, rough=rough)

    def _in_one_order(self, expected: Values, given: Values) -> tuple[Values, Values]:
        """Bring outputs without an order (TopK with sorted=0) into one on both sides: they are sets."""
        axes = self._unordered
        if not axes:
            return expected, given
        return [sorted_along(one, axes) for one in expected], [sorted_along(one, axes) for one in given]

    def _own(self, expected: Values, given: Values) -> dict[str, list[dict[str, Any]]]:
        """Return candidate's own outputs at the tolerance of each output of the model; "" is that of most."""
        found: dict[str, list[dict[str, Any]]] = {}
        for name in sorted({"", *(name for name, _ in (*self.accuracy.rtol, *self.accuracy.atol))}):
            tolerance = only_for(self.accuracy, name)
            diffs = differences(expected, given, tolerance, self._least, full=SHOWN_TENSORS)
            found[name] = [diff.to_json() for diff in diffs[:SHOWN_TENSORS]]
        return found

    def _by_itself(self, first: Values) -> list[TensorDiff]:
        """Return what is wrong with the target's outputs when there is nothing to compare them with."""
        candidate = self.candidate
        again = self.run(candidate)
        feeds = continue_rest.load(candidate, candidate.feeds)
        found = self_check.inspect(feeds, first, again or first, self.accuracy, self._least)
        if not found or all(diff.difference == self_check.UNSTEADY for diff in found):
            return found
        # What a plain run on the CPU does as well is the meaning of the model: Acos of 2, rows of an EyeLike.
        usual, _ = reference.values(candidate)
        meant = {
            (d.name, d.sample, d.difference)
            for d in (self_check.inspect(feeds, usual, usual, self.accuracy, self._least) if usual else ())
        }
        return [diff for diff in found if (diff.name, diff.sample, diff.difference) not in meant]

    def _explained(self, expected: Values, given: Values, diffs: Sequence[TensorDiff]) -> Measured:
        """Return what explains a disagreement: whether it is rounding, and where a NaN comes from."""
        from bisect_trt.workers import rounding

        symptom = diffs[0].symptom if diffs else None
        if symptom is Symptom.NOT_FINITE:
            return Measured(origin=tuple(rounding.origin(self.settings, self.candidate)))
        if symptom is not Symptom.MISMATCH:
            return Measured()
        found = rounding.explain(
            self.settings, self.candidate, self.accuracy, self._least, expected, given, self.run
        )
        return Measured(rounding=found)


_last: list[tuple[Any, Compared]] = []
"""The last answer, behind what it follows from: `Comparison._key`."""


def _hash(given: Values) -> str:
    h = blake3()
    for sample in given:
        for name, value in sample.items():
            h.update(f"{name} {value.dtype.num} {value.shape}".encode())
            h.update(value.tobytes())
    return h.hexdigest()


def _metrics(diffs: Sequence[TensorDiff], known: Measured) -> Measured:
    """Return what is known so far, with the metrics of these differences."""
    if not diffs:
        return known
    damage: dict[str, float] = {}
    errors: dict[str, float] = {}
    told = [diff for diff in diffs if not diff.rough]
    for diff in told:
        error = diff.rms_error if math.isfinite(diff.rms_error) else sys.float_info.max
        errors[diff.name] = max(error, errors.get(diff.name, 0.0))
        if not diff.ok:
            damage[diff.name] = max(diff.damage, damage.get(diff.name, 0.0))
    return replace(
        known,
        compared=len(diffs),
        tensors=tuple(diff.to_json() for diff in told[:SHOWN_TENSORS]),
        errors=dict(sorted(errors.items())),
        damage=dict(sorted(damage.items())),
        failing_samples=tuple(sorted({diff.sample for diff in diffs if not diff.ok})),
    )


def _not_compared(expected: Values, outputs: Values) -> str:
    """Say why the outcome says nothing about some output, if so."""
    if len(expected) < len(outputs):
        return "the reference has values for fewer samples than the target"
    for values, given in zip(expected, outputs, strict=False):
        for name in given:
            if name not in values:
                return f"the reference has no value for the output {name}"
    return ""
