"""What is asked of costs besides CPU seconds against an older commit: one command measures each line.

`make bench-limits` writes a table into docs/performance.md: what, asked, seen, met or missed. Ten minutes on
two quiet cores; `--only probe` measures one part and only prints it. `make bench-against` has the CPU seconds
of whole commands.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import bench_cases
import costs
import nightly_overhead
import psutil
from bench_cases import BENCHES
from tools import put_into

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bisect_trt.reduction.reduce import open_run
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from chains import saved

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
SMALL = ROOT / "models" / "scatternd_add.onnx"
START = [sys.executable, "-c", "from bisect_trt.cli import main; main()"]
NOWHERE = subprocess.DEVNULL
PROBES = 60
MODELS = 200  # of a night: its start counts, too

Line = tuple[str, str, str, bool]
"""What, what is asked at most, what was seen, and whether that is enough."""


def own_cost(model: Path, nodes: int, folder: Path) -> tuple[float, float]:
    """Milliseconds of CPU that a probe of `nodes` nodes costs in the command and in its worker.

    What the target itself took is taken off: it has a planted fault in the first node, and no cost else.
    """
    settings = Settings(TargetSettings("planted:node=n0"), RunSettings(simplify=False))
    command, worker = [], []
    with open_run(model, settings, out=folder / "run", force=True, on_event=lambda step: None) as run:
        problem = run.confirm()
        names = problem.scope
        for k in range(PROBES):
            candidate = problem.cut(names[k + 1 : k + 1 + nodes])
            below, own = _used_below(), time.process_time()
            spent = run.prober.observe(candidate).seconds
            command.append(1000 * (time.process_time() - own))
            worker.append(1000 * (_used_below() - below - spent))
    return statistics.median(command), statistics.fmean(worker)  # a worker's clock ticks each 10 ms


def _used_below() -> float:
    """CPU seconds of all processes below this one; to look costs this one a millisecond."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return float(sum(used.user + used.system for used in times))


def probe_lines(folder: Path) -> list[Line]:
    """A probe's own cost, in a small model and in one of 10,000 nodes."""
    lines = []
    for nodes, most, make in (
        (60, 1.0, lambda: saved(folder, 80)),
        (10_000, 8.0, lambda: saved(folder, 10_000)),
    ):
        command, worker = own_cost(make(), 12, folder)
        seen = f"{command + worker:.1f} ms of CPU: {command:.1f} in the command, {worker:.1f} in the worker"
        what = f"a probe of 12 of {nodes:,} nodes, beyond the target"
        lines.append((what, f"{most:.0f} ms", seen, command + worker <= most))
    return lines


def worker_lines(folder: Path) -> list[Line]:
    """Two workers against one, see `costs.worker_lines`."""
    what, _, seen, _ = costs.worker_lines(folder, 1)[0]
    return [(what, "1.8x, same bytes", seen, float(seen.split("x")[0]) >= 1.8 and "same bytes" in seen)]


def night_lines(folder: Path) -> list[Line]:
    """What a night adds to its jobs, beside models on which the target takes 0.15 and 0.3 s."""
    lines = []
    for seconds, most in ((0.15, 0.06), (0.3, 0.03)):
        spec = f"planted:node=none+cost={seconds / nightly_overhead.NODES}"
        told = nightly_overhead.overhead(MODELS, spec, True)
        share = told.beside / told.target
        cpu = told.own / MODELS * 1000
        seen = f"{share:.1%} of wall time, {cpu:.1f} ms of CPU a model ({cpu / 1000 / seconds:.1%})"
        what = f"a night's own share, {MODELS} models of {seconds} s each"
        lines.append((what, f"{most:.0%}", seen, share <= most))
    return lines


def memory_lines(folder: Path) -> list[Line]:
    """The most that the command holds (VmHWM), without the processes that it starts."""
    deep = BENCHES["10000-nodes"].make(folder)
    lines = []
    for nodes, model in ((24, SMALL), (bench_cases.DEEP, deep)):
        words = ["reduce", str(model), "--target", "tensorrt-rtx", "--no-simplify", "--force"]
        words += ["--out", str(folder / "held")]
        process, most = subprocess.Popen([*START, *words], stdout=NOWHERE, stderr=NOWHERE), 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = max([most, *(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM"))])
            time.sleep(0.02)
        limit, what = 150 + 4 * nodes / 1000, f"memory of `reduce`, {nodes:,} nodes"
        lines.append((what, f"{limit:.0f} MB", f"{most >> 10} MiB", most >> 10 <= limit))
    return lines


def first_lines(folder: Path) -> list[Line]:
    """Seconds from the start of a command to its first line on a terminal."""
    found = []
    for k in range(5):
        ours, theirs = pty.openpty()
        began = time.monotonic()
        words = ["reduce", str(SMALL), "--target", "tensorrt-rtx", "--out", str(folder / f"first-{k}")]
        process = subprocess.Popen([*START, *words], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        select.select([ours], [], [], 60)
        found.append(time.monotonic() - began)
        while process.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    os.read(ours, 1 << 16)
                except OSError:  # the last one at the other end is gone
                    break
        process.wait()
        os.close(ours)
    middle = statistics.median(found)
    seen = f"{middle:.2f} s ({min(found):.2f}-{max(found):.2f})"
    return [("from the start to the first line on a terminal", "0.5 s", seen, middle <= 0.5)]


PARTS: dict[str, Callable[[Path], list[Line]]] = {
    "first": first_lines,
    "memory": memory_lines,
    "workers": worker_lines,
    "probe": probe_lines,
    "night": night_lines,
}
"""In this order: `workers` waits for all processes below this one, and `probe` leaves some until the end."""


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    head = ["| what | asked, at most | seen | |", "|---|---|---|---|"]
    said = {True: "met", False: "**missed**"}
    rows = [f"| {what} | {most} | {seen} | {said[good]} |" for what, most, seen, good in lines]
    return "\n".join([*head, *rows])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", choices=[*PARTS], help="only this part; repeat it")
    given = parser.parse_args()
    lines, loads = list[Line](), list[float]()
    os.environ["PYTHONPATH"] = str(ROOT)
    for name in [part for part in PARTS if not given.only or part in given.only]:
        with tempfile.TemporaryDirectory(prefix="bisect-trt-limits-") as folder:
            lines += PARTS[name](Path(folder))
        loads.append(os.getloadavg()[0])
        print(f"{name}: measured", file=sys.stderr, flush=True)
    text = f"{table(lines)}\n\nProcesses that wanted a core meanwhile: {statistics.median(loads):.1f}."
    if not given.only:
        put_into(PAGE, "make bench-limits", text)
    print(text)
    return 0 if all(good for *_, good in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
