"""The index: order, captures, generators, constants, boundaries."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.graph import Graph, captures, topological
from support import model, tensor_type

F = TensorProto.FLOAT
node = helper.make_node


def weight(name: str, *values: float) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def diamond() -> Graph:
    """x -> a -> (b, c) -> d -> y, with the weight w in b."""
    return Graph(
        model(
            [
                node("Relu", ["x"], ["ta"], "a"),
                node("Add", ["ta", "w"], ["tb"], "b"),
                node("Clip", ["ta", "", "top"], ["tc"], "c"),
                node("Mul", ["tb", "tc"], ["y"], "d"),
            ],
            [tensor_type("x", [1])],
            [tensor_type("y", [1])],
            [weight("w", 1), numpy_helper.from_array(np.float32(5), "top")],
        )
    )


def branch(op: str, inputs: list[str], out: str) -> object:
    return helper.make_graph([node(op, inputs, [out], f"in_{out}")], out, [], [tensor_type(out, None)])


def test_order_producers_and_consumers() -> None:
    graph = diamond()
    assert graph.order == ("a", "b", "c", "d")
    assert graph.producer["tb"] == "b" and "x" not in graph.producer
    assert graph.consumers["ta"] == ("b", "c") and "y" not in graph.consumers
    assert graph.inputs_of("c") == ("ta", "top")  # the omitted input is left out
    assert graph.graph_inputs == ("x",) and graph.graph_outputs == ("y",)
    assert graph.elem_type("w") == F and graph.shape("w") == (1,)


def test_unsorted_nodes_are_sorted_and_cycles_are_refused() -> None:
    proto = diamond().proto
    for swap in (proto.graph.node[::-1], [proto.graph.node[i] for i in (2, 0, 3, 1)]):
        nodes = [type(n).FromString(n.SerializeToString()) for n in swap]
        other = model(nodes, list(proto.graph.input), list(proto.graph.output), list(proto.graph.initializer))
        order = Graph(other).order
        assert order[0] == "a" and order[-1] == "d"
    with pytest.raises(Exception, match="cycle"):
        topological([node("Add", ["b", "x"], ["a"]), node("Relu", ["a"], ["b"])])


def test_equal_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unique"):
        Graph(
            model(
                [node("Relu", ["x"], ["a"], "n"), node("Relu", ["a"], ["y"], "n")],
                [tensor_type("x", [1])],
                [tensor_type("y", [1])],
            )
        )


@pytest.mark.parametrize(
    ("selection", "inputs", "outputs"),
    [
        ("a", ("x",), ("ta",)),
        ("b", ("ta",), ("tb",)),
        ("ab", ("x",), ("ta", "tb")),
        ("bc", ("ta",), ("tb", "tc")),
        ("bcd", ("ta",), ("y",)),
        ("ad", ("x", "tb", "tc"), ("y", "ta")),
        ("abcd", ("x",), ("y",)),
    ],
)
def test_boundary(selection: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    graph = diamond()
    assert graph.boundary(graph.sorted(reversed(selection))) == (inputs, outputs)


def test_unknown_node_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        diamond().sorted({"a", "nobody"})


def test_outputs_that_nobody_reads_leave_only_when_all_are_unread() -> None:
    graph = Graph(
        model(
            [
                node("TopK", ["x", "k"], ["values", "indices"], "top"),
                node("TopK", ["x", "k"], ["dead_values", ""], "dead"),
                node("Relu", ["values"], ["y"], "r"),
            ],
            [tensor_type("x", [4])],
            [tensor_type("y", None)],
            [numpy_helper.from_array(np.array([2]), "k")],
        )
    )
    assert graph.boundary(["top"]).outputs == ("values",)
    assert graph.boundary(graph.sorted({"dead", "r"})).outputs == ("y", "dead_values")


def test_captures_count_as_inputs_through_nested_bodies() -> None:
    inner = node("If", ["flag"], ["o"], "inner", then_branch=branch("Relu", ["deep"], "p"),
                 else_branch=branch("Neg", ["w"], "q"))  # fmt: skip
    outer = helper.make_graph(
        [node("Relu", ["near"], ["local"]), node("Neg", ["local"], ["l2"]), inner],
        "outer", [], [tensor_type("o", None)],
    )  # fmt: skip
    assert captures(outer) == ["near", "flag", "w", "deep"]
    passed = helper.make_graph([], "passed", [], [tensor_type("straight", None)])
    assert captures(passed) == ["straight"]
    graph = Graph(
        model(
            [
                node("Relu", ["x"], ["deep"], "d"),
                node("If", ["c"], ["y"], "i", then_branch=outer, else_branch=passed),
                node("Relu", ["x"], ["straight"], "s"),
                node("Relu", ["x"], ["near"], "n"),
            ],
            [tensor_type("x", [1]), tensor_type("c", [], 9), tensor_type("flag", [], 9)],
            [tensor_type("y", [1])],
            [weight("w", 1)],
        )
    )
    assert graph.order[-1] == "i"
    assert graph.boundary(["i"]).inputs == ("c", "flag", "deep", "straight", "near")
    assert graph.neighbourhood({"i"}, 1) == {"d", "i", "s", "n"}


def test_generators_are_weights_unless_they_are_outputs() -> None:
    shape = numpy_helper.from_array(np.array([2]), "shape")
    nodes = [
        node("ConstantOfShape", ["shape"], ["w"], "g"),
        node("ConstantOfShape", ["shape"], ["out"], "kept"),
        node("Shape", ["x"], ["s"], "shape_of"),
        node("ConstantOfShape", ["s"], ["z"], "dynamic"),
        node("Add", ["x", "w"], ["a"], "add"),
        node("Add", ["a", "z"], ["y"], "last"),
    ]
    outputs = [tensor_type("y", [2]), tensor_type("out", [2])]
    graph = Graph(model(nodes, [tensor_type("x", [2])], outputs, [shape]))
    assert graph.generators == {"g"}
    assert graph.order == ("kept", "shape_of", "dynamic", "add", "last")
    assert graph.boundary(["add"]).inputs == ("x",)
    assert graph.inputs_of("add") == ("x", "w")
    assert {"w", "out", "shape"} == graph.constants


def test_random_values_are_no_constants() -> None:
    nodes = [
        node("RandomUniform", [], ["r"], "r", shape=[2]),
        node("Bernoulli", ["w"], ["b"], "b"),
        node("Sin", ["w"], ["sin"], "sin"),
        node("Add", ["sin", "r"], ["mixed"], "mixed"),
        node("If", ["c"], ["i"], "i", then_branch=branch("Bernoulli", ["w"], "p"),
             else_branch=branch("Neg", ["w"], "q")),
        node("Sum", ["b", "mixed", "i", "x"], ["y"], "y"),
    ]  # fmt: skip
    flag = numpy_helper.from_array(np.array(True), "c")
    graph = Graph(model(nodes, [tensor_type("x", [2])], [tensor_type("y", [2])], [weight("w", 1, 1), flag]))
    assert graph.constants == {"w", "c", "sin"}


def test_weights_cost_and_neighbourhood() -> None:
    graph = diamond()
    assert graph.neighbourhood({"b"}, 0) == {"b"}
    assert graph.neighbourhood({"b"}, 1) == {"a", "b", "d"}
    assert graph.neighbourhood({"b"}, 2) == {"a", "b", "c", "d"}
    assert all(graph.weight(name) >= 1 for name in graph.order)
    conv = Graph(
        model(
            [node("Conv", ["x", "k"], ["y"], "c")],
            [tensor_type("x", [1, 1, 4, 4]), tensor_type("k", [1, 1, 1, 1])],
            [tensor_type("y", None)],
        )
    )
    assert conv.weight("c") > graph.weight("b")


def test_unknown_and_negative_dimensions() -> None:
    proto = model(
        [node("Relu", ["x"], ["y"], "r")], [tensor_type("x", [-1, "N", 3])], [tensor_type("y", None)]
    )
    graph = Graph(proto)
    assert graph.shape("x") == (None, "N", 3)
    assert graph.shape("y") is None and graph.elem_type("y") == F
    assert graph.value_info("nobody") is None and graph.elem_type("nobody") is None
