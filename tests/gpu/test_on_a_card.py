"""Every stage and symptom on a real card, for each TensorRT that is here: `make test-gpu`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gpu_models import F, candidate, chain, full_card, model, poisoned_probe, run, six_gigabytes
from msgspec.structs import replace
from onnx import TensorProto, helper

import bisect_trt
from bisect_trt.errors import ModelDoesNotFail, TargetUnavailable, UsageError
from bisect_trt.model.candidate import Form
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets import gpu, registry
from bisect_trt.targets.base import TargetResult
from bisect_trt.targets.tensorrt import api, timing, warm
from bisect_trt.targets.tensorrt.backend import import_tensorrt
from bisect_trt.targets.tensorrt.engine import engine_layers
from bisect_trt.targets.tensorrt.log import logger_for
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


def _require_data_dependent_shapes(result: Any) -> None:
    """8.6.0 builds engines whose output shapes depend on values, and makes no context for one."""
    for failure in result.failures:
        if failure.stage is Stage.RUN and "vector<bool>" in failure.message:
            pytest.skip(f"no execution context: {failure.message}")


def test_shapes_that_are_known_after_the_run(flavour: str, tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("NonZero", ["x"], ["y"], "nz")], [("x", F, [2, 3])], [("y", I64, [2, "n"])]
    )
    x = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
    result = run(flavour, proto, tmp_path, {"x": x})
    _require_data_dependent_shapes(result)
    np.testing.assert_array_equal(only(result), np.nonzero(x))


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
    """Wide enough for the builder to want it: with 64 columns TensorRT 8.6 keeps float32."""
    proto = chain(24, 1024, [32, 1024])
    x = np.random.default_rng(1).standard_normal((32, 1024)).astype(np.float32)
    target = registry.open_target(TargetSettings(spec=flavour, precision=precision, tf32=False))
    try:
        result = target.run(candidate(proto, tmp_path, {"x": x}, form=Form.ORIGINAL))
    except UsageError as error:
        assert precision == "bf16" and "has no such precision" in error.message
        pytest.skip(error.message)
    got, exact = only(result), by_hand(proto, x)
    error = float(np.abs(got - exact).max())
    assert 1e-5 < error < 0.2, f"error {error}: float32 has less, nothing sane has more"
    told = {key: result.facts.get(key) for key in ("network_types", "cast")}
    print(precision, error, told, result.facts["engine"])
    assert result.facts["engine"]["layers"] > 0


def test_a_profile_for_dynamic_shapes(flavour: str, tmp_path: Path) -> None:
    rows = {"min_shapes": 1, "opt_shapes": 4, "max_shapes": 16}
    shapes = {name: (("x", (count, 64)),) for name, count in rows.items()}
    result = run(flavour, chain(dims=["n", 64]), tmp_path, {"x": X}, {"x": X[:1]}, **shapes)
    assert result.outputs is not None and [o["y"].shape[0] for o in result.outputs] == [8, 1]
    beyond = run(flavour, chain(dims=["n", 64]), tmp_path, {"x": np.tile(X, (3, 1))}, **shapes)
    assert [failure.stage for failure in beyond.failures] == [Stage.RUN]
    print(beyond.failures[0].message.splitlines()[0])


def test_two_shapes_that_are_known_after_the_run(flavour: str, tmp_path: Path) -> None:
    """What is selected goes on through the network; each output has a size of its own."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["at"], "nz"),
        helper.make_node("Transpose", ["at"], ["rows"], "t", perm=[1, 0]),
        helper.make_node("GatherND", ["x", "rows"], ["values"], "g"),
        helper.make_node("Exp", ["values"], ["y"], "e"),
    ]
    proto = model(nodes, [("x", F, [3, 4])], [("y", F, ["n"]), ("rows", I64, ["n", 2])])
    x = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, -1, 0]], np.float32)
    result = run(flavour, proto, tmp_path, {"x": x})
    _require_data_dependent_shapes(result)
    assert not result.failures and result.outputs is not None, result.failures
    np.testing.assert_allclose(result.outputs[0]["y"], np.exp(x[x != 0]), rtol=1e-4)
    np.testing.assert_array_equal(result.outputs[0]["rows"], np.argwhere(x))


def test_a_precision_of_a_layer_is_an_obeyed_or_preferred_constraint(flavour: str) -> None:
    """What `--precision` leaves to the builder can be asked of one layer, where types are weak."""
    trt = import_tensorrt(flavour)
    if api.is_strongly_typed(trt):
        pytest.skip("types are taken as they stand: no layer has a precision of its own")
    logger, _ = logger_for(trt)
    builder, proto = warm.kept(trt, logger).builder, chain(2, 1024, [32, 1024])
    for flag in ("OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"):
        network = builder.create_network(api.network_flags(trt))
        parser = trt.OnnxParser(network, logger)
        assert parser.parse(proto.SerializeToString())
        for k in range(network.num_layers):
            if network.get_layer(k).type == trt.LayerType.MATRIX_MULTIPLY:
                network.get_layer(k).precision = trt.float16
        config = builder.create_builder_config()
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(getattr(trt.BuilderFlag, flag))
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        plan = builder.build_serialized_network(network, config)
        assert plan is not None
        engine = warm.runtime(trt, logger).deserialize_cuda_engine(plan)
        told = engine_layers(trt, engine)
        print(flag, told)
        assert told["layers"] > 0


def test_a_plugin_without_its_libraries_is_one_failure_in_a_line(flavour: str, tmp_path: Path) -> None:
    """InstanceNormalization of 8.6 is a plugin on cuDNN: where that is missing, its failure says so."""
    nodes = [helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"], "norm")]
    ones = np.ones(3, np.float32)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    proto = model(nodes, [("x", F, [1, 3, 8, 8])], [("y", F, [1, 3, 8, 8])], s=ones, b=ones)
    result = run(flavour, proto, tmp_path, {"x": x}, tf32=False)
    for failure in result.failures:
        assert failure.message.strip() and failure.stage in (Stage.BUILD, Stage.LOAD, Stage.RUN)
        print(failure.stage, failure.message.splitlines()[0])
    if not result.failures:
        centred = (x - x.mean((2, 3), keepdims=True)) / x.std((2, 3), keepdims=True)
        np.testing.assert_allclose(only(result), centred + 1, rtol=1e-2, atol=1e-2)


# Workers


def test_a_builder_is_made_once_and_later_probes_are_quick(flavour: str, pool: Pool, tmp_path: Path) -> None:
    settings = TargetSettings(spec=flavour)
    cuts = [candidate(chain(k), tmp_path, {"x": X}) for k in (2, 2, 3, 2, 4)]
    first, *later = [
        pool.submit(jobs.probe, settings, one, timeout=300).result().value for one in cuts
    ]
    assert not first.failures and "builder_seconds" in first.facts
    assert not any("builder_seconds" in outcome.facts for outcome in later)
    print("builder", first.facts["builder_seconds"], "probes", [o.seconds for o in (first, *later)])


def test_memory_is_given_back_between_probes(flavour: str, tmp_path: Path) -> None:
    """Reads the free memory of the whole card: nothing else may run on it."""
    target = registry.open_target(TargetSettings(spec=flavour))
    one = candidate(chain(8, 1024), tmp_path, {"x": np.ones((8, 1024), np.float32)})
    held = []
    for _ in range(8):
        assert not target.run(one).failures
        held.append(gpu.free_bytes())
    print("free MiB", [free >> 20 for free in held])
    assert held[0] == 0 or held[2] - held[-1] < 64 << 20


def _require_cache_that_can_be_read(results: Sequence[TargetResult]) -> None:
    """8.6.0 writes what Myelin fused so that no other process can read it back, and that measures anew."""
    if any(timing.OTHER in result.log for result in results):
        pytest.skip("this TensorRT cannot read back the timing cache of what Myelin fused")


def test_workers_share_what_they_measured(flavour: str, tmp_path: Path) -> None:
    if flavour == "tensorrt-rtx":
        pytest.skip("TensorRT-RTX has no timing cache")
    cache = tmp_path / "timing.cache"
    settings = TargetSettings(spec=flavour, timing_cache=cache)
    cuts = [candidate(chain(k), tmp_path, {"x": X}) for k in (2, 3, 4, 5)]
    with Pool(2, log_dir=tmp_path / "two", warm=jobs.warm_job(settings)) as pool:
        tasks = [pool.submit(jobs.probe, settings, one, timeout=300) for one in cuts]
        assert not any(task.result().value.failures for task in tasks)
    size = cache.stat().st_size
    again = [replace(one, form=Form.WRITTEN) for one in cuts]
    results = [registry.open_target(settings).run(one) for one in (*again, *again)]
    _require_cache_that_can_be_read(results)
    told = [result.facts["engine"]["shown"] for result in results]
    assert [[layer["tactic"] for layer in one] for one in told[:4]] == [
        [layer["tactic"] for layer in one] for one in told[4:]
    ]
    assert cache.stat().st_size == size
    print("bytes of the cache", size, "tactics", [layer["tactic"] for layer in told[0]])


# Inside the engine, tactics


def test_a_tactic_that_is_left_out_is_not_taken(flavour: str, tmp_path: Path) -> None:
    x = np.ones((32, 1024), np.float32)
    one = candidate(chain(2, 1024, [32, 1024]), tmp_path, {"x": x}, form=Form.WRITTEN)
    first = registry.open_target(TargetSettings(spec=flavour)).run(one).facts["engine"]["shown"]
    taken = tuple(sorted({layer["number"] for layer in first if layer["number"]}))
    try:
        other = registry.open_target(TargetSettings(spec=flavour, without_tactics=taken)).run(one)
    except UsageError as error:
        pytest.skip(error.message)
    assert not other.failures
    shown = other.facts["engine"]["shown"]
    print([(layer["kind"], layer["tactic"], layer["number"]) for layer in (*first, *shown)])
    assert taken and {layer["number"] for layer in shown} - set(taken)


def test_marking_every_tensor_changes_what_is_fused(flavour: str, tmp_path: Path) -> None:
    """What a view without debug tensors costs: what is an output of the network is not fused away."""
    proto = chain(6, 256, [8, 256])
    x = np.random.default_rng(2).standard_normal((8, 256)).astype(np.float32)
    target = registry.open_target(TargetSettings(spec=flavour))
    plain = target.run(candidate(proto, tmp_path, {"x": x}, form=Form.ORIGINAL))
    inner = [o for node in proto.graph.node for o in node.output if o != "y"]
    proto.graph.output.extend(helper.make_tensor_value_info(name, F, [8, 256]) for name in inner)
    marked = target.run(candidate(proto, tmp_path, {"x": x}, form=Form.ORIGINAL))
    layers = [result.facts["engine"]["layers"] for result in (plain, marked)]
    assert plain.outputs is not None and marked.outputs is not None
    moved = np.abs(plain.outputs[0]["y"] - marked.outputs[0]["y"]).max()
    print("layers", layers, "the output moved by", float(moved), "bytes",
          [result.facts["engine_bytes"] for result in (plain, marked)])  # fmt: skip
    # What is fused differs from build to build: 24 layers for 26 in one session, 24 for 24 in another.
    np.testing.assert_allclose(marked.outputs[0]["y"], plain.outputs[0]["y"], rtol=0.02, atol=0.02)


def test_tensors_inside_the_engine(flavour: str, tmp_path: Path) -> None:
    target = registry.open_target(TargetSettings(spec=flavour))
    result = target.run_in_context(candidate(chain(), tmp_path, {"x": X}))  # type: ignore[attr-defined]
    assert result.failures == () and result.outputs is not None
    np.testing.assert_allclose(result.outputs[0]["y"], by_hand(chain(), X), rtol=0.02, atol=0.02)
    print("tensors inside:", sorted(set(result.outputs[0]) - {"y"}))


def test_the_engine_tells_its_layers(flavour: str, tmp_path: Path) -> None:
    target = registry.open_target(TargetSettings(spec=flavour))
    facts = target.run(candidate(chain(), tmp_path, {"x": X}, form=Form.ORIGINAL)).facts
    assert facts["engine"]["layers"] > 0 and facts["engine"]["shown"][0]["name"]
    print(facts["engine"])


def test_the_timing_cache_makes_tactics_the_same(flavour: str, tmp_path: Path) -> None:
    if flavour == "tensorrt-rtx":
        pytest.skip("TensorRT-RTX has no timing cache")
    cache = tmp_path / "timing.cache"
    target = registry.open_target(TargetSettings(spec=flavour, timing_cache=cache))
    one = candidate(chain(), tmp_path, {"x": X}, form=Form.ORIGINAL)
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
    proto, feeds = six_gigabytes()
    settings = TargetSettings(spec=flavour, opt_level=0)
    small, large = candidate(chain(), tmp_path, {"x": X}), candidate(proto, tmp_path, feeds)
    assert not pool.submit(jobs.probe, settings, small, timeout=300).result().value.failures
    with full_card(2 << 30):
        outcome = pool.submit(jobs.probe, settings, large, timeout=300).result().value
    assert outcome.failures, "6 GB found room where 2 were left"
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


def test_the_device_that_is_named_is_the_one_that_is_seen(flavour: str, tmp_path: Path) -> None:
    settings, one = TargetSettings(spec=flavour), candidate(chain(), tmp_path, {"x": X})
    with Pool(1, log_dir=tmp_path / "zero", devices=["0"]) as pool:
        assert not pool.submit(jobs.probe, settings, one, timeout=300).result().value.failures
    with Pool(1, log_dir=tmp_path / "none", devices=["77"]) as pool, pytest.raises(TargetUnavailable):
        pool.submit(jobs.warm_up, settings, timeout=300).result()


# The whole tool


def test_reduce_finds_the_one_node(flavour: str, tmp_path: Path, models_dir: Path) -> None:
    settings = Settings(TargetSettings(spec=flavour), RunSettings(repeats=2))
    try:
        result = bisect_trt.reduce(models_dir / "resize_antialias.onnx", settings, out=tmp_path / "out")
    except ModelDoesNotFail:
        pytest.skip("this TensorRT takes antialias")
    assert len(result.best.nodes) == 1 and result.verified == 2
