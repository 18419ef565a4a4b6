"""onnx's own native code is asked in a process that may die: the tool goes on without an answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from pytest import MonkeyPatch

import worker_jobs as jobs
from bisect_trt.machine import native
from bisect_trt.model.editing.inference import Invalid, infer
from bisect_trt.model.load import load
from bisect_trt.model.normalise import normalise
from bisect_trt.reduction.reduce import reduce
from bisect_trt.reproducer.picture import mermaid, picture
from bisect_trt.session.check import check
from bisect_trt.settings import RunSettings, Settings, TargetSettings


def model() -> onnx.ModelProto:
    nodes = [helper.make_node(op, [a], [b], op) for op, a, b in (("Tanh", "x", "t"), ("Exp", "t", "y"))]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture(params=["native_abort", "native_sleep"])
def planted(request: pytest.FixtureRequest, monkeypatch: MonkeyPatch) -> Iterator[None]:
    """Every tool of onnx ends its process, or never answers."""
    native.forget_strikes()
    monkeypatch.setattr(native, "PATIENCE", 0.3)
    stand_in = getattr(jobs, request.param)
    monkeypatch.setattr(native, "_TOOLS", dict.fromkeys(native._TOOLS, stand_in))
    yield
    native.forget_strikes()


def test_an_answer_is_that_of_onnx() -> None:
    native.forget_strikes()
    inferred = native.infer_shapes(model(), data_prop=True)
    assert inferred == onnx.shape_inference.infer_shapes(model(), data_prop=True)
    native.check_model(model())
    assert native.convert_version(model(), 13).opset_import[0].version == 13
    broken = model()
    broken.graph.node[0].op_type = "Nobody"
    with pytest.raises(native.RefusedError, match="Nobody"):
        native.check_model(broken)


@pytest.mark.usefixtures("planted")
def test_a_death_is_not_known_and_is_soon_not_asked_for_again() -> None:
    for _ in range(native.STRIKES):
        with pytest.raises(native.NotKnownError, match="infer"):
            native.infer_shapes(model())
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(native.NotKnownError, match="times"):
        native.infer_shapes(model())
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    with pytest.raises(native.NotKnownError, match="check"):  # counted for each kind
        native.check_model(model())


@pytest.mark.usefixtures("planted")
def test_all_that_asks_goes_on_without(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    assert load(tmp_path / "m.onnx").proto.graph.node  # the checker
    assert len(normalise(model()).graph.node) == 2
    assert "Tanh" in mermaid(picture(model().SerializeToString()))
    with pytest.raises(Invalid):
        infer(model(), strict=True, typed=False, empty=False)
    edited = model()
    infer(edited, strict=False, typed=False, empty=False)
    assert [d.dim_value for d in edited.graph.output[0].type.tensor_type.shape.dim] == [2]


@pytest.mark.usefixtures("planted")
def test_check_and_reduce_end_with_their_answer(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    settings = Settings(TargetSettings("planted:op=Exp,stage=build"), RunSettings(repeats=1))
    assert check(tmp_path / "m.onnx", settings).outcome.failures
    found = reduce(tmp_path / "m.onnx", settings, out=tmp_path / "out")
    assert found.nodes == ("Exp",)
    assert found.verified == 1


def test_a_worker_answers_itself(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(native._service, "here", True)
    monkeypatch.setattr(native, "_TOOLS", {"infer": lambda proto, **options: os.getpid()})
    assert native.infer_shapes(model()) == os.getpid()  # type: ignore[comparison-overlap]
