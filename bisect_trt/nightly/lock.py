"""One night at a time in an output folder.

The kernel gives the lock back when its holder ends, even by kill -9: a stale one needs no cleaning. What
the file says (who, since when) is for messages only. POSIX.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from bisect_trt.errors import UsageError

FILE = "lock"


class Holder(Struct, frozen=True):
    """The holder of the lock, or the last one."""

    pid: int
    host: str
    since: str


@contextmanager
def hold(folder: Path) -> Iterator[Holder | None]:
    """Hold the folder's lock; gives the holder that ended without letting go, if there was one.

    Raises:
        UsageError: another process holds it; the message says which.
    """
    fd = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(fd):
            raise _held(folder, _parse(os.pread(fd, 4096, 0)))
        stale = _parse(os.pread(fd, 4096, 0))
        me = Holder(os.getpid(), platform.node(), datetime.now(UTC).isoformat(timespec="seconds"))
        _write(fd, json.dumps(asdict(me)).encode())
        yield stale
        _write(fd, b"")
    finally:
        os.close(fd)


def holder(folder: Path) -> Holder | None:
    """Return who holds the lock now; None when nobody does. Disturbs nothing."""
    try:
        fd = os.open(folder / FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _parse(os.pread(fd, 4096, 0)) or Holder(0, "", "")
    finally:
        os.close(fd)
    return None


def _lock(fd: int) -> bool:
    """Try for half a second: `holder` takes the lock for an instant when it looks."""
    for _ in range(10):
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _parse(data: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _write(fd: int, data: bytes) -> None:
    """A full disk must not stop a night here: the lock itself needs no bytes."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)


def _held(folder: Path, by: Holder | None) -> UsageError:
    who = f": process {by.pid} on {by.host}, since {by.since}" if by else ""
    return UsageError(
        f"another nightly run works in {folder}{who}", f"look at it: bisect-trt nightly status {folder}"
    )
