"""The table of the benchmark."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import psutil
from bench_cases import Bench
from tools import BISECT, FLOOR, LIMIT, LINEAR, OURS, Row

HEAD = "| case | tool | checks | wall s | CPU s | nodes | bytes | same | 1-minimal | |"
RULE = "|---|---|---:|---:|---:|---:|---:|---|---|---|"


def page(measured: Mapping[str, Sequence[Row]], benches: Mapping[str, Bench]) -> str:
    """Markdown: how it was measured, a row for each tool and case, and what that comes to."""
    loads = [load for rows in measured.values() for row in rows for load in row.load]
    lines = [
        "# bisect-trt against `polygraphy debug reduce`",
        "",
        f"Written by `make bench`, {datetime.date.today()}: {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total >> 30} GiB, no GPU; Python {platform.python_version()}, "
        f"TensorRT-RTX {version('tensorrt-rtx')}, Polygraphy {version('polygraphy')}, "
        f"ONNX Runtime {version('onnxruntime')}.",
        "",
        "*n x* is the number of runs; seconds are the median, with the range in brackets. CPU seconds are "
        "those of the tool and all processes that it started. Checks of bisect-trt include its "
        "confirmation, and the fresh runs of the written files that Polygraphy has no counterpart of. "
        "*same*: the result shows the same failure. Polygraphy's check (bench/check.py) looks for the "
        "failure's own message; both tools have the same inputs, where the case has some. *The check, 1 + 3 "
        "times* is one run of it on the model as it is and three on our result: who confirms the failure and "
        "shows it three times in fresh processes pays for that, and does not search yet. *1-minimal* of "
        "Polygraphy's results is what `bisect-trt reduce` makes of them. "
        f"A run is stopped after {LIMIT:.0f} s. An interrupted benchmark goes on later: rows may be hours "
        "apart.",
        f"Processes that wanted a core when the runs began: {statistics.median(loads):.1f} in the median, "
        f"{max(loads):.1f} at most; where that is above {os.cpu_count()}, wall seconds say little.",
        "",
        HEAD,
        RULE,
    ]
    for name, rows in measured.items():
        for row in rows:
            told = (row.note or row.trouble).replace("\n", " ").replace("|", "/")[:140]
            note = verdict(rows, benches[name]) if row.tool == OURS else told
            cells = [name, row.tool, row.checks, f"{len(row.cpu)} x {spread(row.wall)}", spread(row.cpu)]
            cells += [row.nodes or "-", row.bytes or "-", "yes" if row.same else "no", row.minimal, note]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", *WHY]
    return "\n".join(lines) + "\n"


WHY = (
    "Asked were 5 times less CPU for one culprit, 3 times after `surgeon sanitize`, never a larger",
    "result. Where a row says so, what was asked is less than it takes to confirm the failure on the user's",
    "own file and to show it three times on the result, with the light check of Polygraphy: no tool that",
    "keeps these two promises can do it. Accuracy is judged at the model's outputs with the values",
    "of the failing run, where that check compares whatever part it is given, with random inputs, and",
    "ends at a larger part; and what is handed over (script, run once; page with plots) is the same",
    "two CPU seconds after a short search as after a long one.",
)


def spread(values: Sequence[float]) -> str:
    """Median, and the range where there is one."""
    middle = statistics.median(values)
    return f"{middle:.1f}" + (f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else "")


def verdict(rows: Sequence[Row], bench: Bench) -> str:
    """Who wins by how much; where we lose, that is said."""
    mine, theirs = rows[0], [row for row in rows if row.tool in (BISECT, LINEAR)]
    if mine.trouble:
        return f"**we fail**: {mine.trouble[-100:]}"
    told = []
    for row in theirs:
        factor = statistics.median(row.cpu) / statistics.median(mine.cpu)
        what = f"{factor:.1f}x less CPU" if factor >= 1 else f"**we lose: {1 / factor:.1f}x more CPU**"
        told.append(f"they fail ({what})" if row.trouble and not row.note else what)
    asked = 3 if bench.sanitize else 5
    first = theirs[0] if theirs else None
    short = first and not first.trouble and statistics.median(first.cpu) < asked * statistics.median(mine.cpu)
    missed = f"; **{asked}x was asked**" if bench.single and short else ""
    least = [statistics.median(row.cpu) for row in rows if row.tool == FLOOR]
    if missed and first and least and asked * least[0] > statistics.median(first.cpu):
        allowed = statistics.median(first.cpu) / asked
        missed += f" ({allowed:.2f} s; the check of the model and three of the result take {least[0]:.2f} s)"
    larger = [row for row in theirs if row.nodes and row.same and mine.nodes > row.nodes]
    return ", linear ".join(told) + missed + ("; **larger result**" if larger else "")
