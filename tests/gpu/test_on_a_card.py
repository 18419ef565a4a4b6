"""Every stage and symptom on a real card, for each TensorRT that is here: `make test-gpu`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gpu_models import F, candidate, chain, four_tebibytes, model, poisoned_probe, run
from onnx import TensorProto, helper

import bisect_trt
from bisect_trt.errors import ModelDoesNotFail
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets import gpu, registry
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

I64 = TensorProto.INT64
X = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(1, log_dir=tmp_path / "logs") as pool:
        yield pool


def only(result: Any) -> np.ndarray[Any, Any]:
    """The one output of the one sample."""
    assert result.failures == () and result.outputs is not None, result.failures
    (sample,) = result.outputs
    (value,) = sample.values()
    return value


def by_hand(proto: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    for weight in proto.graph.initializer:
        x = np.tanh(x @ onnx.numpy_helper.to_array(weight))
    return x


# Values


def test_runs_and_agrees(flavour: str, tmp_path: Path) -> None:
    got = only(run(flavour, chain(), tmp_path, {"x": X}, tf32=False))
    np.testing.assert_allclose(got, by_hand(chain(), X), rtol=1e-3, atol=1e-4)


def test_dynamic_shapes_and_several_samples(flavour: str, tmp_path: Path) -> None:
    proto = chain(dims=["n", 64])
    result = run(flavour, proto, tmp_path, {"x": X}, {"x": X[:3]}, {"x": X[:1]})
    assert result.outputs is not None and [o["y"].shape[0] for o in result.outputs] == [8, 3, 1]


def test_shapes_that_are_known_after_the_run(flavour: str, tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("NonZero", ["x"], ["y"], "nz")], [("x", F, [2, 3])], [("y", I64, [2, "n"])]
    )
    x = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
    np.testing.assert_array_equal(only(run(flavour, proto, tmp_path, {"x": x})), np.nonzero(x))


@pytest.mark.parametrize("kind", ["INT64", "INT32", "BOOL", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "UINT8"])
def test_types_of_inputs_and_outputs(flavour: str, kind: str, tmp_path: Path) -> None:
    elem = TensorProto.DataType.Value(kind)
    values = np.array([[0, 1, 0], [1, 1, 0]]).astype(helper.tensor_dtype_to_np_dtype(elem))
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"], "r")]
    proto = model(nodes, [("x", elem, [2, 3])], [("y", elem, [3, 2])], to=np.array([3, 2]))
    result = run(flavour, proto, tmp_path, {"x": values})
    if result.failures and result.failures[0].stage in (Stage.PARSE, Stage.BUILD):
        pytest.skip(f"not taken: {result.failures[0].message.splitlines()[0]}")
    got = only(result)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values.reshape(3, 2))


def test_empty_tensors(flavour: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["x", "c"], ["y"], "cat", axis=0)]
    proto = model(nodes, [("x", F, ["n", 3])], [("y", F, ["m", 3])], c=np.ones((2, 3), np.float32))
    empty = {"x": np.zeros((0, 3), np.float32)}
    got = only(run(flavour, proto, tmp_path, empty))
    np.testing.assert_array_equal(got, np.ones((2, 3)))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_is_what_was_asked_for(flavour: str, precision: str, tmp_path: Path) -> None:
    target = registry.open_target(TargetSettings(spec=flavour, precision=precision))
    result = target.run(candidate(chain(), tmp_path, {"x": X}, cut="original"))
    got, exact = only(result), by_hand(chain(), X)
    error = float(np.abs(got - exact).max())
    assert 1e-5 < error < 0.2, f"error {error}: float32 has less, nothing sane has more"
    print(
        precision, error, {k: result.facts.get(k) for k in ("network_types", "cast")}, result.facts["engine"]
    )


# Inside the engine, tactics


def test_tensors_inside_the_engine(flavour: str, tmp_path: Path) -> None:
    target = registry.open_target(TargetSettings(spec=flavour))
    result = target.run_in_context(candidate(chain(), tmp_path, {"x": X}))  # type: ignore[attr-defined]
    assert result.failures == () and result.outputs is not None
    np.testing.assert_allclose(result.outputs[0]["y"], by_hand(chain(), X), rtol=0.02, atol=0.02)
    print("tensors inside:", sorted(set(result.outputs[0]) - {"y"}))


def test_the_engine_tells_its_layers(flavour: str, tmp_path: Path) -> None:
    target = registry.open_target(TargetSettings(spec=flavour))
    facts = target.run(candidate(chain(), tmp_path, {"x": X}, cut="original")).facts
    assert facts["engine"]["layers"] > 0 and facts["engine"]["shown"][0]["name"]
    print(facts["engine"])


def test_the_timing_cache_makes_tactics_the_same(flavour: str, tmp_path: Path) -> None:
    if flavour == "tensorrt-rtx":
        pytest.skip("TensorRT-RTX has no timing cache")
    cache = tmp_path / "timing.cache"
    target = registry.open_target(TargetSettings(spec=flavour, timing_cache=cache))
    one = candidate(chain(), tmp_path, {"x": X}, cut="original")
    first = target.run(one).facts["engine"]["shown"]
    assert cache.stat().st_size > 0
    for _ in range(3):
        again = target.run(one).facts["engine"]["shown"]
        assert [layer["tactic"] for layer in again] == [layer["tactic"] for layer in first]


# Failures


def test_a_workspace_that_is_too_small(flavour: str, tmp_path: Path) -> None:
    result = run(flavour, chain(2, 2048, [512, 2048]), tmp_path, workspace=1)
    for failure in result.failures:  # it may also build without any workspace
        assert failure.stage is Stage.BUILD
        print(failure.symptom, failure.message.splitlines()[0])


def test_out_of_gpu_memory_is_a_symptom_and_the_worker_is_replaced(
    flavour: str, pool: Pool, tmp_path: Path
) -> None:
    proto, feeds = four_tebibytes()
    settings = TargetSettings(spec=flavour)
    outcome = pool.submit(jobs.probe, settings, candidate(proto, tmp_path, feeds), timeout=300).result().value
    assert outcome.failures, "4 TiB fit on this card"
    print(outcome.failures[0].stage, outcome.failures[0].symptom, outcome.failures[0].message.splitlines()[0])
    assert outcome.failures[0].symptom is Symptom.OUT_OF_MEMORY
    assert (
        not pool.submit(jobs.probe, settings, candidate(chain(), tmp_path, {"x": X}), timeout=300)
        .result()
        .value.failures
    )


def test_an_illegal_access_fails_one_probe_and_not_the_next(flavour: str, pool: Pool, tmp_path: Path) -> None:
    settings, one = TargetSettings(spec=flavour), candidate(chain(), tmp_path, {"x": X})
    reply = pool.submit(poisoned_probe, settings, one, timeout=300).result()
    print(reply.value or reply.death)
    outcome = pool.submit(jobs.probe, settings, one, timeout=300).result().value
    assert not outcome.failures and outcome.facts["engine_bytes"]


def test_a_worker_that_is_killed_in_the_middle_is_replaced(flavour: str, tmp_path: Path) -> None:
    settings, one = TargetSettings(spec=flavour), candidate(chain(), tmp_path, {"x": X})
    with Pool(2, log_dir=tmp_path / "two") as pool:
        tasks = [pool.submit(jobs.probe, settings, one, timeout=300) for _ in range(4)]
        file = tmp_path / "two/worker-0.pid"
        while not file.exists():
            time.sleep(0.05)
        time.sleep(1)
        os.kill(int(file.read_text()), signal.SIGKILL)
        assert all(not task.result().value.failures for task in tasks)


# Cards


def test_what_is_said_of_the_card(flavour: str) -> None:
    card = gpu.find_gpu()
    assert card is not None and card.driver and card.cuda and card.compute_capability >= (5, 0)
    info = registry.open_target(TargetSettings(spec=flavour)).info()
    assert info.versions["GPU"].startswith(card.name)


def test_one_build_on_each_gpu(flavour: str, many_gpus: int, tmp_path: Path) -> None:
    names = [str(k) for k in range(many_gpus)]
    settings, one = TargetSettings(spec=flavour), candidate(chain(), tmp_path, {"x": X})
    with Pool(many_gpus, log_dir=tmp_path / "many", devices=names) as pool:
        tasks = [pool.submit(jobs.probe, settings, one, timeout=300) for _ in range(2 * many_gpus)]
        assert all(not task.result().value.failures for task in tasks)


# The whole tool


def test_reduce_finds_the_one_node(flavour: str, tmp_path: Path, models_dir: Path) -> None:
    settings = Settings(TargetSettings(spec=flavour), RunSettings(repeats=2))
    try:
        result = bisect_trt.reduce(models_dir / "resize_antialias.onnx", settings, out=tmp_path / "out")
    except ModelDoesNotFail:
        pytest.skip("this TensorRT takes antialias")
    assert len(result.best.nodes) == 1 and result.verified == 2
