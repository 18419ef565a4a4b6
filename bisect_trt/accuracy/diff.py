"""What comparing two tensors gives."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from bisect_trt.outcome import Symptom


class Element(Struct, frozen=True):
    """One element that does not agree; `error` is |target - reference|, infinite where one is no number."""

    index: tuple[int, ...]
    reference: float | int | bool | str
    target: float | int | bool | str
    error: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data; what is not finite as text."""
        values = {"reference": self.reference, "target": self.target, "error": self.error}
        return {"index": list(self.index), **{k: _plain(v) for k, v in values.items()}}


class TensorDiff(Struct, frozen=True):
    """How the target's tensor differs from the reference's.

    Attributes:
        name: of the tensor.
        ok: whether all elements agree, and shape and kind of type do.
        elements: of the reference.
        mismatches: elements that do not agree.
        first_mismatch: index of the first one, in C order.
        finite: elements of floats that are finite on both sides: max_abs, max_rel, rms_error and cosine are
            of these, and say nothing where there is none; of integers max_abs and max_rel alone are known.
        max_abs: largest absolute difference where both are finite.
        max_rel: largest difference over |reference|, where both are finite and that is not 0.
        rms_error: RMS of the difference over RMS of the reference, where both are finite.
        cosine: of the angle between both, where both are finite; 1.0 if both are 0.
        nans, infs: (reference, target).
        rtol, atol: that were used.
        difference: of shape or type, in words.
        agrees_at: the rtol from which on all elements agree, with the atol that follows from it; infinite
            where none is enough.
        metric: that decided.
        worst: the elements that are furthest from agreeing, the worst first.
        sample: run of the model that it comes from.
        symptom: NOT_FINITE when the target is not finite somewhere where the reference is, MISMATCH
            for anything else; None when ok.
        brief: whether max_rel, cosine, agrees_at and worst were left out.
        rough: whether it agrees by far, and all figures were left out.
    """

    name: str
    ok: bool
    elements: int = 0
    mismatches: int = 0
    first_mismatch: tuple[int, ...] | None = None
    max_abs: float = 0.0
    max_rel: float = 0.0
    rms_error: float = 0.0
    cosine: float = 1.0
    nans: tuple[int, int] = (0, 0)
    infs: tuple[int, int] = (0, 0)
    rtol: float = 0.0
    atol: float = 0.0
    difference: str = ""
    agrees_at: float = 0.0
    metric: str = "max"
    worst: tuple[Element, ...] = ()
    sample: int = 0
    symptom: Symptom | None = None
    finite: int = 0
    brief: bool = False
    rough: bool = False

    @property
    def damage(self) -> float:
        """How bad it is: RMS error over RMS, or the part of the elements that do not agree if it is more."""
        if self.ok:
            return 0.0
        part = self.mismatches / max(1, self.elements)
        return max(part, self.rms_error if math.isfinite(self.rms_error) else 1.0) or 1.0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data that survive a round trip.

        Infinite and undefined figures are texts.
        """
        kept = {k: v for k, v in asdict(self).items() if k not in ("brief", "rough")}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}
        plain |= {k: _plain(v) for k, v in plain.items() if isinstance(v, float)}
        worst = [element.to_json() for element in self.worst]
        return {**plain, "worst": worst, "symptom": self.symptom.value if self.symptom else None}

    def describe(self) -> str:
        """Describe it in one line for people."""
        if self.ok:
            return f"{self.name} agrees (largest difference {self.max_abs:.3g})"
        if self.mismatches == 0:
            return f"{self.name}: {self.difference}"
        words = [f"{self.mismatches} of {self.elements} elements differ"]
        if self.worst:
            worst = self.worst[0]
            words.insert(0, f"{list(worst.index)} is {worst.target}, not {worst.reference}")
        words += [figures] if (figures := self.figures()) else []
        counts = (("NaN", self.nans), ("Inf", self.infs))
        words += [f"{kind} {before} -> {after}" for kind, (before, after) in counts if before or after]
        return f"{self.name}: {'; '.join([*words, *([self.difference] if self.difference else [])])}"

    def figures(self) -> str:
        """Say how far apart both are, as far as that was computed: not of NaN and Inf, texts and bools."""
        if self.brief:
            return f"max abs {self.max_abs:.3g}, RMS error / RMS {self.rms_error:.3g}" if self.finite else ""
        known = f"max abs {self.max_abs:.3g}, max rel {self.max_rel:.3g}"
        if self.finite:
            return f"{known}, RMS error / RMS {self.rms_error:.3g}, cosine {self.cosine:.6f}"
        return known if self.max_abs else ""


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
