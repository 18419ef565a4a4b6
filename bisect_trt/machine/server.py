"""How worker processes start: forked from a server that has numpy and onnx, but no library of any target.

That saves 0.2 CPU seconds for each, of which a reduction starts five. The server is that of
`multiprocessing`: one for each process that starts workers, started with the first, ended with the tool.
In a process that is ours alone it is a copy of that process (`from_here`), and saves these imports as well.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import forkserver, resource_tracker, spawn, util
from multiprocessing.context import (
    BaseContext,
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from pathlib import Path
from typing import Any

from bisect_trt.machine.scratch import hold_sockets

LOST = 255
"""Exit code of a process whose server ended before it could tell the real one; or its own."""

PRELOADED = ("bisect_trt.workers.jobs", "bisect_trt.workers.slot")
"""What the server imports once for all workers: code of ours, with numpy and onnx, and no target."""
USUAL = "bisect_trt.targets.tensorrt.backend"
"""Our code of a target, which it imports as well: of TensorRT where nothing else is named."""

_LONGEST_SOCKET = 107  # bytes of the name of a socket
_NAMES = len("/pymp-01234567/listener-01234567")  # what is put behind the temporary folder


_here = threading.local()
_prepare = spawn.get_preparation_data


def _preparation_data(name: str) -> dict[str, Any]:
    """Return what a new process needs of its parent; of ours the user's script is no part.

    multiprocessing imports the script that runs as `__main__` once more in each process. A script that calls
    `bisect_trt.reduce` without `if __name__ == "__main__"` would then begin anew there, and nothing of it is
    needed: jobs are functions of this package.
    """
    data: dict[str, Any] = _prepare(name)
    if getattr(_here, "starts_ours", False):
        data.pop("init_main_from_path", None)
        data.pop("init_main_from_name", None)
    return data


spawn.get_preparation_data = _preparation_data


@contextmanager
def _ours() -> Iterator[None]:
    _here.starts_ours = True
    resource_tracker.ensure_running()  # it would unblock the signal when it starts
    # Processes inherit this: Ctrl-C must not reach the server or a worker that is still importing.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        _here.starts_ours = False
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Forked(ForkServerProcess):
    """A process of the fork server that does not import the user's script."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _ours():
            return ForkServerProcess._Popen(process_obj)


class _Spawned(SpawnProcess):
    """A process that starts from nothing and does not import the user's script."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _ours():
            return SpawnProcess._Popen(process_obj)


class _ForkServer(ForkServerContext):
    Process = _Forked


class _Spawn(SpawnContext):
    Process = _Spawned


def context() -> BaseContext:
    """Return the context that all workers start in.

    Where forking is not safe (macOS) or a socket's name would be too long they spawn.
    """
    short = len(os.fsencode(tempfile.gettempdir())) + _NAMES <= _LONGEST_SOCKET
    if sys.platform != "linux" or not short:
        return _Spawn()
    found = _ForkServer()
    found.set_forkserver_preload([*PRELOADED, USUAL])
    return found


def from_here(code: str = USUAL) -> None:
    """Make the server a copy of this process, which has imported no library of a target.

    `code` is our module of the target that workers will run; importing it loads no library of the target.
    For processes that are ours alone: a user's own may hold what does not survive a fork (CUDA, threads).
    Where there are threads already nothing is done: the server starts by itself when it is needed.
    """
    found = context()
    if not isinstance(found, _ForkServer) or threading.active_count() > 1:
        return
    found.set_forkserver_preload([*PRELOADED, code])
    for name in (*PRELOADED, code):
        import_module(name)
    gc.freeze()  # a collection would write to all pages, which all workers share with us
    start = util.spawnv_passfds
    util.spawnv_passfds = _copied  # type: ignore[assignment]
    try:
        with _ours():  # starts multiprocessing's tracker of resources, in the same way
            forkserver.ensure_running()
        hold_sockets()
    finally:
        util.spawnv_passfds = start


def _copied(path: bytes, arguments: Sequence[str], passed: Sequence[int]) -> int:
    """Return what `spawnv_passfds` does, but in a copy of this process instead of a new interpreter."""
    if pid := os.fork():
        return pid
    try:
        for found in list(Path("/proc/self/fd").iterdir()):
            if int(found.name) not in (0, 1, 2, *passed):
                with suppress(OSError):  # it was that of this list
                    os.close(int(found.name))  # the tool's end of the pipe that tells of its end, too
        with suppress(SystemExit):
            exec(arguments[-1], {})  # the line of Python that a new interpreter gets with -c
    finally:
        os._exit(0)


def leave(environment: Mapping[str, str]) -> None:
    """Take, in a worker, the environment of the tool, which may be newer than the server's.

    The server ends when nobody holds one end of a pipe any more: only the tool may hold it.
    """
    server = forkserver._forkserver
    alive = getattr(server, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
        server._forkserver_alive_fd = None  # type: ignore[attr-defined]
    os.environ.clear()
    os.environ.update(environment)
