"""One worker process at a time, and all that can go wrong with it."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import psutil
from msgspec.structs import replace

from bisect_trt.errors import BisectError
from bisect_trt.machine import limits, native, server
from bisect_trt.machine.process import (
    START_DEADLINE,
    Answer,
    BrokenError,
    EndedError,
    Job,
    Notice,
    WorkerProcess,
)
from bisect_trt.outcome import Symptom
from bisect_trt.workers.reply import (
    DiedError,
    Reply,
    StoppedError,
    Wish,
    call,
    late,
    unless,
)

POLL = 0.05  # seconds between two looks whether the worker is still there, of a job that has just begun
SLOW_POLL = 0.25  # and of one that takes longer
LOST = 1.0  # seconds that a worker may take to end once its connection has
GRACE = 2.0  # seconds that a job which heeds `targets.base.asked_to_stop` has to do so
BROKEN = "broke the connection to its worker process"
OVER = "held more memory than the limit"
STARTS = 3  # processes that may go before one takes the job
TAIL = 20 * 1024  # bytes of log that go with a death
FASTEST = 8e9  # bytes that a process can take in a second, at the most
LOG_LIMIT = 64 * 1024 * 1024  # bytes; a worker that prints more loses what it printed


class Slot:
    """Runs jobs in a process that is replaced when it dies. Only one thread may call `run`."""

    def __init__(
        self,
        number: int,
        folder: Path,
        threads: int,
        context: BaseContext,
        closing: threading.Event,
        device: str = "",
        warm: Job | None = None,
    ) -> None:
        """Keep log and process id in `folder`; `closing` set means that the whole pool ends.

        `device` is the only GPU that the process may see, `warm` what each process does before its first job.
        """
        self.number = number
        self.log = folder / f"worker-{number}.log"
        self._pid_file = folder / f"worker-{number}.pid"
        self._pid_file.unlink(missing_ok=True)
        self._scratch = folder / f"worker-{number}.tmp"
        self._progress_file = self._pid_file.with_suffix(".progress")
        self._stop_file = self._pid_file.with_suffix(".stop")
        self._given = (threads, device)
        self._context = context
        self._closing = closing
        self._worker: WorkerProcess | None = None
        self._lock = threading.Lock()
        self._warm = warm
        self._ready = False  # the present process has done it
        self.prepared = 0.0  # seconds that the present process took for it
        self._served = 0  # jobs that the present process has done
        self._over_limit: dict[int, str] = {}  # process id: why we killed it
        self._watched: list[psutil.Process] = []
        self._rested = 0.0  # moment of `time.monotonic` before which they cannot hold too much

    # Jobs

    def run(self, job: Job, timeout: float | None, cancelled: threading.Event) -> Reply:
        """Run one job.

        A death that may not be the job's fault is forgiven once: a SIGKILL that we did not send, the end
        of the server that the worker came from, and too much memory held by a worker that had done other
        jobs before.

        Raises:
            CancelledError: `cancelled` was set, or the pool closes.
            BisectError: no worker can be started; or the job raised it.
            Exception: what else the job raised.
        """
        start = time.monotonic()
        mark = self._size()
        try:
            try:
                ok, value, seconds = self._attempt(job, timeout, cancelled)
            except DiedError as death:
                if not death.again:
                    raise
                ok, value, seconds = self._attempt(job, timeout, cancelled)
        except DiedError as death:
            return Reply(death=replace(death.death, log=self._tail(mark)), seconds=time.monotonic() - start)
        self._served += 1
        result = pickle.loads(value)  # from a process of ours; never content of a model
        if not ok:
            raise result
        return Reply(value=result, seconds=seconds)

    def _attempt(self, job: Job, timeout: float | None, cancelled: threading.Event) -> Answer:
        for _ in range(STARTS):
            try:
                return self._once(job, timeout, cancelled)
            except EndedError:
                self.stop()
            except TimeoutError as ended:
                self.stop()
                raise late(timeout) from ended
            except (DiedError, CancelledError) as ended:
                if not getattr(ended, "alive", False):
                    self.stop()
                raise
        raise BisectError(f"a worker process cannot be started; see {self.log}")

    def _once(self, job: Job, timeout: float | None, cancelled: threading.Event) -> Answer:
        if cancelled.is_set():
            raise CancelledError
        worker = self._started()
        if self._warm is not None and not self._ready:
            self._prepare(worker, self._warm)
            if cancelled.is_set():
                raise StoppedError
        for file in (self._stop_file, self._progress_file):
            file.unlink(missing_ok=True)
        return self._done(worker, job, timeout, cancelled)

    def _prepare(self, worker: WorkerProcess, warm: Job) -> None:
        """Have a new process do what makes it warm; no deadline of a job counts that.

        What it raises is for the job to say. A process that it ends is replaced by one that does without.
        """
        try:
            self.prepared = self._done(worker, warm, START_DEADLINE, threading.Event())[2]
        except (DiedError, TimeoutError) as error:
            self._warm = None
            raise EndedError from error
        self._ready = True

    def _done(
        self, worker: WorkerProcess, job: Job, timeout: float | None, cancelled: threading.Event
    ) -> Answer:
        """Give a job to the process and wait for its answer.

        Raises:
            EndedError: the process went, or did nothing, before it took the job.
            DiedError, TimeoutError, CancelledError: the process has to go, or went.
            Exception: the job cannot be pickled.
        """
        begin = time.monotonic()
        given, running = False, 0.0  # when the job was taken
        wish: Wish | None = None
        while True:
            if worker.ready and not given:
                worker.give(job)
                given = True
            patience = min(SLOW_POLL, max(POLL, (time.monotonic() - begin) / 20))
            heard = self._heard(worker, patience, taken=bool(running))
            if isinstance(heard, tuple):
                return unless(wish, timeout, heard)
            now = time.monotonic()
            running = now if heard is Notice.TAKEN else running
            overdue = timeout is not None and bool(running) and now - running > timeout
            wish = self._wish(wish, overdue, cancelled.is_set())
            if not running and now - begin > START_DEADLINE:
                raise EndedError

    def _heard(self, worker: WorkerProcess, seconds: float, *, taken: bool) -> Notice | Answer | None:
        """Return the process's message. Raises EndedError, DiedError or CancelledError if it ended."""
        try:
            heard = worker.hear(seconds)
            if heard is not None or worker.exit_code() is None:
                return heard
            if last := worker.hear(0.0):
                return last
        except EndedError:
            pass
        except BrokenError as error:
            raise DiedError(Symptom.CRASH, None, BROKEN) from error
        if self._closing.is_set():
            raise CancelledError
        if not taken:
            raise EndedError
        raise self._explain(worker.exit_code(LOST), worker.pid)

    def _wish(self, wish: Wish | None, overdue: bool, cancelled: bool) -> Wish | None:
        """Say whether the job is to end: one that heeds it is asked and given `GRACE`, others are ended.

        Raises:
            CancelledError, TimeoutError: the process has to go.
        """
        if self._closing.is_set():
            raise CancelledError
        if wish is None and not overdue and not cancelled:
            return None
        if wish is None and self._progress_file.exists():
            self._stop_file.touch()
            return Wish(time.monotonic() + GRACE, cancelled)
        if wish is None or time.monotonic() > wish.until:
            raise CancelledError if cancelled else TimeoutError
        return wish

    def _explain(self, exitcode: int | None, pid: int) -> DiedError:
        """Say why a process went in the middle of a job."""
        why = self._over_limit.get(pid)
        if exitcode is None:
            return DiedError(Symptom.CRASH, None, BROKEN)
        if exitcode == 0:
            return DiedError(Symptom.CRASH, 0, "exit code 0 in the middle of the job")
        if why is not None:
            return DiedError(Symptom.OUT_OF_MEMORY, exitcode, OVER, why, again=self._served > 0)
        if exitcode == -signal.SIGKILL:
            message = "killed by the system (SIGKILL), twice: most likely it ran out of memory"
            return DiedError(Symptom.OUT_OF_MEMORY, exitcode, message, again=True)
        return DiedError(
            Symptom.CRASH, exitcode, limits.describe_exit(exitcode), again=exitcode == server.LOST
        )

    # The process

    def _started(self) -> WorkerProcess:
        """Return the process, a new one if need be; one that has ended takes no job. Raises EndedError."""
        with self._lock:
            if self._worker is None:
                self._pid_file.unlink(missing_ok=True)
                self._served, self._ready = 0, False
                given = (dict(os.environ), self._scratch, self.log, self._pid_file, os.getpid(), *self._given)
                self._worker = WorkerProcess(self._context, call, _begin, given)
            return self._worker

    def stop(self) -> None:
        """End the process and all that it started, whatever it is doing; a later job starts another."""
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is None:
                return
            worker.end()
            limits.kill_descendants(limits.WORKER, str(self._pid_file.with_suffix("")))
            self._pid_file.unlink(missing_ok=True)
            shutil.rmtree(self._scratch, ignore_errors=True)

    # What it holds and prints

    def progress(self) -> str:
        """Say how far the present job is; empty where that is unknown."""
        try:
            return self._progress_file.read_text()
        except OSError:
            return ""

    def watch(self, memory_limit: int, *, look_for_children: bool) -> float:
        """Kill the process when it holds more than `memory_limit` bytes, its children included.

        Returns the seconds in which neither it nor another one in its place can hold too much.
        """
        worker = self._worker
        if worker is None or not worker.ready:
            return 0.0
        now = time.monotonic()
        if now >= self._rested or self._watched[0].pid != worker.pid or look_for_children:
            self._look(worker.pid, now, memory_limit, look_for_children=look_for_children)
        return min(self._rested - now, memory_limit / FASTEST)

    def _look(self, pid: int, now: float, memory_limit: int, *, look_for_children: bool) -> None:
        with suppress(psutil.Error):
            if look_for_children or not self._watched or self._watched[0].pid != pid:
                process = psutil.Process(pid)
                above = process.parent()  # the tool, or its server: all up to the first take 2 ms
                if above is None or os.getpid() not in (above.pid, above.ppid()):
                    return
                some = look_for_children and limits.may_have_children(pid)
                children = process.children(recursive=True) if some else ()
                self._watched = [process, *children]  # one that has just started has none
            held = 0
            for process in self._watched:
                with suppress(psutil.Error):
                    held += limits.held_bytes(process)
            if held > memory_limit:
                limit = f"{memory_limit >> 20} MiB"
                self._over_limit[pid] = f"held {held >> 20} MiB, more than the limit of {limit}"
                limits.kill_group(pid)
            self._rested = now + min(SLOW_POLL, (memory_limit - held) / FASTEST)
        if look_for_children and self._size() > LOG_LIMIT:
            with suppress(OSError):
                os.truncate(self.log, 0)  # the worker appends, so it goes on from the start

    def _size(self) -> int:
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def _tail(self, mark: int) -> str:
        """Return the end of what was written since the log had `mark` bytes."""
        size = self._size()
        begin = max(mark if mark <= size else 0, size - TAIL)
        try:
            with self.log.open("rb") as file:
                file.seek(begin)
                return file.read(TAIL).decode("utf-8", errors="replace")
        except OSError:
            return ""


def _begin(environment: Mapping[str, str], scratch: Path, *given: Any) -> None:
    """Prepare a new process before its first job; its temporary files go with it, however it ends."""
    server.leave(environment)
    native.stay_here()
    scratch.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(scratch)
    limits.prepare_worker(*given)
