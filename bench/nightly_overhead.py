"""What the nightly machinery costs, beside the checks themselves.

    python bench/nightly_overhead.py [MODELS] [--target SPEC]     (default: 36 real models, tensorrt-rtx)
    python bench/nightly_overhead.py 1000 --small                 (models of a few nodes, real processes)
    python bench/nightly_overhead.py 1000 --memory                (checks that take no time)

The first two compare a night with the time inside the target; the last one watches the memory of the
night's own process alone. The real models are the light ones that come with onnx: squeezenet, resnet50,
densenet121, vgg19, ...
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from bisect_trt.nightly import config, service
from bisect_trt.nightly.children import Children
from bisect_trt.nightly.runner import Answer, Checked, Job

ROOT = Path(__file__).parents[1]
NODES = 17  # of the small model
T = TypeVar("T")


class Counting(Children):
    """Adds up what its jobs took, and what of it was spent inside target and reference."""

    jobs = target = 0.0

    def run(self, job: Job) -> Answer:
        answer = super().run(job)
        assert isinstance(answer, Checked), answer
        self.jobs += answer.seconds
        self.target += answer.target_seconds
        return answer


def night(folder: Path, spec: str) -> tuple[float, float, float]:
    """Wall seconds of a night, those of its jobs, and those inside target and reference."""
    made: list[Counting] = []

    def make(place: Path, logs: Path) -> Counting:
        made.append(Counting(place, folder, parallel=1, logs=logs))
        return made[0]

    data = {"models": {"include": ["models/*.onnx"]}, "target": [{"spec": spec}], "confirm": 1}
    began = time.monotonic()
    service.nightly(config.parse(data, folder / "nightly.toml"), make_runner=make)
    return time.monotonic() - began, made[0].jobs, made[0].target


def sources(small: bool) -> list[Path]:
    """Models that TensorRT-RTX takes."""
    if small:
        return [ROOT / "models" / "ok.onnx"]
    import onnx

    return sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


@dataclass(frozen=True)
class Spent:
    """Seconds of a night: inside target and reference, beside its jobs, and CPU of the night itself."""

    target: float
    beside: float
    own: float


def overhead(count: int, spec: str, small: bool) -> Spent:
    """Run a night and print what it spends on what."""
    found = sources(small)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        for k in range(count):
            shutil.copy(found[k % len(found)], folder / "models" / f"m{k:04}.onnx")
        before = time.process_time()
        (wall, jobs, target), seen = watched(lambda: night(folder, spec))
        own = time.process_time() - before - seen.watching
    print(f"{count} models on {spec}: {wall:.1f} s, of these {target:.1f} s inside target and reference")
    for what, seconds in (("beside its jobs", wall - jobs), ("in its jobs beside the target", jobs - target)):
        each = seconds / count * 1000
        print(f"{what:30}{seconds:7.2f} s, {seconds / target:6.1%} of that, {each:.1f} ms a model")
    inside = seen.cpu(2)
    print(f"CPU: {inside:.1f} s of the workers, {inside / count * 1000:.0f} ms a model")
    for what, seconds in (("the night itself", own), ("its jobs beside the workers", seen.cpu(1))):
        each = seconds / count * 1000
        print(f"{what:30}{seconds:7.2f} s, {seconds / inside:6.1%} of that, {each:.1f} ms a model")
    print(f"memory: {seen.memory()}")
    return Spent(target, wall - jobs, own)


class Seen:
    """Memory of this process and of all below it, by time, and CPU seconds by how far below they are."""

    def __init__(self) -> None:
        self.held: list[tuple[float, float, float]] = []
        self.used: dict[int, tuple[int, float]] = {}  # process id: depth, CPU seconds
        self.watching = 0.0  # CPU seconds of looking
        self.began = time.monotonic()

    def look(self, own: psutil.Process) -> None:
        below = 0.0
        for process in own.children(recursive=True):
            with suppress(psutil.Error):
                below += process.memory_info().rss / 2**20
                times, depth = process.cpu_times(), 1 if process.ppid() == own.pid else 2
                self.used[process.pid] = depth, times.user + times.system
        self.held.append((time.monotonic() - self.began, own.memory_info().rss / 2**20, below))

    def cpu(self, depth: int) -> float:
        return sum(seconds for at, seconds in self.used.values() if at == depth)

    def memory(self) -> str:
        early = [s for s in self.held if s[0] < self.held[-1][0] / 3] or self.held
        first, most = (tuple(max(s[k] for s in part) for k in (1, 2)) for part in (early, self.held))
        return (
            f"own {first[0]:.0f} MiB in the first third, {most[0]:.0f} at most; "
            f"children {first[1]:.0f} MiB in the first third, {most[1]:.0f} at most"
        )


def watched(work: Callable[[], T]) -> tuple[T, Seen]:
    """What `work` gives, and what this process and all below it held and used while it ran."""
    seen, done, own = Seen(), threading.Event(), psutil.Process()
    spent: list[float] = []

    def look() -> None:
        while not done.wait(0.5):
            began = time.thread_time()
            seen.look(own)
            spent.append(time.thread_time() - began)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        answer = work()
    finally:
        done.set()
        thread.join()
    seen.watching = sum(spent)
    return answer, seen


CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fakes import Site, passes
site = Site(Path(sys.argv[2]))
site.night({f"m{k:05}": passes() for k in range(int(sys.argv[3]))})
"""


def memory(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-c", CHILD, str(ROOT / "tests" / "nightly"), name, str(count)]
        began, seen = time.monotonic(), []
        child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        process = psutil.Process(child.pid)
        while child.poll() is None:
            seen.append((time.monotonic() - began, process.memory_info().rss / 2**20))
            time.sleep(0.05)
        took = time.monotonic() - began
    early = max(rss for at, rss in seen if at < took * 0.3)
    print(f"{count} models that pass: {took:.1f} s, {took / count * 1000:.1f} ms of machinery a model")
    print(f"memory: {early:.0f} MiB after a third, {max(rss for _, rss in seen):.0f} MiB at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("models", nargs="?", type=int, default=36)
    parser.add_argument("--target", default="tensorrt-rtx")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        memory(options.models)
    else:
        overhead(options.models, options.target, options.small)


if __name__ == "__main__":
    main()
