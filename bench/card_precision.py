"""What `precision` finds on a real card: `python bench/card_precision.py OUT [MODEL...]`; OUT gets raw lines.

For each model of tests/precision_models.py (by default a Llama whose FP16 output is all zero, a keyword
classifier and a CNN) and at most $SECONDS (55) seconds each. A build of 218 nodes takes 10 s, so the
Llama has two layers here.

    NAME.check.txt        `check --precision fp16`: what the builder makes of it when it may choose
    NAME.txt              `precision --to fp16`: what it prints
    NAME.precision.json   the set, the errors, the price measured on the card
    NAME.journal.jsonl    every question with its seconds
    NAME.layer-precisions.txt    options for trtexec
    rows.jsonl            a line for each model: nodes kept, builds, seconds, prices, share of zeros in FP16

$TARGET is `tensorrt`, $OPT_LEVEL 0 and $COST `nodes` unless they say otherwise. `wide` is a Llama whose
products take longer than their launches: one for which `COST=time` says something.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import precision_models as models

BT = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]
NAMES = ("llama", "keywords", "cnn")
SECONDS = float(os.environ.get("SECONDS", "55"))
BUDGET = max(0.55 * SECONDS, SECONDS - 60)
TARGET = os.environ.get("TARGET", "tensorrt")
TOLERANCE = ("--rtol", "1e-2", "--atol", "1e-3")
COST = os.environ.get("COST", "nodes")
MORE = ("--no-tf32", "--opt-level", os.environ.get("OPT_LEVEL", "0"))


MODELS = models.MODELS | {
    "llama": lambda: models.llama(2),
    "wide": lambda: models.llama(1, 700.0, 256, 768),
}


def step(told: Path, words: Sequence[str], limit: float) -> tuple[int | None, float]:
    """Run a command with a limit; exit code (None: it was ended) and seconds."""
    began = time.monotonic()
    with told.open("w") as file:
        file.write(f"$ bisect-trt {' '.join(words)}\n")
        file.flush()
        try:
            done = subprocess.run([*BT, *words], stdout=file, stderr=file, timeout=limit, check=False)
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.monotonic() - began
        file.write(f"exit code {code}, {seconds:.1f} s\n")
    return code, seconds


def zeros(place: Path) -> float | None:
    """The share of zeros in what the target gave."""
    with suppress(OSError, ValueError):
        values = np.load(place)
        whole = [values[name] for name in values.files]
        return float(np.mean(np.concatenate([v.ravel() for v in whole]) == 0))
    return None


def one(name: str, out: Path) -> dict[str, Any]:
    """All steps with one model."""
    model, feeds = MODELS[name]()
    work = out / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    file, values = work / f"{name}.onnx", work / f"{name}.npz"
    onnx.save(model, file)
    np.savez(values, **feeds)
    given = [str(file), "--target", TARGET, "--inputs", str(values), *TOLERANCE, *MORE]
    saved = ["--precision", "fp16", "--save-outputs", str(work / "outputs")]
    checked, _ = step(out / f"{name}.check.txt", ["check", *given, *saved], SECONDS / 2)
    folder = work / "precision"
    words = ["precision", *given, "--to", "fp16", "--cost", COST]
    words += ["--repeats", "1", "--out", str(folder), "--debug"]
    words += ["--force", "--budget", f"{BUDGET:.0f}s"]
    code, seconds = step(out / f"{name}.txt", words, SECONDS)
    for source in ("precision.json", "journal.jsonl", "layer-precisions.txt"):
        with suppress(OSError):
            shutil.copy(folder / source, out / f"{name}.{source}")
    row: dict[str, Any] = {"model": name, "check": checked, "code": code, "seconds": round(seconds, 1)}
    row["zeros_fp16_free_choice"] = zeros(work / "outputs" / "target.npz")
    with suppress(OSError, ValueError):
        told = json.loads((folder / "precision.json").read_text())
        row |= {key: told.get(key) for key in ("status", "float_nodes", "keep", "evaluations", "run_seconds")}
        row |= {"verified": told["verified"], "one_minimal": told["one_minimal"], "why": told["kept"]}
        row |= {"cost": COST, "notes": told["notes"]}
        row["tolerances"] = told["tolerances"]
        row["most_builds_allowed"] = 15 + len(told["keep"])
    return row


def main() -> None:
    """See the text of the module."""
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or NAMES:
        row = one(name, out)
        with (out / "rows.jsonl").open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row)[:1500], flush=True)
    shutil.rmtree(out / "work", ignore_errors=True)


if __name__ == "__main__":
    main()
