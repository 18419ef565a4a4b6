"""One profile from the first measurement to the result; what is measured goes into the journal at once."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from bisect_trt.errors import StoppedEarly, UsageError
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.outcome import DONE, End, Ended
from bisect_trt.profiling import cliffs
from bisect_trt.profiling.meter import Side, compared, measured
from bisect_trt.profiling.result import Change, LayerTable, Point, Profile, change
from bisect_trt.profiling.sizes import Sizes
from bisect_trt.profiling.timing import Times
from bisect_trt.results import OnEvent, Step
from bisect_trt.session.journal import Journal, read
from bisect_trt.session.prepare import Session
from bisect_trt.session.prober import Budget
from bisect_trt.targets.timed import FailedError, Layers
from bisect_trt.writing.text import some_names

POINT, EDGE = "point", "edge"
"""Events of the journal: the times of a size, and those of two sizes in turns."""
ALONE, IN_RANGE, AT_EDGE = 10.0, 2.0, 5.0
"""Seconds that measuring one shape may take: when it is the only one, in a range, two in turns."""
LAYER_SECONDS, FEWEST_RUNS, MOST_RUNS = 1.0, 3, 50


class Work(Struct):
    """What a profile works on; `run` does it. `empty` is the result before anything was measured."""

    side: Side
    session: Session
    sizes: Sizes
    journal: Journal
    budget: Budget
    precision: float
    on_event: OnEvent
    empty: Profile
    found: cliffs.Found = field(default_factory=cliffs.Found)
    _feeds: dict[int, Feeds] = field(default_factory=dict)
    _times: dict[int, Times | str] = field(default_factory=dict)
    _edges: dict[tuple[int, int], cliffs.Edge] = field(default_factory=dict)

    def run(self) -> Profile:
        """Measure all that is asked for, or as much as a budget or a signal allows."""
        self._remember()
        stop, layers = DONE, None
        changes: tuple[Change, ...] = ()
        try:
            cliffs.search(self.sizes.low, self.sizes.high, self._measure, self._compare, self.found)
            layers, changes = self._all_layers()
        except StoppedEarly as error:
            stop = End(Ended.OUT_OF_BUDGET, error.message)
        except KeyboardInterrupt:
            stop = End(Ended.INTERRUPTED, "interrupted")
        return replace(
            self.empty,
            points=tuple(self._points()),
            cliffs=tuple(self.found.cliffs),
            likely=tuple(self.found.likely),
            denied=tuple(sorted(self.found.denied)),
            left=tuple(self.found.left),
            measured=self.found.measured,
            layers=layers,
            changes=changes,
            notes=tuple(self._notes()),
            finished=not stop.is_early,
            stop_reason=stop.why,
        )

    def _remember(self) -> None:
        """Take what an earlier run measured."""
        for event in read(self.journal.path)[0]:
            if event["event"] == POINT:
                known = event["times"]
                self._times[event["size"]] = event["error"] if known is None else Times(**known)
            if event["event"] == EDGE:
                self._edges[event["before"], event["after"]] = cliffs.Edge(**event["edge"])

    @property
    def largest(self) -> int | None:
        """The largest size that ran; None where none did."""
        return max((size for size, known in self._times.items() if isinstance(known, Times)), default=None)

    # Questions of the search

    def _measure(self, size: int) -> float | None:
        if size not in self._times:
            self._tell(f"{self.sizes.unit} {size}" if self.empty.is_range else "the model")
            times: Times | None = None
            error = ""
            try:
                limit = IN_RANGE if self.empty.is_range else ALONE
                times = measured(self.side, self.fed(size), self.precision, limit, self.budget)
            except (FailedError, UsageError) as failed:  # values of a size may be more than are made up
                error = str(failed)
            data = None if times is None else times.to_json()
            self.journal.event(POINT, size=size, times=data, error=error)
            self._times[size] = error if times is None else times
        known = self._times[size]
        return known.least if isinstance(known, Times) else None

    def _compare(self, before: int, after: int) -> cliffs.Edge | None:
        if (before, after) not in self._edges:
            self.budget.require(0)
            self._tell(f"{self.sizes.unit} {before} and {after} in turns")
            sides = [(self.side, self.fed(size)) for size in (before, after)]
            try:
                ratio = compared(sides[0], sides[1], self.precision, AT_EDGE)
            except FailedError:
                return None
            edge = cliffs.Edge(*ratio.least, ratio.ratio, ratio.low, ratio.high)
            self.journal.event(EDGE, before=before, after=after, edge=asdict(edge))
            self._edges[before, after] = edge
        return self._edges[before, after]

    def fed(self, size: int) -> Feeds:
        """Return the files of the input values of a size."""
        if size not in self._feeds:
            first = size == self.sizes.high
            self._feeds[size] = self.session.feeds[0] if first else self.sizes.feeds(self.session, size)
        return self._feeds[size]

    # Layers

    def _all_layers(self) -> tuple[LayerTable | None, tuple[Change, ...]]:
        """Return layers at the largest size that runs, and what changes at each cliff."""
        size = self.largest
        if size is None:
            return None, ()
        self.budget.require(0)
        self._tell("the layers")
        graph, store = self.session.graph, self.session.store
        named = Candidate(graph.proto.SerializeToString(), store.folder, graph.order, self.session.feeds)
        try:
            self.side.open(named)
            table, known = self._layers(size), self._times[size]
            if table is None:
                return None, ()
            assert isinstance(known, Times)
            found = LayerTable(size, table.layers, table.whole, known.median, len(graph.order))
            return found, tuple(self._changes())
        except FailedError as error:
            self._tell(f"no layers: {error}")
            return None, ()

    def _changes(self) -> Iterator[Change]:
        for cliff in self.found.cliffs:
            self.budget.require(0)
            before, after = self._layers(cliff.size - 1), self._layers(cliff.size)
            if before is not None and after is not None:
                yield change(cliff.size, before, after)

    def _layers(self, size: int) -> Layers | None:
        known = self._times.get(size)
        one = known.median if isinstance(known, Times) else LAYER_SECONDS
        runs = max(FEWEST_RUNS, min(MOST_RUNS, int(LAYER_SECONDS / one)))
        self.side.warm_up(self.fed(size))
        return self.side.layers(self.fed(size), runs)

    # The result

    def _points(self) -> Iterator[Point]:
        for size, known in sorted(self._times.items()):
            shapes = self.sizes.all_shapes(size)
            times, error = (known, "") if isinstance(known, Times) else (None, known)
            yield Point(size, shapes, times, error)

    def _notes(self) -> Iterator[str]:
        yield from self.empty.target.notes
        yield from self.empty.opened.notes
        yield from filter(None, [self.sizes.taken_for_granted()])
        known = [times for times in self._times.values() if isinstance(times, Times)]
        wide = [times for times in known if not times.settled]
        if wide:
            most = max(times.width for times in wide)
            yield (
                f"{len(wide)} of {len(known)} medians are not known to within {self.precision:.1%}: up to "
                f"{most:.1%} to either side. Something else runs on this machine, or runs are few."
            )
        drifted = [times.drift for times in known if times.drift != 1]
        if drifted:
            most = max(drifted, key=lambda ratio: abs(ratio - 1))
            yield f"While it was measured the machine changed its speed: up to {most:.2f} times as long."
        unit = self.sizes.unit
        likely = [f"{s.size} ({s.jump:.2f} times, {s.low:.2f} .. {s.high:.2f})" for s in self.found.likely]
        if likely:
            yield f"A jump is likely, and not certain, at {unit} {some_names(likely, 3)}."
        if self.found.denied:
            sizes = some_names([str(size) for size in sorted(set(self.found.denied))], 8)
            yield f"A jump at {unit} {sizes} was not there when it was measured again."
        if self.found.left:
            pairs = ", ".join(f"{a}..{b}" for a, b in self.found.left[:4])
            yield f"The cost rises between {unit} {pairs}, and the measurements were used up before that."

    def _tell(self, text: str) -> None:
        self.on_event(Step(phase="measure", text=text, nodes=len(self.session.graph.order)))
