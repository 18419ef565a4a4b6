"""Two sides in turns: how many times as long the second takes as the first, and how sure that is.

Clocks of processors drift and other programs come and go, so times of two sides that were measured one
after the other differ without a reason. Here both are measured in every round, in the order A B, B A, A B,
...; a round gives the ratio of the least times of both, as whatever else the machine does only adds to them,
and the interval of the median of these ratios is what counts (order statistics again, see `timing`). Where
both sides are the same, each ratio is as often above 1 as below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from bisect_trt.profiling.timing import interval, narrow

BLOCK = 0.15  # seconds of one side in one round; a run that takes longer is a block by itself
FEWEST = 12  # rounds, where there is time for them
MOST = 400
TELLING = 8  # rounds that have an interval of 99 %: slow runs are waited for, up to five times the seconds

Block = Callable[[float], list[float]]
"""Run one side for so many seconds, at least once, and give the seconds of each run."""


class Ratio(Struct, frozen=True):
    """What two sides took.

    Attributes:
        rounds: in which both were measured.
        first, second: median seconds of a run of either.
        least: seconds of the fastest run of either.
        ratio: the median over the rounds of second by first.
        low, high: the interval in which that median lies; of fewer than 8 rounds the least and the largest.
        more: seconds that the second side takes more: the median over the rounds of the difference of the
            fastest runs. That of `least` would mix moments at which the machine was not the same.
        settled: whether the interval is as narrow as was asked.
    """

    rounds: int
    first: float
    second: float
    least: tuple[float, float]
    ratio: float
    low: float
    high: float
    more: float
    settled: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return asdict(self)

    def within(self, limit: float) -> bool:
        """Return whether the whole interval is nearer to 1 than the limit."""
        return 1 / (1 + limit) <= self.low and self.high <= 1 + limit

    def beyond(self, limit: float) -> bool:
        """Return whether the whole interval is further from 1 than the limit (0.05: 5 %), to either side."""
        return self.low > 1 + limit or self.high < 1 / (1 + limit)


def in_turns(first: Block, second: Block, precision: float, seconds: float) -> Ratio:
    """Measure both sides in turns until the ratio is known to within `precision`, or the seconds are over.

    What either side raises comes through.
    """
    sides = (first, second)
    for side in sides:
        side(BLOCK)  # the first runs after a pause are slower
    all_times: tuple[list[float], list[float]] = ([], [])
    fastest: list[tuple[float, float]] = []
    spent = 0.0
    while len(fastest) < MOST:
        least = [0.0, 0.0]
        for k in (0, 1) if len(fastest) % 2 == 0 else (1, 0):
            taken = sides[k](BLOCK)
            spent += sum(taken)
            all_times[k].extend(taken)
            least[k] = min(taken)
        fastest.append((least[0], least[1]))
        known = len(fastest) >= FEWEST and narrow([b / a for a, b in fastest], precision)
        if known or (spent >= seconds and (len(fastest) >= TELLING or spent >= 5 * seconds)):
            break
    return ratio_of(all_times[0], all_times[1], fastest, precision)


def ratio_of(
    first: Sequence[float], second: Sequence[float], fastest: Sequence[tuple[float, float]], precision: float
) -> Ratio:
    """Return the ratio of both sides with its interval, and the fastest runs of each round."""
    ratios = [b / a for a, b in fastest]
    low, high = interval(ratios)
    settled = narrow(ratios, precision)
    least = (min(first), min(second))
    more = median(b - a for a, b in fastest)
    return Ratio(len(ratios), median(first), median(second), least, median(ratios), low, high, more, settled)
