"""Temporary folders of a process that was killed are removed by the next one; no other folder is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bisect_trt.machine import scratch

HOLDS = """
import sys
from bisect_trt.machine.scratch import hold_sockets, temporary_folder
with temporary_folder() as folder:
    (folder / "weights").mkdir()
    hold_sockets()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch._remove_left.cache_clear()
    return tmp_path


@contextmanager
def owner(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a folder of ours and multiprocessing's until it ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place)},
    )
    with process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def names(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next(place: Path) -> None:
    with owner(place) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [name.partition("-")[0] for name in names(place)] == ["bisect", "pymp"]
    with scratch.temporary_folder() as folder:
        assert names(place) == [folder.name]
    assert not names(place)


def test_a_folder_in_use_stays(place: Path) -> None:
    with owner(place):
        before = names(place)
        with scratch.temporary_folder():
            pass
        assert names(place) == before and len(before) == 2


def test_a_folder_without_the_mark_is_nobody_s(place: Path) -> None:
    """One of an older version, of another program, or one that is just being made; nor is a link followed."""
    (place / "bisect-trt-mine").mkdir()
    (place / "pymp-other").mkdir()
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / scratch.OWNER).touch()
    (place / "bisect-trt-link").symlink_to(place / "elsewhere")
    before = names(place)
    with scratch.temporary_folder():
        pass
    assert names(place) == before and (place / "elsewhere" / scratch.OWNER).exists()


def test_where_files_cannot_be_locked_nothing_is_marked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(scratch.fcntl, "flock", no_locks)
    with scratch.temporary_folder() as folder:
        assert not names(folder)
    assert not names(place)
