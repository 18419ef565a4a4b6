"""Which nodes must stay in FP32: the models that are written are judged by an emulation of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bisect_trt
import precision_models as models
import precision_models_more
from bisect_trt.cli.app import main
from bisect_trt.mixed_precision.handover import layer_names
from bisect_trt.mixed_precision.quantise import quantisable
from bisect_trt.model.store import point_to
from bisect_trt.settings import AccuracySettings, RunSettings, Settings
from bisect_trt.targets.roles import flat, roles

RTOL, ATOL = 1e-2, 1e-3
TOLERANCES = AccuracySettings(rtol=(("", RTOL),), atol=(("", ATOL),))


Read = Callable[[onnx.NodeProto, str, Any], Any]


def explicit(
    model: onnx.ModelProto, feeds: Mapping[str, Any], read: Read = lambda node, name, value: value
) -> dict[str, Any]:
    """Outputs of a model with each FP16 tensor rounded, node by node in numpy and FP32: another judge.

    Every node runs alone in ONNX Runtime's FP32 kernels; what is FP16 on its way is rounded here, and `read`
    says what a node gets of a tensor.
    """
    import onnxruntime as ort

    kinds = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    kinds |= {t.name: t.data_type for t in model.graph.initializer}
    kinds |= {v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    values: dict[str, Any] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values |= dict(feeds)

    def wide(name: str) -> Any:
        value = values[name]
        return value.astype(np.float32) if value.dtype == np.float16 else value

    for node in model.graph.node:
        if node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT16:
            with np.errstate(over="ignore"):
                values[node.output[0]] = wide(node.input[0]).astype(np.float16)
            continue
        alone = onnx.NodeProto()
        alone.CopyFrom(node)
        for attribute in alone.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        fed = {name: read(node, name, wide(name)) for name in node.input if name}
        given = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in fed.items()
        ]
        made = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([alone], "one", given, made)
        one = helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)
        results = ort.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, fed
        )
        for name, value in zip([n for n in node.output if n], results, strict=True):
            with np.errstate(over="ignore"):
                values[name] = value.astype(np.float16) if kinds.get(name) == TensorProto.FLOAT16 else value
    return {o.name: values[o.name] for o in model.graph.output}


def agrees(expected: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(np.allclose(given[name], value, RTOL, ATOL) for name, value in expected.items())


def search(made: models.Made, folder: Path, to: str = "fp16", **more: Any) -> Any:
    model, feeds = made
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **feeds)
    run = RunSettings(inputs=folder / "inputs.npz", repeats=1)
    settings = Settings(run=run, accuracy=TOLERANCES)
    return bisect_trt.precision(folder / "model.onnx", settings, to=to, out=folder / "out", **more)


SIZES = {
    "keywords": 4,
    "masked": 1,
    "gpt_cancelling": 2,
    "cnn": 3,
    "vit": 5,
    "gru": 3,
    "detector": 5,
    "quantised": 4,
}
"""Nodes that must stay; for each model its own proof says that there is nothing smaller."""


MORE = {"conformer": 7, "cross": 4, "swin": 4, "gru_softplus": 9}
LONG = [pytest.param(name, marks=pytest.mark.long) for name in MORE]


@pytest.mark.parametrize("name", [*SIZES, *LONG])
def test_the_set_is_small_and_the_model_right(name: str, tmp_path: Path) -> None:
    """Judged node by node in numpy, and each kept node lowered alone is seen to fail there, too."""
    model, feeds = (models.MODELS | precision_models_more.MODELS)[name]()
    result = search((model, feeds), tmp_path)
    assert len(result.kept) == (SIZES | MORE)[name] and result.one_minimal and result.verified == 1
    expected = explicit(model, feeds)
    mixed = onnx.load(tmp_path / "out/mixed.onnx")
    onnx.checker.check_model(mixed, full_check=True)
    assert agrees(expected, explicit(mixed, feeds))
    told = json.loads((tmp_path / "out/precision.json").read_text())
    assert told["keep"] == [item.name for item in result.kept] and result.smallest
    lucky = [note for note in told["notes"] if "may fail on others" in note]
    assert len(lucky) == (name in ("bert", "vit")), "where a node more can break what passes"
    names = [node.name for node in model.graph.node]
    assert set(told["keep"]) <= set(names)
    kinds = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(mixed).graph.value_info
    }
    for node in mixed.graph.node:
        if node.name in told["keep"]:
            assert all(kinds.get(t, 1) != TensorProto.FLOAT16 for t in (*node.input, *node.output))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, feeds = models.MODELS["gru"]()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **feeds)
    words = ["precision", str(tmp_path / "model.onnx"), "--inputs", str(tmp_path / "inputs.npz")]
    words += ["--rtol", "1e-2", "--atol", "1e-3", "--out", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "mixed" and len(told["keep"]) == 3
    assert main(words) == 2
    assert "--force" in json.loads(capsys.readouterr().out)["error"]["hint"]


def test_what_is_only_kept_on_demand_is_not_called_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b = models.Builder()
    h = b.input("x", np.linspace(-1, 1, 8).astype(np.float32))
    b("Tanh", b("Abs", h))
    b.nodes[-1].output[0] = "y"
    info = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])]
    graph = helper.make_graph(b.nodes, "g", b.inputs, info, b.weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "m.onnx")
    words = ["precision", str(tmp_path / "m.onnx"), "--keep", b.nodes[0].name, "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "all else may be FP16" in said and "--keep names it" in said and "that fails" not in said


def test_the_next_export_gets_the_same_casts(tmp_path: Path) -> None:
    """`apply.py` stands alone; what is not in the next export any more is said."""
    import subprocess
    import sys

    model, feeds = models.MODELS["cnn"]()
    search((model, feeds), tmp_path)
    words = [sys.executable, str(tmp_path / "out/apply.py")]
    again = tmp_path / "again.onnx"
    done = subprocess.run([*words, str(tmp_path / "model.onnx"), str(again)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert again.read_bytes() == (tmp_path / "out/mixed.onnx").read_bytes()
    model.graph.node[2].name = "renamed"
    onnx.save(model, tmp_path / "next.onnx")
    done = subprocess.run([*words, str(tmp_path / "next.onnx"), str(again)], capture_output=True, text=True)
    assert done.returncode == 1 and "renamed" in done.stdout
    (tmp_path / "text.onnx").write_text("no model")
    done = subprocess.run([*words, str(tmp_path / "text.onnx"), str(again)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout.endswith("text.onnx cannot be read: it is no ONNX model\n")


def test_a_model_in_fp16_is_raised_by_its_script_too(tmp_path: Path) -> None:
    """What has to stay goes to FP32, and the next export of the same FP16 model gets the same."""
    import subprocess
    import sys

    b = models.Builder()
    h = b.input("x", np.linspace(-3, 3, 8).astype(np.float16))
    for value in (300.0, 300.0, 1 / 300, 1 / 300):
        h = b("Mul", h, b.w(value, dtype=np.float16))
    b.nodes[-1].output[0] = "y"
    info = [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT16, [8])]
    graph = onnx.helper.make_graph(b.nodes, "g", b.inputs, info, b.weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    result = search((model, b.feeds), tmp_path)
    assert [item.name for item in result.kept] == ["Mul_1", "Mul_2"] and result.verified == 1
    assert result.nodes == 4  # the casts that raise it are nobody's
    again = tmp_path / "again.onnx"
    words = [sys.executable, str(tmp_path / "out/apply.py"), str(tmp_path / "model.onnx"), str(again)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert again.read_bytes() == (tmp_path / "out/mixed.onnx").read_bytes()


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, feeds = models.MODELS["bert"]()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **feeds)
    words = ["precision", str(tmp_path / "model.onnx"), "--inputs", str(tmp_path / "inputs.npz"), "--json"]
    words += ["--rtol", "1e-2", "--atol", "1e-3", "--repeats", "1", "--out", str(tmp_path / "out")]
    assert main([*words, "--max-probes", "20"]) == 6
    stopped = json.loads(capsys.readouterr().out)
    assert stopped["finished"] is False and stopped["verified"] == 1
    assert {kept["why"] for kept in stopped["kept"] if not kept["error_without"]} >= {"not tried without it"}
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["finished"] and len(told["keep"]) == 9
    assert all(float(kept["error_without"]) > 1 and "not tried" not in kept["why"] for kept in told["kept"])


def test_lists_for_trtexec_say_what_the_parser_calls_the_layers() -> None:
    """A nameless node's layer has the name of its first output with a word before it."""
    trt = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    model, _ = models.cnn()
    for node in list(model.graph.node)[::2]:
        node.name = ""
    known = roles(flat(model), "fp16")
    network = trt.Builder(logger := trt.Logger(trt.Logger.ERROR)).create_network(0)
    assert trt.OnnxParser(network, logger).parse(model.SerializeToString())
    layers = {network.get_layer(k).name for k in range(network.num_layers)}
    for key in known.items:
        assert layers & set(layer_names([known.names[key]], known)), key


def nan_model(folder: Path) -> Path:
    """Gives NaN whatever it is fed with."""
    b = models.Builder(0)
    x = b.input("x", np.ones((1, 4), np.float32))
    h = b("Relu", b.linear(x, 4, 4))
    onnx.save(b.model(y=b("Sub", b("Div", h, b.w(0.0)), b("Div", h, b.w(0.0)))), folder / "nan.onnx")
    return folder / "nan.onnx"


def test_where_nothing_can_be_compared_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN agrees with NaN: that is no reason to say that all may be FP16."""
    assert main(["precision", str(nan_model(tmp_path)), "--out", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert "nothing was compared" in told and "it begins at" in told
    assert not (tmp_path / "out").exists()


def test_a_list_says_what_of_it_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, feeds = models.MODELS["gru"]()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **feeds)
    (tmp_path / "list").write_text("Exp_6\nnobody\nReduceSum_7\nLog_8\n")
    words = ["check", str(tmp_path / "model.onnx"), "--inputs", str(tmp_path / "inputs.npz"), "--json"]
    words += ["--rtol", "1e-2", "--atol", "1e-3", "--target", "emulate:fp16", "--keep-fp32"]
    assert main([*words, str(tmp_path / "list")]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "--keep-fp32: 3 of 13 float nodes stay in FP32; not in this model: nobody." in notes
    (tmp_path / "list").write_text("nobody\n")
    assert main([*words, str(tmp_path / "list")]) == 2
    assert main(["precision", str(tmp_path / "model.onnx"), "--from", str(tmp_path / "list")]) == 2
    assert "is no precision.json" in capsys.readouterr().err


def test_from_python_with_a_path_and_keywords(tmp_path: Path) -> None:
    """As `reduce`; what is kept has few bytes: a large node that would do alone is passed over."""
    b = models.Builder(3)
    x = b.input("x", np.full((4, 4), 300, np.float32))
    large = b("Expand", b("Mul", x, x), b.i(64, 4, 4))
    small = b("ReduceMax", large, axes=[0, 1, 2], keepdims=1)
    model = b.model(y=b("Div", b("Squeeze", small, b.i(0, 1)), b.w(1e4)))
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **b.feeds)
    given = {"inputs": str(tmp_path / "inputs.npz"), "repeats": 1, "rtol": 1e-2, "atol": 1e-3}
    found = bisect_trt.precision(str(tmp_path / "model.onnx"), out=str(tmp_path / "out"), **given)
    assert len(found.kept) >= 4 and found.activations["kept"] >= 4 * 64 * 16
    assert repr(found).startswith("Keep        ") and found.verified == 1
    start = tmp_path / "out/precision.json"
    more = {**given, "cost": "bytes", "start": start, "keep": ["Mul_0"]}
    again = bisect_trt.precision(tmp_path / "model.onnx", out=tmp_path / "again", **more)
    assert again.cost == "bytes" and again.kept[0].name == "Mul_0"
    assert (again.kept[0].why, again.kept[0].error) == ("--keep names it", 0)
    assert all(k.error > 1 and "overflow" in k.why for k in again.kept[1:])
    with pytest.raises(bisect_trt.UsageError, match="keep is a list of names"):
        bisect_trt.precision(tmp_path / "model.onnx", keep="Mul_0")


def quantisable_net(opset: int) -> models.Made:
    """Convolutions, one of which reads channels of very different size, and a product of matrices."""
    b = models.Builder(3, opset)
    x = b.input("image", b.rng.standard_normal((1, 3, 12, 12)).astype(np.float32))
    h = b("Relu", b.conv(x, 3, 8))
    wide = np.where(np.arange(8) == 3, 60.0, 1.0).reshape(1, 8, 1, 1)
    h = b("Add", h, b.conv(b("Relu", b.conv(b("Mul", h, b.w(wide)), 8, 8)), 8, 8))
    return b.model(y=b.linear(b("Flatten", b("GlobalAveragePool", h)), 8, 6)), b.feeds


@pytest.mark.parametrize(("to", "rtol", "kept"), [("int8", 0.02, 1), ("fp8", 0.03, 3)])
def test_what_may_be_quantised_is(to: str, rtol: float, kept: int, tmp_path: Path) -> None:
    """Judged in numpy: scales from the run in FP32; each kept node quantised alone with the others fails."""
    import ml_dtypes
    import onnxruntime as ort

    model, feeds = quantisable_net(13 if to == "int8" else 19)
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **feeds)
    more: dict[str, Any] = {"inputs": tmp_path / "inputs.npz", "repeats": 1, "rtol": rtol, "atol": rtol}
    found = bisect_trt.precision(tmp_path / "model.onnx", to=to, out=tmp_path / "out", **more)
    names = [item.name for item in found.kept]
    assert found.nodes == 4 and found.verified == 1 and found.one_minimal
    assert len(names) == kept
    largest: dict[str, float] = {}

    def seen(node: onnx.NodeProto, name: str, value: Any) -> Any:
        largest[name] = float(np.abs(value).max()) if value.dtype == np.float32 else 0.0
        return value

    expected = explicit(model, feeds, seen)

    def right(keep: list[str]) -> bool:
        def read(node: onnx.NodeProto, name: str, value: Any) -> Any:
            if node.op_type not in ("Conv", "MatMul") or node.name in keep or name not in node.input[:2]:
                return value
            scale = np.float32(largest[name] / (127 if to == "int8" else 448))
            low = np.rint(value / scale) if to == "int8" else value / scale
            return low.astype(np.int8 if to == "int8" else ml_dtypes.float8_e4m3fn).astype(np.float32) * scale

        return bool(np.allclose(explicit(model, feeds, read)["y"], expected["y"], rtol, rtol))

    assert right(names) and not any(right([n for n in names if n != name]) for name in names)
    mixed = onnx.load(tmp_path / "out/mixed.onnx")
    onnx.checker.check_model(mixed, full_check=True)
    session = ort.InferenceSession(mixed.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, feeds)[0], expected["y"], rtol, rtol)
    made = {o: node.op_type for node in mixed.graph.node for o in node.output}
    for node in mixed.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            quantised = {made.get(name) == "DequantizeLinear" for name in node.input[:2]}
            assert quantised == {node.name not in names}
    kinds = {t.data_type for t in mixed.graph.initializer}
    assert (TensorProto.INT8 if to == "int8" else TensorProto.FLOAT8E4M3FN) in kinds
    assert not (tmp_path / "out/apply.py").exists()


def test_a_type_that_the_opset_has_not_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = quantisable_net(13)
    onnx.save(model, tmp_path / "model.onnx")
    assert main(["precision", str(tmp_path / "model.onnx"), "--to", "fp8", "--out", str(tmp_path / "o")]) == 2
    assert "its opset is 13, FP8 is of 19: convert it" in capsys.readouterr().err
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(made, tmp_path / "tanh.onnx")
    assert main(["precision", str(tmp_path / "tanh.onnx"), "--to", "fp8", "--out", str(tmp_path / "o")]) == 2
    assert "FP8 is for Conv," in capsys.readouterr().err, "a newer opset would not help"
    words = ["precision", str(tmp_path / "model.onnx"), "--to", "int8", "--target", "tensorrt"]
    assert main([*words, "--out", str(tmp_path / "o")]) == 2
    assert "is found by an emulation" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_operators_without_inference_of_their_own_and_what_follows_have_types() -> None:
    """onnx 1.23 infers nothing of GroupNormalization: what came behind was lowered by halves, uncounted."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((2, 2, 3)).astype(np.float32), w) for w in "ab"]
    weights += [numpy_helper.from_array(np.ones(2, np.float32), name) for name in "st"]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], "c1"),
        helper.make_node("GroupNormalization", ["c", "s", "t"], ["n"], "gn", num_groups=1),
        helper.make_node("Conv", ["n", "b"], ["d"], "c2"),
        helper.make_node("Greater", ["d", "n0"], ["g"], "gt"),
        helper.make_node("Cast", ["g"], ["y"], "cast", to=TensorProto.FLOAT),
    ]
    weights.append(numpy_helper.from_array(np.float32(0), "n0"))
    sizes = (("x", 9), ("y", 5))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, size]) for name, size in sizes]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    known = roles(flat(made), "fp16")
    assert known.items == ("c", "n", "d", "g", "y") and not known.stays
    assert known.types["n"] == known.types["d"] == TensorProto.FLOAT and known.types["g"] == TensorProto.BOOL
    assert quantisable(flat(made), {"x": 1.0, "a": 1.0, "n": 1.0, "b": 1.0}).items == ("c", "d")


def test_what_the_user_lowers_may_spoil_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, feeds = models.MODELS["gru"]()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **feeds)
    words = ["precision", str(tmp_path / "model.onnx"), "--inputs", str(tmp_path / "inputs.npz")]
    assert main([*words, "--lower", "Exp_6", "--out", str(tmp_path / "out")]) == 2
    assert "--lower: with Exp_6 in FP16 the outputs are wrong" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["embedded", "at an odd offset"])
def test_large_weights_are_mapped_wherever_they_lie(place: str, tmp_path: Path) -> None:
    """An offset that is added and taken away between products of large weights; other bytes, same answers."""
    b = models.Builder(3)
    x = b.input("x", b.rng.standard_normal((1, 4, 80)).astype(np.float32))
    h = b("MatMul", x, b.randn(80, 80))
    h = b("Sub", b("Add", h, b.w(4096.0)), b.w(4096.0))
    model = b.model(y=b("Mul", b("MatMul", h, b.randn(80, 80)), b.w(0.05)))
    feeds = {"x": b.feeds["x"]}
    if place != "embedded":
        with (tmp_path / "w.bin").open("wb") as file:
            for tensor in model.graph.initializer:
                file.write(b"odd")
                point_to(tensor, "w.bin", file.tell(), file.write(tensor.raw_data))
    result = search((model, feeds), tmp_path)
    assert [item.op for item in result.kept] == ["Add", "Sub"] and result.verified == 1
    assert result.evaluations["explicit"] and result.tolerances["fp32"] == 0, "the same arithmetic"
    assert (tmp_path / "out/mixed.onnx.data").exists() == (place != "embedded")
