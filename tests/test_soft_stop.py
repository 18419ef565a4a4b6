"""Builds that tell how far they are, and end when they are asked to: the worker stays warm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from bisect_trt.machine.limits import WORKER
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Symptom
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import asked_to_stop, report_progress
from bisect_trt.workers import jobs, slot
from bisect_trt.workers.pool import Pool
from support import LIGHT


def patient(heeds: bool) -> int:
    """A long job that tells how far it is."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not (heeds and asked_to_stop()):
        report_progress(f"waiting {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}")
        time.sleep(0.05)
    report_progress("")
    return os.getpid()


def seen(key: str) -> str:
    time.sleep(0.3)  # so that both workers are needed
    return os.environ.get(key, "")


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(1, log_dir=tmp_path / "logs") as pool:
        yield pool


def until(pool: Pool, text: str) -> None:
    end = time.monotonic() + 60
    while text not in pool.progress():
        assert time.monotonic() < end, pool.progress()
        time.sleep(0.02)


def test_a_job_that_heeds_the_wish_leaves_its_worker_warm(pool: Pool) -> None:
    first = pool.submit(os.getpid, timeout=60).result().value
    task = pool.submit(patient, True, timeout=None)
    until(pool, "waiting")
    task.cancel()
    assert pool.submit(os.getpid, timeout=60).result().value == first
    assert pool.progress() == ""


def test_past_the_deadline_it_is_a_hang_and_the_worker_stays_warm(pool: Pool) -> None:
    first = pool.submit(os.getpid, timeout=60).result().value
    death = pool.submit(patient, True, timeout=0.5).result().death
    assert death is not None and death.symptom is Symptom.HANG
    assert death.message == "no answer before the deadline"
    assert pool.submit(os.getpid, timeout=60).result().value == first


def test_a_job_that_does_not_heed_it_is_ended(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "GRACE", 0.3)
    first = pool.submit(os.getpid, timeout=60).result().value
    death = pool.submit(patient, False, timeout=0.5).result().death
    assert death is not None and death.symptom is Symptom.HANG
    assert death.message == "no answer before the deadline"
    assert pool.submit(os.getpid, timeout=60).result().value != first


def test_each_worker_sees_its_own_gpu(tmp_path: Path) -> None:
    with Pool(2, log_dir=tmp_path, devices=["3", "GPU-5"]) as pool:
        tasks = [pool.submit(seen, "CUDA_VISIBLE_DEVICES", timeout=60) for _ in range(2)]
        assert {task.result().value for task in tasks} == {"3", "GPU-5"}


def test_the_real_builder_tells_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    from bisect_trt.targets import registry
    from bisect_trt.targets.tensorrt import progress

    monkeypatch.setenv(WORKER, str(tmp_path / "worker-0"))
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    model = onnx.load(LIGHT / "light_squeezenet.onnx").SerializeToString()
    target = registry.open_target(TargetSettings(spec="tensorrt-rtx"))
    told: set[str] = set()

    def tell(text: str) -> None:
        told.add(text.split(" ")[0])
        report_progress(text)

    monkeypatch.setattr(progress, "report_progress", tell)
    assert target.run(Candidate(model, tmp_path, ())).facts["engine_bytes"]
    assert told == {"Building", ""} and not list(tmp_path.glob("*.progress"))
    (tmp_path / "worker-0.stop").touch()
    stopped = target.run(Candidate(model, tmp_path, ()))
    assert stopped.unresolved == "the build was asked to stop" and not stopped.failures
    (tmp_path / "worker-0.stop").unlink()
    assert target.run(Candidate(model, tmp_path, ())).facts["engine_bytes"]  # it can still be used


def test_a_real_build_that_is_cancelled_leaves_its_worker_warm(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    model = (LIGHT / "light_densenet121.onnx").read_bytes()
    settings = TargetSettings(spec="tensorrt-rtx")
    with Pool(1, log_dir=tmp_path) as pool:
        first = pool.submit(os.getpid, timeout=60).result().value
        task = pool.submit(jobs.probe, settings, Candidate(model, tmp_path, ()), timeout=300)
        until(pool, "Building engine")
        task.cancel()
        began = time.monotonic()
        assert pool.submit(os.getpid, timeout=60).result().value == first
        assert time.monotonic() - began < slot.GRACE + 1
