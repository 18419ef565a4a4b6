"""Models that ONNX Runtime cannot run, or not past some node, are reduced all the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from making import ANTIALIAS, INT64, SCALES, bad_resize, chain, const, graph, model, node, reduced, value
from onnx import TensorProto

from bisect_trt.errors import UsageError

TAIL = ["Relu", "Sigmoid", "Abs", "Neg"]
BF16 = TensorProto.BFLOAT16


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """An empty library, to stand for one with plugins."""
    source = tmp_path / "empty.c"
    source.write_text("int bisect_trt_test_plugin;\n")
    subprocess.run(["cc", "-shared", "-o", tmp_path / "plugin.so", source], check=True)
    return tmp_path / "plugin.so"


def around(
    middle: list[onnx.NodeProto], last: str, *inputs: onnx.ValueInfoProto, **options: object
) -> onnx.ModelProto:
    """x -> ... -> middle -> ... -> the failing Resize -> y."""
    head, _ = chain("h", "x", ["Relu", "Sigmoid"])
    tail, y = chain("t", last, TAIL)
    nodes = [*head, *middle, *tail, bad_resize(y, "z"), node("Relu", "z", "y", "last")]
    weights = [SCALES, const("sc", 0.1), const("tab", np.ones((3, 1))), const("big", 99, np.int64)]
    kind = TensorProto.DataType.Value(str(options.pop("kind", "FLOAT")))
    given = [value("x", kind=kind), *inputs]
    return model(graph(nodes, given, [value("y", (1, 2, 4, 4), kind)], weights), **options)  # type: ignore[arg-type]


def ops(folder: Path) -> list[str]:
    return [n.op_type for n in onnx.load(folder / "out" / "repro.onnx").graph.node]


def test_an_operator_that_only_the_target_knows(tmp_path: Path, library: Path) -> None:
    """ONNX Runtime has no TRT_FP8QuantizeLinear and ONNX no schema: types behind it are guessed."""
    there = node("TRT_FP8QuantizeLinear", "h1 sc", "q", "q", domain="trt")
    back = node("TRT_FP8DequantizeLinear", "q sc", "mid", "dq", domain="trt")
    result = reduced(around([there, back], "mid", trt=1), tmp_path, plugins=(library,))
    assert ops(tmp_path) == ["Resize"] and ANTIALIAS in result.wanted.message
    assert result.verified == 1
    assert result.notes[0].startswith("The reference cannot run the whole model")  # before all else


def test_a_plugin_that_is_missing(tmp_path: Path, library: Path) -> None:
    made = around([node("Frob", "h1", "mid", "frob", domain="my.plugin")], "mid", my_plugin=1)
    result = reduced(made, tmp_path, plugins=(library,))
    assert ops(tmp_path) == ["Frob"] and "Plugin not found" in result.wanted.message
    assert result.verified == 1


def test_a_plugin_of_tensorrt_needs_no_library(tmp_path: Path) -> None:
    """TensorRT-RTX has none of them: its own words come out, not a refusal of ours."""
    result = reduced(around([node("InstanceNormalization_TRT", "h1 sc sc", "mid", "norm")], "mid"), tmp_path)
    assert ops(tmp_path) == ["InstanceNormalization_TRT"] and "Plugin not found" in result.wanted.message
    assert result.verified == 1


def test_an_unknown_operator_without_plugins_is_one_clear_line(tmp_path: Path) -> None:
    made = around([node("Frob", "h1", "mid", "frob", domain="my.plugin")], "mid", my_plugin=1)
    with pytest.raises(UsageError, match="Frob") as caught:
        reduced(made, tmp_path)
    assert "--plugins" in caught.value.hint


def test_an_error_that_depends_on_data_before_the_culprit(tmp_path: Path) -> None:
    """ONNX Runtime runs into an index out of bounds: all behind it has inferred shapes."""
    middle = [node("ArgMax", "tab", "some", "argmax", axis=0), node("Add", "some big", "far", "far")]
    middle += [node("Gather", "tab far", "g", "gather"), node("ReduceSum", "g", "s", "s", keepdims=0)]
    middle += [node("Add", "h1 s", "mid", "add")]
    result = reduced(around(middle, "mid"), tmp_path)
    assert ops(tmp_path) == ["Resize"] and result.verified == 1
    assert any("out of" in note for note in result.notes)


def test_a_type_that_onnx_runtime_has_no_kernels_for(tmp_path: Path) -> None:
    result = reduced(around([node("Add", "h1 h1", "mid", "add")], "mid", kind="BFLOAT16"), tmp_path)
    assert ops(tmp_path) == ["Resize"] and result.verified == 1
    made = onnx.load(tmp_path / "out" / "repro.onnx")
    assert made.graph.input[0].type.tensor_type.elem_type in (BF16, TensorProto.FLOAT)


def test_a_build_failure_behind_what_cannot_run(tmp_path: Path, library: Path) -> None:
    there = node("TRT_FP8QuantizeLinear", "h1 sc", "q", "q", domain="trt")
    back = node("TRT_FP8DequantizeLinear", "q sc", "mid", "dq", domain="trt")
    shaped = [node("Reshape", "mid boxes_shape", "boxes", "rb")]
    shaped.append(node("Reshape", "mid scores_shape", "scores", "rs"))
    nms = node("NonMaxSuppression", "boxes scores most", "picked", "nms")
    head, _ = chain("h", "x", ["Relu", "Sigmoid"])
    weights = [const("sc", 0.1), const("boxes_shape", [1, 32, 4], np.int64), const("most", [5], np.int64)]
    weights.append(const("scores_shape", [1, 4, 32], np.int64))
    nodes = [*head, there, back, *shaped, nms, node("Identity", "picked", "y", "last")]
    made = model(graph(nodes, [value("x")], [value("y", None, INT64)], weights), trt=1)
    result = reduced(made, tmp_path, plugins=(library,))
    assert result.wanted.stage == "build" and ops(tmp_path) == ["NonMaxSuppression"]
    assert result.verified == 1
