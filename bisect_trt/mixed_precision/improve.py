"""Better sets than the first: what a proof by monotony cannot see, in a limited number of questions.

Each way is tried until one of them finds something cheaper, then they begin again. All are deterministic.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from bisect_trt.mixed_precision.answer import Answer, Keep
from bisect_trt.mixed_precision.exchange import Exchange
from bisect_trt.mixed_precision.search import Passes, Search
from bisect_trt.reduction.list_search import sweep

BATCH = 16
"""Questions that are asked together."""
TURNS = 3
IDLE, IDLE_EACH = 1500, 5
"""Questions, for each node at least, that find nothing cheaper; after these it ends."""
FIRST = 4
"""So many times more groups are tried in the first step of a beam than in the others."""
WALK = 300
"""Questions of a walk that finds nothing."""
FEW = (2, 3, 4, 6, 8)
"""So many nodes are added at a step of a walk."""
WIDTH, TRIED = 4, 40
"""Of a beam: sets that go on, and groups that are tried with each."""


def improve(search: Search, limit: int, seed: int = 0, sums: bool = True) -> None:
    """Look for something cheaper than the best of a search, as long as questions are left.

    It begins with the harm of each node where `sums` of what roundings do led nowhere.
    """
    with search.limited(limit, max(IDLE, IDLE_EACH * len(search.items))):
        _Improver(search, seed).run(sums)


class _Improver:
    def __init__(self, search: Search, seed: int) -> None:
        self.search = search
        self._random = random.Random(seed)
        self._harm: dict[str, Answer] = {}
        self._beamed: set[tuple[Keep, Keep]] = set()

    @property
    def best(self) -> Keep:
        return self.search.found.best

    def run(self, sums: bool) -> None:
        ways = (
            *[self._by_harm] * (not sums),
            self._exchange,
            self._beams,
            self._core_and_few,
            self._all_smaller_ones,
            lambda: self._small_ones(1 / 8),
            lambda: self._walk(self.best),
            self._exchange,  # as it goes by chance it may find what it had not
            self._other_orders,
        )
        better = len(self.best) > 1
        while better:
            before = self.search.price(self.best)
            better = any(self._improves(way, before) for way in ways) and not self.search.settled

    def _improves(self, way: Callable[[], None], before: float) -> bool:
        if not self.search.all_tried:
            way()
        if not self.search.cheaper(self.best, before):
            return False
        self.search.minimal(self.search.sorted(self.best))
        return True

    def _batched(self, keeps: Iterator[Keep], price: float = 0.0) -> bool:
        """Ask many, until there is something that costs less than `price`; gives whether there is."""
        while batch := list(itertools.islice(keeps, BATCH)):
            self.search.answers(batch)
            if self.search.cheaper(self.best, price):
                return True
        return False

    # All of them

    def _small_ones(self, share: float) -> None:
        """Try all sets of one node, of two, ... while that takes no more than a share of what is left.

        This is a proof that holds without monotony.
        """
        search, count = self.search, 1
        for size in range(1, len(self.best)):
            count = count * (len(search.items) - size + 1) // size
            if count > search.left * share:
                return
            if size > search.found.exhausted:
                search.allow(count if share == 1 else 0)
                self._batched(map(frozenset, itertools.combinations(search.items, size)))
                search.found.exhausted = size
                if len(self.best) == size:
                    return

    def _all_smaller_ones(self) -> None:
        """Try every smaller set where all of them can be tried."""
        sizes = range(self.search.found.exhausted + 1, len(self.best))
        if sum(math.comb(len(self.search.items), size) for size in sizes) <= self.search.left:
            self._small_ones(1)

    def _core_and_few(self) -> None:
        """Ask the necessary nodes with all sets of one, of two, ... others, where that is affordable."""
        core = self.search.found.necessary & self.best
        others = [item for item in self._promising() if item not in core]
        count, price = 1, self.search.price(self.best)
        for size in range(1, len(self.best) - len(core)):
            count = count * (len(others) - size + 1) // size
            if count > self.search.left // 6:
                return
            if self._batched((core | set(some) for some in itertools.combinations(others, size)), price):
                return

    # By what each does

    def _by_harm(self) -> None:
        """Each node is lowered alone; the shortest list of those that do most harm, made 1-minimal."""
        search = self.search
        if self._harm or search.settled:
            return
        items = self._promising()[: search.left // 3]
        everything = frozenset(search.items)
        self._batched(iter([everything - {item} for item in items]))
        self._harm = {item: search.known[everything - {item}] for item in items}
        order = sorted(items, key=lambda t: (-self._harm[t].error, search.rank[t]))
        order += sorted(set(search.items) - set(items), key=search.rank.__getitem__)
        search.rank = {item: k for k, item in enumerate(order)}
        self._shortest_list(order)

    def _shortest_list(self, order: Sequence[str]) -> None:
        low, high = 1, len(order)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.search.passes(order[:middle]) else (middle + 1, high)
        if self.search.passes(order[:high]):
            self.search.swept(order[:high])

    def _groups(self) -> list[Keep]:
        """Neighbours that do just the same harm: as long as one of them is lowered the others do not help."""
        groups, seen = [], set[str]()
        for item in self._promising():
            if item in seen:
                continue
            group, todo = {item}, [item]
            own = self._harm.get(item)
            while todo and own is not None and 0 < own.error < float("inf"):
                near = self.search.hints.near.get(todo.pop(), ())
                alike = [t for t in near if t not in group | seen and self._harm.get(t) == own]
                group.update(alike)
                todo += alike
            seen |= group
            groups.append(frozenset(group))
        return groups

    def _beams(self) -> None:
        """Search from the necessary nodes on, and from those of them that ranges condemn, too."""
        self._by_harm()
        if self.search.settled:
            return
        core = self.search.found.necessary & self.best
        price = self.search.price(self.best)
        for start in dict.fromkeys((core, core & set(self.search.hints.suspects))):
            if (start, self.best) not in self._beamed:
                self._beamed.add((start, self.best))
                self._beam(start)
            if self.search.cheaper(self.best, price):
                return

    def _beam(self, core: Keep) -> None:
        """Groups are added one by one; the sets that are least off go on."""
        search, price, groups = self.search, self.search.price(self.best), self._groups()
        front, seen = [core], {core}
        while front:
            made = dict.fromkeys(keep | group for keep in front for group in groups)
            new = [keep for keep in made if keep not in seen and search.cheaper(keep, price)]
            if len(seen) == 1:
                new = new[: FIRST * TRIED]
            seen.update(new)
            if self._batched(iter(new), price):
                return
            new.sort(key=lambda keep: (self._off(keep), search.sorted(keep)))
            if front == [core]:
                groups = [keep - core for keep in new[:TRIED]]
            front = new[:WIDTH]

    def _off(self, keep: Keep) -> float:
        answer = self.search.known[keep]
        return sum(answer.errors.values()) if answer.error < float("inf") else answer.error

    # From the best set

    def _exchange(self) -> None:
        """See `exchange`."""
        if not self.search.settled and (harms := self.search.harms()):
            Exchange(self.search, harms, self._random).run()

    def _walk(self, current: Keep) -> None:
        """Some nodes are added by chance, most of them near the set; then each that can be spared goes.

        As a set that passes mostly passes with a node more, this goes from one set to others that cost no
        more, until one is cheaper than the best.
        """
        search, price = self.search, self.search.price(self.best)
        end = search.asked + WALK
        for _ in range(WALK):  # where there are few nodes all that is asked may be known
            if search.asked >= end or len(current) == len(search.items):
                return
            added = self._some_beside(current)
            keep = current | set(added)
            if not search.passes(keep):
                continue
            soft = search.sorted(current - search.found.necessary)
            self._batched(iter([keep - {item} for item in soft]))
            spared = [item for item in soft if search.known[keep - {item}].passes]
            self._random.shuffle(spared)
            for item in (*spared, *added) if spared else ():
                keep = keep - {item} if search.passes(keep - {item}) else keep
            if spared and search.price(keep) < search.price(current) + 1e-9:
                current = keep
            if search.cheaper(keep, price):
                return

    def _some_beside(self, keep: Keep) -> list[str]:
        """Give a few nodes that are not in the set: near one of it, suspicious, or any."""
        search, chance = self.search, self._random
        count, how = chance.choice(FEW), chance.random()
        if how < 0.6:
            pool = {chance.choice(search.sorted(keep))}
            for _ in range(chance.choice((1, 2, 3))):
                pool |= {t for item in pool for t in search.hints.near.get(item, ()) if t in search.place}
            others = search.sorted(pool - keep)
        else:
            others = [item for item in sorted(search.items, key=search.rank.__getitem__) if item not in keep]
            others = others[: 4 * len(keep)] if how < 0.8 else others
        return chance.sample(others, min(count, len(others)))

    # Other lists

    def _promising(self) -> list[str]:
        """Give the best set, what does harm, and what lies near, in turn."""
        best = self.search.sorted(self.best)
        harm = sorted(self.search.items, key=self.search.rank.__getitem__)
        close = self._close_to(best, len(harm))
        mixed = [item for pair in zip(harm, close, strict=False) for item in pair]
        return list(dict.fromkeys([*best, *mixed]))

    def _close_to(self, keep: Iterable[str], most: int) -> list[str]:
        """Nodes by distance to a set, then by rank."""
        rank, place, near = self.search.rank, self.search.place, self.search.hints.near
        seen = list(self.search.sorted(keep))
        known = set(seen)
        edge = seen
        while edge and len(seen) < most:
            around = {t for item in edge for t in near.get(item, ()) if t in place}
            edge = sorted(around - known, key=lambda t: (rank[t], place[t]))
            known.update(edge)
            seen += edge
        seen += [item for item in sorted(place, key=rank.__getitem__) if item not in known]
        return seen

    def _other_orders(self) -> None:
        """Search through other lists of what does harm or is near, each in a random order, and walk on."""
        search, spread = self.search, 2 * len(self.best)
        for turn in range(TURNS):
            price = search.price(self.best)
            jitter = {item: search.rank[item] + self._random.uniform(0, spread) for item in search.items}
            order = sorted(search.items, key=jitter.__getitem__)
            if turn % 3 == 1:
                order = self._close_to(self.best, spread)[:spread]
                self._random.shuffle(order)
            elif turn % 3 == 2:
                order = list(search.items)
                self._random.shuffle(order)
            order.sort(key=lambda t: t not in search.found.necessary)
            self._from_list(order)
            if search.price(self.best) < price - 1e-9:
                return

    def _from_list(self, order: Sequence[str]) -> None:
        size = max(4, len(self.best))
        while size < len(order) and not self.search.passes(order[:size]):
            size *= 2
        if self.search.passes(order[:size]):
            found = sweep(order[:size], Passes(self.search))
            if not self.search.settled:
                self._walk(frozenset(found))
