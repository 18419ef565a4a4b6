"""Runs `repro.py` once, as its reader would, and holds processes ready for that and for the fresh runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from bisect_trt.machine import limits
from bisect_trt.reproducer.files import SCRIPT
from bisect_trt.reproducer.verify import fresh_pool
from bisect_trt.results import Reduction
from bisect_trt.settings import Settings
from bisect_trt.workers.pool import Pool

_TRIED = "BISECT_TRT_TRIED"  # environment variable of the script and of all that it starts
_START = 120.0  # seconds for the script to import its libraries

_WAITING = """
import os, runpy, sys, tensorrt
builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
script = sys.stdin.readline().rstrip("\\n")
if script:
    sys.argv, sys.path[0] = [script], os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")
"""


class WaitingPython:
    """A Python without bisect-trt that has made a builder of TensorRT, and waits for a script to run.

    A builder takes 7 s to make on an H200; while one is alive in a process the script's own costs nothing.
    It ends where nobody gives it a script. Errors of TensorRT may go to the logger of its first builder, so
    it is for scripts that look at outputs, not at messages.
    """

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._process = _started(["-c", _WAITING], self._mark, stdin=subprocess.PIPE)

    def __enter__(self) -> WaitingPython:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        limits.kill_descendants(_TRIED, self._mark)
        with self._process:  # closes its pipes, and waits until it is gone
            pass

    def run(self, script: str, limit: float) -> subprocess.CompletedProcess[str]:
        """Return what becomes of a script, once.

        Raises:
            OSError: the process is gone.
            subprocess.TimeoutExpired: it takes more than `limit` seconds.
        """
        return _ended(self._process, self._mark, limit, f"{script}\n")


class Ready(Struct, frozen=True):
    """Processes that wait for the written files: for the fresh runs, and one for `repro.py`."""

    pools: Sequence[Pool] = ()
    python: WaitingPython | None = None


@contextmanager
def waiting(settings: Settings, logs: Path, room: int, *, for_script: bool) -> Iterator[Ready]:
    """Start as many processes as there is `room` for, until the end of the context.

    Each makes its builder of TensorRT and does nothing else until it is given something.
    """
    repeats, pools = settings.run.repeats, list[Pool]()
    with ExitStack() as stack:
        for number in range(min(repeats, room)):
            pools.append(stack.enter_context(fresh_pool(settings, logs / f"fresh-{number}", number)))
        waits = room > repeats and for_script
        yield Ready(pools, stack.enter_context(WaitingPython()) if waits else None)


def disagreement(reduction: Reduction, python: WaitingPython | None = None) -> str:
    """Return what `repro.py` says other than that it still fails (exit code 1), as a sentence; else nothing.

    It runs in a process of its own, or in `python`.
    """
    limit = _START + 2 * (reduction.settings.run.timeout or 60.0)
    script = str((reduction.out / SCRIPT).absolute())
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    try:
        done = python.run(script, limit) if python else _ended(_started([script], mark), mark, limit)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{SCRIPT} was tried once and did not end: {error}"
    if done.returncode == 1:
        return ""
    said = [line for line in done.stdout.splitlines() if line.strip()] or done.stderr.splitlines() or [""]
    text = f"exit code {done.returncode} instead of 1 ({said[-1].strip()})"
    return f"{SCRIPT} was tried once and disagrees: {text}."


def _started(words: list[str], mark: str, stdin: int | None = None) -> subprocess.Popen[str]:
    """Start Python; `mark` is in the environment of all that it starts."""
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, _TRIED: mark},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _ended(
    process: subprocess.Popen[str], mark: str, limit: float, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Wait for its end, at most `limit` seconds; nothing that it started is left behind."""
    try:
        out, errors = process.communicate(given, timeout=limit)
    finally:
        limits.kill_descendants(_TRIED, mark)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)
