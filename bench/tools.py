"""The two tools of the benchmark, run as a user runs them, with the time that they take.

CPU seconds are those of the tool and of all processes that it started (getrusage): those that it did not
wait for become children of this process.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from bench_cases import Bench

LIMIT = 600.0  # seconds for one run; what is slower is stopped, and its end estimated
CHECK = str(Path(__file__).with_name("check.py"))
OURS, BISECT, LINEAR = "bisect-trt", "polygraphy bisect", "polygraphy bisect, linear"
FLOOR = "the check, 1 + 3 times"
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


@dataclass
class Row:
    """All runs of one tool on one case.

    Attributes:
        wall, cpu: seconds of each run.
        checks: models that were tried, in the last run.
        nodes, bytes: of the result, its weights included.
        same: whether the result shows the failure that was looked for.
        minimal: whether no node can be left out, as far as that is known.
        trouble: why there is no result.
        note: what else has to be said, such as that the end is estimated.
        load: mean number of processes that wanted a core in the minute before each run.
    """

    case: str
    tool: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    checks: int = 0
    nodes: int = 0
    bytes: int = 0
    same: bool = False
    minimal: str = "no"
    trouble: str = ""
    note: str = ""


@dataclass(frozen=True)
class Timed:
    """How a command ended. `code` is None when it was stopped after `LIMIT` seconds."""

    wall: float
    cpu: float
    code: int | None
    told: str


@dataclass(frozen=True)
class Case:
    """A case that was made: the files lie in `folder`."""

    name: str
    bench: Bench
    model: Path
    folder: Path

    @property
    def inputs(self) -> Path | None:
        """Values for the inputs, where the case has some."""
        place = self.model.with_name("inputs.npz")
        return place if place.exists() else None


def timed(words: list[str], folder: Path, checks: Path | None = None, limit: float = LIMIT) -> Timed:
    """Run a command and all that it started to their end, or until `limit`."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = os.environ | {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    environment |= {"BENCH_CHECKS": str(checks)} if checks else {}
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        wall = time.monotonic() - began
        with suppress(ChildProcessError):
            while True:
                os.wait()
        output.seek(0)
        told = output.read().strip()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(wall, cpu, code, told)


def gist(done: Timed) -> str:
    """Why there is no result, in a line."""
    if done.code is None:
        return f"stopped after {LIMIT:.0f} s"
    lines = [line.strip() for line in done.told.splitlines() if line.strip()]
    ends = ("[!]", "[E]", "error:")
    errors = [line for line in lines if (line.startswith(ends) and "FAILED" not in line) or "Error" in line]
    return (errors or lines or [f"exit code {done.code}"])[-1][:200]


def put_into(page: Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- MARK -->` and `<!-- end of MARK -->` in a page."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}{text}\n{end}{rest.partition(end)[2]}")


def tool(name: str) -> str:
    """A program of the environment that runs this."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def reduce_ours(case: Case, row: Row) -> None:
    """One run of `bisect-trt reduce`."""
    out = case.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    given = ["--inputs", str(case.inputs)] if case.inputs else []
    words = [tool("bisect-trt"), "reduce", str(case.model), *case.bench.target(case.folder), *given]
    done = timed([*words, "--out", str(out), "--no-simplify"], case.folder)
    row.wall.append(done.wall)
    row.cpu.append(done.cpu)
    if done.code != 0:
        row.trouble = gist(done)
        return
    report = json.loads((out / "report.json").read_text())
    row.checks = report["counts"]["probes"] + report["repeats"]
    row.minimal = "yes" if report["one_minimal"] else "no"
    _look_at(row, case, out / "repro.onnx")


def floor(case: Case, row: Row) -> None:
    """The check of the model as it is, and three of our result.

    What a tool does not do without that confirms the failure and shows it three times in fresh processes.
    """
    files = [case.model, *[case.folder / "out" / "repro.onnx"] * 3]
    words = [[sys.executable, CHECK, str(file), *case.bench.check(case.folder)] for file in files]
    done = [timed(one, case.folder) for one in words]
    row.wall.append(sum(one.wall for one in done))
    row.cpu.append(sum(one.cpu for one in done))
    row.checks, row.same, row.minimal = len(done), all(one.code == 1 for one in done), "-"


def bisect(case: Case, row: Row) -> None:
    """One run of `polygraphy debug reduce --mode bisect`."""
    done, reduced = _polygraphy(case, case.model, "bisect", row)
    if reduced is None:
        row.trouble = gist(done)
        return
    _look_at(row, case, reduced)
    row.minimal = "yes" if row.nodes == 1 else _still_reducible(case, reduced, row.nodes)


def linear(case: Case, row: Row, bisected: Row) -> None:
    """`--mode linear` from where the other one ended, whose seconds and checks are added."""
    source = case.folder / "bisect.onnx"
    done, reduced = _polygraphy(case, source, "linear", row)
    checks = max(1, row.checks)
    if done.code is None:  # it leaves out one node a check, first from the inputs on, then from the outputs
        needed = 2 * bisected.nodes
        row.note = f"stopped after {row.checks} checks of about {needed}: seconds are extrapolated"
        row.wall[-1] *= needed / checks
        row.cpu[-1] *= needed / checks
        row.trouble = "no result in time"
    elif reduced is None:
        row.trouble = gist(done)
    else:
        _look_at(row, case, reduced)
        row.minimal = "yes" if row.nodes == 1 else _still_reducible(case, reduced, row.nodes)
    row.wall[-1] += bisected.wall[-1]
    row.cpu[-1] += bisected.cpu[-1]
    row.checks += bisected.checks


def _polygraphy(case: Case, source: Path, mode: str, row: Row) -> tuple[Timed, Path | None]:
    checks, reduced = case.folder / "checks", case.folder / f"{mode}.onnx"
    for old in (checks, reduced):
        old.unlink(missing_ok=True)
    words = [tool("polygraphy"), "debug", "reduce", str(source), "-o", str(reduced), "--mode", mode]
    words += _loaded(case)
    words += ["--check", sys.executable, CHECK, "polygraphy_debug.onnx", *case.bench.check(case.folder)]
    done = timed(words, case.folder, checks)
    row.wall.append(done.wall)
    row.cpu.append(done.cpu)
    row.checks = len(checks.read_text().splitlines()) if checks.exists() else 0
    return done, reduced if reduced.exists() and done.code is not None else None


def _loaded(case: Case) -> list[str]:
    """The inputs of the case for Polygraphy, which makes up random ones otherwise."""
    if case.inputs is None:
        return []
    from polygraphy.json import save_json

    place = case.folder / "inputs.json"
    save_json([dict(np.load(case.inputs))], str(place))
    return ["--load-inputs", str(place)]


def _look_at(row: Row, case: Case, file: Path) -> None:
    proto = onnx.load(file, load_external_data=False)
    row.nodes = len(proto.graph.node)
    data = {p for p in file.parent.glob(f"{file.name}*") if p != file} | set(file.parent.glob("repro.data"))
    row.bytes = file.stat().st_size + sum(p.stat().st_size for p in data)
    words = [sys.executable, CHECK, str(file), *case.bench.check(case.folder)]
    row.same = timed(words, case.folder).code == 1


def _still_reducible(case: Case, file: Path, nodes: int) -> str:
    """Whether our own reduction finds anything to leave out."""
    out = case.folder / "again"
    shutil.rmtree(out, ignore_errors=True)
    words = [tool("bisect-trt"), "reduce", str(file), *case.bench.target(case.folder), "--repeats", "1"]
    if timed([*words, "--no-simplify", "--out", str(out)], case.folder).code != 0:
        return "unknown"
    left = len(json.loads((out / "report.json").read_text())["nodes"])
    shutil.rmtree(out)
    return "yes" if left >= nodes else f"no, {left} are enough"
