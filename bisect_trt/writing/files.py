"""How files are written so that nobody ever sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ASIDE = ".writing-"
"""How the name of a folder begins whose files are about to move up: a process that was killed leaves it."""


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


@contextmanager
def written_aside(out: Path, last: str) -> Iterator[Path]:
    """Yield a folder whose files move to `out` at the end, the file `last` after the others.

    Raises:
        OSError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=ASIDE) as name:
        folder = Path(name)
        yield folder
        for path in sorted(folder.iterdir(), key=lambda p: (p.name == last, p.name)):
            path.replace(out / path.name)


def remove_drafts(out: Path) -> None:
    """Remove what a killed process left of `written_aside` in a folder where nobody else is at work."""
    for draft in out.glob(f"{ASIDE}*"):
        shutil.rmtree(draft, ignore_errors=True)


def write_all(out: Path, texts: Mapping[str, str], last: str) -> None:
    """Write texts into a folder by file name, each whole or not at all, the file `last` after the others.

    What no UTF-8 can hold (half of a surrogate pair in a name of a model) becomes a question mark.

    Raises:
        OSError: a file cannot be written.
    """
    with written_aside(out, last) as folder:
        for name, text in texts.items():
            (folder / name).write_bytes(text.encode("utf-8", errors="replace"))
