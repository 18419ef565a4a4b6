"""The cheapest set that has a member in each of several sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

T = TypeVar("T", bound=str)

STEPS = 20_000
"""Branches that are looked at; after these the best so far is given, which may not be the cheapest."""


def cheapest_hitting_set(
    sets: Sequence[Collection[T]], cost: Callable[[T], float], rank: Callable[[T], float]
) -> tuple[frozenset[T], bool]:
    """Branch and bound, the rarest set first; and whether it is proven that nothing is cheaper.

    Of equally cheap ones that is given which is found first, members of low `rank` tried first.
    """
    best: list[frozenset[T]] = [_greedy(sets, cost, rank)]
    price = [sum(map(cost, best[0]))]
    steps = [0]

    def search(chosen: frozenset[T], spent: float, left: Sequence[Collection[T]]) -> None:
        steps[0] += 1
        if steps[0] > STEPS:
            return
        if not left:
            if spent < price[0] - 1e-9:
                best[0], price[0] = chosen, spent
            return
        if spent + _bound(left, cost) >= price[0] - 1e-9:
            return
        branch = min(left, key=lambda some: (len(some), sorted(some)))
        for item in sorted(branch, key=lambda t: (rank(t), t)):
            search(chosen | {item}, spent + cost(item), [s for s in left if item not in s])

    search(frozenset(), 0.0, list(sets))
    return best[0], steps[0] <= STEPS


def _greedy(
    sets: Sequence[Collection[T]], cost: Callable[[T], float], rank: Callable[[T], float]
) -> frozenset[T]:
    chosen: set[T] = set()
    left = list(sets)
    while left:
        count = Counter(item for some in left for item in some)
        item = min(count, key=lambda t: (cost(t) / count[t], rank(t), t))
        chosen.add(item)
        left = [some for some in left if item not in some]
    return frozenset(chosen)


def _bound(left: Sequence[Collection[T]], cost: Callable[[T], float]) -> float:
    """Give a cost that no hitting set falls below: sets that share nothing need a member each."""
    seen: set[T] = set()
    total = 0.0
    for some in sorted(left, key=len):
        if seen.isdisjoint(some):
            seen.update(some)
            total += min(map(cost, some))
    return total
