"""Attributes whose default TensorRT-RTX reads otherwise than ONNX, seen without a GPU: `--deep`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import bisect_trt
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.reproducer.verify import Status
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.tensorrt.defaults import misread_defaults, omitted, spelled_out

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
