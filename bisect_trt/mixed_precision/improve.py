"""Better sets than the first: what a proof by monotony cannot see, in a limited number of questions.

Each way is tried until one of them finds something cheaper, then they begin again. All are deterministic.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from bisect_trt.mixed_precision.answer import Answer, Keep
from bisect_trt.mixed_precision.search import Passes, Search
from bisect_trt.reduction.list_search import sweep

BATCH = 16
"""Questions that are asked together."""
SPARE = 8
NEAR = 24
WIDE = 60
TURNS = 30
FIRST = 4
"""So many times more groups are tried in the first step of a beam than in the others."""
RUIN = (2, 16, True)
BEAMS = ((4, 40, True), (12, 40, False), (12, 120, True))
"""Of a beam: sets that go on, groups that are tried with each, whether RMS counts or the worst element."""


def improve(search: Search, limit: int, seed: int = 0) -> None:
    """Look for something cheaper than the best of a search, as long as questions are left."""
    with search.limited(limit):
        _Improver(search, seed).run()


class _Improver:
    def __init__(self, search: Search, seed: int) -> None:
        self.search = search
        self._random = random.Random(seed)
        self._harm: dict[str, Answer] = {}
        self._beamed: set[tuple[int, Keep, Keep]] = set()

    @property
    def best(self) -> Keep:
        return self.search.found.best

    def run(self) -> None:
        ways = (
            lambda: self._small_ones(1 / 8),
            self._core_and_few,
            self._by_harm,
            *(lambda k=k: self._beams(k) for k in range(len(BEAMS))),
            self._without_parts,
            self._swaps,
            self._ruins,
            lambda: self._small_ones(1),
            self._other_orders,
        )
        better = len(self.best) > 1
        while better:
            before = self.search.price(self.best)
            better = any(self._improves(way, before) for way in ways) and not self.search.settled

    def _improves(self, way: Callable[[], None], before: float) -> bool:
        way()
        if self.search.price(self.best) > before - 1e-9:
            return False
        self.search.minimal(self.search.sorted(self.best))
        return True

    def _batched(self, keeps: Iterator[Keep], price: float = 0.0) -> bool:
        """Ask many, until there is something that costs less than `price`; gives whether there is."""
        while batch := list(itertools.islice(keeps, BATCH)):
            self.search.answers(batch)
            if self.search.price(self.best) < price - 1e-9:
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
                self._batched(map(frozenset, itertools.combinations(search.items, size)))
                search.found.exhausted = size
                if len(self.best) == size:
                    return

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

    def _beams(self, turn: int) -> None:
        """Search from the necessary nodes on, and from those of them that ranges condemn, too."""
        if self.search.settled:
            return
        core = self.search.found.necessary & self.best
        price = self.search.price(self.best)
        for start in dict.fromkeys((core, core & set(self.search.hints.suspects))):
            if (turn, start, self.best) not in self._beamed:
                self._beamed.add((turn, start, self.best))
                self._beam(start, *BEAMS[turn])
            if self.search.price(self.best) < price - 1e-9:
                return

    def _beam(self, core: Keep, width: int, most: int, by_rms: bool) -> None:
        """Groups are added one by one; the sets that are least off go on."""
        search, price, groups = self.search, self.search.price(self.best), self._groups()
        front, seen = [core], {core}
        while front:
            made = dict.fromkeys(keep | group for keep in front for group in groups)
            new = [keep for keep in made if keep not in seen and search.price(keep) < price - 1e-9]
            if len(seen) == 1:
                new = new[: FIRST * most]
            seen.update(new)
            if self._batched(iter(new), price):
                return
            new.sort(key=lambda keep: (self._off(keep, by_rms), search.sorted(keep)))
            if front == [core]:
                groups = [keep - core for keep in new[:most]]
            front = new[:width]

    def _off(self, keep: Keep, by_rms: bool) -> float:
        answer = self.search.known[keep]
        return sum(answer.errors.values()) if by_rms and answer.error < float("inf") else answer.error

    # From the best set

    def _grow(self, core: Keep, wide: int) -> None:
        """Add to a set, one by one, what takes the error down most, while it is cheaper than the best."""
        search, price = self.search, self.search.price(self.best)
        while search.price(core) + search.cheapest < price - 1e-9:
            others = [item for item in self._promising() if item not in core]
            trials = [core | {item} for item in others[: max(8, min(wide, search.left // 8))]]
            if not trials or self._batched(iter(trials), price):
                return
            core = min(trials, key=lambda keep: (search.known[keep].error, search.sorted(keep)))

    def _without_parts(self) -> None:
        """Each connected part of the best set is left out as a whole, and grown again with less."""
        best, price = self.best, self.search.price(self.best)
        rests = [best - part for part in self._parts(best) if len(part) > 1]
        for gone in self._least_missed(rests, best):
            self._grow(best - set(gone), NEAR)
            if self.search.price(self.best) < price - 1e-9:
                return

    def _parts(self, keep: Keep) -> list[Keep]:
        parts, left = [], set(keep)
        while left:
            part, edge = set[str](), {min(left, key=self.search.place.__getitem__)}
            while edge:
                part |= edge
                edge = {t for item in edge for t in self.search.hints.near.get(item, ())} & left - part
            left -= part
            parts.append(frozenset(part))
        return parts

    def _swaps(self) -> None:
        """Two nodes for another one; one for another one that leaves more room.

        Those go first whose absence does least harm.
        """
        best = self.best
        spare = self._least_missed([best - {item} for item in best], best)[:SPARE]
        pairs = [best - set(gone) for gone in itertools.combinations([g[0] for g in spare], 2)]
        others = [item for item in self._promising() if item not in best]
        for gone in self._least_missed(pairs, best)[:SPARE]:
            rest = best - set(gone)
            if self._batched(iter([rest | {item} for item in others[:WIDE]]), self.search.price(best)):
                return
        for gone in spare:
            self._batched(iter([best - set(gone) | {item} for item in others[:NEAR]]))

    def _ruins(self) -> None:
        """Some nodes that are missed little are taken out by chance, and others put in."""
        best, price = self.best, self.search.price(self.best)
        soft = self._least_missed([best - {item} for item in best], best)[: 2 * SPARE]
        for _ in range(TURNS):
            few = self._random.sample(soft, min(len(soft), self._random.randint(2, 4)))
            self._beam(best - {item for gone in few for item in gone}, *RUIN)
            if self.search.price(self.best) < price - 1e-9:
                return

    def _least_missed(self, keeps: Sequence[Keep], best: Keep) -> list[tuple[str, ...]]:
        """Give what subsets of the best set lack, those first that come nearest to passing."""
        self._batched(iter(keeps))
        search = self.search
        order = sorted(keeps, key=lambda keep: (search.known[keep].error, search.sorted(keep)))
        return [tuple(search.sorted(best - keep)) for keep in order if keep]

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
        """Search through other lists of what does harm or is near, each in a random order."""
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
            sweep(order[:size], Passes(self.search))
