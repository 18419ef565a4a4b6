"""Where time per unit of work jumps from one size to the next: a search that is a function of its answers.

Powers of two are measured first. Where the cost (time by size) of one is at least `JUMP` times that of
the one before, the sizes between are bisected: of the two halves that is taken in which the cost rises
more, so that a jump stays in it. Time that leaves the straight line through the sizes below counts as
well, since a jump may hide where the shares of a fixed cost become smaller. Growth that is spread evenly
falls below `JUMP` in the end and is no cliff. Two neighbouring sizes with a jump between them are measured
again, in turns, and only what is still there then is a cliff. Where that was not so once, the machine is
noisy, and from then on a rise is measured in turns before it is looked into. What is left of the bound goes
to the sizes right behind powers of two: a jump there may be gone at the next power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct, field

JUMP = 1.2
"""How much more a unit of work has to cost."""
MISLED = 2
"""How often a noisy machine may lead the search to no cliff before it has to do with what it was given."""
_CERTAIN = 1 + (JUMP - 1) / 2  # what the lower end of a cliff's interval has to exceed


class Edge(Struct, frozen=True):
    """What came of measuring two sizes in turns: seconds of each, the ratio of these and its interval."""

    before: float
    after: float
    ratio: float
    low: float
    high: float


class Cliff(Struct, frozen=True):
    """A unit of work costs `jump` times as much at `size` as at `size - 1`; `low` and `high` bound it."""

    size: int
    jump: float
    low: float
    high: float


class Found(Struct):
    """What a search found.

    Attributes:
        seconds: by size; None where the model fails.
        cliffs: in ascending order of size.
        likely: jumps whose interval, measured again, reaches to where there is none.
        denied: sizes at which a jump was seen that measuring again did not show.
        left: pairs of sizes between which the cost rises and that were not looked into.
        measured: sizes that were measured, again ones counted again.
    """

    seconds: dict[int, float | None] = field(default_factory=dict)
    cliffs: list[Cliff] = field(default_factory=list)
    likely: list[Cliff] = field(default_factory=list)
    denied: list[int] = field(default_factory=list)
    left: list[tuple[int, int]] = field(default_factory=list)
    measured: int = 0


Measure = Callable[[int], float | None]
"""Seconds of a size; None where the model fails."""
Compare = Callable[[int, int], Edge | None]
"""Two sizes in turns; None where the model fails."""


def grid(low: int, high: int) -> list[int]:
    """List both ends of a range and the powers of two in between."""
    powers = (1 << k for k in range(high.bit_length()))
    return sorted({low, high, *(p for p in powers if low < p < high)})


def bound(low: int, high: int) -> int:
    """Say how many measurements a cliff may cost, the grid included."""
    return 2 * max(0, (high - low).bit_length()) + 6


def search(low: int, high: int, measure: Measure, compare: Compare, found: Found | None = None) -> Found:
    """Find the cliffs between two sizes; `found` is filled on the way and holds what an interruption left."""
    found = found if found is not None else Found()
    looker = _Search(low, high, measure, compare, found)
    for size in grid(low, high):
        looker.look(size)
    looker.refine()
    looker.look_behind()
    looker.refine()
    found.left = [(a, b) for _, a, b in sorted(looker.rises(), reverse=True)]
    found.cliffs.sort(key=lambda cliff: cliff.size)
    return found


class _Search(Struct):
    low: int
    high: int
    measure: Measure
    compare: Compare
    found: Found
    settled: set[tuple[int, int]] = field(default_factory=set)
    sure: set[tuple[int, int]] = field(default_factory=set)

    def look(self, size: int) -> None:
        """Measure a size that was not measured yet."""
        if size not in self.found.seconds:
            self.found.measured += 1
            self.found.seconds[size] = self.measure(size)

    def refine(self) -> None:
        """Look into the largest rise first, until none is left or the bound is reached."""
        while rises := sorted(self.rises(), reverse=True):
            _, a, b = rises[0]
            room = self._room(1 + len(self.found.cliffs) + min(MISLED, self._misled()))
            if b - a == 1 and room > 1:
                self._settle(a, b)
            elif b - a > 1 and self._doubtful(a, b) and room > 4:
                self._make_sure(a, b)
            elif b - a > 1 and room > 2:  # what was found has to be measured again
                self.look((a + b) // 2)
            else:
                return

    def look_behind(self) -> None:
        """Measure the sizes right behind powers of two, the largest first, as far as the bound allows."""
        cliffs = max(1, len(self.found.cliffs))
        for size in reversed(grid(self.low, self.high)):
            if size > 2 and size < self.high and size & (size - 1) == 0 and self._room(cliffs) > 2:
                self.look(size + 1)

    def rises(self) -> Iterator[tuple[float, int, int]]:
        """Neighbours that were measured and between which the cost rises: how much, and the two sizes."""
        known = sorted((size, taken) for size, taken in self.found.seconds.items() if taken)
        for (a, before), (b, after) in pairwise(known):
            rise = (after / b) / (before / a)
            if b - a > 1:
                rise = max(rise, after / _straight(known, a, b))
            if rise >= (JUMP if b - a > 1 else _certain(b)) and (a, b) not in self.settled:
                yield rise, a, b

    def _misled(self) -> int:
        return len(self.found.denied) + len(self.found.likely)

    def _room(self, times: int) -> int:
        """Say how many measurements are left of so many bounds: one a cliff, and one for the next."""
        return bound(self.low, self.high) * times - self.found.measured

    def _doubtful(self, a: int, b: int) -> bool:
        """Return whether the machine misled the search before and this rise lies within none that is sure."""
        return self._misled() > 0 and not any(c <= a and b <= d for c, d in self.sure)

    def _make_sure(self, a: int, b: int) -> None:
        """Measure a rise in turns; it stays one, or the times of both sizes are set right."""
        self.sure.add((a, b))
        edge = self.compare(a, b)
        if edge is not None:
            self.found.measured += 2
            self.found.seconds |= {a: edge.before, b: edge.after}

    def _settle(self, a: int, b: int) -> None:
        """Measure two neighbours in turns: a cliff, or none."""
        self.settled.add((a, b))
        edge = self.compare(a, b)
        if edge is None:  # one of them fails now
            return
        self.found.measured += 2
        self.found.seconds |= {a: edge.before, b: edge.after}
        unit = a / b
        seen = Cliff(b, edge.ratio * unit, edge.low * unit, edge.high * unit)
        if seen.low > _certain(b):
            self.found.cliffs.append(seen)
        elif seen.jump > _certain(b):
            self.found.likely.append(seen)
        else:
            self.found.denied.append(b)


def _certain(size: int) -> float:
    """Return how much the cost must rise to count as a cliff: more than quadratic work would."""
    return _CERTAIN * size / (size - 1)


def _straight(known: Sequence[tuple[int, float]], a: int, b: int) -> float:
    """Return the seconds of `b` by extrapolation from the sizes below `a`; infinite if none was measured.

    A jump is seen so that falling shares of a fixed cost would hide in the cost of a unit.
    """
    seconds = dict(known)
    below = [size for size in seconds if size < a]
    if not below:
        return math.inf
    start = max((size for size in below if size <= a - (b - a) / 2), default=min(below))
    slope = max(0.0, (seconds[a] - seconds[start]) / (a - start))
    return seconds[a] + slope * (b - a)
