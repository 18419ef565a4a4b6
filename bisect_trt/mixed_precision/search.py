"""The search for the cheapest set of nodes that must stay in FP32; it knows of no model and no target.

A question is a set of nodes that stay; the answer says whether the outputs agree then, and how far off they
are. Answers need not be monotone: a node more in FP32 can break what it should mend.

1. `first`: what ranges alone condemn is tried, then more by rank, and the first set that passes is made
   1-minimal by the list search that `reduce` has (`reduction.list_search`), whole classes of twins before
   single nodes.
2. `prove`: *conflicts* are smallest sets of nodes that fail when they alone are lowered; whatever passes has
   a member in each, as long as answers are monotone. The cheapest set that hits all known conflicts is tried
   (implicit hitting sets: Moreno-Centeno and Karp, Operations Research 2013); when it passes, or costs as
   much as the best, nothing is cheaper.
3. `improve`: what a proof by monotony cannot see, and sets that conflicts do not find in the allowed number
   of questions: all small sets, lists by harm, the core and one node more after the other, a connected part
   replaced by less, two nodes for one, other lists with some luck.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bisect_trt.mixed_precision.answer import Answer, Keep
from bisect_trt.mixed_precision.hitting import cheapest_hitting_set
from bisect_trt.outcome import Verdict
from bisect_trt.reduction.list_search import minimise, sweep

Ask = Callable[[Sequence[Keep]], Sequence[Answer]]
"""Answers for several sets; raises to end the search (budget, Ctrl-C)."""


class EffortSpentError(Exception):
    """The questions that may be asked for improvements are used up."""


@dataclass(frozen=True)
class Hints:
    """What is known of the nodes before anything is asked.

    Attributes:
        suspects: those that ranges alone condemn.
        rank: all nodes, the most suspicious first.
        twins: node to the class of nodes that have the same place in repeated blocks.
        near: node to its neighbours in the graph.
    """

    suspects: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()
    twins: Mapping[str, str] = field(default_factory=dict)
    near: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Found:
    """What came of a search.

    Attributes:
        best: the cheapest set that passes.
        first: questions until the first 1-minimal set.
        one_minimal: each node of it alone was lowered, and that failed.
        bound: nothing that costs less passes, as long as answers are monotone.
        necessary: nodes that fail when they alone are lowered.
        conflicts: smallest sets that fail when they alone are lowered.
        exhausted: sets of so many nodes were all tried, and none passes, whatever the answers.
        ended: why the search ended before it was done.
    """

    best: Keep
    first: int = 0
    one_minimal: bool = False
    bound: bool = False
    necessary: Keep = frozenset()
    conflicts: list[Keep] = field(default_factory=list)
    exhausted: int = 0
    ended: str = ""


class Search:
    """One search; `found` is what it has so far, at any moment."""

    def __init__(
        self,
        items: Sequence[str],
        ask: Ask,
        hints: Hints,
        *,
        always: Keep = frozenset(),
        cost: Callable[[str], float] = lambda _: 1.0,
        seed: int = 0,
    ) -> None:
        """Search among `items`, in the order of the model; `always` stay in FP32 in any case."""
        self.items, self._ask, self.hints, self.always = tuple(items), ask, hints, always
        self.cost = cost
        self.place = {item: k for k, item in enumerate(self.items)}
        self.known: dict[Keep, Answer] = {}
        self.found = Found(frozenset(self.items))
        self._random = random.Random(seed)
        self._limit: int | None = None
        self._measured = False
        known_rank = {item: k for k, item in enumerate(hints.rank)}
        self._rank = {item: known_rank.get(item, len(known_rank)) for item in self.items}

    # Questions

    @property
    def asked(self) -> int:
        """How many different questions were asked."""
        return len(self.known)

    def answers(self, keeps: Iterable[Iterable[str]]) -> list[Answer]:
        """Answers for several sets; what is known is not asked again. Keeps what is better than the best."""
        wanted = [frozenset(keep) for keep in keeps]
        new = [keep for keep in dict.fromkeys(wanted) if keep not in self.known]
        if self._limit is not None and len(self.known) + len(new) > self._limit:
            raise EffortSpentError
        if new:
            for keep, answer in zip(new, self._ask([k | self.always for k in new]), strict=True):
                self.known[keep] = answer
                if answer.passes and self._better(keep, answer):
                    self.found.best, self.found.one_minimal = keep, False
        return [self.known[keep] for keep in wanted]

    def passes(self, keep: Iterable[str]) -> bool:
        """Whether the model is right with these in FP32."""
        return self.answers([keep])[0].passes

    def price(self, keep: Iterable[str]) -> float:
        """What a set costs."""
        return sum(map(self.cost, keep))

    def _better(self, keep: Keep, answer: Answer) -> bool:
        """Cheaper than the best, or as cheap and further from the limit."""
        best = self.known.get(self.found.best)
        price, least = self.price(keep), self.price(self.found.best)
        return price < least - 1e-9 or (
            price < least + 1e-9 and best is not None and answer.error < best.error - 1e-9
        )

    def _sorted(self, keep: Iterable[str]) -> list[str]:
        return sorted(keep, key=self.place.__getitem__)

    # 1. The first set

    def first(self) -> None:
        """Go from nothing to a 1-minimal set."""
        start = self._first_that_passes()
        self._minimal(start)
        self.found.first = self.asked

    def _first_that_passes(self) -> list[str]:
        chosen = [item for item in self.hints.suspects if item in self.place]
        size = max(4, len(chosen))
        rest = [item for item in self.hints.rank if item in self.place and item not in set(chosen)]
        rest += [item for item in self.items if item not in set(chosen) | set(rest)]
        while True:
            if chosen and self.passes(chosen):
                return self._sorted(chosen)
            if not rest:
                return list(self.items)
            chosen, rest = chosen + rest[:size], rest[size:]
            size = len(chosen)

    def _minimal(self, start: Sequence[str]) -> Keep:
        """A 1-minimal subset of a set that passes."""
        current = self._without_classes(self._sorted(start))
        judge = _Passes(self, frozenset())
        found = minimise(current, judge, self.cost) if len(current) > 1 else list(current)
        found = self._swept(found)
        return frozenset(found)

    def _without_classes(self, current: list[str]) -> list[str]:
        """All twins of a class are left out at once, the least suspicious class first."""
        classes: dict[str, list[str]] = {}
        for item in current:
            classes.setdefault(self.hints.twins.get(item, item), []).append(item)
        if len(classes) == len(current):
            return current
        order = sorted(classes.values(), key=lambda some: -min(self._rank[item] for item in some))
        for some in order:
            trial = [item for item in current if item not in set(some)]
            if trial and len(some) > 1 and self.passes(trial):
                current = trial
        return current

    def _swept(self, found: Sequence[str]) -> list[str]:
        """Each member alone is lowered; the least suspicious first."""
        current = list(found)
        again = True
        while again and len(current) > 1:
            again = False
            for item in sorted(current, key=lambda t: (-self.cost(t), -self._rank[t])):
                trial = [t for t in current if t != item]
                if trial and self.passes(trial):
                    current, again = trial, True
        if frozenset(current) == self.found.best:
            self.found.one_minimal = True
        return current

    # 2. The proof

    def prove(self, limit: int) -> None:
        """Hit all conflicts as cheaply as can be, until that passes or costs as much as the best."""
        self._limit = self.asked + limit
        try:
            everything = frozenset(self.items)
            singles = self._sorted(self.found.best)
            answers = self.answers([everything - {item} for item in singles])
            necessary = [item for item, a in zip(singles, answers, strict=True) if not a.passes]
            self.found.necessary = frozenset(necessary)
            self.found.conflicts = [frozenset({item}) for item in necessary]
            self._hit_all(everything)
        except EffortSpentError:
            pass
        finally:
            self._limit = None

    def _hit_all(self, everything: Keep) -> None:
        conflicts = self.found.conflicts
        while True:
            hit, sure = cheapest_hitting_set(conflicts, self.cost, lambda t: self._rank[t])
            if sure and self.price(hit) >= self.price(self.found.best) - 1e-9:
                self.found.bound = True
                return
            if self.passes(hit):
                self.found.bound = sure
                self._minimal(self._sorted(hit)) if len(hit) > 1 else None
                return
            if self.core_fails:
                return
            lowered = self._sorted(everything - hit)
            conflict = minimise(lowered, _Fails(self, everything))
            if len(conflict) > WIDEST_CONFLICT:
                return
            conflicts.append(frozenset(conflict))

    # 3. Better ones

    def improve(self, limit: int) -> None:
        """Look for cheaper sets in other ways, as long as questions are left."""
        self._limit = self.asked + limit
        ways = (
            self._small_ones,
            self._core_and_few,
            self._by_effect,
            self._core_and_more,
            self._without_parts,
            self._swaps,
            self._other_orders,
        )
        try:
            better = len(self.found.best) > 1
            while better:
                before = self.price(self.found.best)
                better = any(self._improves(way, before) for way in ways) and not self.settled
        except EffortSpentError:
            pass
        finally:
            self._limit = None

    def _improves(self, way: Callable[[], None], before: float) -> bool:
        way()
        if self.price(self.found.best) > before - 1e-9:
            return False
        self._minimal(self._sorted(self.found.best))
        return True

    def finish(self) -> None:
        """Make sure of 1-minimality: equally good sets may have taken the place of the best."""
        while not self.found.one_minimal and len(self.found.best) > 1:
            self._swept(self._sorted(self.found.best))
        self.found.one_minimal = True

    def start_again(self, ask: Ask) -> None:
        """Forget all answers: they are another's from now on."""
        self._ask, self.known = ask, {}
        self.found = Found(frozenset(self.items))
        self.answers([frozenset(self.items), frozenset()])

    def _left(self) -> int:
        return (self._limit or 0) - self.asked

    def _batched(self, keeps: Iterator[Keep], price: float = 0.0) -> bool:
        """Ask many, until there is something that costs less than `price`; gives whether there is."""
        while batch := list(itertools.islice(keeps, BATCH)):
            self.answers(batch)
            if self.price(self.found.best) < price - 1e-9:
                return True
        return False

    def _small_ones(self) -> None:
        """All sets of one node, of two, ... where that is affordable: a proof that holds without monotony."""
        count = 1
        for size in range(1, len(self.found.best)):
            count = count * (len(self.items) - size + 1) // size
            if count > self._left() / 2:
                return
            if size > self.found.exhausted:
                self._batched(map(frozenset, itertools.combinations(self.items, size)))
                self.found.exhausted = size
                if len(self.found.best) == size:
                    return

    def _by_effect(self) -> None:
        """Each node is lowered alone; the shortest list of those that do most harm, made 1-minimal."""
        if self._measured or len(self.items) > self._left() / 3 or self.settled:
            return
        self._measured = True
        everything = frozenset(self.items)
        self._batched(iter([everything - {item} for item in self.items]))
        harm = {item: self.known[everything - {item}].error for item in self.items}
        order = sorted(self.items, key=lambda t: (-harm[t], self._rank[t]))
        self._rank = {item: k for k, item in enumerate(order)}
        self._shortest_list(order)

    @property
    def settled(self) -> bool:
        """Whether nothing cheaper can pass unless a node more in FP32 hurts."""
        return self.core_fails or self.found.necessary >= self.found.best

    @property
    def core_fails(self) -> bool:
        """Whether the best set is one node more than the necessary ones, and these alone fail."""
        core = self.known.get(self.found.necessary)
        dearer = self.price(self.found.necessary) + self._cheapest
        return core is not None and not core.passes and dearer >= self.price(self.found.best) - 1e-9

    @property
    def _cheapest(self) -> float:
        return min(map(self.cost, self.items))

    def _shortest_list(self, order: Sequence[str]) -> None:
        low, high = 1, len(order)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.passes(order[:middle]) else (middle + 1, high)
        if self.passes(order[:high]):
            self._swept(order[:high])

    def _core_and_few(self) -> None:
        """The necessary nodes and all sets of one, of two, ... others, where that is affordable."""
        core = self.found.necessary & self.found.best
        others = [item for item in self._promising() if item not in core]
        count, price = 1, self.price(self.found.best)
        for size in range(1, len(self.found.best) - len(core)):
            count = count * (len(others) - size + 1) // size
            if count > self._left() * 2 // 3:
                return
            if self._batched((core | set(some) for some in itertools.combinations(others, size)), price):
                return

    def _core_and_more(self) -> None:
        """The necessary nodes and, one by one, what takes the error down most."""
        self._grow(self.found.necessary & self.found.best, WIDE)

    def _grow(self, core: Keep, wide: int) -> None:
        """Add to a set, one by one, what takes the error down most, while it is cheaper than the best."""
        price = self.price(self.found.best)
        while self.price(core) + self._cheapest < price - 1e-9:
            others = [item for item in self._promising() if item not in core]
            trials = [core | {item} for item in others[: max(8, min(wide, self._left() // 8))]]
            if not trials or self._batched(iter(trials), price):
                return
            core = min(trials, key=lambda keep: (self.known[keep].error, self._sorted(keep)))

    def _without_parts(self) -> None:
        """Each connected part of the best set is left out as a whole, and grown again with less."""
        best = self.found.best
        price = self.price(best)
        rests = [best - part for part in self._parts(best) if len(part) > 1]
        for gone in self._least_missed(rests, best):
            self._grow(best - set(gone), NEAR)
            if self.price(self.found.best) < price - 1e-9:
                return

    def _parts(self, keep: Keep) -> list[Keep]:
        parts, left = [], set(keep)
        while left:
            part, edge = set[str](), {min(left, key=self.place.__getitem__)}
            while edge:
                part |= edge
                edge = {t for item in edge for t in self.hints.near.get(item, ())} & left - part
            left -= part
            parts.append(frozenset(part))
        return parts

    def _promising(self) -> list[str]:
        """The best set, what does harm, and what lies near, in turn."""
        best = self._sorted(self.found.best)
        harm = sorted(self.items, key=lambda t: self._rank[t])
        close = self._close_to(best, len(self.items))
        mixed = [item for pair in zip(harm, close, strict=False) for item in pair]
        return list(dict.fromkeys([*best, *mixed]))

    def _close_to(self, keep: Iterable[str], most: int) -> list[str]:
        """Nodes by distance to a set, then by rank."""
        seen = list(self._sorted(keep))
        known = set(seen)
        edge = seen
        while edge and len(seen) < most:
            around = {t for item in edge for t in self.hints.near.get(item, ()) if t in self.place}
            edge = sorted(around - known, key=lambda t: (self._rank[t], self.place[t]))
            known.update(edge)
            seen += edge
        seen += [item for item in sorted(self.items, key=lambda t: self._rank[t]) if item not in known]
        return seen

    def _swaps(self) -> None:
        """Two nodes for another one; one for another one that leaves more room.

        Those go first whose absence does least harm.
        """
        best = self.found.best
        spare = self._least_missed([best - {item} for item in best], best)[:SPARE]
        pairs = [best - set(gone) for gone in itertools.combinations([g[0] for g in spare], 2)]
        others = [item for item in self._promising() if item not in best]
        for gone in self._least_missed(pairs, best)[:SPARE]:
            rest = best - set(gone)
            if self._batched(iter([rest | {item} for item in others[:WIDE]]), self.price(best)):
                return
        for gone in spare:
            self._batched(iter([best - set(gone) | {item} for item in others[:NEAR]]))

    def _least_missed(self, keeps: Sequence[Keep], best: Keep) -> list[tuple[str, ...]]:
        """What subsets of the best set lack, those first that come nearest to passing."""
        self._batched(iter(keeps))
        order = sorted(keeps, key=lambda keep: (self.known[keep].error, self._sorted(keep)))
        return [tuple(self._sorted(best - keep)) for keep in order if keep]

    def _other_orders(self) -> None:
        """From other lists of what does harm or is near, each with some luck."""
        for turn in range(TURNS):
            price = self.price(self.found.best)
            spread = 2 * len(self.found.best)
            jitter = {item: self._rank[item] + self._random.uniform(0, spread) for item in self.items}
            order = sorted(self.items, key=lambda t: (t not in self.found.necessary, jitter[t]))
            if turn % 3 == 1:
                order = self._close_to(self.found.best, spread)[:spread]
                self._random.shuffle(order)
            elif turn % 3 == 2:
                order = list(self.items)
                self._random.shuffle(order)
            order.sort(key=lambda t: t not in self.found.necessary)
            self._from_list(order)
            if self.price(self.found.best) < price - 1e-9:
                return

    def _from_list(self, order: Sequence[str]) -> None:
        size = max(4, len(self.found.best))
        while size < len(order) and not self.passes(order[:size]):
            size *= 2
        if self.passes(order[:size]):
            sweep(order[:size], _Passes(self, frozenset()))


WIDEST_CONFLICT = 10
"""Nodes of a conflict beyond which hitting all conflicts is hopeless."""
BATCH = 16
"""Questions that are asked together."""
SPARE = 8
NEAR = 24
WIDE = 120
TURNS = 30


class _Passes:
    """A judge of sets of nodes that stay: REPRODUCES when the model is right with them."""

    def __init__(self, search: Search, base: Keep) -> None:
        self._search, self._base = search, base

    def verdict(self, items: Sequence[str]) -> Verdict:
        passes = self._search.passes(self._base | set(items))
        return Verdict.REPRODUCES if passes else Verdict.VANISHES


class _Fails:
    """A judge of sets of nodes that are lowered, the others in FP32: REPRODUCES when that fails."""

    def __init__(self, search: Search, everything: Keep) -> None:
        self._search, self._everything = search, everything

    def verdict(self, items: Sequence[str]) -> Verdict:
        passes = self._search.passes(self._everything - set(items))
        return Verdict.VANISHES if passes else Verdict.REPRODUCES
