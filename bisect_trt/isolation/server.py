"""How worker processes start: forked from a server that has numpy and onnx, but no library of any target.

That saves 0.2 CPU seconds for each, of which a reduction starts four. The server is that of
`multiprocessing`: one for each process that starts workers, started with the first, ended with the tool.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

LOST = 255
"""Exit code of a process whose server ended before it could tell the real one; or its own."""

_LONGEST = 107  # bytes of the name of a socket
_NAMES = len("/pymp-01234567/listener-01234567")  # what is put behind the temporary folder


def context() -> BaseContext:
    """Of all workers. Where forking is not safe (macOS) or a socket's name would be too long they spawn."""
    short = len(os.fsencode(tempfile.gettempdir())) + _NAMES <= _LONGEST
    if sys.platform != "linux" or not short:
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["bisect_trt.workers.jobs"])
    return found


def leave(environment: Mapping[str, str]) -> None:
    """In a worker: take the environment of the tool, which may be newer than the server's.

    The server ends when nobody holds one end of a pipe any more: only the tool may hold it.
    """
    server = forkserver._forkserver
    alive = getattr(server, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
        server._forkserver_alive_fd = None  # type: ignore[attr-defined]
    os.environ.clear()
    os.environ.update(environment)
