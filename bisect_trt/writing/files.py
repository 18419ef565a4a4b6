"""How a file is written so that nobody ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(place: Path) -> Iterator[Path]:
    """Yield the path of a new file beside `place`, whose name it takes when the block ends without an error.

    Several processes may do so for one place at the same time: the last one wins.

    Raises:
        OSError: the file cannot be written.
    """
    short = place.name.encode(errors="replace")[:200].decode(errors="ignore")  # names have 255 bytes at most
    aside = place.with_name(f".{short}.{os.getpid()}.writing")
    try:
        yield aside
        aside.replace(place)
    finally:
        aside.unlink(missing_ok=True)
