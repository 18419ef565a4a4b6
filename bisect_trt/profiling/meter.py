"""Asks a worker for times: a model is built once in a process of its own, and run as often as it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from msgspec import Struct

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.profiling import timing
from bisect_trt.profiling.rounds import Ratio, in_turns
from bisect_trt.session.prepare import describe
from bisect_trt.session.prober import Budget
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.timed import FailedError, Layers, Opened
from bisect_trt.workers import jobs, stopwatch
from bisect_trt.workers.pool import Pool

BLOCK, LONGEST_BLOCK = 0.1, 1.0
MOST = 20_000  # runs of one block
WARM = 0.2  # seconds of a block of warm-up
WARMING = 5  # blocks of warm-up at most
STEADY = 0.1  # how much faster a block of warm-up may be than the one before to be the last
DEADLINE = 600.0  # seconds that a build, or a block, may take where the user sets none


class Timer(Protocol):
    """A side that can be measured; each method raises FailedError where the model fails."""

    target: TargetSettings
    python: Path | None

    def open(self, candidate: Candidate) -> object:
        """Build a model, in place of the one before."""
        ...

    def measure(self, feeds: Feeds, seconds: float) -> list[float]:
        """Return the seconds of each run, for so long and at least once."""
        ...

    def warm_up(self, feeds: Feeds) -> None:
        """Run until it becomes no faster."""
        ...

    def layers(self, feeds: Feeds, runs: int) -> Layers | None:
        """Return the target's own profile by layer; None where it has no profiler."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


class Side(Struct):
    """One target in a process of its own; `open` builds a model there."""

    target: TargetSettings
    run: RunSettings
    logs: Path
    graph: bool = False
    python: Path | None = None
    _pool: Pool | None = None
    _candidate: Candidate | None = None
    _warm: Feeds | None = None

    def describe(self) -> TargetInfo:
        """Say what the target is here.

        Raises:
            TargetUnavailable, UsageError: it cannot be used here, or its settings are wrong.
        """
        return describe(self._running(), Settings(target=self.target))

    def _running(self) -> Pool:
        if self._pool is None:
            limit, warm = self.run.memory_limit, jobs.warm_job(self.target)
            self._pool = Pool(1, log_dir=self.logs, memory_limit=limit, warm=warm)
        return self._pool

    def open(self, candidate: Candidate) -> Opened:
        """Build a model, in place of the one before.

        Raises:
            FailedError: it cannot be built.
            TargetUnavailable: the target cannot run models here.
            UsageError: the time of this target means nothing.
        """
        self._candidate, self._warm = candidate, None
        found: Opened = self._ask(
            stopwatch.open_model, candidate.digest, self.target, candidate, self.graph
        )
        return found

    def measure(self, feeds: Feeds, seconds: float) -> list[float]:
        """Return the seconds of each run, for so long and at least once. Raises FailedError."""
        found: list[float] = self._ask_open(stopwatch.measure, feeds, seconds, MOST)
        return found

    def warm_up(self, feeds: Feeds) -> None:
        """Run until it becomes no faster, unless these inputs were the last ones. Raises FailedError."""
        if self._warm == feeds:
            return
        last = median(self.measure(feeds, WARM))
        for _ in range(WARMING):
            now = median(self.measure(feeds, WARM))
            if now > last * (1 - STEADY):
                break
            last = now
        self._warm = feeds

    def layers(self, feeds: Feeds, runs: int) -> Layers | None:
        """Return the target's own profile by layer; None where it has no profiler. Raises FailedError."""
        found: Layers | None = self._ask_open(stopwatch.layers, feeds, runs)
        return found

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.close(kill=True)
            self._pool = None

    def _ask_open(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Ask of the model that is open; it is built again where its process has ended since."""
        assert self._candidate is not None
        key = self._candidate.digest
        try:
            return self._ask(function, key, *arguments)
        except KeyError:
            self.open(self._candidate)
            return self._ask(function, key, *arguments)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        timeout = self.run.timeout or DEADLINE
        reply = self._running().submit(function, *arguments, timeout=timeout).result()
        if reply.death is not None:
            raise FailedError(f"its process ended: {reply.death.message}")
        return reply.value


def measured(side: Side, feeds: Feeds, precision: float, limit: float, budget: Budget) -> timing.Times:
    """Warm up and measure until the median is known to within `precision`, or `limit` seconds are over.

    Raises:
        FailedError: the model fails.
        BudgetSpent: nothing was measured before the budget was used up.
    """
    budget.require(0)
    side.warm_up(feeds)
    found: list[float] = []
    block = BLOCK
    while not timing.enough(found, precision, sum(found), limit):
        found += side.measure(feeds, block)
        block = min(LONGEST_BLOCK, block * 1.5)
        if budget.left() == 0.0:
            break
    return timing.times(found, precision)


def compared(
    first: tuple[Timer, Feeds], second: tuple[Timer, Feeds], precision: float, limit: float
) -> Ratio:
    """Measure two sides in turns, or two inputs of one side. Raises FailedError."""

    def block(which: tuple[Timer, Feeds]) -> Callable[[float], list[float]]:
        side, feeds = which
        return lambda seconds: side.measure(feeds, seconds)

    for side, feeds in (first, second):
        side.warm_up(feeds)
    return in_turns(block(first), block(second), precision, limit)


def require_open(side: Side, candidate: Candidate, title: str, hint: str) -> Opened:
    """Build the user's model; if that fails there is nothing to measure.

    Raises:
        UsageError: it fails (`hint` says what finds out why), or the time of this target means nothing.
        TargetUnavailable: the target cannot run models here.
    """
    try:
        return side.open(candidate)
    except FailedError as error:
        raise UsageError(f"the model fails on {title}: {error}", hint) from error
