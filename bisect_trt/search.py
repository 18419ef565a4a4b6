"""Pure search on lists: nothing here knows of graphs, models or targets.

A *judge* says whether a sublist (items in their original order) still shows the failure. VANISHES
and UNRESOLVED are weak evidence: the search never concludes more from them than that this sublist
is not an answer. Whatever is returned was judged REPRODUCES, or is the list that was given.

Sources: optimistic halving and galloping are ours; finding culprits one by one with a binary search
each follows Junker's QuickXplain (AAAI 2004); 1-minimality is Zeller and Hildebrandt's (TSE 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from bisect_trt.outcome import Verdict

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

REPRODUCES = Verdict.REPRODUCES
UNRESOLVED = Verdict.UNRESOLVED


class Judge(Protocol[T_contra]):
    """Answers for sublists; told early what may be asked next, it can work ahead."""

    def verdict(self, items: Sequence[T_contra]) -> Verdict:
        """Does this sublist show the failure? Equal sublists always get equal answers."""
        ...

    def prefetch(self, sublists: Sequence[Sequence[T_contra]]) -> None:
        """These may be asked next, most probable first. Has no influence on any answer."""
        ...


Weight = Callable[[T], float]


def minimise(items: Sequence[T], judge: Judge[T], weight: Weight[T] = lambda _: 1.0) -> list[T]:
    """A 1-minimal sublist of `items` that reproduces, given that `items` does.

    Cost when the failure is local: about one time the weight of `items`, and log2(n) probes;
    k distant culprits: about k * log2(n) probes.
    """
    window = localise(items, judge, weight)
    return sweep(isolate(window, judge), judge)


def localise(items: Sequence[T], judge: Judge[T], weight: Weight[T] = lambda _: 1.0) -> list[T]:
    """A short sublist of `items` that reproduces, contiguous or a few windows.

    Optimistic halving: when the first half does not reproduce, the second is not tested but
    assumed, and *its* first half is tested next. A local failure therefore costs about the weight
    of `items` in all. When an assumption proves wrong the failure straddles one of the cuts made on
    the way: narrow windows around all of them are tried together, then wider ones; when none
    reproduces, the culprits are far apart, and the smallest of the nested ranges that does is kept.
    """
    known = list(items)  # the smallest range that was judged REPRODUCES
    assumed: list[int] = []  # where nested ranges inside `known` begin, none of them judged yet
    start = 0
    while len(known) - start > 1:
        first, second = split(known[start:], weight)
        judge.prefetch([first, *_next_halves(first, second, weight)])
        if judge.verdict(first) is REPRODUCES:
            known, assumed, start = first, [], 0
        else:
            start += len(first)
            assumed.append(start)
    if not assumed or judge.verdict(known[start:]) is REPRODUCES:
        return known[start:]
    for candidate in _windows(known, assumed):
        if judge.verdict(candidate) is REPRODUCES:
            return candidate
    for begin in reversed(assumed[:-1]):
        if judge.verdict(known[begin:]) is REPRODUCES:
            return known[begin:]
    return known


def _windows(items: list[T], seams: Sequence[int]) -> Iterator[list[T]]:
    """What lies within 2, 8, 32, ... items of any seam, while that is less than half of all."""
    radius = 2
    while True:
        near = {k for seam in seams for k in range(max(0, seam - radius), min(len(items), seam + radius))}
        if 2 * len(near) >= len(items):
            return
        yield [items[k] for k in sorted(near)]
        radius *= 4


def isolate(items: Sequence[T], judge: Judge[T]) -> list[T]:
    """Culprits of `items` one by one, last first: log2(n) probes for each.

    The shortest prefix that (with the culprits found so far) reproduces ends in a culprit.
    """
    found: list[int] = []
    rest = len(items)  # items[:rest] may still hold culprits
    while rest:

        def joined(length: int) -> list[T]:
            return [*items[:length], *(items[k] for k in reversed(found))]

        length = _shortest(joined, rest, judge)
        if length == 0:
            break
        found.append(length - 1)
        rest = length - 1
    return [items[k] for k in reversed(found)]


def sweep(items: Sequence[T], judge: Judge[T]) -> list[T]:
    """`items` without everything that can be left out alone: the result is 1-minimal.

    First whole chunks of halving size (long lists only: `isolate` left little to find), then every
    single element until a full round changes nothing.
    """
    current = list(items)
    size = len(current) // 2 if len(current) > 32 else 1
    while size > 1:
        current, _ = _drop_chunks(current, size, judge)
        size = min(size // 2, len(current) // 2)
    changed = True
    while changed and len(current) > 1:
        current, changed = _drop_chunks(current, 1, judge)
    return current


def is_one_minimal(items: Sequence[T], judge: Judge[T]) -> bool:
    """Whether no single element can be left out (asks the judge, which has it in its cache)."""
    if len(items) < 2:
        return True
    trials = [[*items[:k], *items[k + 1 :]] for k in range(len(items))]
    judge.prefetch(trials)
    return all(judge.verdict(trial) is not REPRODUCES for trial in trials)


def split(items: Sequence[T], weight: Weight[T]) -> tuple[list[T], list[T]]:
    """Two non-empty halves of about the same weight."""
    total = sum(weight(item) for item in items)
    running, best, cut = 0.0, float("inf"), 1
    for k, item in enumerate(items[:-1], start=1):
        running += weight(item)
        if abs(total - 2 * running) < best:
            best, cut = abs(total - 2 * running), k
    return list(items[:cut]), list(items[cut:])


def _next_halves(first: list[T], second: list[T], weight: Weight[T]) -> list[list[T]]:
    """What `localise` asks after `first`, for either answer."""
    return [split(half, weight)[0] for half in (second, first) if len(half) > 1]


def _shortest(joined: Callable[[int], list[T]], longest: int, judge: Judge[T]) -> int:
    """Smallest length whose list reproduces, when `joined(longest)` does and growing it helps.

    An UNRESOLVED length is stepped over to its neighbours, nearest first.
    """
    low, high = 0, longest  # `high` reproduces; below `low` nothing is looked for
    while low < high:
        middle = (low + high) // 2
        next_asked = (middle, (middle + 1 + high) // 2, (low + middle) // 2)
        judge.prefetch([joined(length) for length in next_asked if joined(length)])
        answer = judge.verdict(joined(middle)) if joined(middle) else Verdict.VANISHES
        if answer is UNRESOLVED:
            other = _step_over(joined, low, middle, high, judge)
            if other is not None:
                high = other
                continue
        if answer is REPRODUCES:
            high = middle
        else:
            low = middle + 1
    return high


def _step_over(
    joined: Callable[[int], list[T]], low: int, middle: int, high: int, judge: Judge[T]
) -> int | None:
    """A length near `middle`, below `high`, that reproduces; None: none of the nearest does."""
    for distance in (1, 2):
        for length in (middle + distance, middle - distance):
            if low <= length < high and joined(length) and judge.verdict(joined(length)) is REPRODUCES:
                return length
    return None


def _drop_chunks(items: list[T], size: int, judge: Judge[T]) -> tuple[list[T], bool]:
    """Try once to leave out each chunk of `size`; from the end, where effects are, to the start."""
    current, changed = list(items), False
    end = len(current)
    while end > 0:
        start = max(0, end - size)
        trials = [
            current[: max(0, e - size)] + current[e:] for e in range(end, max(0, end - 4 * size), -size)
        ]
        judge.prefetch([trial for trial in trials if trial])
        trial = current[:start] + current[end:]
        if trial and judge.verdict(trial) is REPRODUCES:
            current, changed = trial, True
        end = start
    return current, changed
