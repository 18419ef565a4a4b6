"""The axes of a plot: where a value stands, and which round figures are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct

_SMALLEST = 1e-300  # a logarithm of less is no number


class Axis(Struct, frozen=True):
    """What an axis shows: from `low` to `high`, which may be the smaller one, evenly or in powers of ten.

    With `whole` its figures are whole numbers only.
    """

    low: float
    high: float
    label: str
    log: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands: 0 at `low` and 1 at `high`.

        What lies outside stands at the nearer end.
        """
        low, high, value = (_power(v) if self.log else v for v in (self.low, self.high, value))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self, most: int) -> list[float]:
        """Return about so many round numbers between both ends, in rising order."""
        low, high = sorted((self.low, self.high))
        if not self.log:
            step = step_of((high - low) / most, whole=self.whole)
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            return [k * step for k in range(first, last + 1)]
        first, last = math.ceil(_power(low) - 1e-9), math.floor(_power(high) + 1e-9)
        if last - first <= 2 and most >= 6:
            fine = [k * 10.0**p for p in range(first - 1, last + 1) for k in (1, 2, 5)]
            return [v for v in fine if low * 0.999 <= v <= high * 1.001]
        return [10.0**p for p in range(first, last + 1, max(1, -(-(last - first) // most)))]


def around(
    values: Iterable[float], label: str, *, log: bool = False, zero: bool = False, whole: bool = False
) -> Axis:
    """Return an axis on which all finite values have a place, those above zero where it is logarithmic.

    With `zero` it begins there. Where there is no value at all it still is an axis.
    """
    shown = [float(v) for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(shown), max(shown)) if shown else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        first = math.floor(_power(low) + 1e-9)
        last = max(first + 1, math.ceil(_power(high) - 1e-9))
        return Axis(10.0**first, 10.0**last, label, log, whole)
    low = min(0.0, low) if zero else low
    if low == high:
        low, high = (low, low + 1) if zero else (low - abs(low or 1) / 2, high + abs(high or 1) / 2)
    step = step_of((high - low) / 5, whole=whole)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Axis(low, max(high, low + step), label, log, whole)


def step_of(least: float, *, whole: bool = False) -> float:
    """Return the smallest of 1, 2, 5, 10, ... times a power of ten that is at least so large."""
    base = 10.0 ** math.floor(math.log10(max(least, _SMALLEST)))
    step = next(k * base for k in (1, 2, 5, 10) if k * base >= least * (1 - 1e-9))
    return max(1.0, step) if whole else step


def number(value: float) -> str:
    """Write a figure as it stands on an axis: `1,000`, `0.25`, `1e-7`."""
    if abs(value) < 1e6 and abs(value - round(value)) < 1e-9 * max(1.0, abs(value)):
        return f"{round(value):,}"
    mantissa, _, power = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(power)}" if power else mantissa


def _power(value: float) -> float:
    return math.log10(max(value, _SMALLEST))
