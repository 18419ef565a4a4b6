"""`make bench`: bisect-trt against Polygraphy's `debug reduce`, on the same files in one run.

Writes bench/RESULTS.md. CPU seconds are those of the tool with all processes that it started. A case
is run again, up to `--runs` times, while its first run took less than a minute.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import psutil
from bench_cases import BENCHES, Bench

HERE = Path(__file__).parent
LONG = 60.0  # seconds after which a run is not repeated
GIVE_UP = 900.0  # seconds for one run
CHECK = str(HERE / "check.py")
OURS, BISECT, LINEAR = "bisect-trt", "polygraphy bisect", "polygraphy bisect, linear"


@dataclass
class Row:
    """All runs of one tool on one case."""

    case: str
    tool: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    checks: int = 0
    nodes: int = 0
    bytes: int = 0
    same: bool = False
    minimal: str = "no"
    trouble: str = ""


def timed(words: list[str], folder: Path, checks: Path) -> tuple[float, float, int, str]:
    """Wall and CPU seconds, exit code and the last words of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = os.environ | {"BENCH_CHECKS": str(checks), "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=GIVE_UP
        )
        code, told = done.returncode, (done.stderr or done.stdout).strip()
    except subprocess.TimeoutExpired:
        code, told = 124, f"no end after {GIVE_UP:.0f} s"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu, code, told[-200:]


def tool(name: str) -> str:
    """A program of the environment that runs this."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def ours(bench: Bench, name: str, model: Path, folder: Path, row: Row) -> None:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    inputs = model.with_name("inputs.npz")
    given = ["--inputs", str(inputs)] if inputs.exists() else []
    call = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]
    words = [*call, "reduce", str(model), *bench.target(folder), *given, "--out", str(out), "--no-simplify"]
    wall, cpu, code, told = timed(words, folder, folder / "none")
    row.wall.append(wall)
    row.cpu.append(cpu)
    if code:
        row.trouble = told
        return
    report = json.loads((out / "report.json").read_text())
    row.checks = report["counts"]["probes"] + report["repeats"]
    row.minimal = "yes" if report["one_minimal"] else "no"
    result(row, bench, folder, out / "repro.onnx")


def polygraphy(bench: Bench, name: str, model: Path, folder: Path, row: Row) -> None:
    checks, reduced = folder / "checks", folder / "reduced.onnx"
    for old in (checks, reduced):
        old.unlink(missing_ok=True)
    wall = cpu = 0.0
    source, told = model, ""
    for mode in ("bisect", "linear") if row.tool == LINEAR else ("bisect",):
        words = [tool("polygraphy"), "debug", "reduce", str(source), "-o", str(reduced), "--mode", mode]
        words += loaded(model, folder)
        words += ["--check", sys.executable, CHECK, "polygraphy_debug.onnx", *bench.check(folder)]
        more_wall, more_cpu, code, told = timed(words, folder, checks)
        wall, cpu = wall + more_wall, cpu + more_cpu
        if code or not reduced.exists():
            break
        source = reduced
    row.wall.append(wall)
    row.cpu.append(cpu)
    row.checks = len(checks.read_text().splitlines()) if checks.exists() else 0
    if not reduced.exists():
        row.trouble = told or "no result"
        return
    result(row, bench, folder, reduced)
    row.minimal = "yes" if row.nodes == 1 else still_reducible(bench, folder, reduced, row.nodes)


def loaded(model: Path, folder: Path) -> list[str]:
    """The inputs of the case for Polygraphy, which makes up random ones otherwise."""
    given, place = model.with_name("inputs.npz"), folder / "inputs.json"
    if not given.exists():
        return []
    from polygraphy.json import save_json

    save_json([dict(np.load(given))], str(place))
    return ["--load-inputs", str(place)]


def result(row: Row, bench: Bench, folder: Path, file: Path) -> None:
    proto = onnx.load(file, load_external_data=False)
    row.nodes = len(proto.graph.node)
    data = {p for p in file.parent.glob(f"{file.name}*") if p != file} | set(file.parent.glob("repro.data"))
    row.bytes = file.stat().st_size + sum(p.stat().st_size for p in data)
    words = [sys.executable, CHECK, str(file), *bench.check(folder)]
    row.same = timed(words, folder, folder / "none")[2] == 1


def still_reducible(bench: Bench, folder: Path, file: Path, nodes: int) -> str:
    """Whether our own reduction finds anything to leave out."""
    out = folder / "again"
    shutil.rmtree(out, ignore_errors=True)
    call = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]
    words = [*call, "reduce", str(file), *bench.target(folder), "--repeats", "1", "--no-simplify"]
    if timed([*words, "--out", str(out)], folder, folder / "none")[2]:
        return "unknown"
    left = len(json.loads((out / "report.json").read_text())["nodes"])
    return "yes" if left >= nodes else f"no, {left} are enough"


def measure(name: str, bench: Bench, runs: int, place: Path) -> list[Row]:
    folder = place / name
    folder.mkdir()
    model = bench.make(folder)
    if bench.sanitize:
        clean = folder / "sanitized.onnx"
        words = [tool("polygraphy"), "surgeon", "sanitize", str(model), "--fold-constants", "-o", str(clean)]
        subprocess.run(words, check=True, capture_output=True)
        model = clean
    rows = [Row(name, OURS), Row(name, BISECT), *([Row(name, LINEAR)] if bench.linear else [])]
    for row in rows:
        for _ in range(1 if row.tool == LINEAR else runs):
            (ours if row.tool == OURS else polygraphy)(bench, name, model, folder, row)
            told = f"{name:28} {row.tool:26} {row.wall[-1]:7.1f} s wall {row.cpu[-1]:7.1f} s CPU"
            print(f"{told} {row.nodes:5} nodes  {row.trouble}".rstrip(), flush=True)
            if row.wall[-1] > LONG or row.trouble:
                break
    shutil.rmtree(folder)
    return rows


def spread(values: list[float]) -> str:
    """Median, and the range where there is one."""
    middle = statistics.median(values)
    return f"{middle:.1f}" + (f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else "")


def verdict(rows: list[Row], bench: Bench) -> str:
    """Who wins by how much; where we lose, that is said."""
    mine, theirs = rows[0], rows[1]
    if mine.trouble or theirs.trouble:
        return "**we fail**" if mine.trouble else "they fail"
    factor = statistics.median(theirs.cpu) / statistics.median(mine.cpu)
    asked = 3 if bench.sanitize else 5
    told = f"{factor:.1f}x less CPU"
    if factor < 1:
        told = f"**we lose: {1 / factor:.1f}x more CPU**"
    elif factor < asked and bench.single:
        told += f" (**{asked}x asked**)"
    return told + (" , **larger result**" if mine.nodes > theirs.nodes else "")


def page(measured: dict[str, list[Row]], load: tuple[float, float, float], runs: int) -> str:
    from importlib.metadata import version

    lines = [
        "# bisect-trt against `polygraphy debug reduce`",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total >> 30} GiB, no GPU; Python {platform.python_version()}, "
        f"TensorRT-RTX {version('tensorrt-rtx')}, Polygraphy {version('polygraphy')}, "
        f"ONNX Runtime {version('onnxruntime')}.",
        "",
        f"Up to {runs} runs each (linear: one): the median, and the range in brackets. CPU seconds are those "
        "of the tool and all processes that it started. Checks of bisect-trt include its confirmation, and "
        "the fresh runs of the written files that Polygraphy has no counterpart of. `same`: the result "
        "shows the same failure. Polygraphy's check (bench/check.py) looks for the failure's own message.",
        f"Load of the machine (1, 5, 15 minutes) when it began: {', '.join(f'{x:.1f}' for x in load)}"
        + (": it was **shared with other work**, so wall seconds say little." if load[1] > 1.5 else "."),
        "",
        "| case | tool | checks | wall s | CPU s | nodes | bytes | same | 1-minimal | |",
        "|---|---|---:|---:|---:|---:|---:|---|---|---|",
    ]
    for name, rows in measured.items():
        for row in rows:
            told = row.trouble.replace("\n", " ").replace("|", "/")[:120]
            note = verdict(rows, BENCHES[name]) if row.tool == OURS else told
            cells = [name, row.tool, row.checks, spread(row.wall), spread(row.cpu)]
            cells += [row.nodes or "-", row.bytes or "-", "yes" if row.same else "no", row.minimal, note]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=list(BENCHES), help="only this one; repeat it")
    parser.add_argument("--runs", type=int, default=3, help="of each tool on each case (3)")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="what is written")
    given = parser.parse_args()
    load = os.getloadavg()
    measured: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="bisect-trt-bench-") as place:
        for name in given.case or list(BENCHES):
            measured[name] = measure(name, BENCHES[name], given.runs, Path(place))
            given.out.write_text(page(measured, load, given.runs))
    print(given.out.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
