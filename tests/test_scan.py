"""`scan` end to end on engines that run here: planted faults, emulation, OpenVINO; real models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bisect_trt
import cases
import openvino_cpu
from bisect_trt.cli.app import main
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.normalise import normalise
from bisect_trt.results import Step
from bisect_trt.scanning.page import document
from bisect_trt.scanning.result import Scan
from bisect_trt.scanning.scan import BUILDS
from bisect_trt.session.journal import locked
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from support import LIGHT, model, tensor_type

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/scan.schema.json").read_text())
node = helper.make_node


def with_weights(proto: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """A light model whose generators of constant weights are random weights instead."""
    rng = np.random.default_rng(seed)
    known = {t.name: t for t in proto.graph.initializer}
    kept = []
    for n in proto.graph.node:
        if n.op_type != "ConstantOfShape" or n.input[0] not in known:
            kept.append(n)
            continue
        shape = numpy_helper.to_array(known[n.input[0]]).tolist()
        size = np.sqrt(2 / max(1, np.prod(shape[1:]))) if len(shape) > 1 else 0.1
        values = rng.standard_normal(shape) * size
        values = np.abs(values) if len(shape) == 1 else values
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), n.output[0]))
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return normalise(proto)


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "squeezenet.onnx"
    onnx.save(with_weights(onnx.load(LIGHT / "light_squeezenet.onnx")), place)
    return place


def save(folder: Path, proto: onnx.ModelProto) -> Path:
    place = folder / "model.onnx"
    onnx.save(proto, place)
    return place


def settings(spec: str, **accuracy: Any) -> Settings:
    return Settings(target=TargetSettings(spec=spec), accuracy=AccuracySettings(**accuracy))


def scan(model: Path, spec: str, out: Path, *, accuracy: dict[str, Any] | None = None, **more: Any) -> Scan:
    result = bisect_trt.scan(model, settings(spec, **(accuracy or {})), out=out, **more)
    jsonschema.validate(json.loads((out / "scan.json").read_text()), SCHEMA)
    assert {p.name for p in out.iterdir()} == {"scan.json", "scan.html"}
    assert result.builds <= BUILDS
    return result


def above_noise(result: Scan) -> list[str]:
    return [item.node for item in result.tensors if item.above_noise]


# Own errors and effects


@pytest.mark.parametrize("at", [2, 61])
def test_a_planted_mismatch_is_named_and_nothing_else(at: int, squeezenet: Path, tmp_path: Path) -> None:
    name = onnx.load(squeezenet, load_external_data=False).graph.node[at].name
    result = scan(squeezenet, f"planted:node={name},fail=mismatch", tmp_path / "out")
    assert above_noise(result) == [name]
    (guilty,) = result.guilty
    assert guilty.node == name == result.ranked[0].node
    assert guilty.own_error is not None and guilty.own_error > 0.1 and guilty.effect_error
    assert result.agrees is False and not result.accumulates and result.builds == 2
    # That tensor alone does what the whole model shows: all else agrees bit by bit.
    assert result.outputs[0].rms_error == pytest.approx(guilty.effect_error, rel=1e-4)
    assert result.histogram is not None and result.histogram.tensor == guilty.tensor
    assert sum(result.histogram.errors) + result.histogram.equal == guilty.own.elements  # type: ignore[union-attr]


def test_the_output_itself_and_a_tensor_without_effect(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"], name="first"),
        node("Mul", ["a", "zero"], ["b"], name="nothing"),
        node("Add", ["a", "b"], ["y"], name="last"),
    ]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    path = save(tmp_path, model(nodes, [tensor_type("x", [4, 4])], [tensor_type("y", [4, 4])], [zero]))
    dead = scan(path, "planted:node=last,fail=mismatch", tmp_path / "last")
    (guilty,) = dead.guilty
    assert guilty.tensor == "y" and guilty.effect_error == guilty.own_error
    nodes[1] = node("Mul", ["b0", "zero"], ["b"], name="nothing")
    nodes.insert(1, node("Neg", ["a"], ["b0"], name="silent"))
    path = save(tmp_path, model(nodes, [tensor_type("x", [4, 4])], [tensor_type("y", [4, 4])], [zero]))
    silent = scan(path, "planted:node=silent,fail=mismatch", tmp_path / "silent")
    assert above_noise(silent) == ["silent"] and not silent.guilty and silent.agrees
    assert silent.ranked[0].tensor == "b0" and silent.ranked[0].effect_error == 0


def test_integers_count_by_the_part_that_differs(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["i"], name="cast", to=TensorProto.INT32),
        node("Neg", ["i"], ["y"], name="neg"),
    ]
    y = tensor_type("y", [8], TensorProto.INT32)
    path = save(tmp_path, model(nodes, [tensor_type("x", [8])], [y]))
    result = scan(path, "planted:node=cast,fail=mismatch", tmp_path / "out")
    assert [t.tensor for t in result.guilty] == ["i"] and result.guilty[0].own_error == 1.0
    assert above_noise(result) == ["cast"]


def chain(count: int, **options: Any) -> onnx.ModelProto:
    """`count` nodes on small tensors: blocks of five operators with a residual edge."""
    ops = ("Relu", "Sigmoid", "Add", "Tanh", "Mul")
    rng = np.random.default_rng(0)
    nodes, weights, last, skip = [], [], "x", "x"
    for k in range(count):
        op, name = ops[k % 5], f"t{k}"
        inputs = [last]
        if op == "Add":
            inputs.append(skip)
            skip = name
        if op == "Mul":
            weights.append(numpy_helper.from_array(rng.standard_normal(8).astype(np.float32), f"w{k}"))
            inputs.append(weights[-1].name)
        nodes.append(node(op, inputs, [name], name=f"n{k}"))
        last = name
    return model(nodes, [tensor_type("x", [2, 8])], [tensor_type(last, [2, 8])], weights, **options)


@pytest.mark.parametrize("fault", ["", "+node=n777,fail=crash"])
def test_a_thousand_nodes_in_at_most_twelve_builds(fault: str, tmp_path: Path) -> None:
    path = save(tmp_path, chain(1000))
    steps: list[Step] = []
    spec = f"planted:node=n500,fail=mismatch{fault}"
    result = scan(path, spec, tmp_path / "out", on_event=steps.append)
    tried = [s for s in steps if s.text.endswith("nodes in one build")]
    assert result.builds == len(tried) + 1 <= BUILDS  # and the whole model
    assert above_noise(result) == ["n500"]
    assert len(result.failing) == (1 if fault else 0) or 1 < result.failing[0].suspects <= 4
    measured = [t for t in result.tensors if t.own is not None]
    assert len(measured) >= 996
    if fault:
        assert "n777" in {t.node for t in result.failing}
        assert result.agrees is None and "SIGSEGV" in result.whole


@pytest.mark.parametrize("how", ["fail=error", "fail=error,hint=yes", "fail=error,stage=parse"])
def test_one_bad_node_hides_nothing(how: str, models_dir: Path, tmp_path: Path) -> None:
    spec = f"planted:op=MatMul,{how}+op=GlobalAveragePool,fail=mismatch"
    result = scan(models_dir / "ok.onnx", spec, tmp_path / "out")
    assert {t.op for t in result.failing} == {"MatMul"} and result.failing[0].failure is not None
    assert result.failing[0].failure.message == "planted error of op MatMul"
    assert all((t.own is None) == (t.op == "MatMul") for t in result.tensors)
    assert {t.op for t in result.guilty} == {"GlobalAveragePool"}
    assert result.agrees is None and "planted error" in result.whole


# NaN, Inf and precision


def overflow() -> onnx.ModelProto:
    """x * 1000 * 0.001: in FP16 the first product is infinite, and all that follows."""
    weights = [numpy_helper.from_array(np.float32(v), n) for v, n in ((1e5, "big"), (1e-5, "small"))]
    nodes = [
        node("Abs", ["x"], ["a"], name="abs"),
        node("Mul", ["a", "big"], ["b"], name="born"),
        node("Relu", ["b"], ["c"], name="shows"),
        node("Mul", ["c", "small"], ["d"], name="hides"),
        node("Add", ["d", "x"], ["y"], name="end"),
    ]
    return model(nodes, [tensor_type("x", [64])], [tensor_type("y", [64])], weights)


def test_where_infinity_is_born(tmp_path: Path) -> None:
    result = scan(save(tmp_path, overflow()), "emulate:fp16", tmp_path / "out")
    assert result.first_lost is not None and result.first_lost.node == "born"
    written = json.loads((tmp_path / "out/scan.json").read_text())
    assert result.first_lost.tensor == written["first_not_finite"]
    assert result.agrees is False and result.guilty[0].effect_error == float("inf")


def test_planted_nan_is_born_in_one_place(models_dir: Path, tmp_path: Path) -> None:
    name = "/backbone/layer2/conv2/Conv"
    result = scan(models_dir / "ok.onnx", f"planted:node={name},fail=nan", tmp_path / "out")
    assert [t.node for t in result.tensors if t.lost] == [name]
    assert result.first_lost is not None and result.first_lost.node == name


def layers(count: int) -> onnx.ModelProto:
    """Rotations: each rounds a little, and what one does is not smoothed away by the next."""
    rng = np.random.default_rng(3)
    weights, nodes, last = [], [], "x"
    for k in range(count):
        turn = np.linalg.qr(rng.standard_normal((64, 64)))[0].astype(np.float32)
        weights.append(numpy_helper.from_array(turn, f"w{k}"))
        nodes.append(node("MatMul", [last, f"w{k}"], [f"t{k}"], name=f"layer{k}"))
        last = f"t{k}"
    return model(nodes, [tensor_type("x", [8, 64])], [tensor_type(last, [8, 64])], weights)


def test_an_error_that_accumulates_is_nobodys(tmp_path: Path) -> None:
    path = save(tmp_path, layers(24))
    loose = scan(path, "emulate:fp16", tmp_path / "loose", accuracy={"metric": "rms", "rtol": (("", 1.0),)})
    assert loose.agrees and not loose.accumulates
    one = max(t.effect_error or 0 for t in loose.tensors)
    whole = loose.outputs[0].rms_error
    assert 0 < one < whole / 2
    tight = {"metric": "rms", "rtol": (("", (one + whole) / 2),), "atol": (("", 0.0),)}
    result = scan(path, "emulate:fp16", tmp_path / "tight", accuracy=tight)
    assert result.accumulates and not result.guilty and len(above_noise(result)) == 24


def test_of_many_effects_the_worst_are_run(tmp_path: Path) -> None:
    path = save(tmp_path, chain(220))
    result = scan(path, "emulate:bf16", tmp_path / "out", tensors=[f"t{k}" for k in range(0, 220, 9)])
    run = [t for t in result.tensors if t.effect is not None]
    noisy = [t for t in result.tensors if t.above_noise]
    assert len(result.tensors) == 25 and len(noisy) > 12
    assert len(run) == len(noisy) and result.effects_left == 0
    everything = scan(path, "emulate:bf16", tmp_path / "all")
    run = [t for t in everything.tensors if t.effect is not None]
    left = [t for t in everything.tensors if t.above_noise and t.effect is None]
    assert len(run) == 50 and len(left) == everything.effects_left > 0
    assert min(t.own_error or 0 for t in run) >= max(t.own_error or 0 for t in left)


# A real compiler


def test_openvino_resize(tmp_path: Path) -> None:
    """Resize with a kernel that leaves out what lies outside: OpenVINO really gets it wrong."""
    splice = cases.Splice(with_weights(cases.base("squeezenet", 13)), *cases.MIDDLE["squeezenet"])
    scales = splice.const("scales", [1, 1, 2, 2], np.float32)
    cubic = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}
    large = splice.node("Resize", "cubic", [splice.tensor, "", scales], **cubic)
    small = splice.node("AveragePool", "back", [large], kernel_shape=[2, 2], strides=[2, 2])
    path = save(tmp_path, splice.finish(small))
    target = TargetSettings(spec=openvino_cpu.SPEC, ep_libraries=openvino_cpu.libraries(tmp_path))
    result = bisect_trt.scan(path, Settings(target=target), out=tmp_path / "out")
    jsonschema.validate(json.loads((tmp_path / "out/scan.json").read_text()), SCHEMA)
    worst = max(result.tensors, key=lambda t: t.own_error or 0)
    second = max(t.own_error or 0 for t in result.tensors if t is not worst)
    assert worst.node == "splice/cubic" == result.ranked[0].node
    assert (worst.own_error or 0) > 100 * second and worst.effect_error
    # The provider drops a Dropout, and then misses the input that only this one reads.
    assert result.builds <= 3 and {t.op for t in result.failing} <= {"Dropout"}


# Options and files


def test_only_some_tensors(models_dir: Path, tmp_path: Path) -> None:
    names = [n.output[0] for n in onnx.load(models_dir / "ok.onnx").graph.node[5:8]]
    result = scan(models_dir / "ok.onnx", "planted:op=Conv,fail=mismatch", tmp_path / "out", tensors=names)
    assert [t.tensor for t in result.tensors] == names


def test_values_are_kept(tmp_path: Path) -> None:
    path = save(tmp_path, chain(5))
    result = scan(path, "planted:node=n2,fail=mismatch", tmp_path / "out", save_tensors=tmp_path / "values")
    index = json.loads((tmp_path / "values/index.json").read_text())
    assert {entry["tensor"] for entry in index} == {t.tensor for t in result.tensors}
    for entry in index:
        one, other = (np.load(tmp_path / "values" / entry[side]) for side in ("reference", "target"))
        wanted = one + np.abs(one) + 1 if entry["tensor"] == "t2" else one
        np.testing.assert_allclose(other, wanted, rtol=1e-6)
        assert entry["type"] == "float" and one.flags.writeable
    assert len(list((tmp_path / "values").iterdir())) == 2 * len(index) + 1


def test_several_samples_each_count(tmp_path: Path) -> None:
    """The worst sample is the one that is shown."""
    weights = [numpy_helper.from_array(np.float32(1e4), "big")]
    nodes = [node("Mul", ["x", "big"], ["y"], name="mul")]
    made = model(nodes, [tensor_type("x", [4])], [tensor_type("y", [4])], weights)
    for k, value in enumerate((1.0, 100.0, 2.0)):
        folder = tmp_path / f"data/test_data_set_{k}"
        folder.mkdir(parents=True)
        tensor = numpy_helper.from_array(np.full(4, value, np.float32), "x")
        (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    given = Settings(target=TargetSettings(spec="emulate:fp16"), run=RunSettings(inputs=tmp_path / "data"))
    result = bisect_trt.scan(save(tmp_path, made), given, out=tmp_path / "out")
    assert result.first_lost is not None and result.first_lost.own.sample == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"tensors": ["scors"]}, "did you mean scores"),
        ({"tensors": ["image"]}, "is an input or a weight"),
        ({"out": "full"}, "not empty"),
        ({"save_tensors": "full"}, "not empty"),
        ({"out": "file"}, "not a folder"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    what: dict[str, Any], told: str, models_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    (tmp_path / "file").touch()
    arguments = {k: tmp_path / v if isinstance(v, str) else v for k, v in what.items()}
    out = arguments.pop("out", tmp_path / "out")
    with pytest.raises(UsageError) as error:
        bisect_trt.scan(models_dir / "ok.onnx", settings("emulate:fp16"), out=out, **arguments)
    assert told in f"{error.value.message} {error.value.hint}"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "mine"]


def test_force_replaces_only_an_earlier_scan(models_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = scan(models_dir / "ok.onnx", "emulate:fp16", out)
    with pytest.raises(UsageError, match="not empty") as error:
        bisect_trt.scan(models_dir / "ok.onnx", settings("emulate:fp16"), out=out)
    assert "--force" in error.value.hint
    again = scan(models_dir / "ok.onnx", "emulate:bf16", out, force=True)
    assert (again.ranked[0].own_error or 0) > 3 * (first.ranked[0].own_error or 1)
    shutil.move(out / "scan.json", out / "mine.json")
    with pytest.raises(UsageError, match="not empty"):
        bisect_trt.scan(models_dir / "ok.onnx", settings("emulate:fp16"), out=out, force=True)


def test_what_a_killed_scan_left_is_replaced_and_a_running_one_is_left_alone(
    models_dir: Path, tmp_path: Path
) -> None:
    """Only where nothing else lies in the folder."""
    out = tmp_path / "out"
    for name in ("work", "logs", ".writing-a"):
        (out / name).mkdir(parents=True)
        (out / name / "r000000.npy").write_bytes(b"half of it")
    with pytest.raises(UsageError, match="not empty"):  # nothing says that a scan made these
        bisect_trt.scan(models_dir / "ok.onnx", settings("emulate:fp16"), out=out)
    with locked(out / ".scanning"), pytest.raises(UsageError, match="another run is at work"):
        bisect_trt.scan(models_dir / "ok.onnx", settings("emulate:fp16"), out=out)
    bisect_trt.scan(models_dir / "ok.onnx", settings("emulate:fp16"), out=out)
    assert sorted(path.name for path in out.iterdir()) == ["scan.html", "scan.json"]
    (out / ".scanning").touch()
    with pytest.raises(UsageError, match="not empty"):  # it was killed while it replaced another
        bisect_trt.scan(models_dir / "ok.onnx", settings("emulate:fp16"), out=out)


def test_a_target_that_only_builds(models_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable, match="cannot run here") as error:
        bisect_trt.scan(models_dir / "ok.onnx", settings("tensorrt-rtx"), out=tmp_path / "out")
    assert "needs a GPU" in error.value.hint and "emulate:fp16" in error.value.hint
    assert not (tmp_path / "out").exists()


def test_a_reference_without_values_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's CPU provider has no MatMul in bfloat16: that is no agreement, and no exit code 0."""
    kind = TensorProto.BFLOAT16
    ends = [helper.make_tensor_value_info(name, kind, [2, 2]) for name in "xy"]
    graph = helper.make_graph([node("MatMul", ["x", "x"], ["y"])], "g", ends[:1], ends[1:])
    path = save(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    words = ["scan", str(path), "--target", "emulate:bf16", "--out", str(tmp_path / "out")]
    assert main(words) == 3
    assert "Nothing can be said of the outputs" in capsys.readouterr().out


def test_command_line(models_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scan", str(models_dir / "ok.onnx"), "--target", "planted:op=Flatten,fail=mismatch"]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, SCHEMA)
    assert found["guilty"] == ["/head/flatten/Flatten_output_0"] and found["out"] == str(tmp_path / "out")
    written = json.loads((tmp_path / "out/scan.json").read_text())
    assert {**written, "out": found["out"]} == found
    assert main([*words, "--out", str(tmp_path / "two")]) == 0
    assert "/head/flatten/Flatten" in capsys.readouterr().out
    words[3] = "tensorrt-rtx"
    assert main([*words, "--out", str(tmp_path / "three")]) == 3


def test_the_document_names_no_folder(models_dir: Path, tmp_path: Path) -> None:
    result = scan(models_dir / "ok.onnx", "planted:op=Relu,fail=error", tmp_path / "out")
    assert str(tmp_path) not in json.dumps(document(result))
    assert str(tmp_path) not in (tmp_path / "out/scan.html").read_text()
