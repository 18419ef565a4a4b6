"""The command line. Worker processes import the script that started the tool: it has to stay light."""

from __future__ import annotations

import gc
import os


def main() -> int:
    """Run the command line of this process and give its exit code."""
    # OpenBLAS's threads would spin for 0.1 s in each process that imports numpy, and wait for nothing.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    gc.set_threshold(50_000)  # a graph is many objects and little garbage: to look as usual takes 0.1 s
    from bisect_trt.cli import app

    return app.main()
