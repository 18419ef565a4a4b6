"""Attributes whose default TensorRT-RTX reads otherwise than ONNX, seen without a GPU: `--deep`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import bisect_trt
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.reproducer.verify import Status
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.tensorrt.defaults import misread_defaults, omitted, spelled_out
from bisect_trt.targets.tensorrt.ignored import ignored_attributes, is_ignored, without_ignored

DEEP = Settings(TargetSettings("tensorrt-rtx", deep=True), RunSettings(simplify=False))


def chain(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def trilu() -> onnx.ModelProto:
    return chain(
        helper.make_node("LeakyRelu", ["x"], ["a"], "leaky"),
        helper.make_node("Trilu", ["a"], ["b"], "tri"),
        helper.make_node("Softmax", ["b"], ["y"], "soft"),
    )


def test_a_default_that_is_read_otherwise_is_reduced_to_its_node(tmp_path: Path) -> None:
    """Without `upper` the network holds the lower triangle, in all releases up to 1.7.1."""
    onnx.save(trilu(), tmp_path / "m.onnx")
    plain = Settings(TargetSettings("tensorrt-rtx"))
    assert not bisect_trt.check(tmp_path / "m.onnx", plain).outcome.failures
    [failure] = bisect_trt.check(tmp_path / "m.onnx", DEEP).outcome.failures
    assert (failure.stage, failure.symptom, failure.nodes) == (Stage.PARSE, Symptom.MISMATCH, ("tri",))
    assert "Trilu without upper" in failure.message and "upper=1" in failure.message
    result = bisect_trt.reduce(tmp_path / "m.onnx", DEEP, out=tmp_path / "out")
    assert [n.op_type for n in onnx.load(result.out / "repro.onnx").graph.node] == ["Trilu"]
    done = subprocess.run([sys.executable, result.out / "repro.py"], capture_output=True, text=True)
    assert done.returncode == 1 and "Trilu without upper" in done.stdout, done.stdout + done.stderr
    [checked] = bisect_trt.verify(result.out)
    assert checked.status is Status.SAME


@pytest.mark.parametrize("op", ["LeakyRelu", "HardSigmoid", "Softmax", "Elu"])
def test_a_default_that_is_read_as_it_is_meant_accuses_nobody(op: str, tmp_path: Path) -> None:
    onnx.save(chain(helper.make_node(op, ["x"], ["y"], "n")), tmp_path / "m.onnx")
    assert not bisect_trt.check(tmp_path / "m.onnx", DEEP).outcome.failures


def test_builds_that_differ_by_themselves_say_nothing() -> None:
    made = iter(range(99))
    assert not list(misread_defaults(trilu().SerializeToString(), lambda model: str(next(made))))


def test_each_attribute_is_tried_by_itself() -> None:
    """A builder that reads LeakyRelu's alpha wrongly and nothing else."""

    def engine(model: bytes) -> str:
        leaky = onnx.load_model_from_string(model).graph.node[0]
        return "spelled" if leaky.attribute else "left out"

    [failure] = misread_defaults(trilu().SerializeToString(), engine)
    assert failure.signature == "LeakyRelu without alpha gives another engine than with its default"


def test_nodes_without_names_are_no_obstacle() -> None:
    """The first node has no name either, and no such attribute."""
    proto = trilu()
    for node in proto.graph.node:
        node.name = ""

    def engine(model: bytes) -> str:
        return str(bool(onnx.load_model_from_string(model).graph.node[1].attribute))

    [failure] = misread_defaults(proto.SerializeToString(), engine)
    assert failure.op == "Trilu" and failure.nodes == () and "upper=1" in failure.message


def test_what_is_spelled_out_leaves_nothing_to_spell() -> None:
    proto = onnx.load_model_from_string(spelled_out(trilu()))
    assert not any(omitted(proto, node) for node in proto.graph.node)
    assert [a.i for a in proto.graph.node[1].attribute] == [1]


def space_to_depth() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 2, 2])
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["a"], "leaky", alpha=0.5),
        helper.make_node("SpaceToDepth", ["a"], ["y"], "space", blocksize=2, mode="CRD"),
    ]
    opset = [helper.make_opsetid("", 28)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opset, ir_version=8)


def gives(model: bytes) -> list[dict[str, object]] | None:
    """Only what stands in the nodes counts."""
    nodes = onnx.load_model_from_string(model).graph.node
    return [{"y": np.array([len(node.attribute) for node in nodes])}]


def test_an_attribute_that_is_ignored_is_told() -> None:
    """A builder that reads LeakyRelu's alpha and not SpaceToDepth's mode."""

    def engine(model: bytes) -> str:
        nodes = onnx.load_model_from_string(model).graph.node
        return str([len(node.attribute) for node in nodes if node.op_type == "LeakyRelu"])

    [failure] = ignored_attributes(space_to_depth().SerializeToString(), engine, gives)
    assert (failure.stage, failure.symptom, failure.nodes) == (Stage.PARSE, Symptom.MISMATCH, ("space",))
    assert failure.message.startswith("SpaceToDepth with mode=CRD gives the same engine as without")
    assert is_ignored(failure)
    other = onnx.load_model_from_string(without_ignored(space_to_depth(), failure))
    assert [[a.name for a in node.attribute] for node in other.graph.node] == [["alpha"], ["blocksize"]]


def test_an_attribute_that_makes_no_difference_accuses_nobody() -> None:
    model = space_to_depth().SerializeToString()
    same = [{"y": np.zeros(1)}]
    random = iter(range(9))
    for answers in (lambda m: same, lambda m: None, lambda m: [{"y": np.array(next(random))}]):
        assert not list(ignored_attributes(model, lambda m: "one engine", answers))
    assert not list(ignored_attributes(model, lambda m: "", gives))  # it does not build


def test_what_tensorrt_rtx_ignores_is_reduced_to_its_node(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    onnx.save(space_to_depth(), tmp_path / "m.onnx")
    found = bisect_trt.check(tmp_path / "m.onnx", DEEP)
    if not found.outcome.failures:
        pytest.skip("this onnx does not know the preview of the operator set, or TensorRT-RTX reads it")
    [failure] = found.outcome.failures
    assert failure.nodes == ("space",) and "mode=CRD" in failure.message
    result = bisect_trt.reduce(tmp_path / "m.onnx", DEEP, out=tmp_path / "out")
    assert [n.op_type for n in onnx.load(result.out / "repro.onnx").graph.node] == ["SpaceToDepth"]
    done = subprocess.run([sys.executable, result.out / "repro.py"], capture_output=True, text=True)
    assert done.returncode == 1 and "mode=CRD" in done.stdout, done.stdout + done.stderr
