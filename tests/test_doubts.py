"""Random models, and references that are not finite: said first, and nobody is blamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.cli.app import main
from bisect_trt.errors import ModelDoesNotFail, TargetUnavailable
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.model.randomness import marked, random_nodes, unknown_nodes, words
from bisect_trt.reduction.reduce import reduce
from bisect_trt.results import Finding
from bisect_trt.session.check import check
from bisect_trt.session.prepare import load_for, prepare
from bisect_trt.session.twice import unsteady
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.workers.pool import Pool

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


def node(op: str, inputs: list[str], output: str, name: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name, **attributes)


def dropout(on: bool, *, beside: bool = False) -> onnx.ModelProto:
    """An MLP as it is exported in training mode: Tanh, Dropout, Exp; `beside`: an output without it, too."""
    nodes = [
        node("MatMul", ["x", "w"], "h", "mm"),
        node("Tanh", ["h"], "t", "tanh"),
        node("Dropout", ["t", "ratio", "training"], "d", "drop"),
        node("Exp", ["d"], "e", "exp"),
        node("Neg", ["e"], "y", "neg"),
    ]
    outputs = ["y", "z"] if beside else ["y"]
    if beside:
        nodes.append(node("Sin", ["t"], "z", "sin"))
    weights = [
        numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32), "w"),
        numpy_helper.from_array(np.float32(0.5), "ratio"),
        numpy_helper.from_array(np.bool_(on), "training"),
    ]
    return made(nodes, {"x": (FLOAT, [4, 8])}, {name: (FLOAT, [4, 8]) for name in outputs}, weights)


Types = dict[str, tuple[int, list[int]]]


def made(
    nodes: list[onnx.NodeProto], inputs: Types, outputs: Types, weights: list[TensorProto]
) -> onnx.ModelProto:
    sides = (inputs, outputs)
    given, gives = ([helper.make_tensor_value_info(n, *k) for n, k in side.items()] for side in sides)
    graph = helper.make_graph(nodes, "g", given, gives, weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 15)])


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def on(target: str) -> Settings:
    return Settings(TargetSettings(target), RunSettings(repeats=1))


NOTHING = "planted:op=Abs"


def test_a_model_whose_outputs_are_all_random_is_unclear(tmp_path: Path) -> None:
    found = check(save(dropout(True), tmp_path), on(NOTHING))
    assert found.outcome.unresolved and found.finding is Finding.RANDOM
    assert found.notes[0].startswith("The model is random: drop (Dropout in training mode) gives other")
    assert "model.eval()" in found.notes[0]


def test_what_does_not_depend_on_it_is_compared(tmp_path: Path) -> None:
    path = save(dropout(True, beside=True), tmp_path)
    fine = check(path, on(NOTHING))
    assert not fine.outcome.unresolved and not fine.outcome.failures
    assert "(y)" in fine.notes[0]
    assert check(path, on("planted:op=Sin,fail=mismatch")).outcome.failures


def test_dropout_that_is_off_is_no_random_node(tmp_path: Path) -> None:
    path = save(dropout(False), tmp_path)
    assert not words(Graph(normalise(onnx.load(path))))
    assert check(path, on("planted:op=Exp,fail=mismatch")).outcome.failures


def test_a_node_before_it_is_never_blamed(tmp_path: Path) -> None:
    """The outputs differ from run to run, and the Tanh before the Dropout was called the culprit."""
    path = save(dropout(True), tmp_path)
    with pytest.raises(ModelDoesNotFail):
        reduce(path, on(NOTHING), out=tmp_path / "none")


def test_a_node_behind_it_is_found_with_its_recorded_value(tmp_path: Path) -> None:
    found = reduce(save(dropout(True), tmp_path), on("planted:op=Exp,fail=mismatch"), out=tmp_path / "out")
    assert [n.op_type for n in onnx.load(found.out / "repro.onnx").graph.node] == ["Exp"]
    assert found.verified == 1 and found.sure
    assert found.notes[0].startswith("The model is random: drop")


def test_a_random_node_that_cannot_be_built_is_found_itself(tmp_path: Path) -> None:
    found = reduce(save(dropout(True), tmp_path), on("planted:op=Dropout,stage=build"), out=tmp_path / "out")
    assert [n.op_type for n in onnx.load(found.out / "repro.onnx").graph.node] == ["Dropout"]


def test_random_nodes_in_bodies_and_functions_are_seen() -> None:
    noise = node("RandomNormalLike", ["x"], "r", "rnd")
    body = helper.make_graph([noise], "b", [], [helper.make_tensor_value_info("r", FLOAT, [2])])
    nodes = [node("If", ["c"], "y", "branch", then_branch=body, else_branch=body)]
    model = made(nodes, {"x": (FLOAT, [2]), "c": (BOOL, [])}, {"y": (FLOAT, [2])}, [])
    assert random_nodes(Graph(normalise(model))) == {"branch": "If, by the RandomNormalLike in its body"}
    local = helper.make_function(
        "mine", "Noise", ["a"], ["b"], [node("Bernoulli", ["a"], "b", "")], [helper.make_opsetid("", 15)]
    )
    call = node("Noise", ["x"], "y", "n", domain="mine")
    model = made([call], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}, [])
    model.functions.append(local)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert list(random_nodes(Graph(normalise(model))).values()) == ["Bernoulli"]


def test_what_two_runs_of_the_reference_differ_in_is_random(tmp_path: Path) -> None:
    """Which operator of a library is random only two runs tell; what follows from it is not random itself."""
    nodes = [node("RandomNormalLike", ["x"], "r", "drawn"), node("Exp", ["r"], "y", "exp")]
    proto = normalise(made(nodes, {"x": (FLOAT, [2, 8])}, {"y": (FLOAT, [2, 8])}, []))
    loaded, folder = load_for(save(proto, tmp_path), on(NOTHING)), tmp_path / "work"
    session = prepare(loaded, [{"x": np.zeros((2, 8), np.float32)}], folder)
    with Pool(1, log_dir=tmp_path / "logs") as pool:
        assert unsteady(pool, session, on(NOTHING), ["drawn", "exp"]) == ["drawn"]


def test_a_custom_operator_that_is_random_is_told() -> None:
    call = node("Noise", ["x"], "y", "n", domain="of.a.library")
    graph = Graph(made([call], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}, []))
    assert unknown_nodes(graph) == ["n"] and not random_nodes(graph)
    assert random_nodes(marked(graph, ["n"])) == {"n": "Noise: two runs of the reference differ"}
    assert "n (Noise: two runs of the reference differ) gives other values" in words(marked(graph, ["n"]))[0]


def test_batch_statistics_of_training_are_not_compared(tmp_path: Path) -> None:
    ones = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("s", "b", "m", "v")]
    norm = helper.make_node(
        "BatchNormalization", ["x", "s", "b", "m", "v"], ["n", "mean", "var"], "norm", training_mode=1
    )
    nodes = [norm, node("Exp", ["n"], "y", "exp"), node("Neg", ["x"], "z", "neg")]
    types = (FLOAT, [2, 4, 3])
    path = save(made(nodes, {"x": types}, {"y": types, "z": types}, ones), tmp_path)
    found = check(path, on("planted:op=Exp,fail=mismatch"))
    assert not found.outcome.failures and not found.outcome.unresolved
    assert "norm (BatchNormalization in training mode) gives other values each time, as the" in found.notes[0]
    assert check(path, on("planted:op=Neg,fail=mismatch")).outcome.failures


def test_a_framework_that_is_random_accuses_nobody(tmp_path: Path) -> None:
    """Two runs of it with the same inputs differ; an output that does not is compared."""
    path = save(dropout(False, beside=True), tmp_path)
    (tmp_path / "ref.py").write_text(
        "import numpy as np\n"
        "w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)\n"
        "def both(feeds):\n"
        "    t = np.tanh(feeds['x'] @ w)\n"
        "    return {'y': -np.exp(t * np.random.random(t.shape)).astype(np.float32), 'z': np.sin(t)}\n"
        "def one(feeds):\n"
        "    return {'y': both(feeds)['y']}\n"
    )
    accuracy = AccuracySettings(reference=f"python:{tmp_path / 'ref.py'}:both")
    found = check(path, replace(on(NOTHING), accuracy=accuracy))
    assert not found.outcome.failures and any("is random: two runs with the same" in n for n in found.notes)
    accuracy = AccuracySettings(reference=f"python:{tmp_path / 'ref.py'}:one")
    with pytest.raises(TargetUnavailable, match="is random"):
        check(path, replace(on(NOTHING), accuracy=accuracy))


def test_scan_ends_with_3_where_nothing_can_be_said(tmp_path: Path) -> None:
    path = save(logs(), tmp_path)
    out = ["--target", "emulate:fp16", "--out", str(tmp_path / "scan"), "--json"]
    assert main(["scan", str(path), *out]) == 3


def logs() -> onnx.ModelProto:
    """The Log of a negative number, in front of a Softmax."""
    nodes = [
        node("Abs", ["x"], "a", "abs"),
        node("Neg", ["a"], "n", "minus"),
        node("Log", ["n"], "l", "log"),
        node("Softmax", ["l"], "y", "soft"),
    ]
    return made(nodes, {"x": (FLOAT, [2, 8])}, {"y": (FLOAT, [2, 8])}, [])


def test_a_reference_that_is_nan_everywhere_is_not_fine(tmp_path: Path) -> None:
    path = save(logs(), tmp_path)
    found = check(path, on("emulate:fp16"))
    assert found.outcome.unresolved and found.finding is Finding.REFERENCE_NOT_FINITE
    assert "16 of 16 elements of y are NaN or Inf; it begins at l, made by log (Log)" in found.notes[0]
    for target in ("emulate:fp16", "planted:op=Log,fail=mismatch"):  # numbers instead of NaN are no mismatch
        with pytest.raises(TargetUnavailable, match="no finite number"):
            reduce(path, on(target), out=tmp_path / "out")


@pytest.mark.parametrize("keep", [True, False])
def test_made_up_masks_are_tried_both_ways(keep: bool, tmp_path: Path) -> None:
    """Whatever True means in a padding mask: with all of it left out, a Softmax gives NaN."""
    low = numpy_helper.from_array(np.float32(-np.inf), "low")
    order = ["mask", "s", "low"] if keep else ["mask", "low", "s"]
    nodes = [
        node("Exp", ["x"], "s", "exp"),
        node("Where", order, "m", "where"),
        node("Softmax", ["m"], "y", "soft"),
    ]
    inputs: Types = {"x": (FLOAT, [2, 8]), "mask": (BOOL, [2, 8])}
    path = save(made(nodes, inputs, {"y": (FLOAT, [2, 8])}, [low]), tmp_path)
    found = check(path, on("planted:op=Exp,fail=mismatch"))
    assert found.outcome.failures
    assert any("turned round" in note for note in found.notes) is not keep
    reduced = reduce(path, on("planted:op=Exp,fail=mismatch"), out=tmp_path / "out")
    assert [n.op_type for n in onnx.load(reduced.out / "repro.onnx").graph.node] == ["Exp"]


@pytest.mark.parametrize("with_numbers", [False, True])
@pytest.mark.parametrize("reference", ["ort", "self"])
def test_outputs_that_are_no_tensors_of_numbers_are_told_and_never_agree(
    reference: str, with_numbers: bool, tmp_path: Path
) -> None:
    """A sequence is not compared: where a model gives nothing else, nothing can be said of it."""
    nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("SequenceConstruct", ["a", "x"], ["s"])]
    proto = made(nodes, {"x": (FLOAT, [2])}, {"a": (FLOAT, [2])}, [])
    if not with_numbers:
        del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_sequence_value_info("s", FLOAT, [2]))
    onnx.save(proto, tmp_path / "m.onnx")
    settings = Settings(TargetSettings("ort:CPU"), accuracy=AccuracySettings(reference=reference))
    found = check(tmp_path / "m.onnx", settings)
    assert bool(found.outcome.unresolved) is not with_numbers
    assert any("s (sequence)" in note for note in found.notes)
    wanted = ModelDoesNotFail if with_numbers else TargetUnavailable
    with pytest.raises(wanted, match=None if with_numbers else "no output is a tensor of numbers"):
        reduce(tmp_path / "m.onnx", settings, out=tmp_path / "out")


@pytest.mark.parametrize("rows", [0, 2])
def test_that_every_output_is_empty_is_told(rows: int, tmp_path: Path) -> None:
    """As a detector gives no box for random numbers: it agrees, and that says little."""
    proto = made([node("Abs", ["x"], "y", "abs")], {"x": (FLOAT, [rows, 4])}, {"y": (FLOAT, [rows, 4])}, [])
    found = check(save(proto, tmp_path), on("ort:CPU"))
    assert not found.outcome.failures and not found.outcome.unresolved
    assert any("Every output is empty" in note for note in found.notes) is (rows == 0)
