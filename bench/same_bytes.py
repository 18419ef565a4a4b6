"""Reduce the same models with two checkouts and compare the written models and values byte by byte.

A change of the code that must not change any result is shown by this: `python bench/same_bytes.py
OLD/.venv/bin/python NEW/.venv/bin/python`. The models are those of models/ that TensorRT-RTX refuses, and
four whose outputs differ in FP16 (`tests/accuracy_cases.py`). The exit code is 1 where a file differs.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from accuracy_cases import BORN  # noqa: E402

COMPARED = ("repro.onnx", "inputs.npz", "expected.npz")
START = "import sys; from bisect_trt.cli import main; sys.exit(main())"
LONGEST_REDUCTION = 300.0
"""Seconds; none of these models takes more than a few."""

Case = tuple[str, list[str]]
"""The name of a case and the arguments of `reduce`."""


def cases(folder: Path) -> Iterator[Case]:
    """All cases; those that are made by code are written into `folder`."""
    for path in sorted((ROOT / "models").glob("*.onnx")):
        if path.stem != "ok":
            yield path.stem, [str(path), "--target", "tensorrt-rtx"]
    for name, make in BORN.items():
        proto, sample = make()
        model, inputs = folder / f"{name}.onnx", folder / f"{name}.npz"
        onnx.save(proto, model)
        np.savez(inputs, **sample)
        yield name, [str(model), "--target", "emulate:fp16", "--inputs", str(inputs)]


def reduce(python: Path, arguments: list[str], out: Path) -> str:
    """Run `reduce` with one interpreter; the answer is how it ended, when that was not well."""
    # -P: the folder in which this runs holds a package of the same name.
    # A budget that is never spent: else what is simplified depends on how busy the machine is.
    command = [str(python.absolute()), "-P", "-c", START, "reduce", *arguments, "--out", str(out)]
    command += ["--simplify-budget", str(LONGEST_REDUCTION)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_REDUCTION, cwd=out.parent)
    return "" if ended.returncode == 0 else f"exit {ended.returncode}: {ended.stderr.strip()[-200:]}"


def checkout(python: Path) -> str:
    """Say which source an interpreter runs."""
    command = [str(python.absolute()), "-P", "-c", "import bisect_trt; print(bisect_trt.__file__)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def compare(old: Path, new: Path) -> list[str]:
    """Say for each file whether both folders hold the same bytes: `same`, `absent` or `DIFFERS`."""
    words = []
    for name in COMPARED:
        there = [(folder / name).exists() for folder in (old, new)]
        if not any(there):
            words.append("absent")
        else:
            same = all(there) and filecmp.cmp(old / name, new / name, shallow=False)
            words.append("same" if same else "DIFFERS")
    return words


def main() -> int:
    """Print one row for each case; the answer is 1 when a file differs or a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="interpreter of the one checkout")
    parser.add_argument("new", type=Path, help="interpreter of the other")
    parser.add_argument("names", nargs="*", help="cases to run; all by default")
    asked = parser.parse_args()
    wrong = 0
    if checkout(asked.old) == checkout(asked.new):
        parser.error("both interpreters run the same source")
    print(f"{'case':22}" + "".join(f"{name:14}" for name in COMPARED))
    with tempfile.TemporaryDirectory() as place:
        for name, arguments in cases(Path(place)):
            if asked.names and name not in asked.names:
                continue
            old, new = Path(place) / f"{name}-old", Path(place) / f"{name}-new"
            failed = [reduce(asked.old, arguments, old), reduce(asked.new, arguments, new)]
            words = compare(old, new)
            wrong += any(failed) or "DIFFERS" in words
            print(f"{name:22}" + "".join(f"{word:14}" for word in words) + " / ".join(filter(None, failed)))
            sys.stdout.flush()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
