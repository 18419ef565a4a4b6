"""Isolated warm worker processes: deadline, memory limit, crash and hang detection.

A process does one job at a time, so that a death is always that of one known job (`process.WorkerProcess`). A
thread of our own drives each: it alone talks to the process, looks at the clock, and starts another one. The
kernel's parent-death signal is tied to the *thread* that started a process, so it lives as long as the pool.


Reports how far the builds in the workers are while one waits for them.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bisect_trt.machine import limits, server
from bisect_trt.machine.process import Job
from bisect_trt.workers.reply import Death, Reply
from bisect_trt.workers.slot import Slot

__all__ = ["Death", "Pool", "Reply", "Task"]

POLL = 0.05  # seconds between two looks at the workers' memory, at least
SLOW_POLL = 1.0  # and between two looks for new children of theirs


class AnySlot(Protocol):
    """A place where one job runs at a time, here (`slot.Slot`) or elsewhere."""

    number: int

    def run(self, job: Job, timeout: float | None, cancelled: threading.Event) -> Reply:
        """Run one job and give its answer."""

    def progress(self) -> str:
        """Say how far the running job is, for people; empty where that is unknown."""

    def watch(self, limit: int, *, look_for_children: bool) -> float:
        """End the job if it holds more than `limit` bytes; gives the seconds in which it cannot."""

    def stop(self) -> None:
        """End whatever runs."""


class Seats(Protocol):
    """Slots that are not on this machine."""

    def slots(self, workers: int, closing: threading.Event, memory_limit: int | None) -> Sequence[AnySlot]:
        """Make `workers` slots; `closing` is set when the whole pool ends."""

    def close(self) -> None:
        """Give back what the slots hold; to close twice does no harm."""


class Task:
    """A job that was submitted."""

    def __init__(self, job: Job, timeout: float | None) -> None:
        """See `Pool.submit`, which makes these."""
        self.job = job
        self.timeout = timeout
        self.future: Future[Reply] = Future()
        self.cancelled = threading.Event()

    def result(self) -> Reply:
        """Wait for the job and give what it gave.

        Raises:
            CancelledError: the task was cancelled, or the pool closed.
            Exception: whatever the job raised, a `BisectError` or a bug of ours.
        """
        return self.future.result()

    def cancel(self) -> None:
        """Give the job up: it does not start, or its worker is killed. Done tasks stay as they are."""
        self.cancelled.set()
        self.future.cancel()  # works while it has not started; afterwards the slot sees the event


class Pool:
    """Worker processes that stay warm; use it as a context manager, whose end kills what runs.

    Idle slots of low number are used first, so that a pool that is asked one thing at a time starts
    and warms up one process only.
    """

    def __init__(
        self,
        workers: int,
        *,
        log_dir: Path,
        memory_limit: int | None = None,
        devices: Sequence[str] = (),
        seats: Seats | None = None,
        warm: Job | None = None,
    ) -> None:
        """Make the slots; processes start with the first jobs, all of them at once where there is `warm`.

        Args:
            workers: how many jobs may run at the same time.
            log_dir: folder for `worker-<slot>.log`, what the workers print.
            memory_limit: bytes that one worker may hold, its children included (see
                `limits.held_bytes`); None: 80 % of the machine / workers.
            devices: GPUs, as CUDA_VISIBLE_DEVICES has them; each worker sees one of them, in turn.
            seats: where the jobs run instead of on this machine (see `ray.remote.ClusterSeats`).
            warm: what each process on this machine does before its first job, outside of its deadline.
        """
        if workers < 1:
            raise ValueError("a pool needs at least one worker")
        log_dir.mkdir(parents=True, exist_ok=True)
        self.workers = workers
        self.memory_limit = memory_limit or limits.default_limit(workers)
        self._lock = threading.Condition()
        self._pending: deque[Task] = deque()
        self._closing = threading.Event()
        self._seats = seats
        self._slots: Sequence[AnySlot]
        if seats is not None:
            self._slots = seats.slots(workers, self._closing, memory_limit)
        else:
            self._slots = self._local(workers, log_dir.absolute(), devices, warm)
        self._idle = [False] * workers
        self._threads = [
            threading.Thread(target=self._drive, args=(slot,), name=f"worker slot {slot.number}", daemon=True)
            for slot in self._slots
        ]
        self._watcher = threading.Thread(target=self._watch, name="worker memory", daemon=True)
        for thread in (*self._threads, self._watcher):
            thread.start()
        # Whoever forgets to close must not have processes started while the interpreter goes down.
        atexit.register(self.close, kill=True)
        for _ in range(workers if warm else 0):
            self.submit(os.getpid, timeout=None)

    def _local(self, workers: int, log_dir: Path, devices: Sequence[str], warm: Job | None) -> list[Slot]:
        threads = max(1, (os.cpu_count() or 1) // workers)
        context = server.context()
        seen = list(devices) or [""]
        return [
            Slot(n, log_dir, threads, context, self._closing, seen[n % len(seen)], warm)
            for n in range(workers)
        ]

    def submit(self, function: Callable[..., Any], *args: Any, timeout: float | None) -> Task:
        """Run `function(*args)`, importable by name, in a worker.

        `timeout` is in seconds and counts from when the worker takes the job.
        """
        task = Task((function, args), timeout)
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("the pool is closed")
            self._pending.append(task)
            self._lock.notify_all()
        return task

    def progress(self) -> str:
        """Say how far the running jobs are, where that is known; for people."""
        return "; ".join(filter(None, (slot.progress() for slot in self._slots)))

    def prepared(self) -> float:
        """Return the seconds that the slowest of the present processes took to become warm."""
        return max((slot.prepared for slot in self._slots if isinstance(slot, Slot)), default=0.0)

    def close(self, *, kill: bool = False) -> None:
        """End all workers.

        Jobs that have not started are cancelled. With `kill`, running ones are ended at once, even
        inside native code; otherwise they are waited for.
        """
        atexit.unregister(self.close)
        with self._lock:
            dropped, self._pending = self._pending, deque()
            if kill:
                self._closing.set()
        for task in dropped:
            task.future.cancel()
        with self._lock:
            self._lock.wait_for(lambda: kill or all(self._idle))
            self._closing.set()
            self._lock.notify_all()
        for slot in self._slots:
            slot.stop()
        for thread in (*self._threads, self._watcher):
            if thread is not threading.current_thread():
                thread.join(timeout=10)
        if self._seats is not None:
            self._seats.close()

    def __enter__(self) -> Pool:
        """Return the pool itself."""
        return self

    def __exit__(self, *ended: object) -> None:
        """Close and kill: whoever leaves has the results that it wants."""
        self.close(kill=True)

    def _next_task(self, number: int) -> Task | None:
        """Return the job that slot `number` is to do; None when the pool closes. Low idle slots go first."""

        def ready() -> bool:
            return self._closing.is_set() or sum(self._idle[:number]) < len(self._pending)

        with self._lock:
            self._idle[number] = True
            self._lock.notify_all()
            self._lock.wait_for(ready)
            if self._closing.is_set():
                return None
            self._idle[number] = False
            return self._pending.popleft()

    def _drive(self, slot: AnySlot) -> None:
        """Run a slot's thread: one job after the other, until the pool closes."""
        # Processes inherit this: Ctrl-C must not reach a worker that is still starting.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while (task := self._next_task(slot.number)) is not None:
            if not task.future.set_running_or_notify_cancel():
                continue
            try:
                reply = slot.run(task.job, task.timeout, task.cancelled)
            except BaseException as error:
                task.future.set_exception(error)
            else:
                task.future.set_result(reply)
        slot.stop()

    def _watch(self) -> None:
        """Kill each worker that holds more than the limit; keep runaway logs short."""
        slow, rest = time.monotonic(), POLL
        while not self._closing.wait(max(POLL, rest)):
            look_for_children = time.monotonic() - slow > SLOW_POLL
            if look_for_children:
                slow = time.monotonic()
            limit = self.memory_limit
            looks = [slot.watch(limit, look_for_children=look_for_children) for slot in self._slots]
            rest = min(looks, default=POLL)


INTERVAL = 0.5  # seconds between two looks


@contextmanager
def watching(pool: Pool, tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell`, from another thread, whenever there is something new; empty: no build is running."""
    done = threading.Event()

    def look() -> None:
        last = ""
        while not done.wait(INTERVAL):
            text = pool.progress()
            if text != last:
                last = text
                tell(text)

    thread = threading.Thread(target=look, name="build progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)
