"""How a target measures time: a model is built once, given inputs of one shape after the other, and run.

`GPU events` are two CUDA events around what the engine does on its stream, so that copies of inputs and
outputs do not count; `host` is a clock of this process around the call, copies included; `process` is a
whole process, start and build included.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.outcome import Array
from bisect_trt.targets.base import Target

GPU_EVENTS, HOST, PROCESS = "GPU events", "host", "process"


class Layer(Struct, frozen=True):
    """One layer as the target executed it.

    Attributes:
        name: as the target calls it.
        op: kind of layer or operator as the target calls it; empty where it does not say.
        nodes: names of the model's nodes that it computes; empty where it computes none (a copy, say).
        seconds: of a typical run, see `typical_layers`.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    seconds: float


class Layers(Struct, frozen=True):
    """Layers in the order of execution, and the seconds that a whole run took in the same runs (median)."""

    layers: tuple[Layer, ...]
    whole: float


class Opened(Struct, frozen=True):
    """What a target says of a model that it has built.

    Attributes:
        clock: one of `GPU events`, `host`, `process`.
        build_seconds: parse, build and load.
        bytes: named amounts of memory: `host`, `engine`, `device`.
        notes: sentences for people.
    """

    clock: str
    build_seconds: float
    bytes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class FailedError(Exception):
    """The model fails on the target: the message of its failure. Says nothing of its speed."""


class Timed(Protocol):
    """A model on a target, built once."""

    opened: Opened

    def feed(self, inputs: Mapping[str, Array]) -> None:
        """Take inputs for the next runs. Raises FailedError."""
        ...

    def run(self, seconds: float, most: int) -> list[float]:
        """Run until so many seconds have gone, at least once and at most `most` times; seconds of each run.

        Raises:
            FailedError: the model fails.
        """
        ...

    def layers(self, runs: int) -> Layers | None:
        """Run so many times with the target's own profiler; None where it has none. Raises FailedError."""
        ...


def repeated(one: Iterable[float], seconds: float, most: int) -> list[float]:
    """Take times from an iterator that measures as it is asked, until the seconds or the runs are over."""
    found: list[float] = []
    until = time.perf_counter() + seconds
    for taken in one:
        found.append(taken)
        if len(found) >= most or time.perf_counter() >= until:
            break
    return found


class Whole:
    """Any target without a clock of its own: each run is a whole call, the build included."""

    def __init__(self, target: Target, candidate: Candidate) -> None:
        """Measure `target.run`; the inputs are those of the candidate's first sample."""
        self._target = target
        self._candidate = candidate
        said = "Each run starts the program anew: what it does to start and to build counts."
        self.opened = Opened(PROCESS, 0.0, notes=(said,))

    def use(self, feeds: Feeds) -> None:
        """Take the files of a sample in place of the first one's."""
        self._candidate = replace(self._candidate, feeds=(feeds,))

    def feed(self, inputs: Mapping[str, Array]) -> None:
        """Do nothing: the program reads the files that `use` names."""

    def run(self, seconds: float, most: int) -> list[float]:
        """See `Timed.run`."""
        return repeated(self._once(), seconds, most)

    def layers(self, runs: int) -> Layers | None:
        """Return None: a program has no profiler."""
        return None

    def _once(self) -> Iterable[float]:
        while True:
            began = time.perf_counter()
            result = self._target.run(self._candidate)
            taken = time.perf_counter() - began
            if result.failures or result.unresolved:
                raise FailedError(result.failures[0].message if result.failures else result.unresolved)
            yield taken


def typical_layers(runs: Sequence[Sequence[tuple[str, float]]]) -> dict[str, float]:
    """Return the seconds of each layer in a typical run: the mean over the middle half of all runs.

    The median of each layer by itself would add up to less than any run took: where other programs interrupt
    a run now and then, it is another layer each time. A layer in a loop counts with all its iterations.
    """
    sums: list[dict[str, float]] = []
    for one in runs:
        total: dict[str, float] = {}
        for name, seconds in one:
            total[name] = total.get(name, 0.0) + seconds
        sums.append(total)
    sums.sort(key=lambda total: sum(total.values()))
    rest = len(sums) // 4
    middle = sums[rest : len(sums) - rest]
    names = dict.fromkeys(name for total in middle for name in total)
    return {name: sum(total.get(name, 0.0) for total in middle) / len(middle) for name in names}
