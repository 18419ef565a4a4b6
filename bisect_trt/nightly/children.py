"""The real runner: each job in a child process, with deadline and memory limit.

A spare child is kept ready while another one works, so that Python's start costs no time of the night. A
child that has seen nothing but models that pass is used again for a first check, its worker being warm;
whatever is looked at a second time is looked at in a fresh one.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from bisect_trt.errors import is_full
from bisect_trt.machine import limits
from bisect_trt.nightly.child import Child
from bisect_trt.nightly.job import clean
from bisect_trt.nightly.retention import BALLAST_SIZE
from bisect_trt.nightly.runner import ENDED, Answer, Cause, Job, Trouble

POLL = 0.1  # seconds between two looks at a child
SLOW_POLL = 1.0  # and at its memory
GRACE = 20.0  # seconds that a reduction has to save its best when its time is over
LOG_TAIL = 256 * 1024  # bytes of a job's log that are kept
MOST_MODELS = 200  # models that one child checks: a new one and its worker cost a second of a core
_OURS = (Cause.MEMORY, Cause.DIED, Cause.BUG)  # what a process that is not fresh may be the reason of


class Children:
    """See `runner.Runner`."""

    def __init__(self, folder: Path, base: Path, *, parallel: int, logs: Path) -> None:
        """Nothing is started yet.

        Args:
            folder: for temporary files; emptied now.
            base: where relative paths in options of targets and references start from.
            parallel: how many jobs run at the same time: memory and threads are shared out evenly.
            logs: folder that gets the end of the log of each job that gave no answer.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder.absolute()
        self._base = base
        self._parallel = parallel
        self._logs = logs
        self._threads = max(1, (os.cpu_count() or 1) // parallel)
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self._spare: list[Child] = []
        self._warm: list[tuple[str, Child]] = []  # and the target that each was used for
        # A child dies with the *thread* that started it: this one lives until `close`.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="start of children")
        self._jobs: dict[str, Path] = {}

    def run(self, job: Job) -> Answer:
        """See `runner.Runner`; a reduction that does not save its best in time is killed."""
        answer = self._once(job)
        left = job.limit - answer.seconds
        if not job.fresh and isinstance(answer, Trouble) and answer.cause in _OURS and left > 0:
            # models before this one may be to blame
            answer = self._once(replace(job, fresh=True, limit=left))
        return answer

    def cancel(self) -> None:
        """End all that runs; calls from now on answer at once."""
        self._cancelled.set()

    def folder(self, slug: str) -> Path | None:
        """Return where the job of this name leaves its progress, while it runs."""
        return self._jobs.get(slug)

    def close(self) -> None:
        """End what is left, and the spare children."""
        self.cancel()
        with self._lock:
            left = [*self._spare, *(child for _, child in self._warm)]
            self._spare, self._warm = [], []
        for child in left:
            child.end()
        self._starter.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _once(self, job: Job) -> Answer:
        if self._cancelled.is_set():
            return ENDED
        spec = job.settings.target.spec
        try:
            child = self._take("" if job.fresh else spec)
        except OSError as error:
            cause = Cause.DISK if is_full(error) else Cause.BUG
            return Trouble(cause, f"no process could be started: {error}")
        began = time.monotonic()
        self._jobs[job.slug] = child.folder
        again = False
        try:
            child.ask(self._placed(job))
            self._prepare_spare()
            answer = self._wait(child, job.limit, GRACE if job.kind == "reduce" else 0.0)
            if isinstance(answer, Trouble):
                answer = replace(_of_the_disk(answer, child.folder), seconds=time.monotonic() - began)
                self._keep_log(child, job.slug)
            again = not job.fresh and clean(answer) and child.served < MOST_MODELS
            return answer
        finally:
            del self._jobs[job.slug]
            if not (again and self._keep(spec, child)):
                child.end()

    def _placed(self, job: Job) -> Job:
        """Return the job for a process in another folder.

        It has a memory limit, so that parallel jobs together stay within the machine.
        """
        run = job.settings.run
        limit = run.memory_limit or limits.default_limit(self._parallel * run.workers)
        settings = replace(job.settings, run=replace(run, memory_limit=limit))
        return replace(job, model=job.model.absolute(), repro=job.repro.absolute(), settings=settings)

    def _keep(self, spec: str, child: Child) -> bool:
        """Keep a child for its target; False when there are enough."""
        with self._lock:
            if self._cancelled.is_set():
                return False
            if len(self._warm) == self._parallel:
                self._warm.pop(0)[1].end()
            self._warm.append((spec, child))
        return True

    def _take(self, spec: str) -> Child:
        """Return a child that is warm for this target, else one that is ready.

        A fresh one without a target.
        """
        with self._lock:
            for warm in [w for w in self._warm if w[0] == spec or not spec]:
                self._warm.remove(warm)
                if spec and warm[1].process.poll() is None:
                    return warm[1]
                warm[1].end()  # its worker must not hold what others need
            while self._spare:
                child = self._spare.pop()
                if child.process.poll() is None:
                    return child
                child.end()
            return self._start()

    def _prepare_spare(self) -> None:
        with self._lock, suppress(OSError):
            if not self._spare and not self._cancelled.is_set():
                self._spare.append(self._start())

    def _start(self) -> Child:
        self._number += 1
        return self._starter.submit(
            Child, self._folder / f"{self._number:06}", self._base, self._threads
        ).result()

    def _wait(self, child: Child, limit: float, grace: float) -> Answer:
        """Read the answer; deadline, cancellation and the memory limit end the wait."""
        memory = limits.default_limit(self._parallel)
        text, deadline, looked = b"", time.monotonic() + limit, time.monotonic()
        over: Trouble | None = None
        while True:
            piece = child.read(POLL)
            if piece is not None:
                text += piece
                if not piece or text.endswith(b"\n"):
                    answer = child.answer(text)
                    return over if over and isinstance(answer, Trouble) else answer
            now = time.monotonic()
            if now - looked > SLOW_POLL:
                looked = now
                if child.held() > memory:
                    return Trouble(
                        Cause.MEMORY, f"reading the model takes more than {memory / 2**30:.1f} GiB"
                    )
            if over is None and (now > deadline or self._cancelled.is_set()):
                late = Trouble(Cause.DEADLINE, f"still at work after {limit:.0f} s")
                over = ENDED if self._cancelled.is_set() else late
                deadline = now + grace
                child.process.terminate()  # a reduction saves its best then
            if over is not None and now >= deadline:
                return over

    def _keep_log(self, child: Child, slug: str) -> None:
        with suppress(OSError):
            data = (child.folder / "log").read_bytes()[-LOG_TAIL:]
            if data:
                self._logs.mkdir(parents=True, exist_ok=True)
                (self._logs / f"{slug}.log").write_bytes(data)


def _of_the_disk(answer: Trouble, folder: Path) -> Trouble:
    """Blame a full disk for a process that died: it may have had no room to say so, nor for its last words.

    The night may have given its reserve away by now, so as much as twice of that left is still full.
    """
    with suppress(OSError):
        if answer.cause in (Cause.DIED, Cause.BUG) and shutil.disk_usage(folder).free < 2 * BALLAST_SIZE:
            return replace(answer, cause=Cause.DISK, reason=f"no space left on the disk: {answer.reason}")
    return answer
