"""A night of many models with planted disasters: `python disasters.py --models 1000` in tests/nightly.

Targets that fail, crash, hang, eat memory and give wrong numbers; files that are broken, that vanish and that
change during the night; a scheduler that is killed with -9 again and again; with `--disk`, a small disk for
the night and its temporary files, which something else fills for a while. Prints what was seen as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from small import BOMB, CRASH, ERROR, HANG, NUMBERS, SPEC, chain

from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.history_rows import Row

START = """
import sys
from pathlib import Path
from bisect_trt.nightly import config, service
sys.exit(service.nightly(config.load(Path(sys.argv[1])), lambda line: print(line, flush=True)))
"""
DISK, RUNS = "disk", "disk/runs"
FULL, FULL_FOR = "full", 15.0  # how long something else fills the disk, in seconds
CONFIG = f"""
out = "{RUNS}"
confirm = 1
one_of_each = true
workers = 2
[models]
include = ["models/*.onnx"]
[budget]
check = "60s"
[defaults]
timeout = 30.0
repeats = 2
memory_limit = "500M"
[[target]]
name = "planted"
spec = "{SPEC}"
"""
OPS = {"error": ERROR, "crash": CRASH, "hang": HANG, "out of memory": BOMB, "mismatch": NUMBERS}
SHARES = {"error": 12, "crash": 6, "hang": 1, "out of memory": 2, "mismatch": 4}
SHARES |= {"broken": 4, "gone": 3, "changed": 3}
"""Of a hundred models; the others pass."""


@dataclass
class Seen:
    """Rows of the night, what they should be, and memory of the scheduler in bytes over time.

    Kills, how often the disk was full, and how many lines of the log are about that, are counted.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    filled: int = 0
    no_space: int = 0
    memory: list[int] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """Give it as plain data; growth is that of the longest life of a scheduler, after its first tenth."""
        counts = Counter(f"{row.status} {row.symptom}".strip() for row in self.rows.values())
        late = self.memory[len(self.memory) // 10 :] or [0]
        memory = {"peak": max(self.memory, default=0), "growth": max(late) - late[0]}
        return {
            **dict(sorted(counts.items())),
            "wrong": self.wrong,
            "kills": self.kills,
            "filled": self.filled,
            "no_space": self.no_space,
            **memory,
            "orphans": self.orphans,
            "seconds": round(self.seconds),
        }


def plant(models: Path, count: int, source: random.Random) -> dict[str, str]:
    """Write the models; the kind of each by its name."""
    kinds = {}
    for k in range(count):
        left = k % 100
        kind = "fine"
        for name, share in SHARES.items():
            if left < share:
                kind = name
                break
            left -= share
        stem = f"m{source.randrange(10**6):06d}-{k}"
        ops = ["Abs"] * source.randrange(3) + [OPS.get(kind, "Neg")]
        place = chain(models / f"{stem}.onnx", *ops)
        if kind == "broken":
            place.write_bytes(place.read_bytes()[:50])
        kinds[stem] = kind
    return kinds


def spoil(base: Path, kinds: dict[str, str], kind: str) -> None:
    """Fill the disk, or remove or replace the models that are to vanish or change during the night."""
    if kind == FULL:
        fill(base / DISK)
    for stem in (stem for stem, known in kinds.items() if known == kind):
        place = base / "models" / f"{stem}.onnx"
        if kind == "gone":
            place.unlink(missing_ok=True)
        else:
            shutil.copyfile(chain(base / "other.onnx", ERROR), place)


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of `size` MB, which needs the right to mount one; with 0 a plain folder."""
    place.mkdir()
    if not size:
        yield
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """Take all that is left of a disk, to the last byte."""
    step = 1 << 20
    with (disk / FULL).open("ab", buffering=0) as file:
        while step:
            try:
                file.write(bytes(step))
            except OSError:
                step //= 2


def run(base: Path, count: int, kills: int, seed: int = 0, *, disk: int = 0) -> Seen:
    """A night of `count` models below `base`, killed `kills` times; a disk of so many MB gets full twice."""
    with small_disk(base / DISK, disk):
        return _run(base, count, kills, random.Random(seed), full=2 if disk else 0)


def _run(base: Path, count: int, kills: int, source: random.Random, *, full: int) -> Seen:
    seen, began = Seen(), time.monotonic()
    kinds = plant(base / "models", count, source)
    (base / "nightly.toml").write_text(CONFIG)
    moments = sorted(source.sample(range(count // 20, count * 3 // 4), kills))
    late = [("gone", count // 10), ("changed", count // 5)]
    late += [(FULL, count * k // (full + 2)) for k in range(1, full + 1)]
    while True:
        moment = moments.pop(0) if moments else count + 1
        code, memory = _life(base, kinds, moment, late)
        seen.memory = max(seen.memory, memory, key=len)
        if (base / DISK / FULL).exists():  # the night was over, or killed, before there was room again
            (base / DISK / FULL).unlink()
            moments = [moment, *moments] if code is not None else moments
        elif code is not None:
            break
        seen.kills += code is None
    seen.filled = full - sum(kind == FULL for kind, _ in late)
    seen.no_space = (base / "log").read_text().count("no space left")
    seen.rows, seen.seconds = rows(base / RUNS), time.monotonic() - began
    seen.wrong = [said for stem, kind in kinds.items() if (said := _wrong(stem, kind, seen.rows.get(stem)))]
    seen.orphans = left_running(base)
    if (base / RUNS / "tmp").exists():
        seen.orphans.append("files in tmp")
    return seen


def _life(
    base: Path, kinds: dict[str, str], moment: int, late: list[tuple[str, int]]
) -> tuple[int | None, list[int]]:
    """One life of the scheduler: its exit code, or None when it was killed; and its memory over time."""
    with (base / "log").open("a") as log:
        command = [sys.executable, "-c", START, str(base / "nightly.toml")]
        night = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(base))
    memory: list[int] = []
    room = float("inf")
    try:
        while night.poll() is None:
            time.sleep(0.2)
            done = sum(row.phase != "planned" for row in rows(base / RUNS).values())
            for kind, after in [item for item in late if done >= item[1]]:
                spoil(base, kinds, kind)
                room = time.monotonic() + FULL_FOR if kind == FULL else room
                late.remove((kind, after))
            if time.monotonic() > room:
                (base / DISK / FULL).unlink()
                room = float("inf")
            with suppress(psutil.Error):
                memory.append(psutil.Process(night.pid).memory_info().rss)
            if done >= moment:
                return None, memory
        return night.returncode, memory
    finally:
        night.kill()
        night.wait()


def _environment(base: Path) -> dict[str, str]:
    place = base / DISK / "tmp"
    place.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(place)}


def rows(out: Path) -> dict[str, Row]:
    """Rows of the night by stem, as far as there are some."""
    try:
        history = History(out / FILE, read_only=True)
    except Exception:  # it is not made yet
        return {}
    try:
        night = history.last_night()
        return {Path(row.model).stem: row for row in history.rows(night.id)} if night else {}
    except Exception:  # as above
        return {}
    finally:
        history.close()


def _wrong(stem: str, kind: str, row: Row | None) -> str:
    """What is wrong with a row, empty when nothing is. What vanishes or changes may be seen before that."""
    if row is None:
        return f"{stem} ({kind}): no row"
    seen = (str(row.status), row.symptom)
    right = {
        "fine": {("passes", "")},
        "broken": {("not run", "")},
        "gone": {("not run", ""), ("passes", "")},
        "changed": {("new", "error"), ("passes", "")},
    }.get(kind, {("new", kind)})
    return "" if seen in right else f"{stem} ({kind}): {seen[0]} {seen[1]} {row.reason}"


def left_running(folder: Path) -> list[str]:
    """Processes whose temporary folder is below this one, after ten seconds in which they may end."""
    until = time.monotonic() + 10
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                mine = str(folder) in process.environ().get("TMPDIR", "")
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {process.cmdline()}")
            except psutil.Error:
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.2)


def main() -> int:
    """Run it; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--disk", type=int, default=0, help="MB of a disk that gets full: mounted here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        seen = run(Path(base), given.models, given.kills, disk=given.disk)
    print(json.dumps(seen.told()))
    return int(bool(seen.wrong or seen.orphans))


if __name__ == "__main__":
    sys.exit(main())
