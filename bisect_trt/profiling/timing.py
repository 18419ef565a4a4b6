"""Statistics of run times: median with its interval, percentiles, and whether there are enough runs.

The interval of the median makes no assumption on how times are distributed: its ends are order statistics,
whose ranks follow from the binomial distribution (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed.,
Wiley 2003, section 7.1; for times of programs: T. Hoefler, R. Belli, Scientific Benchmarking of Parallel
Computing Systems, SC 2015). One looks again and again until it is narrow enough (Y. S. Chow, H. Robbins, On
the Asymptotic Theory of Fixed-Width Sequential Confidence Intervals for the Mean, Ann. Math. Statist. 36,
1965). Looking often makes a stop by chance likelier, so each look asks for 99 %, which leaves 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import median
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

AT_EACH_LOOK = 0.99
FOR_P90, FOR_P99 = 10, 100
"""Runs without which a percentile is the largest time and tells nothing."""
FEWEST = 30  # runs of a median, where there is time for them
DRIFT = 0.05  # how much the halves of the runs may differ before it is told


class Times(Struct, frozen=True):
    """Seconds of the runs of one model on one shape.

    Attributes:
        runs: how many were measured, warm-up not counted.
        least: of the fastest run: whatever else a machine does only adds to it.
        median: of all runs.
        low, high: the interval in which the median lies; of few runs the least and the largest.
        p90, p99: percentiles; None where too few runs were made.
        mean: of all runs, which throughput follows from.
        drift: median of the second half by that of the first, where their intervals are apart; else 1.
        settled: whether the interval is as narrow as was asked.
    """

    runs: int
    least: float
    median: float
    low: float
    high: float
    p90: float | None
    p99: float | None
    mean: float
    drift: float = 1.0
    settled: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return asdict(self)

    @property
    def width(self) -> float:
        """Half of the interval, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@lru_cache(maxsize=4096)
def rank(count: int, confidence: float = AT_EACH_LOOK) -> int:
    """Return the rank, from 1, of the order statistic below the median; its mirror image is the one above.

    0 where so few values have no interval of that confidence.
    """
    tail, found = 0.0, 0
    for below in range(count // 2):
        logarithm = math.lgamma(count + 1) - math.lgamma(below + 1) - math.lgamma(count - below + 1)
        tail += math.exp(logarithm - count * math.log(2))
        if tail > (1 - confidence) / 2:
            break
        found = below + 1
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the median's interval; least and largest of too few values, infinite of none."""
    if not values:
        return -math.inf, math.inf
    ordered = sorted(values)
    at = max(1, rank(len(ordered), AT_EACH_LOOK))
    return ordered[at - 1], ordered[len(ordered) - at]


def times(values: Sequence[float], precision: float) -> Times:
    """Return the statistics of these runs, given in the order in which they were made; at least one."""
    ordered = sorted(values)
    low, high = interval(ordered)
    middle = median(ordered)
    return Times(
        runs=len(ordered),
        least=ordered[0],
        median=middle,
        low=low,
        high=high,
        p90=quantile(ordered, 0.90) if len(ordered) >= FOR_P90 else None,
        p99=quantile(ordered, 0.99) if len(ordered) >= FOR_P99 else None,
        mean=sum(ordered) / len(ordered),
        drift=drift(values),
        settled=narrow(ordered, precision),
    )


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest value that so large a part of all does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def narrow(values: Sequence[float], precision: float) -> bool:
    """Return whether the median is known to within this part of itself, on either side."""
    if not rank(len(values)):
        return False
    low, high = interval(values)
    middle = median(values)
    return max(high - middle, middle - low) <= precision * middle


def enough(values: Sequence[float], precision: float, spent: float, limit: float) -> bool:
    """Return whether to stop: the interval is narrow, or `spent` seconds of the `limit` are gone.

    Long runs are made three times, unless that takes five times the limit.
    """
    if spent >= limit:
        return len(values) >= 3 or (len(values) > 0 and spent >= 5 * limit)
    return len(values) >= FEWEST and narrow(values, precision)


def drift(values: Sequence[float]) -> float:
    """Say how much slower the second half of the runs was; 1 where that may be chance."""
    half = len(values) // 2
    first, second = values[:half], values[half:]
    if not rank(half):
        return 1.0
    (low, high), (low2, high2) = interval(first), interval(second)
    ratio = median(second) / median(first) if median(first) else 1.0
    return ratio if (low2 > high or low > high2) and abs(ratio - 1) > DRIFT else 1.0
