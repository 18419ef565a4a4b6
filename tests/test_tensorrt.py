"""The TensorRT adapter on real TensorRT-RTX: it parses and builds without a GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.machine.environment import INSTALL
from bisect_trt.machine.limits import WORKER
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import gpu, registry
from bisect_trt.targets.base import TargetResult
from bisect_trt.targets.gpu import Gpu
from bisect_trt.targets.tensorrt import backend
from bisect_trt.targets.tensorrt import log as trt_failures
from bisect_trt.targets.tensorrt.api import for_engine, from_engine
from bisect_trt.targets.tensorrt.blame import Blame
from bisect_trt.targets.tensorrt.engine import network_outputs
from bisect_trt.targets.tensorrt.log import Log, trim
from bisect_trt.workers import jobs

pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

F = TensorProto.FLOAT
I64 = TensorProto.INT64
Value = tuple[str, int, list[int | str]]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    opset: int = 22,
    **constants: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def relu(dims: list[int | str] | None = None) -> onnx.ModelProto:
    dims = dims or [2, 3]
    return model([helper.make_node("Relu", ["x"], ["y"], "r")], [("x", F, dims)], [("y", F, dims)])


def resize(name: str, x: str, y: str) -> onnx.NodeProto:
    return helper.make_node("Resize", [x, "", "sc"], [y], name, mode="linear", antialias=1)


HALF = np.array([1, 1, 0.5, 0.5], np.float32)


def run(proto: onnx.ModelProto, folder: Path, *samples: dict[str, Any], **settings: Any) -> TargetResult:
    store = Store(folder)
    feeds = tuple({k: store.put(k, np.asarray(v)) for k, v in sample.items()} for sample in samples)
    nodes = tuple(node.name for node in proto.graph.node)
    target = registry.open_target(TargetSettings(spec="tensorrt-rtx", **settings))
    return target.run(Candidate(proto.SerializeToString(), folder, nodes, feeds))


def only_failure(result: TargetResult) -> Failure:
    (failure,) = result.failures
    assert result.outputs is None
    return failure


def test_a_fine_model_has_no_failures(tmp_path: Path) -> None:
    result = run(relu(), tmp_path)
    assert result.failures == ()
    assert result.facts["engine_bytes"] > 0


def test_where_only_the_parser_is_asked_nothing_is_built(tmp_path: Path) -> None:
    whole = Candidate(relu().SerializeToString(), tmp_path, ("relu_1",))
    parsed = replace(whole, parse_only=True)
    assert parsed.digest != whole.digest
    result = registry.open_target(TargetSettings(spec="tensorrt-rtx")).run(parsed)
    assert result.failures == () and "engine_bytes" not in result.facts


def test_resize_antialias_is_refused_by_the_parser(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], "relu_1"), resize("/up/Resize", "a", "y")]
    proto = model(nodes, [("x", F, [1, 3, 16, 16])], [("y", F, [1, 3, 8, 8])], sc=HALF)
    failure = only_failure(run(proto, tmp_path))
    assert failure.stage is Stage.PARSE and failure.symptom is Symptom.ERROR
    assert failure.signature == (
        "UNSUPPORTED_NODE_ATTR:Resize:checkResize:"
        ' (antialias == 0) && "Antialiasing is not supported currently."'
    )
    assert (failure.nodes, failure.op) == (("/up/Resize",), "Resize")
    assert ".cpp:" in failure.message


def test_two_bad_nodes_are_two_failures(tmp_path: Path) -> None:
    nodes = [
        resize("bad_1", "x", "a"),
        helper.make_node("Relu", ["a"], ["b"], "fine"),
        resize("bad_2", "b", "y"),
    ]
    proto = model(nodes, [("x", F, [1, 3, 16, 16])], [("y", F, [1, 3, 4, 4])], sc=HALF)
    failures = run(proto, tmp_path).failures
    assert [failure.nodes for failure in failures] == [("bad_1",), ("bad_2",)]
    assert failures[0].same_as(failures[1])


def test_a_node_in_a_body_is_blamed_on_the_node_that_has_the_body(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("t", F, [1, 3, 8, 8])
    then = helper.make_graph([resize("inside", "x", "t")], "b", [], [y])
    plain = helper.make_node("Resize", ["x", "", "sc"], ["t"], "inside", mode="linear")
    other = helper.make_graph([plain], "b", [], [y])
    nodes = [
        helper.make_node("Relu", ["z"], ["w"], "relu"),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other),
    ]
    proto = model(
        nodes,
        [("x", F, [1, 3, 16, 16]), ("z", F, [2]), ("c", TensorProto.BOOL, [])],
        [("y", F, [1, 3, 8, 8]), ("w", F, [2])],
        sc=HALF,
    )
    result = run(proto, tmp_path)
    failure = only_failure(result)
    assert failure.nodes == ("if",)
    assert "Resize" in failure.signature
    assert any("if" in text for text in result.facts["local_function_stack"]["0"])


def test_roialign_has_no_plugin(tmp_path: Path) -> None:
    nodes = [helper.make_node("RoiAlign", ["x", "rois", "at"], ["y"], "roi", output_height=2, output_width=2)]
    inputs: list[Value] = [("x", F, [1, 3, 16, 16]), ("rois", F, [2, 4]), ("at", I64, [2])]
    result = run(model(nodes, inputs, [("y", F, [2, 3, 2, 2])]), tmp_path)
    if gpu.find_gpu() is None:
        assert result.unresolved == "RoiAlign cannot be judged without a GPU" and not result.failures
        assert result.facts["without_gpu"] == ("roi",)


def test_scatternd_with_reduction(tmp_path: Path) -> None:
    nodes = [helper.make_node("ScatterND", ["x", "i", "u"], ["y"], "s", reduction="add")]
    inputs: list[Value] = [("x", F, [4, 4]), ("u", F, [2, 4])]
    failure = only_failure(run(model(nodes, inputs, [("y", F, [4, 4])], i=[[0], [1]]), tmp_path))
    assert failure.nodes == ("s",)
    assert failure.signature.endswith('mode == "none": ScatterND with reduction is not supported.')


def test_attention_fails_in_the_builder_which_names_the_operator_only(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["q"], ["q1"], "relu"),
        helper.make_node("Attention", ["q1", "k", "v"], ["y"], "att"),
    ]
    inputs: list[Value] = [("q", F, [1, 4, 4, 8]), ("k", F, [1, 2, 6, 8]), ("v", F, [1, 2, 6, 8])]
    failure = only_failure(run(model(nodes, inputs, [("y", F, [1, 4, 4, 8])], opset=23), tmp_path))
    assert failure.stage is Stage.BUILD
    assert "CHECK(composite_op->is_decomposable()) failed" in failure.signature
    assert failure.nodes == ("att",)


def nms(name: str, *, x: str = "s") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Relu", [x], ["s1"], "relu_9"),
        helper.make_node("NonMaxSuppression", ["b", "s1", "m", "i", "t"], ["z"], name),
        helper.make_node("Cast", ["z"], ["y"], "c", to=F),
    ]


def nms_model(name: str) -> onnx.ModelProto:
    constants = {"m": [3], "i": np.array([0.5], np.float32), "t": np.array([0], np.float32)}
    return model(nms(name), [("b", F, [1, 6, 4]), ("s", F, [1, 1, 6])], [("y", F, ["n", 3])], **constants)


@pytest.mark.parametrize("name", ["nms", "/detect/nms_3"])
def test_nonmaxsuppression_fails_in_the_builder_which_names_the_layer(name: str, tmp_path: Path) -> None:
    failure = only_failure(run(nms_model(name), tmp_path))
    assert failure.stage is Stage.BUILD
    assert (failure.nodes, failure.op) == ((name,), "NonMaxSuppression")
    assert failure.signature.startswith("NonMaxSuppression: [tacticSupply.cpp::getSupportedFormats::<line>]")
    assert "<name> has no runners" in failure.signature


def test_one_cause_has_one_signature_in_two_models(tmp_path: Path) -> None:
    short, long = (only_failure(run(nms_model(name), tmp_path)) for name in ("nms", "/detect/nms_3"))
    assert short.same_as(long) and short.message != long.message


def test_a_refused_input_type_belongs_to_no_node(tmp_path: Path) -> None:
    dims: list[int | str] = [2]
    u32 = TensorProto.UINT32
    proto = model([helper.make_node("Relu", ["x"], ["y"], "r")], [("x", u32, dims)], [("y", u32, dims)])
    failure = only_failure(run(proto, tmp_path))
    assert failure.nodes == () and "importInput" in failure.signature


def test_bytes_that_are_no_model_are_a_parse_failure(tmp_path: Path) -> None:
    target = registry.open_target(TargetSettings(spec="tensorrt-rtx"))
    failure = only_failure(target.run(Candidate(b"\xff\xff\xff", tmp_path, ())))
    assert failure.stage is Stage.PARSE


def test_external_data_lies_in_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    weight = np.ones((64, 64), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")]
    proto = model(nodes, [("x", F, [2, 64])], [("y", F, [2, 64])])
    proto.graph.initializer.append(store.tensor("w", store.put("w", weight), F, weight.shape))
    assert proto.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert run(proto, tmp_path).failures == ()
    (tmp_path / "t000000.npy").unlink()
    assert only_failure(run(proto, tmp_path)).stage is Stage.PARSE


DYNAMIC: list[int | str] = ["n", 3]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shapes": (("x", (4, 3)),)},
        {"min_shapes": (("x", (1, 3)),), "opt_shapes": (("x", (2, 3)),), "max_shapes": (("x", (9, 3)),)},
        {"opt_shapes": (("x", (2, 3)),)},
        {"shapes": (("gone", (4, 4, 4)),)},  # an input that this cut does not have
    ],
)
def test_dynamic_inputs_get_a_profile(settings: dict[str, Any], tmp_path: Path) -> None:
    assert run(relu(DYNAMIC), tmp_path, **settings).failures == ()


def test_a_profile_covers_all_samples(tmp_path: Path) -> None:
    """Reshape to 6 needs 2x3: the default profile of 1x3 fails, the shape of a sample does not."""
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"], "reshape")]
    proto = model(nodes, [("x", F, ["n", 3])], [("y", F, [6])], to=[6])
    assert only_failure(run(proto, tmp_path)).stage is Stage.BUILD
    assert run(proto, tmp_path, {"x": np.ones((2, 3), np.float32)}).failures == ()
    both = run(proto, tmp_path, {"x": np.ones((2, 3), np.float32)}, {"x": np.ones((7, 3), np.float32)})
    assert "Profile kMAX values" in both.log  # TensorRT only warns of a maximum that does not fit


def test_shape_tensors_get_the_fed_values(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"], "reshape")]
    proto = model(nodes, [("x", F, [2, 3]), ("to", I64, [2])], [("y", F, ["a", "b"])])
    assert run(proto, tmp_path, {"x": np.ones((2, 3), np.float32), "to": np.array([3, 2])}).failures == ()
    wrong = run(proto, tmp_path, {"x": np.ones((2, 3), np.float32), "to": np.array([3, 3])})
    assert only_failure(wrong).nodes == ("reshape",)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shapes": (("x", (4, 3, 1)),)}, "shape 4x3x1 does not fit input x, which is -1x3"),
        ({"shapes": (("x", (4, 5)),)}, "does not fit input x"),
        ({"min_shapes": (("x", (9, 3)),), "max_shapes": (("x", (2, 3)),)}, "not in ascending order"),
        ({"opt_level": 99}, "--opt-level 99"),
        ({"plugins": (Path("gone/libplugin.so"),)}, "--plugins gone/libplugin.so"),
        ({"verbose_log": Path("gone/log.txt")}, "--verbose-log gone/log.txt"),
    ],
)
def test_options_that_cannot_be_followed(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        run(relu(DYNAMIC), tmp_path, **settings)
    assert says in error.value.message and "\n" not in error.value.message
    assert error.value.hint


def test_a_file_that_is_no_library_is_no_plugin(tmp_path: Path) -> None:
    library = tmp_path / "plugin.so"
    library.write_text("no ELF")
    with pytest.raises(UsageError, match=r"plugin\.so"):
        run(relu(), tmp_path, plugins=(library,))


def test_builder_options_are_taken(tmp_path: Path) -> None:
    assert run(relu(), tmp_path, workspace=2**28, opt_level=1, tf32=False).failures == ()
    assert run(relu(), tmp_path, tf32=True).failures == ()


def test_options_arrive_in_the_config(tmp_path: Path) -> None:
    from bisect_trt.targets.tensorrt.config import make_config

    trt = backend.import_tensorrt("tensorrt-rtx")
    target = backend.TensorRT(TargetSettings(spec="tensorrt-rtx"))
    builder = trt.Builder(target._logger)
    network = builder.create_network(0)
    candidate = Candidate(b"", tmp_path, ())
    for tf32 in (True, False):
        settings = TargetSettings(workspace=2**28, opt_level=1, tf32=tf32)
        config = make_config(trt, builder, network, settings, candidate, Log())
        assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 2**28
        assert config.builder_optimization_level == 1
        assert config.get_flag(trt.BuilderFlag.TF32) is tf32


def test_the_verbose_log_has_what_the_result_leaves_out(tmp_path: Path) -> None:
    log = tmp_path / "verbose.txt"
    result = run(nms_model("nms"), tmp_path, verbose_log=log)
    first = log.read_text()
    assert "[VERBOSE]" in first and "has no runners" in first
    assert "[VERBOSE]" not in result.log and "has no runners" in result.log
    run(relu(), tmp_path, verbose_log=log)
    assert log.read_text().startswith(first)  # appended
    assert "has no runners" not in run(relu(), tmp_path).log  # of this probe only
    size = log.stat().st_size
    run(relu(), tmp_path)
    assert log.stat().st_size == size  # closed


def test_a_worker_that_dies_has_said_what_tensorrt_did(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for worker in ("", "/x/worker-0"):
        monkeypatch.setenv("BISECT_TRT_WORKER", worker)
        Log().add("WARNING", f"seen by {worker}")
        Log().add("VERBOSE", "not this")
    assert capfd.readouterr().err == "[WARNING] seen by /x/worker-0\n"


def test_the_timing_cache_is_a_no_op_in_rtx_and_says_so(tmp_path: Path) -> None:
    cache = tmp_path / "mine.cache"
    assert run(relu(), tmp_path, timing_cache=cache).failures == ()
    settings = TargetSettings(spec="tensorrt-rtx", timing_cache=cache)
    assert any("--timing-cache" in note for note in registry.open_target(settings).info().notes)
    assert not list(tmp_path.glob("*.part"))
    cache.write_bytes(b"surely no timing cache" * 9)
    with pytest.raises(UsageError, match="no timing cache"):
        run(relu(), tmp_path, timing_cache=cache)
    assert cache.read_bytes().startswith(b"surely")


def test_many_targets_in_one_process_share_a_logger(tmp_path: Path) -> None:
    """The plugin registry keeps the first logger: with one a target, this ended in SIGSEGV."""
    nodes = [helper.make_node("RoiAlign", ["x", "rois", "at"], ["y"], "roi")]
    inputs: list[Value] = [("x", F, [1, 3, 16, 16]), ("rois", F, [2, 4]), ("at", I64, [2])]
    proto = model(nodes, inputs, [("y", F, [2, 3, 1, 1])])
    targets = [backend.TensorRT(TargetSettings(spec="tensorrt-rtx")) for _ in range(2)]
    assert targets[0]._logger is targets[1]._logger
    seen = {run(proto, tmp_path).unresolved for _ in range(5)}
    assert len(seen) == 1


def test_info_on_this_machine() -> None:
    target = backend.TensorRT(TargetSettings(spec="tensorrt-rtx"))
    info = target.info()
    assert info.name == "tensorrt-rtx" and info.title.startswith("TensorRT-RTX 1.")
    assert info.versions["tensorrt-rtx"] == info.title.split()[1]
    if target._gpu is None:
        assert not info.can_run
        assert info.notes == ("No GPU here: engines are built but not run, outputs are not compared.",)


@pytest.mark.parametrize(
    ("capability", "can_run"),
    [((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), False), ((10, 0), False), ((12, 1), True)],
)
def test_rtx_runs_on_some_gpus_only(capability: tuple[int, int], can_run: bool) -> None:
    target = backend.TensorRT(TargetSettings(spec="tensorrt-rtx"))
    asked = backend.TensorRT(TargetSettings(spec="tensorrt-rtx", build_only=True))
    target._gpu = asked._gpu = Gpu("H-like", capability, "13.0", "580.1")
    if can_run:
        info = target.info()
        assert info.can_run and not info.notes
        assert info.versions["driver"] == "580.1"
    else:
        number = ".".join(map(str, capability))
        with pytest.raises(TargetUnavailable, match=rf"compute capability {number}") as error:
            target.info()
        assert "--build-only" in error.value.hint
    info = asked.info()
    assert not info.can_run and any("--build-only: engines are built but not run" in n for n in info.notes)
    assert any("H-like" in note for note in info.notes) is not can_run


def test_an_engine_that_does_not_load_is_a_failure_of_loading(tmp_path: Path) -> None:
    target = backend.TensorRT(TargetSettings(spec="tensorrt-rtx"))
    if target._gpu is not None:
        pytest.skip("this machine has a GPU")
    target._gpu = Gpu("none really", (12, 0), "13.0", "")
    failure = only_failure(target.run(Candidate(relu().SerializeToString(), tmp_path, ("r",))))
    assert failure.stage is Stage.LOAD and failure.message


def test_arrays_go_in_with_the_types_of_the_engine() -> None:
    trt = backend.import_tensorrt("tensorrt-rtx")
    kinds = {"i": trt.int32, "f": trt.float32, "b": trt.bfloat16, "l": trt.int64}
    engine = SimpleNamespace(get_tensor_dtype=kinds.__getitem__)
    bf16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    feeds = {
        "i": np.array([7, -1]),
        "f": np.array(0.5),
        "b": np.ones((2, 2), bf16).T,
        "l": np.broadcast_to(np.array([3]), (4,)),
    }
    taken = for_engine(trt, engine, feeds)
    assert {k: v.dtype.name for k, v in taken.items()} == {
        "i": "int32", "f": "float32", "b": "uint16", "l": "int64"
    }  # fmt: skip
    assert all(taken[k].shape == feeds[k].shape and taken[k].flags.c_contiguous for k in feeds)
    assert taken["i"].tolist() == [7, -1]


@pytest.mark.parametrize("order", ["=", ">"])
def test_numpys_own_types_are_no_bits_to_an_engine(order: Any) -> None:
    """`newbyteorder` gives types that equal numpy's own but say that they are none of these."""
    trt = backend.import_tensorrt("tensorrt-rtx")
    engine = SimpleNamespace(get_tensor_dtype={"h": trt.float16, "f": trt.float32}.__getitem__)
    feeds = {
        "h": np.array([1.5, -2]).astype(np.dtype(np.float16).newbyteorder(order)),
        "f": np.array([0.5]).astype(np.dtype(np.float64).newbyteorder(order)),
    }
    taken = for_engine(trt, engine, feeds)
    assert taken["h"].dtype == np.float16 and taken["h"].tobytes() == np.float16([1.5, -2]).tobytes()
    assert taken["f"].dtype == np.float32 and taken["f"].tobytes() == np.float32([0.5]).tobytes()


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN", "INT4"])
def test_outputs_that_numpy_has_no_type_for(kind: str) -> None:
    elem_type = TensorProto.DataType.Value(kind)
    values = np.array([[1, 2, 3], [4, 5, 6]]).astype(helper.tensor_dtype_to_np_dtype(elem_type))
    raw = np.frombuffer(numpy_helper.from_array(values).raw_data, np.uint8)
    array = from_engine(SimpleNamespace(array=raw, shape=(2, 3)), elem_type)
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array, values)


def test_outputs_have_the_declared_type_and_are_copies() -> None:
    given = np.array([1, 2], np.int32)  # what TensorRT 8 makes of int64
    array = from_engine(given, I64)
    assert array.dtype == np.int64
    same = from_engine(given, TensorProto.INT32)
    given[0] = 9
    assert same[0] == 1


def _run_broken(folder: Path) -> None:
    os.environ[WORKER] = str(folder / "worker-0")
    gpu.spoil()
    jobs.opened(TargetSettings(spec="planted:op=Example"))


def test_a_process_with_a_cuda_error_is_not_used_again(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_run_broken, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("message", "spoils"),
    [
        ("[defaultAllocator.cpp::deallocate::85] Error Code 1: Cuda Runtime (illegal access)", True),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h", True),
        ("Non-zero status code returned: CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED", True),
        ("[tacticSupply.cpp::getSupportedFormats::48] Error Code 2: Internal Error (no format)", False),
        ("CUDAExecutionProvider does not take RoiAlign (roi)", False),
    ],
)
def test_errors_of_the_context_are_told_from_others(message: str, spoils: bool) -> None:
    assert gpu.spoils(message) is spoils


@pytest.mark.gpu
def test_outputs_come_from_the_gpu(tmp_path: Path) -> None:
    target = registry.open_target(TargetSettings(spec="tensorrt-rtx"))
    try:
        why = "" if target.info().can_run else "no GPU here"
    except TargetUnavailable as error:
        why = error.message
    if why:
        pytest.skip(why)
    x = np.array([[-1, 0, 1], [2, -3, 4]], np.float32)
    result = run(relu(), tmp_path, {"x": x}, {"x": x + 1})
    assert result.outputs is not None
    np.testing.assert_array_equal(result.outputs[0]["y"], np.maximum(x, 0))
    np.testing.assert_array_equal(result.outputs[1]["y"], np.maximum(x + 1, 0))


def test_a_missing_module_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TargetUnavailable) as error:
        backend.import_tensorrt("tensorrt")
    assert INSTALL["tensorrt"] in error.value.hint
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4"))  # a stub
    with pytest.raises(TargetUnavailable):
        backend.import_tensorrt("tensorrt")


def test_the_parent_loads_nothing_heavy() -> None:
    code = (
        "import sys; from bisect_trt.targets import registry; registry.resolve('planted:op=A');"
        "sys.exit(bool({'tensorrt', 'tensorrt_rtx', 'onnxruntime', 'polygraphy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# What TensorRT says of larger engines, and old versions of it.


def chain() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "/n0"),
        helper.make_node("Relu", ["a"], ["b"], "/n1"),
        helper.make_node("Relu", ["b"], ["c_1"], "n2"),
        helper.make_node("Relu", ["c_1"], ["y"], "relu"),
    ]
    return model(nodes, [("x", F, [2])], [("y", F, [2])])


@pytest.mark.parametrize(
    ("message", "nodes"),
    [
        (
            "Could not find any implementation for node {ForeignNode[/n1...node_of_y]}.)",
            ("/n1", "n2", "relu"),
        ),
        ("Could not find any implementation for node {ForeignNode[/n1.../n1]}.)", ("/n1",)),
        ("Could not find any implementation for node {ForeignNode[relu]}.)", ("relu",)),
        ("Could not find any implementation for node /n0 + relu.)", ("/n0", "relu")),
        ("Internal Error (node_of_c_1: bad)", ("n2",)),
        ("Internal Error (IShuffleLayer /n0_3: bad)", ("/n0",)),
        ("Internal Error (Network input x is a shape tensor)", ("/n0",)),
        ("says nothing of use, y included", ()),
        ("Relu operation was not supported", ("/n0", "/n1", "n2", "relu")),
        ("layer '/n1' is bad, and so is n2.", ("/n1", "n2")),
    ],
)
def test_which_nodes_a_builder_message_names(message: str, nodes: tuple[str, ...]) -> None:
    assert Blame(chain()).nodes_in(message) == nodes


class OldCode:
    """As in 8.6, where `name` is a method."""

    def name(self) -> bytes:
        return b""

    def __str__(self) -> str:
        return "ErrorCode.UNSUPPORTED_NODE"


def test_parser_errors_of_old_versions_lack_details() -> None:
    old = SimpleNamespace(code=OldCode, desc=lambda: "no", node=lambda: 2)
    failure = trt_failures.parse_failure(old, Blame(chain()), "TensorRT")
    assert failure.signature == "UNSUPPORTED_NODE::: no"
    assert (failure.nodes, failure.op, failure.message) == (("n2",), "Relu", "no")


def test_an_operator_that_the_parser_lacks_is_said_to_be_lacking() -> None:
    error = SimpleNamespace(
        code=lambda: SimpleNamespace(name="UNSUPPORTED_NODE"),
        desc=lambda: "false",
        node=lambda: 2,
        node_operator=lambda: "Col2Im",
        func=lambda: "checkCol2Im",
    )
    failure = trt_failures.parse_failure(error, Blame(chain()), "TensorRT-RTX")
    assert failure.message == "TensorRT-RTX has no Col2Im (checkCol2Im)\n: checkCol2Im"
    assert failure.signature == "UNSUPPORTED_NODE:Col2Im:checkCol2Im: false"


@pytest.mark.parametrize(
    "message",
    [
        "[a.cpp::b::1] Error Code 2: OutOfMemory (Requested size was 52428800 bytes.)",
        "Requested amount of GPU memory (4294967296 bytes) could not be allocated.",
        "Cuda Runtime (out of memory)",
        "std::bad_alloc",
        "Could not find any implementation for node n2 due to insufficient workspace.",
    ],
)
def test_memory_is_a_symptom_of_its_own(message: str) -> None:
    assert trt_failures.symptom(message) is Symptom.OUT_OF_MEMORY


def test_complaints_about_the_missing_driver_hide_nothing() -> None:
    driver = "[x] Error Code 1: Cuda Runtime (In f at /a.cpp:2)"
    seen = trt_failures.first_that_matters
    assert "asks for a GPU" in seen([driver], "", here=False)
    assert seen([driver, "the cause"], "", here=False) == "the cause"
    assert seen([driver, "the cause"], "", here=True) == driver
    assert seen([], "silent", here=False) == "silent"


def test_a_long_log_keeps_head_and_tail() -> None:
    text = trim(f"line {i} " + "x" * 90 for i in range(5000))
    assert len(text) < 66_000
    assert text.startswith("line 0 ") and "line 4999 " in text
    assert "messages left out" in text
    assert trim(["a", "b"]) == "a\nb"


def test_a_line_that_is_longer_than_the_log_may_be_is_cut_and_not_lost() -> None:
    assert trim(["x" * 70_000]).startswith("x" * 10_000)
    two = trim(["x" * 70_000, "the end"])
    assert two.startswith("x" * 10_000) and two.endswith(" ...\nthe end")
    many = trim(["first", *["x" * 40_000] * 9, "the end"])
    assert len(many) < 66_000 and many.startswith("first\nxxx") and many.endswith(" ...\nthe end")
    assert "-1 messages" not in many and "messages left out" in many


def test_a_shape_that_tensorrt_cannot_tell_is_not_known() -> None:
    """Its Python package raises RuntimeError for outputs of a network that did not parse to the end."""

    class Untold:
        name, dtype = "y", SimpleNamespace(name="UINT8")

        @property
        def shape(self) -> tuple[int, ...]:
            raise RuntimeError("Could not get tensor shape.")

    network = SimpleNamespace(num_outputs=1, get_output=lambda index: Untold())
    assert network_outputs(network) == [("y", "UINT8", None)]
