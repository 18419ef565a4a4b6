"""`make bench`: bisect-trt against Polygraphy's `debug reduce`, on the same files in one run.

Writes bench/RESULTS.md. Each run of a tool is kept in build/bench as it ends, so that a benchmark that
was interrupted goes on where it was; `--fresh` begins anew. A case is run again, up to `--runs` times,
while its first run took less than a minute.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import costs
import flaky
from bench_cases import BENCHES, Bench
from page import page
from tools import BISECT, FLOOR, LINEAR, OURS, Case, Row, bisect, floor, linear, reduce_ours, tool

HERE = Path(__file__).parent
RAW = HERE.parent / "build" / "bench"
LONG = 60.0  # seconds after which a run is not repeated


def measure(name: str, bench: Bench, runs: int) -> list[Row]:
    """All rows of a case; what was measured before is taken as it is."""
    rows = {tool: kept(name, tool) for tool in (OURS, BISECT, LINEAR, FLOOR)}
    folder = RAW / name
    case: Case | None = None

    def made() -> Case:
        nonlocal case
        case = case or make(name, bench, folder)
        return case

    for _ in range(runs):  # in turn, so that both tools meet the same load
        for kind, run in ((OURS, reduce_ours), (BISECT, bisect), (FLOOR, floor)):
            if wanted(rows[kind], runs):
                once(rows[kind], lambda row, run=run: run(made(), row))
    wide = not rows[BISECT].trouble and rows[BISECT].nodes > 1 and rows[BISECT].same
    if wide and not rows[LINEAR].cpu:
        if not (folder / "bisect.onnx").exists():
            bisect(made(), Row(name, BISECT))
        once(rows[LINEAR], lambda row: linear(made(), row, rows[BISECT]))
    shutil.rmtree(folder, ignore_errors=True)
    return [row for row in rows.values() if row.cpu]


def wanted(row: Row, runs: int) -> bool:
    """Whether a tool is to run (again)."""
    return not row.cpu or (len(row.cpu) < runs and row.wall[0] < LONG and not row.trouble)


def once(row: Row, run: Callable[[Row], None]) -> None:
    """Run a tool, say what came of it, and keep that."""
    row.load.append(os.getloadavg()[0])
    run(row)
    told = f"{row.case:28} {row.tool:26} {row.wall[-1]:7.1f} s wall {row.cpu[-1]:7.1f} s CPU"
    print(f"{told} {row.checks:4} checks {row.nodes:5} nodes  {row.trouble[-100:]}".rstrip(), flush=True)
    place(row.case, row.tool).write_text(json.dumps(asdict(row)))


def kept(case: str, tool: str) -> Row:
    """What was measured of a tool and a case before."""
    file = place(case, tool)
    return Row(**json.loads(file.read_text())) if file.exists() else Row(case, tool)


def place(case: str, tool: str) -> Path:
    """The file that keeps the runs of a tool on a case."""
    return RAW / f"{case}--{re.sub('[^a-z]+', '-', tool)}.json"


def make(name: str, bench: Bench, folder: Path) -> Case:
    """Write the files of a case."""
    folder.mkdir(exist_ok=True)
    model = bench.make(folder)
    if bench.sanitize:
        clean = folder / "sanitized.onnx"
        words = [tool("polygraphy"), "surgeon", "sanitize", str(model), "--fold-constants", "-o", str(clean)]
        subprocess.run(words, check=True, capture_output=True)
        model = clean
    return Case(name, bench, model, folder)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=list(BENCHES), help="only this one; repeat it")
    parser.add_argument("--runs", type=int, default=3, help="of each tool on each case (3)")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="what is written")
    given = parser.parse_args()
    if given.fresh:
        shutil.rmtree(RAW, ignore_errors=True)
    RAW.mkdir(parents=True, exist_ok=True)
    compileall.compile_dir(HERE.parent / "bisect_trt", quiet=1)  # as pip does with all that it installs
    measured = {name: measure(name, BENCHES[name], given.runs) for name in given.case or list(BENCHES)}
    text = page(measured, BENCHES)
    if not given.case:
        text += f"\n{costs.section(costs.measured(RAW))}\n{flaky.section(flaky.kept(RAW))}"
    given.out.write_text(text)
    print(given.out.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
