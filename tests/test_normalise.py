"""Normalisation keeps the meaning, and gives the one form that the rest relies on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from support import LIGHT, model, random_feeds, run, tensor_type

node = helper.make_node
X = tensor_type("x", [2])
Y = tensor_type("y", [2])


def test_the_input_is_not_changed_and_the_result_is_stable() -> None:
    proto = onnx.load(LIGHT / "light_squeezenet.onnx")
    before = proto.SerializeToString(deterministic=True)
    once = normalise(proto)
    assert proto.SerializeToString(deterministic=True) == before
    assert normalise(once) == once


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_light_models_give_the_same_values(name: str, tmp_path: Path) -> None:
    proto = onnx.load(LIGHT / f"light_{name}.onnx")
    flat = normalise(proto)
    onnx.checker.check_model(flat, full_check=True)
    feeds = random_feeds(flat, 1)
    one, other = (
        run(proto.SerializeToString(), tmp_path, feeds),
        run(flat.SerializeToString(), tmp_path, feeds),
    )
    for tensor, value in one.items():
        np.testing.assert_array_equal(other[tensor], value)
    graph = Graph(flat)
    assert all(graph.shape(graph.outputs_of(n)[0]) for n in graph.order)


SPARSE = helper.make_sparse_tensor(
    helper.make_tensor("v", TensorProto.FLOAT, [2], [5, 7]),
    helper.make_tensor("i", TensorProto.INT64, [2], [1, 3]),
    [2, 2],
)
SPARSE_2D = helper.make_sparse_tensor(
    helper.make_tensor("v", TensorProto.FLOAT, [2], [5, 7]),
    helper.make_tensor("i", TensorProto.INT64, [2, 2], [0, 1, 1, 1]),
    [2, 2],
)


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"value": numpy_helper.from_array(np.array([1, 2], np.int8), "old")}, np.array([1, 2], np.int8)),
        ({"value_float": 1.5}, np.array(1.5, np.float32)),
        ({"value_floats": [1.5, 2.5]}, np.array([1.5, 2.5], np.float32)),
        ({"value_int": 7}, np.array(7)),
        ({"value_ints": [7, 8, 9]}, np.array([7, 8, 9])),
        ({"value_string": "a"}, np.array(b"a", object)),
        ({"value_strings": ["a", "b"]}, np.array([b"a", b"b"], object)),
        ({"sparse_value": SPARSE}, np.array([[0, 5], [0, 7]], np.float32)),
        ({"sparse_value": SPARSE_2D}, np.array([[0, 5], [0, 7]], np.float32)),
    ],
)
def test_every_form_of_a_constant_becomes_a_weight(attributes: dict[str, object], wanted: np.ndarray) -> None:
    proto = model(
        [node("Constant", [], ["c"], **attributes), node("Identity", ["c"], ["y"])],
        [],
        [tensor_type("y", list(wanted.shape), helper.np_dtype_to_tensor_dtype(wanted.dtype))],
    )
    flat = normalise(proto)
    assert [n.op_type for n in flat.graph.node] == ["Identity"]
    (tensor,) = flat.graph.initializer
    value = numpy_helper.to_array(tensor)
    assert tensor.name == "c" and value.shape == wanted.shape
    assert [str(v).encode() if isinstance(v, str) else v for v in value.flat] == list(wanted.flat)


def test_a_constant_that_is_an_output_keeps_its_name(tmp_path: Path) -> None:
    proto = model(
        [node("Constant", [], ["y"], "c", value_floats=[1.0]), node("Relu", ["x"], ["y_value"])],
        [X],
        [tensor_type("y", [1]), tensor_type("y_value", [2])],
    )
    flat = normalise(proto)
    got = run(flat.SerializeToString(), tmp_path, {"x": np.float32([-1, 1])})
    assert got["y"].tolist() == [1] and got["y_value"].tolist() == [0, 1]


def if_model() -> onnx.ModelProto:
    def body(name: str, value: float) -> onnx.GraphProto:
        nodes = [
            node("Add", ["k", "x"], ["mine"], "same"),
            node("Constant", [], ["k"], "same", value_float=value),
            node("Mul", ["mine", "k"], [f"{name}_out"], ""),
        ]
        return helper.make_graph(nodes, name, [], [tensor_type(f"{name}_out", [2])])

    return model(
        [
            node("Relu", ["x"], ["r"], "same"),
            node("If", ["c"], ["i"], "", then_branch=body("then", 2), else_branch=body("else", 3)),
            node("Add", ["r", "i"], ["y"], "same"),
        ],
        [X, tensor_type("c", [], TensorProto.BOOL)],
        [Y],
    )


def test_bodies_are_lowered_sorted_and_named(tmp_path: Path) -> None:
    flat = normalise(if_model())
    onnx.checker.check_model(flat)
    (branching,) = [n for n in flat.graph.node if n.op_type == "If"]
    names = [n.name for n in flat.graph.node]
    for attribute in branching.attribute:
        assert [n.op_type for n in attribute.g.node] == ["Add", "Mul"]
        assert [t.name for t in attribute.g.initializer] == ["k"]
        names += [n.name for n in attribute.g.node]
    assert len(set(names)) == len(names) and all(names)
    assert names[0] == "same"
    for flag, wanted in ((True, [6.0, 8.0]), (False, [12.0, 15.0])):  # (x + k) * k
        feeds = {"x": np.float32([1, 2]), "c": np.array(flag)}
        got = run(flat.SerializeToString(), tmp_path, feeds)["y"] - np.float32([1, 2])
        assert got.tolist() == wanted


def test_names_are_kept_where_unique_and_made_where_not() -> None:
    proto = model(
        [
            node("Relu", ["x"], ["a"], "Relu_1"),
            node("Relu", ["a"], ["b"], ""),
            node("Relu", ["b"], ["c"], "mine"),
            node("Relu", ["c"], ["y"], "mine"),
        ],
        [X],
        [Y],
    )
    names = [n.name for n in normalise(proto).graph.node]
    assert names[0] == "Relu_1" and names[2] == "mine"
    assert len(set(names)) == 4 and all(n.startswith("Relu_") for n in (names[1], names[3]))


def test_functions_are_inlined_and_metadata_stays(tmp_path: Path) -> None:
    inner = node("Mul", ["a", "a"], ["b"], "square")
    inner.metadata_props.add(key="source", value="square.py:1")
    function = helper.make_function("local", "Square", ["a"], ["b"], [inner], [helper.make_opsetid("", 17)])
    called = node("Square", ["x"], ["s"], "call", domain="local")
    relu = node("Relu", ["s"], ["y"], "relu")
    relu.metadata_props.add(key="source", value="relu.py:2")
    proto = model([called, relu], [X], [Y], functions=[function],
                  opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)])  # fmt: skip
    flat = normalise(proto)
    assert not flat.functions and [n.op_type for n in flat.graph.node] == ["Mul", "Relu"]
    assert [n.metadata_props[0].value for n in flat.graph.node] == ["square.py:1", "relu.py:2"]
    assert run(flat.SerializeToString(), tmp_path, {"x": np.float32([-2, 3])})["y"].tolist() == [4, 9]


def test_a_function_of_another_opset_is_inlined_too() -> None:
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 13)]
    )
    proto = model([node("Twice", ["x"], ["y"], domain="local")], [X], [Y], functions=[function],
                  opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)])  # fmt: skip
    flat = normalise(proto)
    assert not flat.functions and [n.op_type for n in flat.graph.node] == ["Add"]
    assert flat.graph.node[0].name.startswith("Twice/Add_0")  # unnamed where it was defined


def test_big_weights_survive_inlining() -> None:
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    value = np.arange(4096, dtype=np.float32)
    proto = model(
        [node("Twice", ["x"], ["t"], domain="local"), node("Add", ["t", "w"], ["y"])],
        [tensor_type("x", [4096])], [tensor_type("y", [4096])],
        [numpy_helper.from_array(value, "w")], functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )  # fmt: skip
    (tensor,) = normalise(proto).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), value)


def test_what_no_output_needs_is_dropped_and_order_is_stable() -> None:
    proto = model(
        [
            node("Add", ["b", "a"], ["y"], "last"),
            node("Relu", ["x"], ["a"], "first"),
            node("Neg", ["a"], ["dead"], "dead"),
            node("Sin", ["x"], ["b"], "second"),
            node("Sin", ["dead"], ["deader"], "deader"),
        ],
        [X, tensor_type("unused", [1])],
        [Y],
        [numpy_helper.from_array(np.float32([1]), "spare")],
    )
    flat = normalise(proto)
    assert [n.name for n in flat.graph.node] == ["first", "second", "last"]
    assert not flat.graph.initializer
    assert [i.name for i in flat.graph.input] == ["x", "unused"]


def test_weights_are_no_inputs() -> None:
    proto = model(
        [node("Add", ["x", "w"], ["y"], "a")],
        [X, tensor_type("w", [2])],
        [Y],
        [numpy_helper.from_array(np.float32([1, 2]), "w")],
        ir_version=3,
    )
    flat = normalise(proto)
    assert [i.name for i in flat.graph.input] == ["x"] and flat.ir_version == 4
    onnx.checker.check_model(flat)


def test_a_sparse_weight_becomes_dense() -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [1], [5]), helper.make_tensor("", 7, [1], [1]), [2]
    )
    proto = model([node("Add", ["x", "w"], ["y"])], [X], [Y])
    proto.graph.sparse_initializer.append(sparse)
    (tensor,) = normalise(proto).graph.initializer
    assert tensor.name == "w" and numpy_helper.to_array(tensor).tolist() == [0, 5]


def test_equal_domains_are_merged() -> None:
    proto = model(
        [node("Relu", ["x"], ["a"], domain="ai.onnx"), node("Relu", ["a"], ["y"])],
        [X], [Y], opset_imports=[helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("", 17)],
    )  # fmt: skip
    flat = normalise(proto)
    assert [(o.domain, o.version) for o in flat.opset_import] == [("", 17)]
    assert {n.domain for n in flat.graph.node} == {""}


def test_inference_is_never_fatal() -> None:
    nodes = [node("Concat", ["x", "x"], ["a"], axis=9), node("Unheard", ["a"], ["y"], domain="who")]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("who", 1)]
    proto = model(nodes, [X], [Y], opset_imports=imports)
    assert [n.op_type for n in normalise(proto).graph.node] == ["Concat", "Unheard"]
