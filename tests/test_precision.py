"""Models in float16 and bfloat16 by casts: valid, equal up to rounding, really narrow for real builders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bisect_trt
from bisect_trt import options
from bisect_trt.errors import UsageError
from bisect_trt.model import precision
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.precision import narrowed
from bisect_trt.outcome import Stage
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from support import LIGHT, model, random_feeds, run, tensor_type

F16, BF16 = TensorProto.FLOAT16, TensorProto.BFLOAT16


def narrow(proto: onnx.ModelProto, folder: Path, kind: str = "fp16") -> onnx.ModelProto:
    made = onnx.load_model_from_string(narrowed(proto.SerializeToString(), folder, kind, folder).model)
    onnx.checker.check_model(made, full_check=True)
    return made


def types(proto: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(proto).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return found | {t.name: t.data_type for t in graph.initializer}


def assert_same(proto: onnx.ModelProto, folder: Path, tolerance: float = 0.02) -> onnx.ModelProto:
    """The same up to the rounding of float16, in ONNX Runtime."""
    made = narrow(proto, folder)
    weights = {tensor.name for tensor in proto.graph.initializer}  # old models name them as inputs, too
    feeds = {name: value for name, value in random_feeds(proto, 3).items() if name not in weights}
    for name, value in run(proto.SerializeToString(), folder, feeds).items():
        other = run(made.SerializeToString(), folder, feeds)[name]
        assert other.dtype == value.dtype and other.shape == value.shape
        scale = np.sqrt(np.mean(np.square(value.astype(np.float64)))) if value.size else 0
        np.testing.assert_allclose(other, value, rtol=tolerance, atol=tolerance * scale)
    return made


def small() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Shape", ["a"], ["s"], "shape"),
        helper.make_node("Cast", ["s"], ["sf"], "to float", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sf", "two"], ["t"], "twice"),
        helper.make_node("Cast", ["t"], ["ti"], "to int", to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["ti"], ["c"], "fill"),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], "resize"),
        helper.make_node("Add", ["b", "c"], ["y"], "add"),
    ]
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "two"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
    ]
    return model(
        nodes, [tensor_type("x", [1, 3, 8, 8])], [tensor_type("y", [1, 4, 12, 12])], weights, opset=18
    )


def test_arithmetic_is_narrow_and_shapes_are_not(tmp_path: Path) -> None:
    made = assert_same(small(), tmp_path)
    found = types(made)
    assert found["x"] == found["y"] == TensorProto.FLOAT
    assert found["a__fp16"] == found["c__fp16"] == found["b__fp16"] == found["w__fp16"] == F16
    assert found["sf"] == found["t"] == found["two"] == found["scales"] == TensorProto.FLOAT
    assert "w" not in found and "a" not in found
    assert {n.name for n in small().graph.node} <= {n.name for n in made.graph.node}


def test_a_float_input_that_becomes_a_shape_stays(tmp_path: Path) -> None:
    """2049 has no place in float16."""
    nodes = [
        helper.make_node("Floor", ["f"], ["g"], "floor"),
        helper.make_node("Cast", ["g"], ["i"], "cast", to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "i"], ["r"], "reshape"),
        helper.make_node("Relu", ["r"], ["y"], "relu"),
    ]
    inputs = [tensor_type("f", [1]), tensor_type("x", [2049, 1])]
    made = narrow(model(nodes, inputs, [tensor_type("y", ["n"])]), tmp_path)
    feeds = {"f": np.array([2049.5], np.float32), "x": np.ones((2049, 1), np.float32)}
    assert run(made.SerializeToString(), tmp_path, feeds)["y"].shape == (2049,)
    assert "g__fp16" not in types(made)


def test_bodies_keep_their_types_and_what_they_capture(tmp_path: Path) -> None:
    def body(op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["a"], ["o"], op)  # captures a
        return helper.make_graph([node], op, [], [tensor_type("o", [2])])

    branches: dict[str, Any] = {"then_branch": body("Neg"), "else_branch": body("Abs")}
    nodes = [
        helper.make_node("Exp", ["x"], ["a"], "exp"),
        helper.make_node("If", ["c"], ["b"], "if", **branches),
        helper.make_node("Mul", ["a", "b"], ["y"], "mul"),
    ]
    inputs = [tensor_type("x", [2]), tensor_type("c", [], TensorProto.BOOL)]
    proto = model(nodes, inputs, [tensor_type("y", [2])])
    found = types(assert_same(proto, tmp_path))
    assert found["a"] == found["b"] == TensorProto.FLOAT and found["a__fp16"] == F16


def test_weights_out_of_range_are_the_largest_value_and_counted(tmp_path: Path) -> None:
    weight = np.array([1e6, -1e38, np.inf, 3], np.float32)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], "add")]
    proto = model(
        nodes, [tensor_type("x", [4])], [tensor_type("y", [4])], [numpy_helper.from_array(weight, "w")]
    )
    made = narrowed(proto.SerializeToString(), tmp_path, "fp16", tmp_path)
    assert made.facts() == {"narrow_nodes": 1, "float32_nodes": {}, "clamped_weights": 2}
    (tensor,) = onnx.load_model_from_string(made.model).graph.initializer
    assert numpy_helper.to_array(tensor).tolist() == [65504, -65504, np.inf, 3]
    wide = narrowed(proto.SerializeToString(), tmp_path, "bf16", tmp_path)
    assert wide.clamped == 0


def test_names_that_are_taken(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["x__fp16"], "a"),
        helper.make_node("Exp", ["x__fp16"], ["y"], "b"),
    ]
    assert_same(model(nodes, [tensor_type("x", [3])], [tensor_type("y", [3])]), tmp_path)


def test_weights_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "scratch").mkdir()
    proto = small()
    expected = narrow(proto, tmp_path)
    onnx.save_model(
        proto, tmp_path / "in/m.onnx", save_as_external_data=True, location="w.bin", size_threshold=100
    )
    data = (tmp_path / "in/m.onnx").read_bytes()
    inline = narrowed(data, tmp_path / "in", "fp16", tmp_path / "scratch")
    assert inline.folder == tmp_path / "in"
    assert onnx.load_model_from_string(inline.model).graph.initializer == expected.graph.initializer
    monkeypatch.setattr(precision, "EMBED_LIMIT", 10)
    for _ in range(2):  # the file is written anew
        beside = narrowed(data, tmp_path / "in", "fp16", tmp_path / "scratch")
    assert beside.folder == tmp_path / "scratch"
    feeds = random_feeds(proto, 0)
    one = run(beside.model, beside.folder, feeds)["y"]
    np.testing.assert_array_equal(one, run(expected.SerializeToString(), tmp_path, feeds)["y"])


def test_real_models(tmp_path: Path, models_dir: Path) -> None:
    """Whose values fit in float16: those of squeezenet and resnet50 with these weights grow beyond it."""
    assert_same(onnx.load(LIGHT / "light_shufflenet.onnx"), tmp_path, tolerance=0.05)
    assert_same(onnx.load(models_dir / "ok.onnx"), tmp_path, tolerance=0.05)


def test_types_that_are_no_tensors_are_no_obstacle(tmp_path: Path, models_dir: Path) -> None:
    """A branch gives an optional, of which onnx-graphsurgeon knows nothing."""
    narrow(onnx.load(models_dir / "found/optional-test-if-opt.onnx"), tmp_path)


@pytest.mark.parametrize(("kind", "type_name"), [("fp16", "HALF"), ("bf16", "BF16")])
@pytest.mark.parametrize("name", ["squeezenet", "resnet50"])
def test_the_real_builder_takes_them(name: str, kind: str, type_name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    from bisect_trt.outcome import Built
    from bisect_trt.targets import registry
    from bisect_trt.targets.tensorrt.engine import built_words

    source = (LIGHT / f"light_{name}.onnx").read_bytes()
    target = registry.open_target(TargetSettings(spec="tensorrt-rtx", precision=kind, build_only=True))
    result = target.run(Candidate(source, tmp_path, (), form=Form.ORIGINAL))
    assert not result.failures and not result.unresolved
    told = Built.from_json({k: v for k, v in result.facts.items() if k != "network_outputs"})
    seen = told.network_types
    assert seen[type_name] > 150 and seen.get("FLOAT", 0) <= 1  # the Cast back at the output
    assert result.facts["cast"]["float32_nodes"] == {}
    assert f"types of the network: {type_name}" in built_words(told)
    assert any("casts" in note for note in target.info().notes)


def test_a_model_without_float32_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    from bisect_trt.targets import registry

    nodes = [helper.make_node("Not", ["x"], ["y"], "not")]
    kinds = [tensor_type("x", [2], TensorProto.BOOL)], [tensor_type("y", [2], TensorProto.BOOL)]
    data = model(nodes, *kinds).SerializeToString()
    target = registry.open_target(TargetSettings(spec="tensorrt-rtx", precision="fp16", build_only=True))
    with pytest.raises(UsageError, match="nothing in this model computes in float32"):
        target.run(Candidate(data, tmp_path, ("not",), form=Form.ORIGINAL))
    assert not target.run(Candidate(data, tmp_path, ("not",))).failures  # a part of a model may have none


def grows(tmp_path: Path) -> Path:
    """Eight layers that float16 holds, and a weight that it does not."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal((16, 16)) / 4).astype(np.float32), f"w{k}")
        for k in range(8)
    ]
    nodes = [helper.make_node("MatMul", [f"t{k}", f"w{k}"], [f"t{k + 1}"], f"mm{k}") for k in range(8)]
    weights += [numpy_helper.from_array(np.float32(v), n) for v, n in ((90000, "big"), (1e-5, "small"))]
    nodes += [
        helper.make_node("Mul", ["t8", "big"], ["b"], "grow"),
        helper.make_node("Mul", ["b", "small"], ["y"], "back"),
    ]
    made = model(nodes, [tensor_type("t0", [4, 16])], [tensor_type("y", [4, 16])], weights)
    onnx.save_model(made, tmp_path / "grows.onnx")
    return tmp_path / "grows.onnx"


def test_a_provider_of_onnx_runtime_gets_casts_and_the_script_too(tmp_path: Path) -> None:
    target = TargetSettings(spec="ort:CPU", precision="fp16")
    settings = Settings(target, RunSettings(repeats=1))
    found = bisect_trt.reduce(grows(tmp_path), settings, out=tmp_path / "out")
    assert found.wanted.stage is Stage.COMPARE
    assert found.nodes == ("grow",) and found.verified == 1
    assert any("1 values of weights beyond its range" in note for note in found.notes)
    script = subprocess.run(
        [sys.executable, tmp_path / "out/repro.py"], capture_output=True, text=True, check=False
    )
    assert script.returncode == 1, script.stdout
    report = (tmp_path / "out/ISSUE.md").read_text()
    assert "polygraphy run repro-fp16.onnx --onnxrt --providers CPUExecutionProvider" in report


def test_the_script_knows_the_words_of_onnx_runtime(tmp_path: Path) -> None:
    """It has no bfloat16 MatMul on the CPU; its message begins `[ONNXRuntimeError] : 9 : CODE : `."""
    settings = Settings(TargetSettings(spec="ort:CPU", precision="bf16"), RunSettings(repeats=1))
    bisect_trt.reduce(grows(tmp_path), settings, out=tmp_path / "out")
    script = subprocess.run(
        [sys.executable, tmp_path / "out/repro.py"], capture_output=True, text=True, check=False
    )
    assert script.returncode == 1 and "NOT_IMPLEMENTED" in script.stdout


@pytest.mark.parametrize("spec", ["emulate:fp16", "planted:op=Relu", "command:true"])
def test_a_precision_is_never_ignored(spec: str, models_dir: Path) -> None:
    settings = Settings(TargetSettings(spec=spec, precision="fp16"))
    with pytest.raises(UsageError, match="--precision is for TensorRT and ort: targets"):
        bisect_trt.check(models_dir / "ok.onnx", settings)


def test_options() -> None:
    assert options.settings({"precision": "bf16"}).target.precision == "bf16"
    with pytest.raises(UsageError, match="--precision 'fp8'"):
        options.settings({"precision": "fp8"})
    run = options.settings({"devices": "0, 1"}).run
    assert (run.devices, run.workers) == (("0", "1"), 2)
    assert options.settings({"workers": "3"}).run.workers == 3
    for text, workers in (("0,,1", "1"), ("0,0", "1"), ("0", "2"), ("", "1")):
        with pytest.raises(UsageError):
            options.settings({"devices": text, "workers": workers})


def test_reduce_writes_both_models_and_the_script_says_which(tmp_path: Path, models_dir: Path) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    options = ["reduce", str(models_dir / "nms.onnx"), "--precision", "bf16", "--repeats", "1"]
    options += ["--out", str(tmp_path / "out"), "--no-simplify"]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert "--precision" in report["arguments"]
    assert report["built"]["network_types"]
    assert {"repro.onnx", "repro-bf16.onnx"} <= {f.name for f in (tmp_path / "out").iterdir()}
    script = subprocess.run(
        [sys.executable, tmp_path / "out/repro.py"], capture_output=True, text=True, check=False
    )
    assert script.returncode == 1 and "Precision bf16: casts in repro-bf16.onnx" in script.stdout
