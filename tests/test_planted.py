"""Planted faults: where they show, how they show, and that a wrong SPEC says what is wrong."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import BisectError, TargetUnavailable, UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.settings import TargetSettings
from bisect_trt.targets import registry
from bisect_trt.targets.base import TargetResult
from bisect_trt.targets.doctor import tried_targets

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def model(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def chain() -> onnx.ModelProto:
    """x -> relu (a) -> neg (b) -> abs (y)."""
    return model(
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Neg", ["a"], ["b"], "neg"),
        helper.make_node("Abs", ["b"], ["y"], "abs"),
    )


def candidate(proto: onnx.ModelProto, folder: Path, samples: int = 1) -> Candidate:
    store = Store(folder)
    feeds = tuple({"x": store.put("x", X + i)} for i in range(samples))
    return Candidate(proto.SerializeToString(), folder, tuple(n.name for n in proto.graph.node), feeds)


def probe(spec: str, proto: onnx.ModelProto, folder: Path, samples: int = 1) -> TargetResult:
    target = registry.open_target(TargetSettings(spec=f"planted:{spec}"))
    return target.run(candidate(proto, folder, samples))


def test_without_a_culprit_every_sample_is_run(tmp_path: Path) -> None:
    result = probe("op=Resize", chain(), tmp_path, samples=2)
    assert result.failures == ()
    assert result.outputs is not None
    for i, outputs in enumerate(result.outputs):
        np.testing.assert_array_equal(outputs["y"], np.maximum(X + i, 0))
    assert len(result.outputs) == 2


@pytest.mark.parametrize(
    ("what", "shows"),
    [
        ("op=Neg", True),
        ("op=Exp", False),
        ("node=neg", True),
        ("node=Neg", False),
        ("pair=Relu>Abs", True),  # joined over neg
        ("pair=Abs>Relu", False),
        ("pair=Neg>Neg", False),
        ("nodes=relu;abs", True),
        ("nodes=relu;gone", False),
        ("fused=a", True),
        ("fused=y", False),  # an output
        ("fused=x", False),  # an input
    ],
)
def test_where_a_fault_shows(what: str, shows: bool, tmp_path: Path) -> None:
    assert bool(probe(what, chain(), tmp_path).failures) is shows


def test_a_tensor_that_is_an_output_too_is_not_fused(tmp_path: Path) -> None:
    nodes = chain().graph.node
    assert not probe("fused=a", model(*nodes, outputs=("y", "a")), tmp_path).failures
    assert not probe("fused=a", model(nodes[0], outputs=("a",)), tmp_path).failures


def test_a_pair_is_joined_through_what_a_body_captures(tmp_path: Path) -> None:
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2, 3])
    body = helper.make_graph([helper.make_node("Abs", ["a"], ["o"], "inside")], "b", [], [out])
    proto = model(
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=body, else_branch=body),
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    assert probe("pair=Relu>If", proto, tmp_path).failures
    assert not probe("pair=Relu>Abs", proto, tmp_path).failures


def test_an_error_has_its_stage_message_and_hint(tmp_path: Path) -> None:
    spec = "node=neg,stage=parse,hint=yes,message=cannot take {node}%2C sorry"
    (failure,) = probe(spec, chain(), tmp_path).failures
    assert (failure.stage, failure.symptom) == (Stage.PARSE, Symptom.ERROR)
    assert failure.message == "cannot take neg, sorry"
    assert (failure.nodes, failure.op) == (("neg",), "Neg")
    (failure,) = probe("node=neg", chain(), tmp_path).failures
    assert (failure.stage, failure.nodes, failure.op) == (Stage.BUILD, (), "")


def test_two_faults_are_two_causes_and_the_earlier_stage_hides_the_later(tmp_path: Path) -> None:
    both = probe("node=neg+node=abs", chain(), tmp_path).failures
    assert len({failure.key for failure in both}) == 2
    (first,) = probe("node=neg+node=abs,stage=parse", chain(), tmp_path).failures
    assert "abs" in first.message


def test_the_name_in_a_message_is_no_part_of_the_signature(tmp_path: Path) -> None:
    spec = "op=Neg,message=bad layer {node}"
    renamed = chain()
    renamed.graph.node[1].name = "other_17"
    first = chain()
    first.graph.node[1].name = "/a/neg_3"
    assert probe(spec, first, tmp_path).failures[0].same_as(probe(spec, renamed, tmp_path).failures[0])


def test_a_mismatch_goes_on_downstream(tmp_path: Path) -> None:
    result = probe("node=relu,fail=mismatch", chain(), tmp_path)
    assert not result.failures and result.outputs is not None
    np.testing.assert_array_equal(result.outputs[0]["y"], 2 * np.maximum(X, 0) + 1)  # x + |x| + 1


def test_a_mismatch_of_an_output(tmp_path: Path) -> None:
    result = probe("node=abs,fail=mismatch+node=relu,fail=mismatch", chain(), tmp_path)
    assert result.outputs is not None
    np.testing.assert_array_equal(result.outputs[0]["y"], 2 * (2 * np.maximum(X, 0) + 1) + 1)


def test_nan_goes_on_downstream(tmp_path: Path) -> None:
    result = probe("op=Neg,fail=nan", chain(), tmp_path)
    assert result.outputs is not None
    assert np.isnan(result.outputs[0]["y"]).all()


@pytest.mark.parametrize(
    "kind", ["INT8", "INT64", "UINT8", "UINT16", "UINT32", "FLOAT16", "BFLOAT16", "DOUBLE", "BOOL"]
)
def test_a_mismatch_changes_every_numeric_type(kind: str, tmp_path: Path) -> None:
    proto = model(
        helper.make_node("Cast", ["x"], ["i"], "to", to=TensorProto.DataType.Value(kind)),
        helper.make_node("Cast", ["i"], ["y"], "back", to=TensorProto.FLOAT),
    )
    good, bad = (probe(s, proto, tmp_path).outputs for s in ("op=Exp", "node=to,fail=mismatch"))
    assert good is not None and bad is not None
    assert (good[0]["y"] != bad[0]["y"]).all()


def test_weights_may_lie_in_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    proto = model(helper.make_node("Add", ["x", "w"], ["y"], "add"))
    weight = np.full((64, 2, 3), 5, np.float32)
    proto.graph.output[0].type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=64))
    proto.graph.initializer.append(store.tensor("w", store.put("w", weight), TensorProto.FLOAT, weight.shape))
    assert proto.graph.initializer[0].data_location == TensorProto.EXTERNAL
    result = probe("op=Exp", proto, tmp_path)
    assert result.outputs is not None
    np.testing.assert_array_equal(result.outputs[0]["y"], weight + X)


def test_a_model_that_onnxruntime_refuses_is_a_failure_of_its_own(tmp_path: Path) -> None:
    proto = model(helper.make_node("Gone", ["x"], ["y"], "gone", domain="nowhere"))
    (failure,) = probe("op=Exp", proto, tmp_path).failures
    assert failure.stage is Stage.RUN and "Gone" in failure.message


def test_flaky_faults_show_sometimes(tmp_path: Path) -> None:
    tried = candidate(chain(), tmp_path)

    def shown(spec: str) -> list[bool]:
        target = registry.open_target(TargetSettings(spec=spec))
        return [bool(target.run(tried).failures) for _ in range(60)]

    seen = shown("planted:op=Neg,p=0.5")
    assert 0 < sum(seen) < 60  # wrong once in 2**59
    assert shown("planted:op=Neg,p=0.5,seed=3") == shown("planted:op=Neg,p=0.5,seed=3")
    assert not any(shown("planted:op=Neg,p=0"))


def _child(spec: str, folder: Path) -> multiprocessing.process.BaseProcess:
    """A process that probes and dies, or does not."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=probe, args=(spec, chain(), folder))
    process.start()
    return process


def test_a_crash_is_a_real_one(tmp_path: Path) -> None:
    process = _child("op=Neg,fail=crash", tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGSEGV


def test_a_hang_ends_only_by_force(tmp_path: Path) -> None:
    process = _child("op=Neg,fail=hang", tmp_path)
    process.join(5)
    alive = process.is_alive()
    process.kill()
    process.join()
    assert alive


def test_out_of_memory_takes_real_memory(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    process = _child("op=Neg,fail=oom", tmp_path)
    watched = psutil.Process(process.pid)
    held = 0
    while process.is_alive() and held < 700 * 2**20:
        held = max(held, watched.memory_info().rss)
        time.sleep(0.02)
    process.kill()
    process.join()
    assert held >= 700 * 2**20


def test_a_probe_costs_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("bisect_trt.targets.planted.time.sleep", slept.append)
    probe("op=Exp+cost=0.5", chain(), tmp_path)
    assert math.isclose(sum(slept), 1.5)


@pytest.mark.parametrize(
    ("spec", "says", "hint"),
    [
        ("", "is not written", "--target planted:op=Example"),
        ("op", "'op' is not KEY=VALUE", "Example"),
        ("op=", "'op=' is not KEY=VALUE", "Example"),
        ("opp=Resize", "did you mean 'op'", "Keys: op, node"),
        ("op=A,node=b", "exactly one of", "Example"),
        ("fail=crash", "exactly one of", "Example"),
        ("op=A,op=B", "given twice", "+"),
        ("op=A,fail=boom", "fail='boom'", "error, crash, hang"),
        ("op=A,stage=compare", "stage='compare'", "parse, build, run"),
        ("op=A,fail=nan,stage=parse", "does not go with fail=nan", "run"),
        ("op=A,p=often", "p='often'", "0 up to 1"),
        ("op=A,p=1.5", "p='1.5'", "0 up to 1"),
        ("op=A,p=nan", "p='nan'", "0 up to 1"),
        ("op=A,seed=-1", "seed='-1'", "number"),
        ("op=A,hint=maybe", "hint='maybe'", "yes, no"),
        ("pair=Conv", "is not OPA>OPB", "Example"),
        ("cost=0.1", "no fault given", "Example"),
        ("op=A+", "'' is not KEY=VALUE", "Example"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(spec: str, says: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        registry.open_target(TargetSettings(spec=f"planted:{spec}"))
    assert says in error.value.message and hint in error.value.hint
    assert "\n" not in error.value.message


def test_unknown_targets_have_close_matches() -> None:
    with pytest.raises(UsageError, match="did you mean 'tensorrt-rtx'"):
        registry.resolve("tensorrt_rtx")
    with pytest.raises(UsageError) as error:
        registry.resolve("coreml")
    assert "emulate:fp16" in error.value.hint and "command:CMD" in error.value.hint
    with pytest.raises(UsageError, match="is not written tensorrt"):
        registry.resolve("tensorrt:3")
    assert registry.resolve("planted:op=A") == "planted:op=A"


def test_auto_takes_tensorrt_first_then_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*there: str) -> None:
        monkeypatch.setattr(
            "importlib.util.find_spec",
            lambda name: type("Spec", (), {"submodule_search_locations": []}) if name in there else None,
        )

    only("tensorrt", "tensorrt_bindings", "tensorrt_rtx")
    assert registry.resolve("auto") == "tensorrt"
    only("tensorrt", "tensorrt_rtx")  # PyPI's stub has no bindings
    assert registry.resolve("auto") == "tensorrt-rtx"
    only("tensorrt")
    with pytest.raises(TargetUnavailable) as error:
        registry.resolve("auto")
    assert "pip install" in error.value.hint
    assert isinstance(error.value, BisectError)


def test_the_doctor_says_why_not_and_how() -> None:
    found = {row.name: row for row in tried_targets()}
    assert {"tensorrt", "tensorrt-rtx", "command"} <= set(found)
    assert found["command"].usable and "planted" not in found  # that one is for tests of the search
    for entry in found.values():
        assert entry.usable or (entry.detail and entry.hint)


def test_the_target_describes_itself() -> None:
    info = registry.open_target(TargetSettings(spec="planted:op=Exp")).info()
    assert info.can_run and info.name == "planted"
    assert "op=Exp" in info.notes[0]
    assert set(info.versions) == {"onnxruntime"}
