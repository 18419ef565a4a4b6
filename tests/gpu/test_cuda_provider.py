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
from gpu_models import busy_probe, candidate, chain, four_tebibytes, poisoned_probe

import bisect_trt
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.targets import gpu, registry
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


def test_it_is_said_which_card_it_is(tmp_path: Path) -> None:
    card = gpu.find_gpu()
    info = registry.open_target(TargetSettings(spec=EXACT)).info()
    assert card is not None and card.name in info.title
    assert info.versions["GPU"].startswith(card.name) and info.versions["driver"] == card.driver


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_is_what_was_asked_for(precision: str, stack: Path) -> None:
    spec = TargetSettings(spec=EXACT, precision=precision)
    outcome = bisect_trt.check(
        stack, Settings(spec, RunSettings(), AccuracySettings(rtol=(("", 1e-4),)))
    ).outcome
    assert outcome.facts["cast"]["narrow_nodes"] == 48 and outcome.facts["cast"]["float32_nodes"] == {}
    assert [f.stage for f in outcome.failures] == [Stage.COMPARE]
    print(precision, outcome.failures[0].message)


def test_out_of_gpu_memory_is_a_symptom_and_the_worker_goes_on(pools: Pool, tmp_path: Path) -> None:
    proto, feeds = four_tebibytes()
    settings = TargetSettings(spec=EXACT)
    outcome = (
        pools.submit(jobs.probe, settings, candidate(proto, tmp_path, feeds), timeout=300).result().value
    )
    assert [(f.stage, f.symptom) for f in outcome.failures] == [(Stage.RUN, Symptom.OUT_OF_MEMORY)]
    print(outcome.failures[0].message)
    one = candidate(chain(), tmp_path, {"x": np.ones((8, 64), np.float32)})
    assert not pools.submit(jobs.probe, settings, one, timeout=300).result().value.failures


def test_an_illegal_access_fails_one_probe_and_not_the_next(tmp_path: Path) -> None:
    settings = TargetSettings(spec=EXACT)
    one = candidate(chain(), tmp_path, {"x": np.ones((8, 64), np.float32)})
    with Pool(1, log_dir=tmp_path / "one") as pool:
        code, failures, pid = pool.submit(poisoned_probe, settings, one, timeout=300).result().value
        assert code == 700 and failures and gpu.spoils(failures[0].message), (code, failures)
        print(failures[0].message)
        assert not pool.submit(jobs.probe, settings, one, timeout=300).result().value.failures
        assert pool.submit(os.getpid, timeout=60).result().value != pid


def test_one_context_on_each_gpu(many_gpus: int, tmp_path: Path) -> None:
    settings = TargetSettings(spec=EXACT)
    one = candidate(chain(), tmp_path, {"x": np.ones((8, 64), np.float32)})
    with Pool(many_gpus, log_dir=tmp_path / "many", devices=[str(k) for k in range(many_gpus)]) as pool:
        tasks = [pool.submit(busy_probe, settings, one, timeout=300) for _ in range(2 * many_gpus)]
        seen = {task.result().value for task in tasks}
    assert len(seen) == many_gpus, seen
    print(seen)
