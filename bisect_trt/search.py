"""Pure search on lists: nothing here knows of graphs, models or targets.

A *judge* says whether a sublist (items in their original order) still shows the failure. VANISHES
and UNRESOLVED are weak evidence: the search never concludes more from them than that this sublist
is not an answer. Whatever is returned was judged REPRODUCES, or is the list that was given. Every
function is a pure function of the judge's answers: run again with assumed answers it tells what
would be asked next, which is how parallel workers look ahead (`passes.selections`).

Sources: optimistic halving with an overlap is ours; finding culprits one by one with a binary search
each follows Junker's QuickXplain (AAAI 2004); 1-minimality is Zeller and Hildebrandt's (TSE 2002).
thinning out when culprits are many is counter-based delta debugging (arXiv 2408.04735).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from bisect_trt.outcome import Verdict

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

REPRODUCES = Verdict.REPRODUCES
VANISHES = Verdict.VANISHES
UNRESOLVED = Verdict.UNRESOLVED

OVERLAPS = ((256, 4), (72, 2), (16, 1))
"""Lists of at least so many items are halved with so much overlap, shorter ones without."""

MANY = 12
"""After so many culprits that are no neighbours the rest is thinned out in chunks."""

FEW = 8
"""So many items between two culprits are tried one by one."""


class Judge(Protocol[T_contra]):
    """Answers for sublists."""

    def verdict(self, items: Sequence[T_contra]) -> Verdict:
        """Does this sublist show the failure? Equal sublists always get equal answers."""
        ...


Weight = Callable[[T], float]


def minimise(items: Sequence[T], judge: Judge[T], weight: Weight[T] = lambda _: 1.0) -> list[T]:
    """A 1-minimal sublist of `items` that reproduces, given that `items` does.

    Cost when the failure is local (a few adjacent items): about one time the weight of `items`, and
    at most 2 * log2(n) + 4 probes; k distant culprits: about k * log2(n) probes.
    """
    return sweep(isolate(localise(items, judge, weight), judge), judge)


def localise(items: Sequence[T], judge: Judge[T], weight: Weight[T] = lambda _: 1.0) -> list[T]:
    """A short sublist of `items` that reproduces, contiguous or a few windows.

    Optimistic halving: when the first half does not reproduce, the second is not tested but
    assumed, and *its* first half is tested next. A local failure therefore costs about the weight
    of `items` in all. The halves overlap by as much as that can afford (see `OVERLAPS`): culprits
    that span one more never straddle a cut. When an assumption proves wrong, windows around the cuts
    made on the way are tried, one by one and then together; when none reproduces, the culprits are far
    apart, and the smallest of the nested ranges that does is kept.
    """
    overlap = next((width for least, width in OVERLAPS if len(items) >= least), 0)
    short = max(1, 3 * overlap)  # such a range is not halved: `isolate` is cheaper from there
    known = list(items)  # the smallest range that was judged REPRODUCES
    assumed: list[int] = []  # where nested ranges inside `known` begin, none of them judged yet
    start = 0
    while len(known) - start > short:
        rest = known[start:]
        middle = halfway(rest, weight)
        first = rest[: min(middle + overlap, len(rest) - 1)]
        if judge.verdict(first) is REPRODUCES:
            known, assumed, start = first, [], 0
        else:
            start += middle
            assumed.append(start)
    if not assumed or judge.verdict(known[start:]) is REPRODUCES:
        return known[start:]
    for candidate in _windows(known, assumed, overlap + 1):
        if judge.verdict(candidate) is REPRODUCES:
            return candidate
    for begin in reversed(assumed[:-1]):
        if judge.verdict(known[begin:]) is REPRODUCES:
            return known[begin:]
    return known


def _windows(items: list[T], seams: Sequence[int], radius: int) -> Iterator[list[T]]:
    """What lies within `radius` of each seam; then twice, 8 times, ... around all, while less than half."""
    for seam in seams:
        yield items[max(0, seam - radius) : seam + radius]
    radius *= 2
    while True:
        near = {k for seam in seams for k in range(max(0, seam - radius), min(len(items), seam + radius))}
        if 2 * len(near) >= len(items):
            return
        yield [items[k] for k in sorted(near)]
        radius *= 4


def isolate(items: Sequence[T], judge: Judge[T]) -> list[T]:
    """Culprits of `items`, which reproduces: the last, the first, and those between them.

    The shortest prefix that reproduces ends in a culprit, the shortest suffix of that begins with
    one: log2(n) probes each. Those between are found one by one, log2(n) probes each, or one probe
    each where they are neighbours. Between culprits that are close to each other a few innocent
    items may stay: `sweep` tries each.
    """
    known = list(items)
    known = known[: _least(lambda length: known[:length], len(known), judge)]
    if len(known) == 1 or judge.verdict(known[-1:]) is REPRODUCES:
        return known[-1:]
    known = known[-_least(lambda length: known[-length:], len(known), judge, low=2) :]
    first, inner, last = known[:1], known[1:-1], known[-1:]
    if len(inner) > 3 and judge.verdict([*first, *last]) is REPRODUCES:
        return [*first, *last]
    if len(inner) <= FEW:
        return known
    return [*first, *_between(first, inner, last, judge), *last]


def _between(first: list[T], inner: list[T], last: list[T], judge: Judge[T]) -> list[T]:
    """Culprits among `inner`, last first, given that `inner` with both ends reproduces."""
    found: list[T] = []
    whole = len(inner)
    beside = False  # whether the last two culprits were neighbours: then all of them may be

    def joined(length: int) -> list[T]:
        return [*first, *inner[:length], *reversed(found), *last]

    while inner:
        if beside and judge.verdict(joined(0)) is REPRODUCES:
            break
        answer = judge.verdict(joined(len(inner) - 1))
        beside = answer is VANISHES
        longest = len(inner) - (answer is REPRODUCES)
        length = longest if beside else _least(joined, longest, judge, low=0)
        if length == 0:
            break
        found.append(inner[length - 1])
        inner = inner[: length - 1]
        if len(found) == MANY and not beside:
            tail = [*reversed(found), *last]
            return [*thin(inner, MANY / (whole - len(inner)), judge, first, tail), *reversed(found)]
    return found[::-1]


def thin(
    items: Sequence[T], density: float, judge: Judge[T], before: Sequence[T] = (), after: Sequence[T] = ()
) -> list[T]:
    """`items` without most of what can be left out: counter-based delta debugging.

    Each round leaves out chunks of the size that is expected to win most, given that an item is
    needed with a probability of `density`; what a round could not leave out is the more probably
    needed. When culprits are many and everywhere this beats looking for one after the other: a sixth
    fewer items built for 40 of 1000, a quarter for 100. `before` and `after` stay in every list.
    """
    current = list(items)
    size = len(current)
    while current and size > 1:
        density = min(density, 0.63)
        size = max(1, min(size - 1, round(-1 / math.log1p(-density))))
        density /= 1 - math.exp(-1)
        end = len(current)
        while end > 0:
            start = max(0, end - size)
            trial = [*before, *current[:start], *current[end:], *after]
            if trial and judge.verdict(trial) is REPRODUCES:
                del current[start:end]
            end = start
    return current


def sweep(items: Sequence[T], judge: Judge[T]) -> list[T]:
    """`items` without everything that can be left out alone: the result is 1-minimal.

    First whole chunks of halving size (long lists only: `isolate` left little to find), then every
    single element until a full round changes nothing. Where an answer was UNRESOLVED two neighbours
    may have to go together: pairs are tried as well.
    """
    current = list(items)
    size = len(current) // 2 if len(current) > 32 else 1
    while size > 1:
        current, _ = _drop_chunks(current, size, judge)
        size = min(size // 2, len(current) // 2)
    changed = True
    while changed and len(current) > 1:
        current, changed = _drop_chunks(current, 1, judge)
        if not changed and len(current) > 2 and any(a is UNRESOLVED for a in _without_one(current, judge)):
            current, changed = _drop_chunks(current, 2, judge)
            if not changed:
                rest, changed = _drop_chunks(current[:-1], 2, judge, current[-1:])
                current = [*rest, *current[-1:]] if changed else current
    return current


def is_one_minimal(items: Sequence[T], judge: Judge[T]) -> bool:
    """Whether no single element can be left out (asks the judge, which has it in its cache)."""
    if len(items) < 2:
        return True
    return all(answer is not REPRODUCES for answer in _without_one(items, judge))


def _without_one(items: Sequence[T], judge: Judge[T]) -> Iterator[Verdict]:
    return (judge.verdict([*items[:k], *items[k + 1 :]]) for k in range(len(items)))


def halfway(items: Sequence[T], weight: Weight[T]) -> int:
    """Length of the prefix whose weight is nearest to half of all; neither part is empty."""
    total = sum(weight(item) for item in items)
    running, best, cut = 0.0, float("inf"), 1
    for k, item in enumerate(items[:-1], start=1):
        running += weight(item)
        if abs(total - 2 * running) < best:
            best, cut = abs(total - 2 * running), k
    return cut


def _least(build: Callable[[int], list[T]], longest: int, judge: Judge[T], low: int = 1) -> int:
    """Smallest length from `low` on whose list reproduces, when `build(longest)` does and growing it helps.

    An UNRESOLVED length is stepped over to its neighbours, nearest first.
    """
    high = longest  # `high` reproduces; below `low` nothing is looked for
    while low < high:
        middle = (low + high) // 2
        answer = judge.verdict(build(middle))
        if answer is UNRESOLVED:
            other = _step_over(build, low, middle, high, judge)
            if other is not None:
                high = other
                continue
        if answer is REPRODUCES:
            high = middle
        else:
            low = middle + 1
    return high


def _step_over(
    build: Callable[[int], list[T]], low: int, middle: int, high: int, judge: Judge[T]
) -> int | None:
    """A length near `middle`, below `high`, that reproduces; None: none of the nearest does."""
    for distance in (1, 2):
        for length in (middle + distance, middle - distance):
            if low <= length < high and judge.verdict(build(length)) is REPRODUCES:
                return length
    return None


def _drop_chunks(
    items: list[T], size: int, judge: Judge[T], after: Sequence[T] = ()
) -> tuple[list[T], bool]:
    """Try once to leave out each chunk of `size`; from the end, where effects are, to the start."""
    current, changed = list(items), False
    end = len(current)
    while end > 0:
        start = max(0, end - size)
        trial = current[:start] + current[end:]
        if (trial or after) and judge.verdict([*trial, *after]) is REPRODUCES:
            current, changed = trial, True
        end = start
    return current, changed
