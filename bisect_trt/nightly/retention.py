"""What is kept on disk: whole nights and reproducers go, oldest first, until the rest fits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from bisect_trt.nightly.config import Retention
from bisect_trt.nightly.history import History
from bisect_trt.nightly.history_rows import Night

NIGHTS = "nights"
REPRODUCERS = "reproducers"
BALLAST = ".ballast"
BALLAST_SIZE = 2 * 1024**2


def night_folder(out: Path, night: Night) -> Path:
    """Return where pages and logs of a night lie; the names sort by time."""
    return out / NIGHTS / f"{night.id:05}-{night.started.astimezone():%Y-%m-%d}"


def take_ballast(out: Path) -> None:
    """Keep some bytes in reserve, so that history and report can be written when the disk is full."""
    place = out / BALLAST
    with suppress(OSError):
        if not place.exists() or place.stat().st_size < BALLAST_SIZE:
            with place.open("wb") as file:
                file.write(b"\0" * BALLAST_SIZE)
                os.fsync(file.fileno())


def drop_ballast(out: Path) -> None:
    """Give the reserve away: the disk is full, or the night is over."""
    (out / BALLAST).unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """Return bytes on disk below a folder; hard links count once, files that vanish meanwhile not at all."""
    seen: dict[tuple[int, int], int] = {}
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                facts = os.lstat(Path(place) / name)
                seen[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(seen.values())


def clean(out: Path, history: History, rules: Retention, say: Callable[[str], None]) -> None:
    """Remove what the rules say; the latest night and its reproducers stay, whatever their size."""
    history.forget(rules.history)
    kept = history.nights(rules.nights)
    names = {night_folder(out, night).name for night in kept}
    used = {Path(r).parts[1] for r in history.reproducers_in_use(night.id for night in kept)}
    for place, needed in ((NIGHTS, names), (REPRODUCERS, used)):
        for folder in _children(out / place):
            if folder.name not in needed:
                _remove(folder, say)
    if rules.max_size is not None:
        _shrink(out, history, rules.max_size, kept, say)


def _shrink(out: Path, history: History, most: int, kept: list[Night], say: Callable[[str], None]) -> None:
    history.settle()
    size = size_of(out)
    for folder in _expendable(out, history, kept):
        if size <= most:
            return
        size -= size_of(folder)
        _remove(folder, say)
    if size > most:
        said = f"more than retention.max_size ({most}): tonight's pages and reproducers stay"
        say(f"{out} holds {size} bytes, {said}")


def _expendable(out: Path, history: History, kept: list[Night]) -> Iterator[Path]:
    """Yield older nights, reproducers that only they need, then unfinished work, oldest first."""
    if not kept:
        return
    for night in reversed(kept[1:]):
        yield night_folder(out, night)
    tonight = {Path(r).parts[1] for r in history.reproducers_in_use([kept[0].id])}
    folders = sorted(_children(out / REPRODUCERS), key=lambda f: f.stat().st_mtime)
    yield from (f for f in folders if f.name not in tonight)
    yield from (work for f in folders for work in f.glob("*/work") if work.is_dir())


def _children(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _remove(folder: Path, say: Callable[[str], None]) -> None:
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        say(f"removed {folder}")
