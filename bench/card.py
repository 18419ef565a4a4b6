"""What a reduction costs on a real card: `python bench/card.py OUT PART...`; OUT gets the raw lines.

Parts:
    tools     the stack of 24 MatMul and Tanh in TF32, started at the same moment: this build, an older one
              (where $BASE names its source folder) and `polygraphy debug reduce` with its own TensorRT
              check, each on a card of its own as far as $CARDS names some (`0 1`)
    workers   the same with 1, 2 and 4 workers, one run after the other
    scan      a Llama of two layers: `check` and `scan` at the same time
    failures  the models of tests/gpu/failing_models.py: reduce, verify and repro.py of each
Every step is a line of `OUT/steps.jsonl` with seconds, exit code, and the most memory that it held on card
and host; what it printed is `OUT/NAME.txt`. A step that takes longer than its limit is ended; the rest
goes on. $TARGET is `tensorrt` unless it says otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "gpu"))

import failing_models  # noqa: E402

BT = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]
POLYGRAPHY = [sys.executable, "-c", "import sys; from polygraphy.tools import main; sys.exit(main())"]
SMALL = 12  # nodes of a probe that is small
KEPT = (
    "nodes", "verified", "repeats", "one_minimal", "finished", "counts", "failure", "notes", "workarounds",
    "built",
)  # fmt: skip
TOLERANCE = ["--rtol", "1e-4"]
GOLDEN = ["--check-error-stat", "mean", "--atol", "3e-5", "--rtol", "0"]  # TF32: 1.4e-4, without: 1e-7
TARGET = ["--target", os.environ.get("TARGET", "tensorrt")]


class Bench:
    """Runs steps and writes down what they cost."""

    def __init__(self, out: Path, scratch: Path) -> None:
        self.out, self.scratch = out, scratch
        self._lock = threading.Lock()
        out.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)

    def step(self, name: str, words: Sequence[str | Path], limit: float, **more: str) -> dict[str, Any]:
        """Run a command in a group of its own; `more` is added to its environment."""
        began, held = time.monotonic(), {"card": 0, "host": 0}
        place = self.scratch / name
        place.mkdir(exist_ok=True)
        with (self.out / f"{name}.txt").open("a") as told:
            told.write(f"$ {' '.join(map(str, words))}\n")
            told.flush()
            process = subprocess.Popen(
                [str(w) for w in words], cwd=place, stdout=told, stderr=told, stdin=subprocess.DEVNULL,
                env=os.environ | more, start_new_session=True,
            )  # fmt: skip
            code: int | None = None
            watch = threading.Thread(target=watch_until_it_ends, args=(process, held))
            watch.start()
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(limit)
            seconds = round(time.monotonic() - began, 2)
            if code is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            watch.join()
        row = {"step": name, "seconds": seconds, "code": code, "mib": held}
        return self.note(row)

    def note(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a line."""
        with self._lock, (self.out / "steps.jsonl").open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row)[:1000], flush=True)
        return row

    def reduction(self, name: str, folder: Path) -> dict[str, Any]:
        """What a reproducer's folder tells of its reduction."""
        facts: dict[str, Any] = {"reduction": name}
        with suppress(OSError, ValueError, KeyError):
            seconds = probes(folder / "journal.jsonl")
            small = [s for s, count in seconds[1:] if count <= SMALL]
            facts |= {"probes": len(seconds), "first_probe": seconds[0][0] if seconds else None}
            facts |= {"small": len(small), "median_small": statistics.median(small) if small else None}
            report = json.loads((folder / "report.json").read_text())
            facts |= {key: report.get(key) for key in KEPT}
            facts["original"] = report["model"]["nodes"]
            facts["phases"] = {p["name"]: p["seconds"] for p in report["phases"] if p["seconds"]}
            simple = report["simplification"] or {}
            facts["simplified"] = {key: simple.get(key) for key in ("seconds", "probes", "ended")}
        return self.note(facts)


def probes(journal: Path) -> list[tuple[float, int]]:
    """Seconds in the target and nodes of each probe, in the order in which they ended."""
    counts, found = {}, []
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "begin":
            counts[event["key"]] = event["count"]
        elif event["event"] == "end":
            found.append((event["seconds"], counts.get(event["key"], 0)))
    return found


def watch_until_it_ends(process: subprocess.Popen[bytes], held: dict[str, int]) -> None:
    """Measure its memory once a second."""
    while process.poll() is None:
        measure(process.pid, held)
        time.sleep(1.0)


def measure(pid: int, held: dict[str, int]) -> None:
    """The most memory, in MiB, of a process and all that it started."""
    with suppress(psutil.Error, OSError, subprocess.SubprocessError, ValueError):
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        pids = {p.pid for p in tree}
        resident = 0
        for p in tree:
            with suppress(psutil.Error):
                resident += p.memory_info().rss
        held["host"] = max(held["host"], resident >> 20)
        words = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False).stdout
        used = [line.split(",") for line in told.splitlines() if line.strip()]
        held["card"] = max(held["card"], sum(int(mib) for p, mib in used if int(p) in pids))


def reduce(
    bench: Bench,
    name: str,
    model: Path,
    values: Path,
    options: Sequence[str],
    limit: float,
    **more: str,
) -> int | None:
    """`bisect-trt reduce`, and what came of it."""
    folder = bench.scratch / f"{name}-repro"
    shutil.rmtree(folder, ignore_errors=True)
    words = [*BT, "reduce", model, *TARGET, "--inputs", values, "--out", folder, *options]
    code: int | None = bench.step(name, words, limit, **more)["code"]
    bench.reduction(name, folder)
    return code


def peer(bench: Bench, model: Path, values: Path, **more: str) -> None:
    """`polygraphy debug reduce` as its own guide has it: golden values of every layer, TF32 on, bisection."""
    place = bench.scratch / "polygraphy"
    place.mkdir(exist_ok=True)
    script = place / "feed.py"
    script.write_text(f"import numpy as np\ndef load_data():\n    yield dict(np.load({str(values)!r}))\n")
    given, golden, fed = place / "inputs.json", place / "golden.json", place / "fed.json"
    for words in (
        ["run", model, "--onnxrt", "--data-loader-script", script, "--save-inputs", given,
         "--onnx-outputs", "mark", "all", "--save-outputs", golden],
        ["data", "merge", given, golden, "-o", fed],
    ):  # fmt: skip
        if bench.step("polygraphy", [*POLYGRAPHY, *words], 60, **more)["code"] != 0:
            bench.note({"peer": "not measured", "why": "it has no golden values to compare with"})
            return
    check = [*POLYGRAPHY, "run", "polygraphy_debug.onnx", "--trt", "--tf32"]
    check += ["--load-inputs", fed, "--load-outputs", golden, *GOLDEN]
    words = ["debug", "reduce", model, "-o", place / "reduced.onnx", "--mode=bisect", "--load-inputs", fed]
    began = time.monotonic()
    row = bench.step("polygraphy", [*POLYGRAPHY, *words, "--check", *check], 400, **more)
    told = (bench.out / "polygraphy.txt").read_text()
    checks = told.count("polygraphy_debug.onnx --trt") or told.count("| Running check command")
    nodes = None
    with suppress(Exception):
        import onnx

        nodes = len(onnx.load_model(place / "reduced.onnx").graph.node)
    wall = round(time.monotonic() - began, 2)
    bench.note({"peer": row["code"], "checks": checks, "nodes": nodes, "seconds": wall})


def tools(bench: Bench) -> None:
    """All at once; the older build takes longest and is waited for to its end."""
    model, values = failing_models.write("stack", bench.scratch / "models")
    site = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    cards = [{"CUDA_VISIBLE_DEVICES": card} for card in os.environ.get("CARDS", "").split()] or [{}]
    runs: list[Callable[[], Any]] = [
        lambda: reduce(bench, "now", model, values, TOLERANCE, 300, **cards[0]),
        lambda: peer(bench, model, values, **cards[-1]),
    ]
    if older := os.environ.get("BASE"):
        base = {"PYTHONPATH": os.pathsep.join([site, older]), **cards[-1]}
        runs.append(lambda: reduce(bench, "before", model, values, TOLERANCE, 480, **base))
    with ThreadPoolExecutor(3) as threads:
        for run in [threads.submit(run) for run in runs]:
            run.result()


def workers(bench: Bench) -> None:
    """The same reduction with more workers."""
    model, values = failing_models.write("stack", bench.scratch / "models")
    for count in map(int, os.environ.get("COUNTS", "1 2 4").split()):
        reduce(bench, f"workers-{count}", model, values, [*TOLERANCE, "--workers", str(count)], 200)


def scan(bench: Bench) -> None:
    """The Llama in float32 with TF32: where does the error come from?"""
    model, values = failing_models.write("llama", bench.scratch / "models")
    common = [model, *TARGET, "--inputs", values, *TOLERANCE]
    place = bench.scratch / "scan"
    with ThreadPoolExecutor(2) as threads:
        check = threads.submit(bench.step, "llama-check", [*BT, "check", *common], 200)
        bench.step("llama-scan", [*BT, "scan", *common, "--out", place, "--force"], 300)
        check.result()
    with suppress(OSError, ValueError, KeyError):
        told = json.loads((place / "scan.json").read_text())
        bench.note({"scan": {k: v for k, v in told.items() if k not in ("tensors", "sources")}})


def failure(bench: Bench, name: str) -> None:
    """One model: what is left of it, and does that fail by itself and without us?"""
    case = failing_models.CASES[name]
    model, values = failing_models.write(name, bench.scratch / "models")
    options = list(case.options)
    limit = float(os.environ.get("LIMIT", "240"))
    options += ["--budget", f"{0.8 * limit:.0f}s"]
    if reduce(bench, name, model, values, options, limit) not in (0, 6):
        return
    folder = bench.scratch / f"{name}-repro"
    plain = {"PYTHONPATH": os.environ["PYTHONPATH"].split(os.pathsep)[0]}  # without the package
    bench.step(f"{name}-script", [sys.executable, folder / "repro.py"], 90, **plain)
    cache = folder / "timing.cache"
    named = ["--timing-cache", str(cache)] if cache.exists() else []
    bench.step(f"{name}-verify", [*BT, "verify", folder, *named], 120)
    for file in ("ISSUE.md", "repro.py", "report.md", "repro.onnx"):
        with suppress(OSError):
            target = bench.out / "reproducers" / name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, target / file)


MEASURED = ("stack", "llama")  # by the other parts


def failures(bench: Bench) -> None:
    """Four models at a time."""
    names = os.environ.get("CASES", "").split() or [n for n in failing_models.CASES if n not in MEASURED]
    with ThreadPoolExecutor(int(os.environ.get("AT_ONCE", "4"))) as threads:
        list(threads.map(lambda name: failure(bench, name), names))


PARTS = {"tools": tools, "workers": workers, "scan": scan, "failures": failures}


def main() -> None:
    """See the text of the module."""
    out = Path(sys.argv[1]).absolute()
    bench = Bench(out, Path(os.environ.get("SCRATCH", out / "scratch")).absolute())
    for part in sys.argv[2:] or list(PARTS):
        began = time.monotonic()
        try:
            PARTS[part](bench)
        except Exception as error:  # the rest goes on
            bench.note({"part": part, "error": repr(error)})
        bench.note({"part": part, "seconds": round(time.monotonic() - began, 2)})


if __name__ == "__main__":
    main()
