"""Which of many releases in a row changed something: pure search, nothing here knows of packages.

A history is a row of positions from the oldest release to the newest; *asking* for one says whether the
failure is there (REPRODUCES), is gone (VANISHES), or that nothing can be told (UNRESOLVED). Those of which
nothing can be told are stepped over, as `least_satisfying` of cargo-bisect-rustc does. Nothing is assumed of
the history but what was asked: each change that is told lies between two positions that were asked and
answered otherwise, with nothing between them but what cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from msgspec import Struct, field

from bisect_trt.outcome import Verdict

NEAR = 3
"""So many beside an end that cannot be told are asked one by one."""

Ask = Callable[[int], Verdict]


class Change(Struct, frozen=True):
    """Two positions with different answers; all between them are UNRESOLVED."""

    before: int
    after: int


class History(Struct, frozen=True):
    """What was asked and what follows.

    Attributes:
        count: positions in all.
        answers: those that were asked, in ascending order.
        changes: from the oldest to the newest.
    """

    count: int
    answers: Mapping[int, Verdict] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    @property
    def known(self) -> list[int]:
        """Positions that are resolved, in ascending order."""
        return [k for k, answer in self.answers.items() if answer is not Verdict.UNRESOLVED]

    @property
    def swept(self) -> bool:
        """Whether every position was asked."""
        return len(self.answers) == self.count


def search(count: int, ask: Ask, anchors: Iterable[int] = ()) -> History:
    """Find the changes in a history of `count` positions with few questions.

    The newest is asked first, then the oldest, then the `anchors` (where the failure was seen before); where
    two neighbours of these answer otherwise the range between them is halved. A history in which the failure
    comes and goes between two equal answers is not noticed, nor one that can be told between such that cannot
    at an end: `sweep` asks for all. Costs: three questions, log2(count)
    for each change, NEAR + log2(count) for each end of which nothing can be told, and one for each position
    that cannot be told and is met on the way.
    """
    asked = _Asked(ask)
    firsts = [k for k in dict.fromkeys((count - 1, 0, *anchors)) if 0 <= k < count]
    for k in firsts:
        asked.at(k)
    if firsts and not asked.known():
        _find_any(count, asked)
    if asked.known():
        _move_end(asked, 0, min(asked.known()))
        _move_end(asked, count - 1, max(asked.known()))
    for low, high in list(pairwise(sorted(asked.known()))):
        if asked.at(low) is not asked.at(high):
            _halve(low, high, asked)
    return asked.history(count)


def sweep(count: int, ask: Ask) -> History:
    """Ask for every position, the newest first."""
    asked = _Asked(ask)
    for k in reversed(range(count)):
        asked.at(k)
    return asked.history(count)


class _Asked:
    """Asks each position once."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._answers: dict[int, Verdict] = {}

    def at(self, k: int) -> Verdict:
        if k not in self._answers:
            self._answers[k] = self._ask(k)
        return self._answers[k]

    def hopeless(self, k: int) -> bool:
        """Return whether it was asked in vain."""
        return self._answers.get(k) is Verdict.UNRESOLVED

    def known(self) -> list[int]:
        return [k for k, answer in self._answers.items() if answer is not Verdict.UNRESOLVED]

    def history(self, count: int) -> History:
        answers = dict(sorted(self._answers.items()))
        steps = pairwise(sorted(self.known()))
        changes = (Change(a, b) for a, b in steps if answers[a] is not answers[b])
        return History(count, answers, tuple(changes))


def _find_any(count: int, asked: _Asked) -> None:
    """Ask in the middle, then in the middle of each half, and so on, until one is resolved."""
    ranges = [(0, count - 1)]
    while ranges:
        low, high = ranges.pop(0)
        middle = (low + high) // 2
        if low < middle < high:
            if asked.at(middle) is not Verdict.UNRESOLVED:
                return
            ranges += [(low, middle), (middle, high)]


def _move_end(asked: _Asked, dark: int, light: int) -> None:
    """Move from an unresolved end to a resolved position: a few steps one by one, then by halving."""
    step, near = (1 if light > dark else -1), NEAR
    while abs(light - dark) > 1:
        middle = dark + step if near else (dark + light) // 2
        near = max(0, near - 1)
        if asked.at(middle) is Verdict.UNRESOLVED:
            dark = middle
        else:
            light = middle


def _halve(low: int, high: int, asked: _Asked) -> None:
    """Narrow two positions with different answers down to neighbours, unresolved ones left out."""
    while inner := [k for k in range(low + 1, high) if not asked.hopeless(k)]:
        middle = min(inner, key=lambda k: abs(2 * k - low - high))
        answer = asked.at(middle)
        if answer is asked.at(low):
            low = middle
        elif answer is not Verdict.UNRESOLVED:
            high = middle
