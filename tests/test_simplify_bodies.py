"""Constants, dimensions, nodes and names inside If, Loop and Scan are simplified like all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.external import tensors
from bisect_trt.model.walk import hoist, inner_nodes, scopes, unique_names
from simplify_bench import ints, node, simplified, weight
from support import model

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def info(name: str, *dims: int, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def body(name: str, inputs: list[onnx.ValueInfoProto], states: list[str], read: str) -> onnx.GraphProto:
    """states -> states; a convolution, an Add and a Relu of `read` are collected."""
    nodes = [node("Identity", [s], [f"{s}_out"], f"keep_{s}") for s in states]
    nodes += [
        node("Conv", [read, "k"], ["c"], f"{name}_conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Add", ["c", "v"], ["a"], f"{name}_add"),
        node("Relu", ["a"], ["out"], f"{name}_relu"),
    ]
    kinds = {i.name: i.type for i in inputs}
    made = [onnx.ValueInfoProto(name=f"{s}_out", type=kinds[s]) for s in states]
    weights = [weight("k", (6, 3, 3, 3)), weight("v", (6, 8, 8), 1)]
    return helper.make_graph(nodes, name, inputs, [*made, info("out", 2, 6, 8, 8)], weights)


def loop() -> onnx.ModelProto:
    inputs = [info("i", kind=INT64), info("go", kind=BOOL), info("h", 2, 3, 8, 8)]
    run = node("Loop", ["n", "true", "x"], ["last", "y"], body=body("b", inputs, ["go", "h"], "h"))
    constants = [ints("n", 2), numpy_helper.from_array(np.array(True), "true")]
    constants[0].dims[:] = []
    return model([run], [info("x", 2, 3, 8, 8)], [info("y", 2, 2, 6, 8, 8)], constants)


def scan() -> onnx.ModelProto:
    inputs = [info("s", 5), info("e", 2, 3, 8, 8)]
    run = node("Scan", ["z", "x"], ["last", "y"], num_scan_inputs=1, body=body("b", inputs, ["s"], "e"))
    return model([run], [info("x", 4, 2, 3, 8, 8)], [info("y", 4, 2, 6, 8, 8)], [weight("z", (5,))])


def branches() -> onnx.ModelProto:
    both = {f"{side}_branch": body(side, [], [], "x") for side in ("then", "else")}
    run = node("If", ["go"], ["y"], **both)
    return model([run], [info("go", kind=BOOL), info("x", 2, 3, 8, 8)], [info("y", 2, 6, 8, 8)])


CASES = {"Loop": loop, "Scan": scan, "If": branches}


@pytest.mark.parametrize("op", CASES)
def test_what_is_in_a_body_becomes_simple(op: str, tmp_path: Path) -> None:
    proto = CASES[op]()
    proto.graph.node[0].attribute[0].g.doc_string = "secret"
    feeds = {
        i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], np.float32)
        for i in proto.graph.input
    }
    if op == "If":
        feeds["go"] = np.array(True)

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        convs = [n for n in inner_nodes(proto.graph) if n.op_type == "Conv"]
        return len(convs) == 1 + (op == "If") and any(n.op_type == op for n in proto.graph.node)

    left, _, _ = simplified(proto, feeds, fails, tmp_path)
    assert {n.op_type for n in inner_nodes(left.graph)} <= {op, "Conv", "Identity"}
    for tensor in tensors(left):
        assert set(tensor.dims) <= {1} and not numpy_helper.to_array(tensor).any(), tensor.name
    for part in list(scopes(left.graph))[1:]:
        for one in (*part.input, *part.output):
            assert {d.dim_value for d in one.type.tensor_type.shape.dim} <= {1}
        assert part.name.startswith("body") and not part.doc_string and not part.value_info
    assert not any(d in onnx.printer.to_text(left) for d in ("_conv", "_relu", "secret", "keep_"))


def test_weights_of_bodies_get_names_and_places_of_their_own(tmp_path: Path) -> None:
    """Both branches have a `k` and a `c`; one of them gives a weight as it is."""
    proto = branches()
    other = proto.graph.node[0].attribute[1].g
    del other.node[:]
    other.output[0].CopyFrom(info("v", 6, 8, 8))
    before = {t.name for t in tensors(proto)}
    unique_names(proto.graph)
    hoist(proto.graph)
    names = [t.name for t in proto.graph.initializer]
    assert len(names) == len(set(names)) == 4 and before <= set(names) | {"v"}
    assert not any(part.initializer for part in list(scopes(proto.graph))[1:])
    [copy] = other.node
    assert copy.op_type == "Identity" and copy.output[0] == other.output[0].name
    proto.graph.output[0].CopyFrom(info("y", 2, 6, 8, 8))
    onnx.checker.check_model(proto)
