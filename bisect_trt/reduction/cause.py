"""What has to stay of a mismatch while a model is simplified, besides its signature."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from bisect_trt.outcome import Outcome, Symptom

TIMES = 10.0
"""How many times larger or smaller an error may become while a model is simplified."""


class Cause(Struct, frozen=True):
    """Why a candidate fails, as far as its values show: a simpler one has to fail for the same reason.

    Attributes:
        kinds: what the target gives and the reference does not (`NaN`, `Inf`), how it may arise (`overflow`,
            `zero divisor`, `outside the domain`); empty for a mismatch.
        explained: whether rounding explains the mismatch; None: it is not known, or there is none.
        size: how far the worst element is off, relative to itself and its tensor; 1 where it is more.
    """

    kinds: frozenset[str] = frozenset()
    explained: bool | None = None
    size: float = 0.0

    @classmethod
    def of(cls, outcome: Outcome) -> Cause:
        """Return what an outcome shows."""
        measured = outcome.measured
        bad = [diff for diff in measured.tensors if not diff["ok"]]
        if any(diff["symptom"] == Symptom.NOT_FINITE for diff in bad):
            counts = (("NaN", "nans"), ("Inf", "infs"))
            shown = {name for name, key in counts if any(_more(diff[key]) for diff in bad)}
            return cls(frozenset(shown.union(measured.origin)))
        sizes = [float(diff["agrees_at"]) for diff in bad]
        return cls(frozenset(), measured.rounding.get("explained"), min(1.0, max(sizes, default=0.0)))

    def stays(self, outcome: Outcome) -> bool:
        """Return whether an outcome has the same cause: kind, class and order of magnitude of the failure."""
        now = Cause.of(outcome)
        if self.kinds or now.kinds:
            return self.kinds == now.kinds
        if now.explained is not self.explained:
            return False
        return self.size / TIMES <= now.size <= self.size * TIMES


def _more(pair: Sequence[int]) -> bool:
    return pair[1] > pair[0]
