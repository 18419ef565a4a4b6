"""ONNX Runtime's CUDA provider: a target that runs on any NVIDIA card, H100 and H200 among them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from gpu_models import candidate, chain

import bisect_trt
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Stage
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

TF32 = "ort:CUDAExecutionProvider?use_tf32=1"
EXACT = "ort:CUDAExecutionProvider?use_tf32=0"


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDAExecutionProvider: pip install onnxruntime-gpu")


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """24 layers, 1024 wide: RMS error 1e-3 of RMS in TF32, 1e-6 without (H100)."""
    file = tmp_path / "stack.onnx"
    onnx.save_model(chain(24, 1024, [32, 1024]), file)
    return file


def settings(spec: str, rtol: float, workers: int = 1) -> Settings:
    accuracy = AccuracySettings(rtol=(("", rtol),), metric="rms")
    return Settings(TargetSettings(spec=spec), RunSettings(repeats=1, workers=workers), accuracy)


def test_without_tf32_it_agrees_and_with_it_it_does_not(stack: Path) -> None:
    assert not bisect_trt.check(stack, settings(EXACT, 1e-4)).outcome.failures
    outcome = bisect_trt.check(stack, settings(TF32, 1e-4)).outcome
    assert [f.stage for f in outcome.failures] == [Stage.COMPARE]
    print(outcome.facts["errors"])


@pytest.mark.parametrize("workers", [1, 3])
def test_reduce_an_accumulated_error(stack: Path, tmp_path: Path, workers: int) -> None:
    result = bisect_trt.reduce(stack, settings(TF32, 1e-4, workers), out=tmp_path / "out")
    assert result.wanted.stage is Stage.COMPARE and result.verified == 1
    print(workers, len(result.best.nodes), result.notes, dict(result.counts))


def test_scan_shows_where_the_error_is_made(stack: Path, tmp_path: Path) -> None:
    result = bisect_trt.scan(stack, settings(TF32, 1e-4), out=tmp_path / "scan")
    worst = result.ranked[0]
    assert worst.op == "MatMul"
    print(worst)


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pool]:
    with Pool(3, log_dir=tmp_path / "logs") as pool:
        yield pool


def test_several_workers_have_a_context_each_and_one_is_killed(pools: Pool, tmp_path: Path) -> None:
    x = np.ones((32, 1024), np.float32)
    one: Candidate = candidate(chain(24, 1024, [32, 1024]), tmp_path, {"x": x})
    target = TargetSettings(spec=EXACT)
    tasks = [pools.submit(jobs.probe, target, one, timeout=300) for _ in range(12)]

    def kill() -> None:
        file = tmp_path / "logs/worker-1.pid"
        while not file.exists():
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(int(file.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = [task.result().value for task in tasks]
    killer.join()
    assert all(outcome is not None and not outcome.failures for outcome in outcomes)
