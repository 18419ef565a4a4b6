"""Runs a written reproducer from its own files, each time in a fresh process."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bisect_trt.oracle import outcome_of
from bisect_trt.outcome import Outcome
from bisect_trt.reproducer import bundle
from bisect_trt.settings import Settings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool


def verify_files(out: Path, settings: Settings, timeout: float, repeats: int) -> list[Outcome]:
    """Outcomes of `repeats` runs of `repro.onnx` and its inputs in `out`, `settings.run.workers` at a time.

    `timeout` is in seconds, for each run.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bisect-trt-") as scratch,
        ThreadPoolExecutor(max(1, min(repeats, settings.run.workers))) as threads,
    ):
        candidate = bundle.read_model(out, Path(scratch))

        def fresh(number: int) -> Outcome:
            logs = Path(scratch) / f"run-{number}"
            with Pool(1, log_dir=logs, memory_limit=settings.run.memory_limit) as pool:
                task = pool.submit(jobs.probe, settings.target, candidate, settings.accuracy, timeout=timeout)
                return outcome_of(task.result())

        return list(threads.map(fresh, range(max(1, repeats))))
