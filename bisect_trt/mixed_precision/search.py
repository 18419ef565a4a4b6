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

What is beyond a proof by monotony is tried by `improve`; `schedule` says what runs when, and for how long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.mixed_precision.answer import Answer, Harm, Keep
from bisect_trt.mixed_precision.hitting import cheapest_hitting_set
from bisect_trt.outcome import Verdict
from bisect_trt.reduction.list_search import minimise

Ask = Callable[[Sequence[Keep]], Sequence[Answer]]
"""Answers for several sets; raises to end the search (budget, Ctrl-C)."""


class EffortSpentError(Exception):
    """The questions that may be asked for improvements are used up."""


class Hints(Struct, frozen=True):
    """What is known of the nodes before anything is asked.

    Attributes:
        suspects: those that ranges alone condemn.
        rank: all nodes, the most suspicious first.
        twins: node to the class of nodes that have the same place in repeated blocks.
        near: node to its neighbours in the graph.
        starts: what another search found to be minimal, whose answers are about these: tried first, in turn.
        hard: those that hardly can be spared: asked for last.
        harms: runs the model for each rounding, at most so often; gives how often, and what each does.
    """

    suspects: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()
    twins: Mapping[str, str] = field(default_factory=dict)
    near: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    starts: tuple[tuple[str, ...], ...] = ()
    hard: Keep = frozenset()
    harms: Callable[[int], tuple[int, Sequence[Harm]]] = lambda most: (0, ())


class Found(Struct):
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
        always: Keep = frozenset(),
        cost: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        """Search among `items`, in the order of the model; `always` stay in FP32 in any case.

        What is put in place of `before` is called with the number of new questions before these are asked.
        """
        self.items, self._ask, self.hints, self.always = tuple(items), ask, hints, always
        self.cost = cost
        self.place = {item: k for k, item in enumerate(self.items)}
        self.known: dict[Keep, Answer] = {}
        self.found = Found(frozenset(self.items))
        self._limit: int | None = None
        self._idle, self._cheaper = math.inf, 0
        self._harms: Sequence[Harm] | None = None
        self._measured = 0
        self._bit = {item: 1 << k for k, item in enumerate(self.items)}
        self._passed: list[int] = []
        self._failed: list[int] = []
        self.odd = False
        self.before: Callable[[int], None] = lambda new: None
        known_rank = {item: k for k, item in enumerate(hints.rank)}
        self.rank = {item: known_rank.get(item, len(known_rank)) for item in self.items}

    # Questions

    @property
    def asked(self) -> int:
        """How many different questions were asked, roundings that were measured alone included."""
        return len(self.known) + self._measured

    def answers(self, keeps: Iterable[Iterable[str]]) -> list[Answer]:
        """Answers for several sets; what is known is not asked again. Keeps what is better than the best."""
        asked = [frozenset(keep) for keep in keeps]
        new = [keep for keep in dict.fromkeys(asked) if keep not in self.known]
        if self._limit is not None and self.asked + len(new) > min(self._limit, self._cheaper + self._idle):
            raise EffortSpentError
        if new:
            self.before(len(new))
            for keep, answer in zip(new, self._ask([k | self.always for k in new]), strict=True):
                self.known[keep] = answer
                self._compare(keep, answer.passes)
                if answer.passes and self._better(keep, answer):
                    if self.cheaper(keep, self.price(self.found.best)):
                        self._cheaper = self.asked
                    self.found.best, self.found.one_minimal = keep, False
        return [self.known[keep] for keep in asked]

    @contextmanager
    def limited(self, questions: int, idle: float = math.inf) -> Iterator[None]:
        """Only so many new questions inside; what is found until they are used up stays.

        It ends earlier when nothing cheaper came of `idle` questions in turn.
        """
        self._limit, self._idle, self._cheaper = self.asked + questions, idle, self.asked
        try:
            yield
        except EffortSpentError:
            pass
        finally:
            self._limit = None

    def allow(self, questions: int) -> None:
        """Let so many more find nothing, as they are a proof."""
        self._cheaper += questions

    @property
    def left(self) -> int:
        """How many questions are left of a limit."""
        return (self._limit or 0) - self.asked

    def harms(self) -> Sequence[Harm]:
        """Give what each rounding does alone; it takes no more than a third of what is left, see `harms`."""
        if self._harms is None:
            self._measured, self._harms = self.hints.harms(min(self.left // 3, MEASURED))
        return self._harms

    def passes(self, keep: Iterable[str]) -> bool:
        """Say whether the model is right with these in FP32."""
        return self.answers([keep])[0].passes

    def price(self, keep: Iterable[str]) -> float:
        """Give what a set costs."""
        return sum(map(self.cost, keep))

    def cheaper(self, keep: Iterable[str], price: float) -> bool:
        """Return whether a set costs less than that, by more than sums of costs are rounded."""
        return self.price(keep) < price - 1e-9

    def _compare(self, keep: Keep, passes: bool) -> None:
        """Notice a set that passes within one that fails: then proofs by monotony are worth little."""
        if self.odd:
            return
        own = sum(self._bit[item] for item in keep)
        others = self._failed if passes else self._passed
        self.odd = any(own & other == (own if passes else other) for other in others)
        (self._passed if passes else self._failed).append(own)

    def _better(self, keep: Keep, answer: Answer) -> bool:
        """Cheaper than the best, or as cheap and further from the limit."""
        best = self.known.get(self.found.best)
        price, least = self.price(keep), self.price(self.found.best)
        return self.cheaper(keep, least) or (
            price < least + 1e-9 and best is not None and answer.error < best.error - 1e-9
        )

    def sorted(self, keep: Iterable[str]) -> list[str]:
        """Give it in the order of the model."""
        return sorted(keep, key=self.place.__getitem__)

    # 1. The first set

    def first(self) -> None:
        """Go from nothing to a 1-minimal set."""
        start = self._first_that_passes()
        self.minimal(start)
        self.found.first = self.asked

    def _first_that_passes(self) -> list[str]:
        for start in self.hints.starts:
            if self.passes(start):
                return list(start)
        chosen = [item for item in self.hints.suspects if item in self.place]
        size = max(4, len(chosen))
        rest = [item for item in self.hints.rank if item in self.place and item not in set(chosen)]
        rest += [item for item in self.items if item not in set(chosen) | set(rest)]
        while True:
            if chosen and self.passes(chosen):
                return self.sorted(chosen)
            if not rest:
                return list(self.items)
            chosen, rest = chosen + rest[:size], rest[size:]
            size = len(chosen)

    def minimal(self, start: Sequence[str]) -> Keep:
        """Give a 1-minimal subset of a set that passes."""
        current = self.sorted(start)
        if set(current) in map(set, self.hints.starts):
            few = self.swept(current, AT_ONCE)
            if len(current) - len(few) != AT_ONCE:
                return frozenset(few)
            current = few
        hard = [item for item in current if item in self.hints.hard]
        soft = self._without_classes([item for item in current if item not in self.hints.hard], hard)
        found = minimise(soft, Passes(self, hard), self.cost) if len(soft) > 1 else soft
        return frozenset(self.swept(self.sorted([*hard, *found])))

    def _without_classes(self, current: list[str], others: list[str]) -> list[str]:
        """Leave all twins of a class out at once, the least suspicious class first."""
        classes: dict[str, list[str]] = {}
        for item in current:
            classes.setdefault(self.hints.twins.get(item, item), []).append(item)
        if len(classes) == len(current):
            return current
        order = sorted(classes.values(), key=lambda some: -min(self.rank[item] for item in some))
        for some in order:
            trial = [item for item in current if item not in set(some)]
            if trial and len(some) > 1 and self.passes([*others, *trial]):
                current = trial
        return current

    def swept(self, found: Sequence[str], most: int = 0) -> list[str]:
        """Each member alone is lowered, the least suspicious first: what comes out is 1-minimal.

        When the first `most` could all be lowered it ends with these.
        """
        current = list(found)
        again, tried = True, 0
        while again and len(current) > 1:
            again = False
            for item in sorted(current, key=self._spared_first):
                trial, tried = [t for t in current if t != item], tried + 1
                if trial and self.passes(trial):
                    current, again = trial, True
                    if tried == most == len(found) - len(current):
                        return current
        if frozenset(current) == self.found.best:
            self.found.one_minimal = True
        return current

    def _spared_first(self, item: str) -> tuple[bool, float, int]:
        return item in self.hints.hard, -self.cost(item), -self.rank[item]

    # 2. The proof

    def prove(self, limit: int) -> None:
        """Hit all conflicts as cheaply as can be, until that passes or costs as much as the best."""
        with self.limited(limit):
            everything = frozenset(self.items)
            singles = self.sorted(self.found.best)
            answers = self.answers([everything - {item} for item in singles])
            necessary = [item for item, a in zip(singles, answers, strict=True) if not a.passes]
            self.found.necessary = frozenset(necessary)
            self.found.conflicts = [frozenset({item}) for item in necessary]
            self._hit_all(everything)

    def _hit_all(self, everything: Keep) -> None:
        conflicts = self.found.conflicts
        while True:
            hit, sure = cheapest_hitting_set(conflicts, self.cost, lambda t: self.rank[t])
            if sure and not self.cheaper(hit, self.price(self.found.best)):
                self.found.bound = True
                return
            if self.passes(hit):
                self.found.bound = sure
                self.minimal(self.sorted(hit)) if len(hit) > 1 else None
                return
            if self.core_fails:
                return
            lowered = self.sorted(everything - hit)
            conflict = minimise(lowered, _Fails(self, everything))
            if len(conflict) > WIDEST_CONFLICT:
                return
            conflicts.append(frozenset(conflict))

    # The end

    def finish(self) -> None:
        """Make sure of 1-minimality: equally good sets may have taken the place of the best."""
        while not self.found.one_minimal and len(self.found.best) > 1:
            self.swept(self.sorted(self.found.best))
        self.found.one_minimal = True

    @property
    def unproven(self) -> int:
        """How many nodes of the best set nobody has asked about alone."""
        best = self.found.best
        return sum(best - {item} not in self.known for item in best)

    def choose(self, keep: Keep) -> None:
        """Take a set that passes in place of the best one, though it may not be 1-minimal."""
        if keep != self.found.best:
            self.found.best, self.found.one_minimal, self.found.bound = keep, False, False

    def within(self, tolerances: float) -> Search:
        """Give a new search of the same, for what is off by no more than so many tolerances."""

        def ask(keeps: Sequence[Keep]) -> list[Answer]:
            answers = self.answers([keep - self.always for keep in keeps])
            return [replace(a, passes=a.error <= tolerances) for a in answers]

        made = Search(self.items, ask, self.hints, self.always, self.cost)
        made.answers([frozenset(self.items), frozenset()])
        return made

    def start_again(self, ask: Ask) -> None:
        """Forget all answers: they are another's from now on."""
        self._ask, self.known, self.odd = ask, {}, False
        self._passed, self._failed = [], []
        self.found = Found(frozenset(self.items))
        self.answers([frozenset(self.items), frozenset()])

    @property
    def settled(self) -> bool:
        """Whether nothing cheaper can pass unless a node more in FP32 hurts, which was not seen.

        Where it was seen groups of nodes tell nothing. That a node has to stay which fails when it alone is
        lowered is believed as long as no set has passed without it.
        """
        enough = self.found.necessary >= self.found.best or self.core_fails
        return self.all_tried or (enough and self.needed) or (self.found.bound and not self.odd)

    @property
    def needed(self) -> bool:
        """Whether no set has passed without one of the necessary nodes."""
        necessary = self.found.necessary
        return not self.odd or all(keep >= necessary for keep, a in self.known.items() if a.passes)

    @property
    def core_fails(self) -> bool:
        """Whether the best set is one node more than the necessary ones, and these alone fail."""
        core = self.known.get(self.found.necessary)
        dearer = self.price(self.found.necessary) + self.cheapest
        return core is not None and not core.passes and dearer >= self.price(self.found.best) - 1e-9

    @property
    def cheapest(self) -> float:
        """The cost of the cheapest node."""
        return min(map(self.cost, self.items))

    @property
    def _alike(self) -> bool:
        """Whether all nodes cost the same."""
        return self.cheapest == max(map(self.cost, self.items))

    @property
    def all_tried(self) -> bool:
        """Whether every smaller set was tried, where nothing else is cheaper."""
        size = len(self.found.best)
        return not size or (self._alike and (size == 1 or self.found.exhausted >= size - 1))

    @property
    def smallest(self) -> str:
        """Why nothing cheaper exists, in words; empty where that is not known."""
        found, size = self.found, len(self.found.best)
        if self.all_tried:
            return "every smaller set was tried and fails" if size else "nothing has to stay"
        # What follows holds as long as a node more in FP32 never hurts, or does no such harm at least.
        but = ", and every set that passed has all of them" * self.odd
        if found.necessary >= found.best and self.needed:
            return f"each of these fails when it alone is lowered, all others in FP32{but}"
        if self.core_fails and len(found.necessary) == size - 1 and self.needed:
            few = f"{size - 1} of these fail each when it alone is lowered, all others in FP32"
            return f"{few}; these {size - 1} by themselves are not enough{but}"
        if found.bound and not self.odd:
            return (
                f"{len(found.conflicts)} groups of nodes fail when they alone are lowered, "
                f"and no {'smaller' if self._alike else 'cheaper'} set has a node of each"
            )
        return ""


MEASURED = 320
"""Roundings or groups of them that are measured alone."""
WIDEST_CONFLICT = 10
"""Nodes of a conflict beyond which hitting all conflicts is hopeless."""
AT_ONCE = 3
"""When the first so many of a set that another found minimal can be spared, more are tried at once."""


class Passes:
    """A judge of sets of nodes that stay: REPRODUCES when the model is right with them."""

    def __init__(self, search: Search, others: Sequence[str] = ()) -> None:
        """Ask this search, always with some others in FP32."""
        self._search, self._others = search, others

    def __call__(self, items: Sequence[str]) -> Verdict:
        """Ask the search."""
        passes = self._search.passes([*self._others, *items])
        return Verdict.REPRODUCES if passes else Verdict.VANISHES


class _Fails:
    """A judge of sets of nodes that are lowered, the others in FP32: REPRODUCES when that fails."""

    def __init__(self, search: Search, everything: Keep) -> None:
        self._search, self._everything = search, everything

    def __call__(self, items: Sequence[str]) -> Verdict:
        passes = self._search.passes(self._everything - set(items))
        return Verdict.VANISHES if passes else Verdict.REPRODUCES
