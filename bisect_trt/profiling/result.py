"""What a profile hands back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from bisect_trt.errors import StoppedEarly
from bisect_trt.profiling.cliffs import Cliff
from bisect_trt.profiling.timing import Times
from bisect_trt.profiling.versus import Versus
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.timed import Layer, Layers, Opened
from bisect_trt.writing.text import Summary, counted

CONCURRENCY = 1
"""Requests at a time at which throughput is measured."""
SLOWED = 1.25  # how much longer a run may take with the profiler on before it is told
ADDS_UP = 0.05  # how far the sum of the layers may be from a whole run before it is told


class Point(Struct, frozen=True):
    """One shape.

    Attributes:
        size: of the dimension that varies; 1 where none does.
        shapes: of all inputs.
        times: None where the model fails, for the reason in `error`.
    """

    size: int
    shapes: Mapping[str, tuple[int, ...]]
    times: Times | None
    error: str = ""

    @property
    def throughput(self) -> float | None:
        """Units of work a second (see `Profile.unit`), one request after the other."""
        return self.size / self.times.mean if self.times and self.times.mean else None


class LayerTable(Struct, frozen=True):
    """Layers at one size.

    Attributes:
        size: at which they were measured.
        layers: as the target executed them.
        whole: seconds of a run while the profiler was on.
        plain: seconds of a run without it.
        nodes: how many nodes the model has.
    """

    size: int
    layers: tuple[Layer, ...]
    whole: float
    plain: float
    nodes: int

    @property
    def total(self) -> float:
        """Seconds of all layers."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def ranked(self) -> list[Layer]:
        """The layers, the one that takes longest first."""
        return sorted(self.layers, key=lambda layer: -layer.seconds)

    @property
    def by_operator(self) -> list[tuple[str, float, int]]:
        """Operator as the target calls it, seconds, and number of layers; what takes longest first."""
        seconds: Counter[str] = Counter()
        count: Counter[str] = Counter()
        for layer in self.layers:
            seconds[layer.op or layer.name] += layer.seconds  # type: ignore[assignment]
            count[layer.op or layer.name] += 1
        return [(op, taken, count[op]) for op, taken in seconds.most_common()]

    @property
    def without_node(self) -> list[Layer]:
        """Layers that compute no node of the model: copies, changes of layout."""
        return [layer for layer in self.layers if not layer.nodes]

    def share(self, layer: Layer) -> float:
        """Return the part of all layers' time that a layer takes."""
        return layer.seconds / self.total if self.total else 0.0

    def doubts(self) -> list[str]:
        """Return what does not add up, as found."""
        found, covered = [], {node for layer in self.layers for node in layer.nodes}
        if self.whole and abs(self.total / self.whole - 1) > ADDS_UP:
            found.append(
                f"The layers add up to {self.total / self.whole:.0%} of a run; the rest lies between them."
                if self.total < self.whole
                else f"The layers add up to {self.total / self.whole:.0%} of a run: some run side by side."
            )
        if self.plain and self.whole / self.plain > SLOWED:
            found.append(f"A run takes {self.whole / self.plain:.2f} times as long with the profiler on.")
        lost = sum(layer.seconds for layer in self.without_node)
        if self.total and lost / self.total > ADDS_UP / 5:
            count = counted(len(self.without_node), "layer")
            found.append(f"{count} with {lost / self.total:.0%} of the time compute no node of the model.")
        if len(covered) < self.nodes:
            rest = counted(self.nodes - len(covered), "node")
            found.append(f"{rest} of {self.nodes:,} took no time by themselves: folded, or part of another.")
        return found


class Change(Struct, frozen=True):
    """What layers take more at the size of a cliff than at the size before: the difference in seconds."""

    size: int
    layers: tuple[tuple[Layer, float], ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]


class Profile(Summary, Struct, frozen=True):
    """The result of `profile`.

    Attributes:
        unit: what a unit of work is called: the name of the dimension that varies, or `run`.
        points: in ascending order of size.
        cliffs: sizes at which a unit of work costs much more than at the size before.
        likely: jumps that are not certain, as their interval reaches to where there is none.
        denied: sizes at which a jump was seen once and not again.
        left: pairs of sizes between which the cost rises and that were not looked into.
        measured: measurements that the search for cliffs made, repeated ones counted again.
        layers: None where the target has no profiler, or nothing ran.
        changes: for each cliff what layers took more.
        versus: how the other target compares, where one was asked for.
        not_compared: why there is none although it was asked for and the run was not stopped; else empty.
        finished: False when a budget or a signal ended it.
    """

    model: Path
    out: Path
    settings: Settings
    target: TargetInfo
    opened: Opened
    precision: float
    unit: str = "run"
    points: tuple[Point, ...] = ()
    cliffs: tuple[Cliff, ...] = ()
    likely: tuple[Cliff, ...] = ()
    denied: tuple[int, ...] = ()
    left: tuple[tuple[int, int], ...] = ()
    measured: int = 0
    layers: LayerTable | None = None
    changes: tuple[Change, ...] = ()
    versus: Versus | None = None
    not_compared: str = ""
    notes: tuple[str, ...] = field(default=())
    finished: bool = True
    stop_reason: str = ""
    seconds: float = 0.0

    @property
    def is_range(self) -> bool:
        """Whether a dimension varies."""
        return self.unit != "run"

    def lines(self) -> list[tuple[str, str]]:
        """Return the time, the cliffs, and where the files are."""
        known = [point for point in self.points if point.times is not None]
        lines = []
        for point in (known[0], known[-1]) if len(known) > 1 else known:
            assert point.times is not None
            at = f"{self.unit} {point.size}: " if self.is_range else ""
            lines.append(("Time", f"{at}{milliseconds(point.times.median)} on {self.target.title}"))
        lines.append(("Model", str(self.model)))
        if self.is_range:
            cliffs = [f"{self.unit} {c.size} costs {c.jump:.2f} times {c.size - 1}" for c in self.cliffs]
            lines.append(("Cliffs", "; ".join(cliffs) or "none"))
        if self.versus is not None:
            ratio = self.versus.whole
            text = f"{self.versus.name} takes {ratio.ratio:.2f} times as long"
            lines.append(("Against", f"{text} ({ratio.low:.2f} .. {ratio.high:.2f})"))
        if self.not_compared:
            lines.append(("Against", f"not compared: {self.not_compared}"))
        return [*lines, ("Folder", str(self.out))]

    @property
    def exit_code(self) -> int:
        """0 done, 1 the other side differs, 2 it could not be compared, 6 stopped early."""
        if not self.finished:
            return StoppedEarly.exit_code
        return 2 if self.not_compared else int(self.versus is not None and self.versus.differs)


def milliseconds(seconds: float) -> str:
    """Return `12.3 ms`, `1,234 ms`, `45.6 us`: three digits."""
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} {unit}"


def change(size: int, before: Layers, after: Layers) -> Change:
    """Compare the layers of two sizes: their differences, and the layers that only one of them has."""
    known = {layer.name: layer for layer in before.layers}
    now = {layer.name: layer for layer in after.layers}
    more = [(layer, layer.seconds - (known[n].seconds if n in known else 0.0)) for n, layer in now.items()]
    more.sort(key=lambda pair: -pair[1])
    gone, new = (tuple(n for n in one if n not in other) for one, other in ((known, now), (now, known)))
    return Change(size, tuple(more), gone, new)
