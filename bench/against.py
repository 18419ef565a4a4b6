"""CPU seconds of this tree against those of an older commit, in turn, in one run.

`make bench-against` writes bench/AGAINST.md and the table in docs/performance.md. Both run with the libraries
of this environment; the old commit is checked out below build/. Each run is kept as it ends, so that an
interrupted benchmark goes on where it was; `--fresh` begins anew. CPU seconds are those of the tool and of
all processes that it started.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench_cases import BENCHES
from tools import put_into, timed

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "build" / "against"
PAGE = ROOT / "docs" / "performance.md"
SMALL = ROOT / "models" / "scatternd_add.onnx"
RTX = ["--target", "tensorrt-rtx"]
ASKED = {
    "reduce, 24 nodes": 0.85,
    "check, 24 nodes": 0.45,
    "parse-densenet121": 1.2,
    "accuracy-resnet50": 4.0,
    "accuracy-resnet50-sanitized": 4.0,
    "round-floor-topk": 2.0,
    "10000-nodes": 2.2,
    "1.6-GB-of-weights": 2.5,
}
"""CPU seconds that are asked of each; what has none is shown for its own sake."""

BUILD = """
import sys, tensorrt_rtx as trt
log = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
if len(sys.argv) > 1:
    assert parser.parse_from_file(sys.argv[1])
    builder.build_serialized_network(network, builder.create_builder_config())
"""
BUILT = "build-densenet121"
"""The case whose one build of the whole model is measured by itself, in a process that does nothing else:
`BUILD` with the model, less the same without it."""
BEYOND = 1.3  # CPU seconds that are asked of the rest

Words = Callable[[Path], list[str]]
"""Arguments of bisect-trt, for an output folder that is not there yet."""


def cases(folder: Path) -> dict[str, Words]:
    """All that is measured, the short ones first."""
    found: dict[str, Words] = {
        "--help": lambda out: ["--help"],
        "check, 24 nodes": lambda out: ["check", str(SMALL), *RTX],
        "reduce, 24 nodes": lambda out: ["reduce", str(SMALL), *RTX, "--out", str(out)],
    }
    for name in ("parse-densenet121", "round-floor-topk", "10000-nodes", "1.6-GB-of-weights"):
        found[name] = of_bench(name, folder / name)
    for name in ("build-densenet121", "accuracy-resnet50", "accuracy-resnet50-sanitized"):
        found[name] = of_bench(name, folder / name)
    return found


def of_bench(name: str, folder: Path) -> Words:
    """A case of `make bench`; its files are made when it is first asked for."""
    bench = BENCHES[name]

    def words(out: Path) -> list[str]:
        model = folder / ("sanitized.onnx" if bench.sanitize else "model.onnx")
        if not model.exists():
            folder.mkdir(parents=True, exist_ok=True)
            made = bench.make(folder)
            if bench.sanitize:
                surgeon = [str(Path(sys.executable).with_name("polygraphy")), "surgeon", "sanitize"]
                subprocess.run(
                    [*surgeon, str(made), "--fold-constants", "-o", str(model)],
                    check=True,
                    capture_output=True,
                )
        inputs = folder / "inputs.npz"
        given = ["--inputs", str(inputs)] if inputs.exists() else []
        return ["reduce", str(model), *bench.target(folder), *given, "--no-simplify", "--out", str(out)]

    return words


def trees(commit: str) -> dict[str, Path]:
    """The folders of both versions, compiled as pip does."""
    old = ROOT / "build" / f"tree-{commit}"
    if not old.exists():
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(old), commit], cwd=ROOT, check=True)
    for tree in (old, ROOT):
        compileall.compile_dir(tree / "bisect_trt", quiet=1)
    return {"old": old, "new": ROOT}


def run_once(tree: Path, words: Words, folder: Path) -> dict[str, float]:
    """One run: CPU and wall seconds, and how many processes wanted a core."""
    out = folder / "out" / "repro"
    shutil.rmtree(out.parent, ignore_errors=True)
    for zipped in folder.glob("out/*.zip"):
        zipped.unlink()
    os.environ["PYTHONPATH"] = str(tree)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    start = [sys.executable, "-c", "from bisect_trt.cli import main; main()"]
    done = timed([*start, *words(out)], folder)
    if done.code not in (0, 1):
        raise SystemExit(f"{tree} ended with {done.code}: {done.told[-500:]}")
    return {"cpu": done.cpu, "wall": done.wall, "load": os.getloadavg()[0]}


def build_once(model: str, folder: Path) -> dict[str, float]:
    """CPU seconds that TensorRT-RTX takes to parse and build a model, without those of its import."""
    words = [sys.executable, "-c", BUILD]
    done = timed([*words, model], folder)
    if done.code != 0:
        raise SystemExit(f"the bare build ended with {done.code}: {done.told[-500:]}")
    return {"cpu": done.cpu - timed(words, folder).cpu, "wall": done.wall, "load": os.getloadavg()[0]}


def measure(name: str, words: Words, both: dict[str, Path], runs: int, limit: float) -> dict[str, list[dict]]:
    """`runs` of both in turn; fewer when they take long."""
    place = KEPT / f"{name.replace(', ', '-')}.json"
    kinds = {"old": [], "new": []} | ({"build": []} if name == BUILT else {})
    found: dict[str, list[dict]] = json.loads(place.read_text()) if place.exists() else kinds
    folder = KEPT / "work" / name.replace(", ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    while min(map(len, found.values())) < runs and (not found["new"] or time.monotonic() - began < limit):
        for which, tree in both.items():
            if len(found[which]) <= min(map(len, found.values())):
                found[which].append(run_once(tree, words, folder))
                cpu = found[which][-1]["cpu"]
                print(f"{name:28} {which} {cpu:6.2f} CPU s", flush=True)
        if "build" in found and len(found["build"]) < len(found["new"]):
            found["build"].append(build_once(words(folder)[1], folder))
            print(f"{name:28} its build alone {found['build'][-1]['cpu']:.2f} CPU s", flush=True)
        place.write_text(json.dumps(found))
    return found


def rows(name: str, found: dict[str, list[dict]]) -> list[str]:
    """The lines of a case in the table."""
    if "build" not in found:
        return [row(name, found)]
    alone = statistics.median(run["cpu"] for run in found["build"])
    beyond = {
        which: [{**run, "cpu": run["cpu"] - alone} for run in found[which]] for which in ("old", "new")
    }
    return [row(name, found), row(f"{name}, beyond its build of {alone:.2f}", beyond, BEYOND)]


def row(name: str, found: dict[str, list[dict]], most: float | None = None) -> str:
    """A line of the table; `most`: CPU seconds that are asked."""
    cpu = {which: [run["cpu"] for run in found[which]] for which in ("old", "new")}
    told = [f"{statistics.median(s):.2f} ({min(s):.2f}-{max(s):.2f})" for s in cpu.values()]
    ratio = statistics.median(cpu["new"]) / statistics.median(cpu["old"])
    most = ASKED.get(name, most)
    met = "-" if most is None else "met" if statistics.median(cpu["new"]) <= most else "**missed**"
    asked = "-" if most is None else f"{most:.2f}"
    load = statistics.median(run["load"] for runs in found.values() for run in runs)
    runs = len(cpu["new"])
    return f"| {name} | {runs} | {told[0]} | {told[1]} | {ratio:.2f} | {asked} | {met} | {load:.0f} |"


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", default="a045d4f", help="to compare with (a045d4f)")
    parser.add_argument("--runs", type=int, default=5, help="of each (5)")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for a case (600)")
    parser.add_argument("--case", action="append", help="only this one; repeat it")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    given = parser.parse_args()
    if given.fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    both, lines = trees(given.commit), []
    for name, words in cases(KEPT / "models").items():
        if not given.case or name in given.case:
            lines += rows(name, measure(name, words, both, given.runs, given.limit))
    table = "\n".join(
        [
            f"| what | runs | {given.commit} | new | ratio | asked | | load |",
            "|---|---:|---:|---:|---:|---:|---|---:|",
            *lines,
        ]
    )
    text = "\n".join(
        [
            f"# CPU seconds against {given.commit}",
            "",
            "Written by `make bench-against`: both versions in turn, medians with the range. *Load* is how",
            "many processes wanted a core: where it is above the number of cores seconds are longer for",
            "both, and the ratio is what counts.",
            "",
            table,
        ]
    )
    if not given.case:
        put_into(PAGE, "make bench-against", table)
        (ROOT / "bench" / "AGAINST.md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
