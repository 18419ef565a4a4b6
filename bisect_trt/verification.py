"""Runs a written reproducer from its own files, each time in a fresh process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bisect_trt.oracle import outcome_of
from bisect_trt.outcome import Outcome
from bisect_trt.reproducer import bundle
from bisect_trt.settings import Settings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool


def verify_files(out: Path, settings: Settings, timeout: float, repeats: int) -> list[Outcome]:
    """Outcomes of `repeats` runs of `repro.onnx` and its inputs in `out`; `timeout` in seconds."""
    outcomes = []
    for _ in range(max(1, repeats)):
        with tempfile.TemporaryDirectory(prefix="bisect-trt-") as scratch:
            candidate = bundle.read_model(out, Path(scratch))
            with Pool(1, log_dir=Path(scratch), memory_limit=settings.run.memory_limit) as pool:
                task = pool.submit(jobs.probe, settings.target, candidate, timeout=timeout)
                outcomes.append(outcome_of(task.result()))
    return outcomes
