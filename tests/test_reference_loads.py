"""What a reference loads is a model, beside the letter of ONNX too; what is refused, with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model.lenient import read_as_the_reference
from bisect_trt.model.load import load
from bisect_trt.model.operators import ORT_OWN
from bisect_trt.session.check import check
from bisect_trt.settings import RunSettings, Settings, TargetSettings


def model(node: onnx.NodeProto, shape: list[int], weights: dict[str, int], opset: int) -> onnx.ModelProto:
    ends_of = (helper.make_node("Tanh", ["x"], ["h"], "/tanh"), helper.make_node("Exp", ["n"], ["y"], "/exp"))
    nodes = [ends_of[0], node, ends_of[1]]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    made = [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], made)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


SLN = helper.make_node("SimplifiedLayerNormalization", ["h", "s"], ["n"], "/norm", axis=-1, epsilon=1e-5)
OLD_LN = helper.make_node("LayerNormalization", ["h", "s"], ["n"], "/norm", axis=-1)
GN = helper.make_node("GroupNormalization", ["h", "s", "b"], ["n"], "/gn", num_groups=2)
GELU = helper.make_node("Gelu", ["h"], ["n"], "/gelu", domain="com.microsoft")
BINARIZER = helper.make_node("Binarizer", ["h"], ["n"], "/bin", domain="ai.onnx.ml", threshold=0.5)
LONG_NAME = helper.make_node("Elu", ["h"], ["n"], "/elu", domain="ai.onnx")
CASES = {
    "ORT's own": (model(SLN, [1, 4, 16], {"s": 16}, 21), "ONNX Runtime's own"),
    "before its time": (model(OLD_LN, [1, 4, 16], {"s": 16}, 15), "ONNX Runtime's own"),
    "deprecated": (model(GN, [1, 4, 8, 8], {"s": 2, "b": 2}, 18), "deprecated"),
    "not imported": (model(GELU, [1, 4], {}, 17), "does not import"),
    "nor this one": (model(BINARIZER, [1, 4], {}, 17), "uses ai.onnx.ml and does not import"),
    "another word for it": (model(LONG_NAME, [1, 4], {}, 17), ""),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", ["ort:CPU", "emulate:fp16"])
def test_what_onnx_runtime_loads_is_a_model(case: str, target: str, tmp_path: Path) -> None:
    made, word = CASES[case]
    onnx.save(made, tmp_path / "m.onnx")
    found = check(tmp_path / "m.onnx", Settings(TargetSettings(target)))
    assert found.outputs_compared and not found.outcome.failures and not found.outcome.unresolved
    assert not word or any(word in note for note in found.notes)


def given_anew(first: str) -> onnx.ModelProto:
    """y = (x + c) * c; `c` is a weight or a Constant with [1, 2], and a Constant with [10, 20] after it."""
    values = [numpy_helper.from_array(np.array(v, np.float32), "c") for v in ([1, 2], [10, 20])]
    old, new = (helper.make_node("Constant", [], ["c"], value=v) for v in values)
    nodes = [old] if first == "Constant" else []
    nodes += [helper.make_node("Add", ["x", "c"], ["h"], "/add"), new]
    nodes += [helper.make_node("Mul", ["h", "c"], ["y"], "/mul")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [] if first == "Constant" else values[:1])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("first", ["Constant", "weight"])
def test_of_a_value_that_is_given_anew_the_last_holds(first: str, tmp_path: Path) -> None:
    """ONNX Runtime loads such models; TensorRT-RTX refuses them as they are, and no cut of ours."""
    onnx.save(given_anew(first), tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", x=np.ones(2, np.float32))
    run = RunSettings(inputs=tmp_path / "i.npz", save_outputs=tmp_path / "o")
    found = check(tmp_path / "m.onnx", Settings(TargetSettings("emulate:fp16"), run))
    assert not found.outcome.failures and found.outputs_compared
    for side in ("reference", "target"):  # ours computes what ONNX Runtime makes of the user's file
        assert np.load(tmp_path / f"o/{side}.npz")["y"].tolist() == [110, 420]
    assert any(note.startswith("c is given more than once") for note in found.notes)


def test_a_value_that_is_an_input_too_is_not_given_anew(tmp_path: Path) -> None:
    made = given_anew("weight")
    made.graph.input.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [2]))
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="'c' in the graph is made twice"):
        load(tmp_path / "m.onnx")


def test_a_constant_may_be_sparse_in_its_value(tmp_path: Path) -> None:
    """What ONNX calls `sparse_value`; ONNX Runtime takes it under the other name, too."""
    values, places = numpy_helper.from_array(np.ones(1, np.float32)), numpy_helper.from_array(np.array([2]))
    sparse = helper.make_sparse_tensor(values, places, [4])
    made = model(helper.make_node("Add", ["h", "c"], ["n"], "/add"), [1, 4], {}, 17)
    kind = onnx.AttributeProto.SPARSE_TENSOR
    attribute = onnx.AttributeProto(name="value", type=kind, sparse_tensor=sparse)
    made.graph.node.append(onnx.NodeProto(op_type="Constant", output=["c"], attribute=[attribute]))
    onnx.save(made, tmp_path / "m.onnx")
    found = check(tmp_path / "m.onnx", Settings(TargetSettings("ort:CPU")))
    assert found.outputs_compared and not found.outcome.failures
    assert any("sparse_value" in note for note in found.notes)


def test_a_node_that_reads_and_gives_nothing_is_left_out() -> None:
    """ONNX Runtime runs such a model. None is written here: a parser may not survive it."""
    nodes = [helper.make_node(op, [], [], "/idle") for op in ("If", "Nobody", "Constant")]
    part = onnx.ModelProto(graph=onnx.GraphProto(node=[*nodes, SLN]))
    (note,) = read_as_the_reference(part)
    assert note.startswith("If '/idle', Nobody '/idle' have neither inputs nor outputs: ONNX forbids")
    assert [node.op_type for node in part.graph.node] == ["Constant", SLN.op_type]


def test_in_a_body_it_is_refused_as_onnx_runtime_does(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, [4])
    inside = [helper.make_node("Neg", ["h"], ["b"], "/neg"), helper.make_node("Relu", [], [], "/idle")]
    body = helper.make_graph(inside, "b", [], [value])
    made = model(helper.make_node("If", ["c"], ["n"], "/if", then_branch=body, else_branch=body), [4], {}, 17)
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="zero input and zero output"):
        load(tmp_path / "m.onnx")


def test_the_list_is_that_of_the_installed_onnx_runtime() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    known = {s.name: s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    first = {
        name: min(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == name)
        for name in known
    }
    own = {
        s.name
        for s in native.get_all_operator_schema()
        if s.domain == "" and (s.name not in first or s.since_version < first[s.name])
    }
    assert {name for name in own if not name.endswith("_TRT")} == ORT_OWN


def test_nobody_s_operator_is_refused(tmp_path: Path) -> None:
    onnx.save(model(helper.make_node("Nobody", ["h"], ["n"], "/n"), [1], {}, 17), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"Nobody '/n' of ai\.onnx opset 17"):
        load(tmp_path / "m.onnx")


def broken(data: bytes, old: bytes) -> bytes:
    assert old in data
    return data.replace(old, b"\xff" * len(old))


@pytest.mark.parametrize(
    ("old", "where"),
    [
        ("producer", "producer_name"),
        ("/gelu", "node 1: name"),
        ("Tanh", "node 0: op_type"),
        ("a-tag", "metadata_props 0: value"),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_place(old: str, where: str, tmp_path: Path) -> None:
    made = model(GELU, [1, 4], {}, 17)
    made.producer_name = "producer"
    helper.set_model_props(made, {"tag": "a-tag"})
    (tmp_path / "m.onnx").write_bytes(broken(made.SerializeToString(), old.encode()))
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "m.onnx")
    assert where in caught.value.message and "UTF-8" in caught.value.message


def test_a_constant_without_a_value_is_refused(tmp_path: Path) -> None:
    made = model(helper.make_node("Constant", [], ["n"], "/c"), [1], {}, 17)
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="Constant '/c' in the graph has no value"):
        load(tmp_path / "m.onnx")


def test_external_data_under_an_impossible_name_is_refused(tmp_path: Path) -> None:
    made = model(SLN, [1, 4, 16], {"s": 16}, 21)
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="n" * 5000)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(UsageError, match="external data of 's'"):
        load(tmp_path / "m.onnx")


def test_a_sequence_is_said_to_be_none_before_its_shape_is_asked_for(tmp_path: Path) -> None:
    node = helper.make_node("ConcatFromSequence", ["frames"], ["y"], axis=1)
    given = helper.make_tensor_sequence_value_info("frames", TensorProto.FLOAT, None)
    made_of = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", [given], made_of)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="the input frames is no tensor"):
        check(tmp_path / "m.onnx", Settings(TargetSettings("emulate:fp16")))


def test_what_the_reference_has_no_code_for_is_said_with_its_type(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")]
    ends = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [2, 4]) for name in "xy"]
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [4, 4], [0.5] * 16)
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    notes = " ".join(check(tmp_path / "m.onnx", Settings(TargetSettings("emulate:fp16"))).notes)
    assert "ONNX Runtime has no bfloat16 MatMul on the CPU (mm). --reference python:" in notes
    assert "random" not in notes


def test_a_type_that_is_declared_wrongly_is_no_fault_of_the_parser(tmp_path: Path) -> None:
    """ONNX Runtime refuses the file, so that nobody but ONNX's rules says what the output is."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xyz"]
    graph = helper.make_graph([helper.make_node("Equal", ["x", "y"], ["z"])], "g", ends[:2], ends[2:])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    assert not check(tmp_path / "m.onnx", Settings(TargetSettings("tensorrt-rtx"))).outcome.failures


def test_what_onnx_cannot_infer_is_not_compared(tmp_path: Path) -> None:
    """Its inference raises for a domain without an import, where ONNX Runtime does not run the node."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4]) for name in ("x", "s")]
    node = helper.make_node(
        "SkipSimplifiedLayerNormalization", ["x", "s"], ["y"], "/skip", domain="com.microsoft"
    )
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4])
    graph = helper.make_graph([node], "g", inputs, [output])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", Settings(TargetSettings("tensorrt-rtx")))


def test_an_output_that_is_declared_twice_is_one(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xyz"]
    again = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "g", ends[:1], [*ends[1:], again])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    for target in ("tensorrt-rtx", "ort:CPU"):
        assert not check(tmp_path / "m.onnx", Settings(TargetSettings(target))).outcome.failures


def test_a_sparse_weight_that_is_an_input_too_keeps_its_value(tmp_path: Path) -> None:
    """As a dense one does: neither is fed, to the target's file no more than to the reference."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xwy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:2], ends[2:])
    values = numpy_helper.from_array(np.array([7, 9], np.float32), "w")
    where = numpy_helper.from_array(np.array([1, 3]), "w_places")
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [4]))
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    found = check(tmp_path / "m.onnx", Settings(TargetSettings("ort:CPU")))
    assert found.outputs_compared and not found.outcome.failures


def test_a_version_that_no_operator_set_has_is_refused(tmp_path: Path) -> None:
    """Of ai.onnx.ml: that of ONNX itself is looked at before."""
    made = model(BINARIZER, [1, 4], {}, 17)
    made.opset_import.add(domain="ai.onnx.ml", version=1 << 40)
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="Binarizer"):
        check(tmp_path / "m.onnx", Settings(TargetSettings("ort:CPU")))


def test_names_that_several_nodes_have_are_told(tmp_path: Path) -> None:
    """TensorRT takes such a model, and ONNX Runtime refuses it: `Fine` alone would be half the truth."""
    made, _ = CASES["another word for it"]
    onnx.save(made, tmp_path / "m.onnx")
    assert not load(tmp_path / "m.onnx").notes
    for node in made.graph.node:
        node.name = "twin"
    onnx.save(made, tmp_path / "m.onnx")
    (note,) = load(tmp_path / "m.onnx").notes
    assert "called twin" in note and "ONNX Runtime refuses" in note
