"""What the nightly machinery costs, beside the checks themselves.

    python bench/nightly_overhead.py [MODELS] [--target SPEC]     (default: 60 models, tensorrt-rtx)
    python bench/nightly_overhead.py 1000 --memory                (flat memory, checks that take no time)

The first one compares a night over copies of real models with `bisect_trt.check` in a plain loop over the
same files, in this process. The second one watches the memory of the night's own process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def plain_loop(models: list[Path], spec: str) -> tuple[float, float]:
    """Wall seconds of the loop, and those inside target and reference."""
    from bisect_trt.checking import check
    from bisect_trt.settings import Settings, TargetSettings

    began, target = time.monotonic(), 0.0
    for model in models:
        target += check(model, Settings(TargetSettings(spec=spec))).outcome.seconds
    return time.monotonic() - began, target


def night(folder: Path, spec: str) -> tuple[float, float]:
    """Wall seconds of a night over the same models, and those that its checks took."""
    from bisect_trt.nightly import config, service
    from bisect_trt.nightly.history import FILE, History

    data = {"models": {"include": ["models/*.onnx"]}, "target": [{"spec": spec}], "confirm": 1}
    began = time.monotonic()
    service.nightly(config.parse(data, folder / "nightly.toml"))
    wall = time.monotonic() - began
    history = History(folder / "runs" / FILE, read_only=True)
    return wall, sum(row.check_seconds for row in history.rows(1))


def overhead(count: int, spec: str) -> None:
    source = sorted((ROOT / "models").glob("ok*.onnx"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        for k in range(count):
            shutil.copy(source[k % len(source)], folder / "models" / f"m{k:04}.onnx")
        models = sorted((folder / "models").iterdir())
        loop, target = plain_loop(models, spec)
        wall, checks = night(folder, spec)
    print(f"{count} models on {spec}")
    print(f"plain loop of check()     {loop:8.2f} s, of these {target:.2f} s inside target and reference")
    print(f"the night                 {wall:8.2f} s, of these {checks:.2f} s inside check()")
    print(f"more than the loop        {wall - loop:8.2f} s, {(wall / loop - 1) * 100:+.1f} %")
    print(f"outside check()           {wall - checks:8.2f} s, {(wall / checks - 1) * 100:+.1f} %")


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
    parser.add_argument("models", nargs="?", type=int, default=60)
    parser.add_argument("--target", default="tensorrt-rtx")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        memory(options.models)
    else:
        overhead(options.models, options.target)


if __name__ == "__main__":
    main()
