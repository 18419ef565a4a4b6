"""What a worker process may do and hold, and words for how it ended. Linux is the platform that counts.

This module is what a worker imports first: it stays light (no numpy), so that thread counts set here
are still seen by libraries loaded later. (OpenBLAS, loaded by the server that forks workers, keeps the
count of the machine.)
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

PR_SET_PDEATHSIG = 1
WORKER_SHARE = 0.8  # of the machine's memory, for all workers together

WORKER = "BISECT_TRT_WORKER"
"""Environment variable of a worker process: where its files lie, without their suffix."""


def prepare_worker(log: Path, pid_file: Path, parent: int, threads: int, device: str = "") -> None:
    """Make this process a worker; runs once in each, before any job.

    Args:
        log: file that takes all that is written on file descriptors 1 and 2.
        pid_file: gets this process' id when everything is ready.
        parent: process id of the tool; the worker dies with it.
        threads: that numeric libraries may use.
        device: the only GPU that it may see, as CUDA_VISIBLE_DEVICES has it; empty: as it is.
    """
    die_with(parent)
    with suppress(PermissionError):  # already the leader of a group
        os.setsid()  # away from the terminal's Ctrl-C; one group to kill, children included
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A handler written in Python would wait for native code to return: the default ends it at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    no_core_dump()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    os.environ[WORKER] = str(pid_file.with_suffix(""))
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    _write_into(log)
    faulthandler.enable(file=sys.__stderr__ or 2)
    partial = pid_file.with_suffix(".new")
    partial.write_text(str(os.getpid()))
    partial.replace(pid_file)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the tool ends, however it ends.

    What the kernel watches is the process that started this one: the tool, or a server that ends with it.
    """
    starter = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != starter or not lives(parent):  # it ended before we asked
        os._exit(1)


def lives(pid: int) -> bool:
    """Return whether a process has not ended; one that its parent has not heard of yet has."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def no_core_dump() -> None:
    """Leave no core file of this process when it crashes."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_memory(most: int) -> None:
    """Let this process have `most` bytes of address space; what needs more gets an error."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _write_into(log: Path) -> None:
    """Redirect fd 1 and 2, of C++ too, to the end of `log`."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def total_memory() -> int:
    """Return the bytes that this machine (or the container that we are in) has."""
    total = int(psutil.virtual_memory().total)
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int(Path(name).read_text()))
    return total


def default_limit(workers: int) -> int:
    """Return the bytes for each of `workers` when the user names no limit."""
    return int(total_memory() * WORKER_SHARE) // workers


def held_bytes(process: psutil.Process) -> int:
    """Return the bytes that a process holds and that nothing but its end gives back.

    Resident pages that map files (weights, recorded tensors, libraries) do not count: the kernel
    drops them when it needs to.
    """
    info = process.memory_info()
    return max(0, int(info.rss) - int(getattr(info, "shared", 0)))


def may_have_children(pid: int) -> bool:
    """Return False where the kernel says that a process has started none that live: cheaper than to look."""
    try:
        with os.scandir(f"/proc/{pid}/task") as found:
            threads = [one.name for one in found]
        return any(Path("/proc", str(pid), "task", one, "children").read_bytes() for one in threads)
    except OSError:  # it ended, or the kernel does not tell
        return True


def describe_exit(code: int | None) -> str:
    """Return an exit code in words: `SIGSEGV (segmentation fault)`, `exit code 3`."""
    if code is None:
        return "ended for an unknown reason"
    if code >= 0:
        return f"exit code {code}"
    name = signal_name(-code)
    if not name.startswith("SIG"):
        return name
    # What the system calls a floating point exception is most often a division of integers.
    words = "arithmetic error" if -code == signal.SIGFPE else (signal.strsignal(-code) or "").lower()
    return f"{name} ({words})" if words else name


def signal_name(number: int) -> str:
    """Return `SIGSEGV`; signals of real time have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def kill_descendants(variable: str, value: str) -> None:
    """Kill every process that was started with this environment variable, in whatever group it is.

    A worker sets `WORKER` in itself: all that it starts inherits it, and it itself is none of them.
    """
    entry = f"{variable}={value}".encode()
    with os.scandir("/proc") as found:  # paths would take 7 ms in place of 1, at the end of each worker
        pids = [one.name for one in found if one.name.isdecimal()]
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb", 0) as file:  # noqa: PTH123
            environ = file.read()  # unless it ended, or belongs to somebody else
            if entry in environ and entry in environ.split(b"\0"):
                os.kill(int(pid), signal.SIGKILL)


def kill_group(pid: int) -> None:
    """Kill a worker and all that it started, at once."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def terminable() -> AbstractContextManager[None]:
    """Have SIGTERM and a terminal that closes act as Ctrl-C does: the best so far is written."""
    return handled(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Have these signals handled, in the main thread only; ignored ones stay so, as nohup has it."""
    before = {}
    with suppress(ValueError):  # not in the main thread
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)
