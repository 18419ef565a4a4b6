"""The command line. Worker processes import the script that started the tool: it has to stay light."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from contextlib import suppress

from bisect_trt.errors import INTERRUPTED


def main() -> int:
    """Run the command line of this process and give its exit code."""
    early = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if early:  # else it is ignored, as of a job in the background
        signal.signal(signal.SIGINT, _leave)
    # OpenBLAS's threads would spin for 0.1 s in each process that imports numpy, and wait for nothing.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    gc.set_threshold(300_000)  # modules and graphs are many objects and little garbage: to look takes 0.1 s
    from bisect_trt.cli import app

    if early:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return _ended(app.main())


def _ended(code: int) -> int:
    """End this process with an exit code, without taking apart what the kernel takes back at once.

    To free all objects of 600 modules takes 0.05 s. What has to happen at an end happens, as multiprocessing
    does it in its own processes. Where the output cannot be written Python ends as it always does.
    """
    with suppress(OSError, ValueError):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    return code


def _leave(number: int, frame: object) -> None:
    """Ctrl-C while modules are imported: their tracebacks tell nobody anything."""
    os.write(2, b"interrupted before anything was begun\n")
    os._exit(INTERRUPTED)
