"""Temporary folders, and what becomes of those whose process was killed.

A folder is removed when its block ends. A process that is killed (kill -9, out of memory) removes nothing:
the next one of the same user does. In each folder lies a file that its process holds locked, and the system
lets go of a lock with its process, whatever ended that: so no folder in use is ever taken for one that was
left, as could happen with process numbers, which come again. What has no such file is none of our business.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import util
from pathlib import Path

PREFIX = "bisect-trt-"
OWNER = ".bisect-trt-owner"
"""The file that the owner holds locked."""

_OURS = (PREFIX, "pymp-")
"""How names of such folders begin; multiprocessing has one for the sockets of its server."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new temporary folder, which is gone when the block ends.

    Raises:
        OSError: no folder can be made, or it cannot be removed.
    """
    _remove_left(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, _held(Path(name)):
        yield Path(name)


def hold_sockets() -> None:
    """Mark the folder of multiprocessing's sockets, removed by itself unless the process is killed."""
    _hold_for_ever(util.get_temp_dir())


@cache
def _hold_for_ever(folder: str) -> None:
    _hold(Path(folder))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    handle = _hold(folder)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _hold(folder: Path) -> int | None:
    """Put the file into a folder and lock it; None where the file system has no locks: it stays as it is.

    It gets its name when it is locked already: nobody finds it free while its owner lives.
    """
    begun = folder / f"{OWNER}.new"
    try:
        handle = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begun.rename(folder / OWNER)
    except OSError:
        os.close(handle)
        begun.unlink(missing_ok=True)
        return None
    return handle


@cache
def _remove_left(place: str) -> None:
    """Remove the folders of dead owners in a folder for temporary files, once in a process."""
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(_OURS):
                with suppress(OSError):  # another user's, in use, or gone by now
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    """Remove a folder of this user whose owner is dead. Raises OSError when it is none."""
    if not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid != os.getuid():
        return
    handle = os.open(f"{entry.path}/{OWNER}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(handle)
