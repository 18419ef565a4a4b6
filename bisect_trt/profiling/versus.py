"""One target against another on one model: the ratio, the nodes that make it, a folder that shows it."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.errors import StoppedEarly
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.profiling import hand_over
from bisect_trt.profiling.explain import Explained, Nodes, Part, explain, groups
from bisect_trt.profiling.meter import Timer, compared
from bisect_trt.profiling.rounds import Ratio
from bisect_trt.session.journal import Journal, read
from bisect_trt.session.prepare import Session
from bisect_trt.session.prober import Budget
from bisect_trt.session.recording import Recording, record_in_worker
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.timed import GPU_EVENTS, HOST, PROCESS, FailedError, Layers
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.text import counted

RATIO = "ratio"
"""The event of the journal that holds what came of two sides: of the whole model, or of some nodes."""
WHOLE, PART = 20.0, 4.0
"""Seconds that measuring two sides may take, of the whole model and of a part."""
LAYER_RUNS = 15
FOLDER = "slow"


class Versus(Struct, frozen=True):
    """How two sides compare.

    Attributes:
        other: what the other side is; `name` tells its options, too.
        size: at which both were measured.
        whole: of the whole model; `second` is the other side.
        limit: how far the ratio may be from 1.
        again: the same in two fresh processes, where the first one is beyond the limit.
        explained: the nodes that make the difference; None where there is none.
        folder: the folder that shows it.
        end: how its script ended in a fresh process.
        note: why something of these is missing.
        clocks: that the sides have different clocks, in a sentence; empty where they have the same.
    """

    other: TargetInfo
    name: str
    size: int
    whole: Ratio
    limit: float
    again: Ratio | None = None
    explained: Explained | None = None
    folder: Path | None = None
    end: hand_over.End | None = None
    note: str = ""
    clocks: str = ""

    @property
    def differs(self) -> bool:
        """Whether both measurements are beyond the limit, in the same direction."""
        if self.again is None or not self.again.beyond(self.limit):
            return False
        return (self.again.ratio > 1) == (self.whole.ratio > 1)

    def verdict(self) -> str:
        """Say in a sentence whether there is a difference, or that this is not known."""
        limit = f"the limit of {self.limit:.0%}"
        if self.differs:
            return f"beyond {limit}, in fresh processes, too"
        if self.again is not None:
            return f"not told: it was beyond {limit} once, and not in fresh processes"
        if self.whole.within(self.limit):
            return f"no difference: the interval is within {limit}"
        return f"not told: the interval is neither within nor beyond {limit}; measure on an idle machine"


class Duel(Struct):
    """Two sides and what they share; `run` compares them."""

    sides: tuple[Timer, Timer]
    infos: tuple[TargetInfo, TargetInfo]
    session: Session
    settings: Settings
    feeds: Feeds
    size: int
    journal: Journal
    budget: Budget
    precision: float
    limit: float
    out: Path
    logs: Path
    tell: Callable[[str], None]
    _known: dict[str, Ratio] = field(default_factory=dict)
    _made: Cutter | None = None

    def run(self) -> Versus:
        """Compare the whole model, then find the nodes.

        Raises:
            FailedError: the model fails on the other side.
            BudgetSpent: nothing was compared before the budget was used up.
        """
        self._remember()
        original = replace(self.session.original, feeds=(self.feeds,))
        self.tell("both sides in turns")
        whole = self._ratio("whole", original, WHOLE)
        name = hand_over.named(self.infos[1], self.sides[1].target)
        here, there = (_clock(side.target.spec) for side in self.sides)
        unlike = "" if here == there else f"The clocks differ (docs/profile.md): {here} here, {there} there."
        found = Versus(self.infos[1], name, self.size, whole, self.limit, clocks=unlike)
        if not whole.beyond(self.limit):
            return found
        for side in self.sides:
            side.close()
        self.tell("both sides in turns, in fresh processes")
        found = replace(found, again=self._ratio("whole again", original, WHOLE))
        if not found.differs:
            return found
        try:
            explained = self._explained(found)
            return self._handed_over(replace(found, explained=explained))
        except StoppedEarly as error:
            return replace(found, note=error.message)

    def _remember(self) -> None:
        for event in read(self.journal.path)[0]:
            if event["event"] == RATIO:
                data: dict[str, Any] = event["ratio"]
                self._known[event["key"]] = Ratio(**{**data, "least": tuple(data["least"])})

    def _ratio(self, name: str, candidate: Candidate, seconds: float) -> Ratio:
        """Measure both sides in turns, kept in the journal. Raises FailedError, BudgetSpent."""
        key = sha256(json.dumps([name, candidate.digest]).encode()).hexdigest()[:16]
        if key not in self._known:
            self.budget.require(0)
            for side in self.sides:
                side.open(candidate)
            feeds = candidate.feeds[0] if candidate.feeds else {}
            first, second = ((side, feeds) for side in self.sides)
            ratio = compared(first, second, self.precision, seconds)
            self.journal.event(RATIO, key=key, ratio=ratio.to_json(), nodes=len(candidate.nodes))
            self._known[key] = ratio
        return self._known[key]

    def _explained(self, found: Versus) -> Explained:
        """Return the nodes that make the difference."""
        assert found.again is not None
        slower = found.again.ratio > 1
        total = abs(found.again.more)
        order = self.session.graph.order
        slow, fast = (self._layers(self.sides[k]) for k in ((1, 0) if slower else (0, 1)))
        hints = groups(order, slow.layers, fast.layers if fast else ()) if slow else []
        cutter = self._cutter()

        def measure(nodes: Nodes) -> Part | None:
            self.tell(f"{len(nodes)} nodes by themselves, both sides in turns")
            cut = cutter.cut(frozenset(nodes))
            try:
                ratio = self._ratio("part", cut, PART)
            except FailedError:
                return None
            # What had to be cut with it is told, too.
            kinds = Counter(self.session.graph.node(name).op_type for name in cut.nodes).most_common()
            return Part(tuple(cut.nodes), ratio, ratio.more if slower else -ratio.more, tuple(kinds))

        return explain(tuple(order), hints, total, measure, self.limit)

    def _layers(self, side: Timer) -> Layers | None:
        graph, store = self.session.graph, self.session.store
        named = Candidate(graph.proto.SerializeToString(), store.folder, graph.order, (self.feeds,))
        self.budget.require(0)
        try:
            side.open(named)
            side.warm_up(self.feeds)
            found = side.layers(self.feeds, LAYER_RUNS)
        except FailedError:
            return None
        return found if found is not None and any(layer.nodes for layer in found.layers) else None

    def _cutter(self) -> Cutter:
        """Cuts parts out of the model, fed with what the reference made."""
        if self._made is None:
            self.tell("the reference, for the inputs of parts")
            graph, store, limit = self.session.graph, self.session.store, self.settings.run.memory_limit
            with Pool(1, log_dir=self.logs / "reference", memory_limit=limit) as pool:
                known = record_in_worker(pool, store.folder, graph.proto, (self.feeds,), self.settings)
            if known.error:
                raise StoppedEarly(f"parts have no inputs: the reference cannot run the model: {known.error}")
            self._made = Cutter(graph, store, Recording.of(graph, known))
        return self._made

    def _handed_over(self, found: Versus) -> Versus:
        """Write the folder and run its script."""
        assert found.explained is not None
        nodes = frozenset(node for part in found.explained.parts for node in part.nodes)
        if not nodes:
            note = "no part differs by itself: the difference is in how the parts are put together"
            if untold := found.explained.untold:
                note = f"of {untold} parts by themselves nothing can be told: measure on an idle machine"
            return replace(found, note=note)
        for side in self.sides:
            side.close()
        self.tell("the folder, and its script in a fresh process")
        place = self.out / FOLDER
        pairs = zip(self.sides, self.infos, strict=True)
        handed = [hand_over.Handed(side.target, info, side.python) for side, info in pairs]
        story = self._story(found.again or found.whole, found.explained)
        hand_over.write(self._cutter().cut(nodes), handed, self.limit, place, tuple(story))
        return replace(found, folder=place, end=hand_over.tried(place))


    def _story(self, whole: Ratio, explained: Explained) -> Iterator[str]:
        """Yield what whoever gets the folder has to know of where it comes from."""
        count = counted(len(self.session.graph.order), "node")
        ratio = f"{whole.ratio:.2f} times ({whole.low:.2f} .. {whole.high:.2f}) as long as the first"
        yield f"For the model of {count} that these were cut out of the second side takes {ratio}."
        parts = "; ".join(str(part) for part in explained.parts[:3])
        yield f"These nodes by themselves explain {explained.part:.0%} of the difference: {parts}."
        versions = {**self.infos[0].versions, **self.infos[1].versions}
        libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
        machine = f"{platform.system()} {platform.machine()}"
        yield f"Seen with {libraries}, Python {platform.python_version()}, {machine}."


def _clock(spec: str) -> str:
    return {"ort": HOST, "command": PROCESS}.get(spec.partition(":")[0], GPU_EVENTS)


def document(found: Versus) -> dict[str, Any]:
    """Return it as plain JSON data."""
    explained = found.explained
    parts = [
        {
            "nodes": list(part.nodes),
            "operators": dict(part.operators),
            "more_seconds": part.more,
            "ratio": part.ratio.to_json(),
        }
        for part in (explained.parts if explained else ())
    ]
    return {
        "target": found.name,
        "versions": dict(found.other.versions),
        "size": found.size,
        "limit": found.limit,
        "ratio": found.whole.to_json(),
        "again": found.again.to_json() if found.again else None,
        "differs": found.differs,
        "parts": parts,
        "explained": explained.part if explained else None,
        "untold": explained.untold if explained else 0,
        "measured": explained.measured if explained else 0,
        "folder": found.folder.name if found.folder else None,
        "script": None if found.end is None else {"exit_code": found.end.code, "said": found.end.said},
        "note": found.note,
        "clocks": found.clocks,
    }
