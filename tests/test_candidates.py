"""What a candidate may do to a run: nothing. What cannot run on its reference is no reproducer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model.bodies import opened
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.store import Store
from bisect_trt.outcome import Stage
from bisect_trt.reduction.reduce import reduce
from bisect_trt.session.check import check
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.workers import jobs

EXP_FAILS = TargetSettings("planted:op=Exp,stage=build")


def save(graph: onnx.GraphProto, place: Path) -> Path:
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), place)
    return place


def conv(folder: Path) -> Path:
    weight = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Conv", ["a", "w"], ["b"], "conv", pads=[1] * 4),
        helper.make_node("Mul", ["b", "k"], ["y"], "mul"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy"]
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32(3), "k")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return save(graph, folder / "m.onnx")


def exp(folder: Path, declared: list[int], fed: list[int], form: Form = Form.DEFAULT) -> Candidate:
    """An Exp whose input is declared with one shape and fed with another."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, declared) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"], "e")], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    feeds = {"x": Store(folder).put("x", np.ones(fed, np.float32))}
    return Candidate(made.SerializeToString(), folder, ("e",), (feeds,), form=form)


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_an_edit_that_the_target_has_no_way_to_take_is_undone(precision: str, tmp_path: Path) -> None:
    """The lowest operator set of a Conv is 1, and emulations begin with 8 to 13: that ended the run."""
    settings = Settings(
        TargetSettings(f"emulate:{precision}"), RunSettings(repeats=1), AccuracySettings(rtol=(("", 1e-6),))
    )
    found = reduce(conv(tmp_path), settings, out=tmp_path / "out")
    assert found.verified == 1 and (tmp_path / "out/repro.onnx").exists()


def test_the_user_s_own_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    old = onnx.load(conv(tmp_path))
    old.opset_import[0].version = 7
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(UsageError, match="needs opset"):
        check(tmp_path / "old.onnx", Settings(TargetSettings("emulate:bf16")))


def test_inputs_that_contradict_what_is_declared_are_no_reproducer(tmp_path: Path) -> None:
    wrong, right = exp(tmp_path, [2], [3]), exp(tmp_path, [2], [2])
    assert jobs.probe(EXP_FAILS, wrong).failures  # the target itself does not look at inputs when it builds
    outcome = jobs.probe(EXP_FAILS, wrong, confirm=True)
    assert not outcome.failures and "the reference cannot run it" in outcome.unresolved
    assert jobs.probe(EXP_FAILS, right, confirm=True).failures[0].stage is Stage.BUILD
    assert jobs.probe(EXP_FAILS, exp(tmp_path, [2], [3], Form.ORIGINAL), confirm=True).failures


@pytest.mark.parametrize("declared", [TensorProto.FLOAT, TensorProto.INT32])
def test_an_output_that_is_declared_with_another_type_is_unclear(declared: int, tmp_path: Path) -> None:
    node = helper.make_node("ArgMax", ["x"], ["y"], "a", axis=0)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    made = helper.make_tensor_value_info("y", declared, [1])
    graph = helper.make_graph([node], "g", [given], [made])
    found = check(save(graph, tmp_path / "m.onnx"), Settings(TargetSettings("emulate:fp16")))
    assert not found.outcome.failures and found.outcome.unresolved


def test_a_scan_whose_body_takes_too_few_inputs_is_not_opened() -> None:
    item = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    body = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "body", item[:1], item[1:])
    node = helper.make_node("Scan", ["x", "z"], ["y"], "scan", num_scan_inputs=1, body=body)
    graph = helper.make_graph([node], "g", [], [])
    assert not list(opened(helper.make_model(graph), "scan", lambda name: None))
