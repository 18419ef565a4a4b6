"""What the search costs, against what was asked of it: probes, nodes built, seconds, workers.

Written into bench/RESULTS.md by `make bench`; alone: `python bench/costs.py`.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path

from bench_cases import spliced
from tools import Timed, timed, tool

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bisect_trt.outcome import Verdict
from bisect_trt.reduction import list_search
from chains import saved

SAME = ("repro.onnx", "inputs.npz", "expected.npz", "repro.py", "passing.onnx")
SIZES = (2, 3, 4, 5, 6, 8, 11, 12, 16, 24, 31, 32, 36, 48, 61, 62, 72, 101, 102, 133, 200, 256, 500, 910)
LEAST = {1: 2, 2: 12, 3: 36, 4: 62, 5: 102}
"""Nodes of a model from which on a failure that spans so many is within the bounds."""

Line = tuple[str, str, str, bool]
"""What, what was asked, what was seen, and whether that is enough."""


class Counting:
    """A judge of a failure that needs all culprits; counts what it is asked."""

    def __init__(self, culprits: Iterable[int]) -> None:
        self.culprits = frozenset(culprits)
        self.asked: set[tuple[int, ...]] = set()

    def __call__(self, items: Sequence[int]) -> Verdict:
        self.asked.add(tuple(items))
        return Verdict.REPRODUCES if self.culprits <= set(items) else Verdict.VANISHES


def costs(n: int, culprits: Iterable[int]) -> tuple[int, int]:
    """Probes and nodes built until the culprits are proven 1-minimal, the confirmation included."""
    judge = Counting(culprits)
    assert list_search.minimise(range(n), judge) == sorted(judge.culprits)
    asked = judge.asked | {tuple(range(n))}
    return len(asked), sum(map(len, asked))


def near(n: int, span: int) -> list[set[int]]:
    """Every set of nodes that has its first and its last `span` - 1 apart."""
    between = [c for k in range(span - 1) for c in combinations(range(1, span - 1), k)]
    inner = between if span > 2 else [()]
    return [{f, f + span - 1, *(f + k for k in more)} for f in range(n - span + 1) for more in inner]


def least_built(n: int, k: int) -> int:
    """Nodes that any search builds for `k` neighbours of `n` at the worst place (proof: docs/search.md)."""
    return 2 * n - k + (k - 1) * math.ceil(math.log2(n - k + 1)) + k * k


def local_lines() -> list[Line]:
    """A local failure, wherever it lies; then in models that are too small for the bounds."""
    within, beyond = [], []
    for span, least in LEAST.items():
        what = "one node" if span == 1 else f"a failure that spans {span} nodes"
        seen, good = worst_of(span, [n for n in SIZES if n >= least])
        of = f"{what}, in models of {least} to 910 nodes: the worst of each"
        within.append((of, "2.5x built, 2 log2(n) + 4 probes", seen, good))
        small = [n for n in SIZES if span < n < least]
        if small:
            seen, good = worst_of(span, small)
            hopeless = sum(least_built(n, span) > 2.5 * n for n in small)
            of = f"{what}, in models of {small[0]} to {least - 1} nodes: the worst of each"
            beyond.append(
                (of, f"the same; for {hopeless} of these {len(small)} sizes no search can", seen, good)
            )
    return within + beyond


def worst_of(span: int, sizes: Sequence[int]) -> tuple[str, bool]:
    """What the worst position costs in models of these sizes, and whether that is within what was asked."""
    built, built_at = 0.0, 0
    over, probes, probes_at = -math.inf, 0, 0
    for n in sizes:
        found = [costs(n, culprits) for culprits in near(n, span)]
        built, built_at = max((built, built_at), (max(b for _, b in found) / n, n))
        asked = max(p for p, _ in found)
        over, probes, probes_at = max((over, probes, probes_at), (asked - 2 * math.log2(n) - 4, asked, n))
    return f"{built:.2f}x ({built_at} nodes); {probes} probes ({probes_at})", built <= 2.5 and over <= 0


def distant_lines() -> list[Line]:
    """Culprits that are anywhere."""
    dice, lines = random.Random(0), []
    for k, most in ((2, 60), (10, 170)):
        found = [costs(1000, dice.sample(range(1000), k))[0] for _ in range(200)]
        seen = f"{max(found)} (mean {statistics.mean(found):.0f})"
        lines.append((f"{k} distant of 1000 nodes, 200 times", f"{most} probes", seen, max(found) <= most))
    return lines


def reduced(folder: Path, name: str, model: Path, target: str, *more: str) -> tuple[dict, Timed]:
    """The report of `bisect-trt reduce`, and how long that took."""
    out = folder / name
    words = [tool("bisect-trt"), "reduce", str(model), "--target", target, "--no-simplify", *more]
    done = timed([*words, "--out", str(out / "out")], folder)
    if done.code != 0:
        raise SystemExit(f"bisect-trt ended with {done.code}: {done.told}")
    return json.loads((out / "out" / "report.json").read_text()), done


def command_lines(folder: Path) -> list[Line]:
    """The real command on planted faults."""
    lines, n = [], 400
    model = saved(folder, n)
    for at in (0, 133, 399):
        report, _ = reduced(folder, f"one-{at}", model, f"planted:node=n{at}")
        probes, built = report["counts"]["search_probes"], report["counts"]["search_nodes_built"] / n
        seen = f"{probes} probes, {built:.2f}x"
        good = probes <= 2 * math.log2(n) + 4 and built <= 2.5 and len(report["nodes"]) == 1
        what = f"`reduce`, node {at} of {n}, three more looks at it included"
        lines.append((what, "2.5x, 21.3 probes", seen, good))
    report, _ = reduced(folder, "hint", model, "planted:node=n133,hint=yes")
    probes, built = report["counts"]["search_probes"], report["counts"]["search_nodes_built"] / n
    seen = f"{probes} probes, {built:.3f}x"
    lines.append((f"`reduce`, a hint, {n} nodes", "4 probes, 1.1x", seen, probes <= 4 and built <= 1.1))
    return lines


def share_line(folder: Path) -> Line:
    """How much of a reduction is neither target nor reference; the script that it runs once is the target."""
    model = spliced("attention_gqa", "densenet121")(folder)
    report, done = reduced(folder, "share", model, "tensorrt-rtx", "--inputs", str(folder / "inputs.npz"))
    counts = report["counts"]
    theirs = ("start_seconds", "reference_seconds", "target_seconds", "verify_seconds")
    script = timed([sys.executable, str(folder / "share" / "out" / "repro.py")], folder).wall
    share = 1 - (script + sum(counts[key] for key in theirs)) / done.wall
    seen = f"{share:.0%} of {done.wall:.1f} s"
    return ("our own share, a builder failure in densenet121", "15 %", seen, share <= 0.15)


def probe_line(folder: Path) -> Line:
    """What a probe of a small cut costs besides the target's own time, with a warm worker."""
    model = saved(folder, 60)
    reduced(folder, "probe", model, "planted:nodes=n5;n21;n40,cost=0.001", "--repeats", "1")
    began: dict[str, tuple[int, float]] = {}
    over = []
    for line in (folder / "probe" / "out" / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "begin":
            began[event["key"]] = (event["count"], event["t"])
        if event["event"] == "end" and began[event["key"]][0] <= 12:
            over.append(1000 * (event["t"] - began[event["key"]][1] - event["seconds"]))
    middle = statistics.median(over)
    seen = f"{middle:.0f} ms (median of {len(over)}), {max(over):.0f} ms at most"
    return ("a probe of up to 12 nodes, beyond the target's time", "30 ms", seen, middle <= 30)


def worker_lines(folder: Path, runs: int = 2) -> list[Line]:
    """One worker and two, in turn, on a target that takes 0.1 s a node."""
    model, target = saved(folder, 200), "planted:node=n140,cost=0.1"
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for run in range(runs):
        for workers in seconds:
            name = f"workers-{workers}-{run}"
            _, done = reduced(folder, name, model, target, "--repeats", "1", "--workers", str(workers))
            seconds[workers].append(done.wall)
    one, two = (folder / f"workers-{k}-0" / "out" for k in (1, 2))
    same = all(
        (one / name).exists() == (two / name).exists()
        and (not (one / name).exists() or (one / name).read_bytes() == (two / name).read_bytes())
        for name in SAME
    )
    ratio = statistics.median(seconds[1]) / statistics.median(seconds[2])
    spread = ", ".join(f"{min(s):.1f}-{max(s):.1f} s" for s in seconds.values())
    seen = f"{ratio:.2f}x ({spread}, {runs} runs each); {'same bytes' if same else 'other bytes'}"
    return [("--workers 2 on two cores, against 1", "1.6x, same bytes", seen, ratio >= 1.6 and same)]


def section(lines: Sequence[Line]) -> str:
    """Markdown."""
    text = [
        "## What the search costs",
        "",
        "Written by bench/costs.py in the same run. *Built* is the sum of the nodes of all probes; probes "
        "and nodes include the confirmation of the whole model.",
        "",
        "| what | asked, at most | seen | |",
        "|---|---|---|---|",
    ]
    for what, asked, seen, good in lines:
        text.append(f"| {what} | {asked} | {seen} | {'' if good else '**missed**'} |")
    return "\n".join(text) + "\n"


def measured(folder: Path) -> list[Line]:
    """All of it, each part kept in `folder` as it ends."""
    lines: list[Line] = []
    parts: dict[str, Callable[[Path], list[Line]]] = {
        "local": lambda place: local_lines(),
        "distant": lambda place: distant_lines(),
        "command": command_lines,
        "share": lambda place: [share_line(place)],
        "probe": lambda place: [probe_line(place)],
        "workers": worker_lines,
    }
    for name, part in parts.items():
        kept = folder / f"costs--{name}.json"
        if not kept.exists():
            place, began = folder / f"costs-{name}", time.monotonic()
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            kept.write_text(json.dumps(part(place)))
            shutil.rmtree(place)
            print(f"costs: {name}, {time.monotonic() - began:.0f} s", flush=True)
        lines += [tuple(line) for line in json.loads(kept.read_text())]
    return lines


if __name__ == "__main__":
    print(section(measured(Path(__file__).parents[1] / "build" / "bench")))
