"""`--cost time`: what each node costs in FP32, and which of some sets runs fastest; both measured.

The price of a node is what lowering it saves: the seconds of the layer that computes it where all is FP32,
less those where all is low. The time of a layer of several nodes is shared among them alike. A price knows
nothing of casts and of layers that a set cuts in two, so in the end the cheapest set and its closures over
layers are built and run in turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from bisect_trt.mixed_precision.answer import Keep
from bisect_trt.mixed_precision.asking import job, label, within
from bisect_trt.mixed_precision.search import Search
from bisect_trt.model.candidate import Candidate
from bisect_trt.session.journal import Journal, read
from bisect_trt.session.oracle import LONGEST_DEADLINE
from bisect_trt.session.prober import Budget
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import fed
from bisect_trt.targets.timed import FailedError
from bisect_trt.workers.jobs import opened
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.text import counted

ROUNDS = 10
WON = 9
"""Rounds of these in which what is called faster was so: by chance alone in one of ninety comparisons."""
WARM, TURN = 0.3, 0.1  # seconds
MOST_RUNS = 20_000  # of one turn
PROFILED = 20  # runs with the target's own profiler
LEAST = 1e-3
"""The price of a node that costs nothing, by that of the mean node: of sets as cheap the smaller one wins."""
TIMES = "times"
"""The event of the journal that holds what was measured."""

Shared = tuple[tuple[str, ...], float]
"""Names of the nodes that a layer computes, and its seconds."""


class Clocked(Struct, frozen=True):
    """What was measured of one set; nothing where it cannot be built.

    Attributes:
        rounds: seconds of one run, the median of each turn.
        layers: what the target's profiler tells, layers of no node left out.
    """

    rounds: tuple[float, ...] = ()
    layers: tuple[Shared, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Clocked:
        """Make it from what `msgspec.structs.asdict` gave."""
        return cls(tuple(data["rounds"]), tuple((tuple(names), taken) for names, taken in data["layers"]))

    @property
    def seconds(self) -> float:
        """Of one run; 0 where nothing was measured."""
        return median(self.rounds) if self.rounds else 0.0

    def beats(self, other: Clocked) -> bool:
        """Say whether it is faster, and that not by chance."""
        return sum(a < b for a, b in zip(self.rounds, other.rounds, strict=False)) >= WON


def in_turns(settings: TargetSettings, candidates: Sequence[Candidate], profile: bool) -> list[Clocked]:
    """Build each, run them in turns on the first sample; `profile`: once more for the times of layers.

    It runs in a worker. What cannot be built or run has no times.
    """
    target: Any = opened(settings)
    found = [Clocked() for _ in candidates]
    open_ones: dict[int, Any] = {}
    for k, candidate in enumerate(candidates):
        try:
            side = target.timed(candidate)
            side.feed(fed(candidate)[0])
            side.run(WARM, MOST_RUNS)
        except FailedError:
            continue
        open_ones[k] = side
    rounds: dict[int, list[float]] = {k: [] for k in open_ones}
    for _ in range(ROUNDS):
        for k, side in open_ones.items():
            rounds[k].append(median(side.run(TURN, MOST_RUNS)))
    for k, side in open_ones.items():
        timed = side.layers(PROFILED) if profile else None
        layers = tuple((one.nodes, one.seconds) for one in (timed.layers if timed else ()) if one.nodes)
        found[k] = Clocked(tuple(rounds[k]), layers)
    return found


class Clock(Struct, dict=True):
    """Measures sets on the target.

    Attributes:
        names: of nodes in the user's model, by key.
        note: what the measured times decided, as sentences.
        wide: what was measured of the model with all in FP32 when prices were asked for.
        low: and with all in the low precision.
    """

    pool: Pool
    settings: TargetSettings
    candidate: Callable[[Keep], Candidate]
    names: Mapping[str, str]
    journal: Journal
    budget: Budget
    note: str = ""
    wide: Clocked = field(default_factory=Clocked)
    low: Clocked = field(default_factory=Clocked)

    def __post_init__(self) -> None:
        """Take what an earlier run measured."""
        events = (event for event in read(self.journal.path)[0] if event["event"] == TIMES)
        self._known = {event["of"]: [Clocked.from_json(one) for one in event["times"]] for event in events}
        self._last: dict[Keep, Clocked] = {}

    def ask(self, keeps: Sequence[Keep], *, profile: bool = False) -> list[Clocked]:
        """Give times of some sets, measured in turns. Raises BudgetSpent, StoppedEarly."""
        key = "|".join([str(profile), *map(label, keeps)])
        if key not in self._known:
            candidates = [self.candidate(keep) for keep in keeps]
            deadline = self.budget.left() or LONGEST_DEADLINE
            with within(self.budget, len(self._known)):
                found = job(self.pool, deadline, in_turns, self.settings, candidates, profile)
            self.journal.event(TIMES, of=key, times=[asdict(one) for one in found])
            self._known[key] = found
        self._last = dict(zip(keeps, self._known[key], strict=True))
        return self._known[key]

    @property
    def measured(self) -> bool:
        """Whether the ends and the sets that pass were run in turns, or at least the ends."""
        return bool(self._last)

    def seconds(self, keep: Keep) -> float:
        """What a run took when these were last measured; 0 where they were not."""
        return self._last.get(keep, Clocked()).seconds

    def prices(self, items: Sequence[str], always: Keep) -> dict[str, float]:
        """Give the price of each node in microseconds. Raises BudgetSpent, StoppedEarly."""
        self.wide, self.low = self.ask([frozenset(items) | always, always], profile=True)
        if not self.wide.layers:
            self.note = "The target tells no times of layers: the number of nodes was made small."
        return prices({item: self.names[item] for item in items}, self.wide.layers, self.low.layers)

    def choose(self, search: Search) -> None:
        """Put the fastest one in the place of the best set: it, or a closure of it that passes as well.

        Raises:
            BudgetSpent, StoppedEarly.
        """
        names = {item: self.names[item] for item in search.items}
        more = closures(search.found.best, names, self.low.layers, self.wide.layers)
        passing = [search.found.best, *(keep for keep in more if search.passes(keep))]
        ends = [frozenset[str](), frozenset(search.items)]
        low, wide, *sides = self.ask([keep | search.always for keep in (*ends, *passing)])
        first = min(range(len(sides)), key=lambda k: sides[k].seconds or math.inf)
        first = first if sides[first].beats(sides[0]) else 0
        self.note = " ".join(filter(None, (self.note, _words(passing, sides, first, low, wide))))
        search.choose(passing[first])


def _words(keeps: Sequence[Keep], sides: Sequence[Clocked], first: int, low: Clocked, wide: Clocked) -> str:
    """Say what the measured times decided."""
    timed = [
        f"{counted(len(k), 'node')} {1e3 * side.seconds:.3g} ms" for k, side in zip(keeps, sides, strict=True)
    ]
    words = []
    if first:
        words.append(
            f"Whole layers are kept, as that is faster: {timed[first]}; {timed[0]}, the fewest that pass."
        )
    elif len(timed) > 1:
        words.append(f"Keeping whole layers was tried and is not clearly faster: {', '.join(timed[1:])}.")
    if wide.beats(sides[first]):
        words.append("All of it in FP32 is faster than this.")
    if low.rounds and wide.beats(low):
        words.append("The low precision is slower than FP32 here.")
    return " ".join(words)


def prices(names: Mapping[str, str], wide: Iterable[Shared], low: Iterable[Shared]) -> dict[str, float]:
    """Give the microseconds that each node takes more in FP32; `names` are those of nodes by key."""
    much, little = _shares(wide), _shares(low)
    saved = {key: 1e6 * max(0.0, much.get(n, 0.0) - little.get(n, 0.0)) for key, n in names.items()}
    least = LEAST * sum(saved.values()) / max(1, len(saved)) or 1.0
    return {key: max(least, value) for key, value in saved.items()}


def _shares(layers: Iterable[Shared]) -> dict[str, float]:
    """Seconds of each node: its share of its layers."""
    found: dict[str, float] = {}
    for names, seconds in layers:
        for name in names:
            found[name] = found.get(name, 0.0) + seconds / len(names)
    return found


def closures(keep: Keep, names: Mapping[str, str], *engines: Iterable[Shared]) -> list[Keep]:
    """Give the set with all nodes of the layers of each engine that it cuts; the whole model is left out."""
    keys: dict[str, list[str]] = {}
    for key, name in names.items():
        keys.setdefault(name, []).append(key)
    found: list[Keep] = []
    for layers in engines:
        grown: set[str] = set(keep)
        for nodes, _ in layers:
            own = {key for name in nodes for key in keys.get(name, ())}
            grown |= own if keep & own else set()
        closed = frozenset(grown)
        if keep < closed < frozenset(names) and closed not in found:
            found.append(closed)
    return found
