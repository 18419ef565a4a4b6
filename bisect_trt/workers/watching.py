"""How far the builds in the workers are, told while one waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bisect_trt.workers.pool import Pool

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
