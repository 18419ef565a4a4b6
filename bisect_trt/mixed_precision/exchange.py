"""Sets of a given size by what rounding along each edge does: exchanged one by one until one passes.

Where nothing overflows the error is a sum of many small ones, hardly any of which knows of another: their
squares add up (`harms`). So it can be told without a question about how far off a set will be, and which
nodes to give up for which. What is left is luck, as each set rounds other numbers, and neighbours share
most of it: simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 1983) over sets of one size, whose
moves are chosen by the sum and judged by the answer.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from bisect_trt.mixed_precision.answer import Harm, Keep
from bisect_trt.mixed_precision.search import Search

QUESTIONS, QUICK = 250, 150
"""At one size from one start; where there is no 1-minimal set yet."""
HOT, COLD = 0.1, 0.01
"""Logarithms of the error: how much more is taken at the start, and in the end."""
CHOICES = 12
"""Moves among which one is chosen."""
TRUST = (0.01, 0.03, 0.1)
"""Logarithms of the error: how much the sum counts in that; one of them by chance."""
NEAR, WHOLE = 0.8, 0.5
"""Chances that a move begins beside the set, and that it gives up all of what spares one rounding."""
WIDEST = 6
"""Nodes that a move adds."""
CLIMBS, STEPS = 6, 200
"""Tries, and moves in each, to make the sum small before anything is asked."""
LEARN, ROWS, FAR = 50, 256, 4.0
"""Questions after which the sum is corrected; answers that it is corrected by; their largest error."""
NOISE, GAIN, PASSES, LEAST = 0.016, 0.1, 10, 0.02
"""Luck in the square of an error; of a step to an answer, a share; times over all of them; least factor."""
TRIES = ((0.7, False), (0.85, False), (1.0, True))
"""Sizes that are tried: shares of that of the best set, a node less at least; and whether it is begun at."""
HALF = 2


def exchanged(search: Search, chance: random.Random, questions: int) -> bool:
    """Make the best set of a search cheaper, in so many questions; it need not be 1-minimal then.

    Gives whether it came to half of its price: else sums say little of this model.
    """
    begun = search.price(search.found.best)
    with search.limited(questions):
        Exchange(search, search.harms(), chance, TRIES[:2], QUICK).run()
    return HALF * search.price(search.found.best) <= begun


class Exchange:
    """What a set will come to, and the annealing by it."""

    def __init__(
        self,
        search: Search,
        harms: Iterable[Harm],
        chance: random.Random,
        tries: Sequence[tuple[float, bool]] = TRIES,
        questions: int = QUESTIONS,
    ) -> None:
        """Work on a search; the harms tell nothing of nodes that are not among its items."""
        self.search, self._chance, self._shares, self._most = search, chance, tries, questions
        self._units: list[Harm] = []
        self._at: dict[str, list[int]] = {item: [] for item in search.items}
        for nodes, harm in harms:
            some = frozenset(item for item in nodes if item in search.place)
            for item in some:
                self._at[item].append(len(self._units))
            if some:
                self._units.append((some, harm))
        around = {item: {n for u in at for n in self._units[u][0]} for item, at in self._at.items()}
        self._beside = {
            item: sorted({u for other in around[item] for u in self._at[other]}) for item in search.items
        }
        self._order: dict[Keep, list[str]] = {}
        self._measured = np.array([harm for _, harm in self._units])
        self._learned = search.asked

    def run(self) -> None:
        """Try smaller and smaller sets, until none is found any more; the best need not be 1-minimal then.

        Nothing is tried where the best set passes though by the sum it could not: that does not hold here.
        """
        if not self._units or self._left(self.search.found.best) > 1:
            return
        while self._finds_cheaper():
            pass

    def _finds_cheaper(self) -> bool:
        """Try all sizes until one gives a cheaper set: one of fewer nodes need not be that."""
        search, price = self.search, self.search.price(self.search.found.best)
        return any(self._smaller(*how) and search.cheaper(search.found.best, price) for how in self._tries())

    def _tries(self) -> list[tuple[int, bool]]:
        """List sizes, and whether the best set is what it begins at."""
        size, least = len(self.search.found.best), len(self._must()) + 1
        tries = ((max(least, min(size - 1, round(size * share))), best) for share, best in self._shares)
        return [(k, best) for k, best in dict.fromkeys(tries) if k < size]

    def _must(self) -> Keep:
        """Give what no set has passed without, of the nodes that fail when they alone are lowered."""
        found = self.search.found
        return found.necessary & found.best if self.search.needed else frozenset()

    def _smaller(self, size: int, from_best: bool) -> bool:
        """Look for a set of so many nodes that passes; gives whether there was one."""
        search, must = self.search, self._must()
        keep = self._less(size, must) if from_best else self._least(size, must)
        begun, hot = search.asked, self._off(keep)
        for _ in range(3 * self._most):  # where all around is known nothing is asked
            if search.known[keep].passes:
                return True
            spent = (search.asked - begun) / self._most
            if spent >= 1:
                break
            if search.asked >= self._learned + LEARN:
                self._learn()
            other = self._promising(keep, size, must)
            if other is None:
                continue
            off, heat = self._off(other), HOT + (COLD - HOT) * spent
            if off <= hot or self._chance.random() < math.exp((hot - off) / heat):
                keep, hot = other, off
        return False

    def _off(self, keep: Keep) -> float:
        self.search.passes(keep)
        error = self.search.known[keep].error
        return math.log(max(error, 1e-9)) if error < math.inf else math.inf

    # What the sum tells

    def _learn(self) -> None:
        """Correct what each rounding does by the latest answers, starting from what was measured.

        Some roundings are the same in all sets (of weights, of a sum of squares), and add up or cancel. Small
        steps to each answer in turn (Kaczmarz 1937): a solver's last bits would hang on its threads.
        """
        self._learned = self.search.asked
        late = itertools.islice(reversed(self.search.known.items()), 2 * ROWS)
        rows = [(keep, answer.error**2) for keep, answer in late if answer.error < FAR][:ROWS]
        rounded = np.array([[not some <= keep for some, _ in self._units] for keep, _ in rows], dtype=float)
        if len(rows) < LEARN:
            return
        share, error = rounded * self._measured, np.array([square for _, square in rows])
        sums = share.sum(axis=1)
        share *= (sums * error).sum() / (sums * sums).sum()
        weight = 1 / np.maximum(error, 0.3)
        off, share = (error - share.sum(axis=1)) * weight, share * weight[:, None]
        size, more = (share**2).sum(axis=1) + NOISE, np.zeros(len(self._units))
        for _ in range(PASSES):
            for row, due, square in zip(share, off, size, strict=True):
                more += GAIN * (due - (row * more).sum()) / square * row
        new = (self._measured * np.maximum(1 + more, LEAST)).tolist()
        self._units = [(some, harm) for (some, _), harm in zip(self._units, new, strict=True)]
        self._order.clear()

    def _left(self, keep: Keep) -> float:
        """Give the sum of what is rounded with these in FP32."""
        return sum((harm for some, harm in self._units if not some <= keep), 1e-12)

    def _spared(self, keep: Set[str], item: str) -> float:
        """Give how much more is rounded with an item of a set lowered."""
        units = self._units
        return sum(units[u][1] for u in self._at[item] if units[u][0] <= keep)

    def _changed(self, left: float, keep: Keep, other: Keep) -> float:
        """Give the sum of another set from that of a set."""
        more = {u for item in other - keep for u in self._at[item] if self._units[u][0] <= other}
        less = {u for item in keep - other for u in self._at[item] if self._units[u][0] <= keep}
        spared = sum(self._units[u][1] for u in more) - sum(self._units[u][1] for u in less)
        return max(left - spared, 1e-12)

    def _peeled(self, must: Keep) -> list[str]:
        """List all items, those first that can be spared first."""
        if must not in self._order:
            left, order = set(self.search.items), list[str]()
            lost = {item: self._spared(left, item) for item in left}
            heap = [self._ranked(item, lost, must) for item in self.search.items]
            heapq.heapify(heap)
            while heap:
                entry = heapq.heappop(heap)
                item = entry[-1]
                if item not in left or entry[1] > lost[item]:
                    continue  # there is an entry with what it spares by now
                for u in self._at[item]:
                    nodes, harm = self._units[u]
                    for other in nodes - {item} if nodes <= left else ():
                        lost[other] -= harm
                        heapq.heappush(heap, self._ranked(other, lost, must))
                left.discard(item)
                order.append(item)
            self._order[must] = order
        return self._order[must]

    def _ranked(self, item: str, lost: Mapping[str, float], must: Keep) -> tuple[bool, float, int, str]:
        """Give what can be spared first the least value."""
        return item in must, lost[item], self.search.place[item], item

    def _least(self, size: int, must: Keep) -> Keep:
        """Give a set of so many nodes whose sum is small."""
        found = []
        for _ in range(CLIMBS):
            keep = frozenset(self._peeled(must)[-size:])
            left = self._left(keep)
            for _ in range(STEPS):
                other = self._moved(keep, size, must)
                new = left if other is None else self._changed(left, keep, other)
                if other is not None and (new <= left or self._chance.random() < (left / new) ** 50):
                    keep, left = other, new
            found.append((left, self.search.sorted(keep)))
        return frozenset(min(found)[1])

    def _less(self, size: int, must: Keep) -> Keep:
        """Give what is left of the best set without those that spare least, a little by chance."""
        keep = set(self.search.found.best)
        while len(keep) > size:
            luck = {item: math.exp(self._chance.gauss(0, 0.3)) for item in self.search.sorted(keep - must)}
            worth = {item: self._spared(keep, item) * luck[item] for item in luck}
            keep.discard(min(worth, key=lambda t: (worth[t], self.search.place[t])))
        return frozenset(keep)

    # Moves

    def _promising(self, keep: Keep, size: int, must: Keep) -> Keep | None:
        """Give one of several sets near by that were not asked for, those of a small sum rather."""
        moves = (self._moved(keep, size, must) for _ in range(CHOICES))
        new = [other for other in moves if other is not None and other not in self.search.known]
        if not new:
            return None
        left, trust = self._left(keep), self._chance.choice(TRUST)
        sums = [math.log(self._changed(left, keep, other)) / 2 for other in new]
        return self._chance.choices(new, [math.exp((min(sums) - each) / trust) for each in sums])[0]

    def _moved(self, keep: Keep, size: int, must: Keep) -> Keep | None:
        """Add what spares one rounding more, and give up as many others; None where that cannot be."""
        chance, search = self._chance, self.search
        near = self._beside[chance.choice(search.sorted(keep))] if chance.random() < NEAR else ()
        nodes = self._units[chance.choice(near) if near else chance.randrange(len(self._units))][0]
        if nodes <= keep or len(nodes - keep) > min(WIDEST, size - len(must)):
            return None
        made = set(keep | nodes)
        soft = search.sorted(made - must - nodes)
        if len(soft) < len(made) - size:
            return None
        if len(made) > size and chance.random() < WHOLE:
            inside = [u for u in self._at[chance.choice(soft)] if self._units[u][0] <= made]
            gone = search.sorted(self._units[chance.choice(inside)][0] - must - nodes) if inside else []
            made -= set(gone[: len(made) - size])
        while len(made) > size:
            soft = [item for item in soft if item in made]
            some = [chance.choice(soft) for _ in range(3)]
            made.discard(min(some, key=lambda t: self._spared(made, t)))
        return frozenset(made)
