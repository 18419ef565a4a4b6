#!/usr/bin/env bash
# One would guess: onnx's own tools know that the branches of an If may use names of the graph around.
# What happens: `compose.add_prefix` renames an initializer but not its uses inside a branch, and
# `utils.Extractor` leaves out an initializer that only a branch uses. Both return a model without
# complaint that no checker accepts. Uses of node outputs in branches are renamed rightly.
# Versions: onnx 1.23.2; seen 2026-11-29. Public: onnx/onnx issue 4687 is the repaired half of it.
# Why it matters for bisecting: the cut-out part of a model is invalid and fails in the parser of the
# tool under test, which then looks like the failure that one was after.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, shape_inference, utils

info = helper.make_tensor_value_info


def branch(name, node):
    return helper.make_graph([node], name, [], [info(node.output[0], TensorProto.FLOAT, [2])])


nodes = [
    helper.make_node("Relu", ["x"], ["r"]),
    helper.make_node("If", ["c"], ["y"],
                     then_branch=branch("then", helper.make_node("Mul", ["r", "k"], ["a"])),
                     else_branch=branch("else", helper.make_node("Neg", ["r"], ["b"]))),
]
graph = helper.make_graph(nodes, "g", [info("c", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, [2])],
                          [info("y", TensorProto.FLOAT, [2])], [numpy_helper.from_array(np.array([3, 4], np.float32), "k")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
print("onnx", onnx.__version__)


def refused(what, made):
    try:
        onnx.checker.check_model(made)
    except onnx.checker.ValidationError as error:
        print(f"{what}: checker: {' '.join(str(error).split())[:110]}")
    else:
        raise AssertionError(f"{what}: the result is valid now")


prefixed = compose.add_prefix(model, "p/")
then = next(a.g for a in prefixed.graph.node[1].attribute if a.name == "then_branch")
print("add_prefix: initializer", prefixed.graph.initializer[0].name, "used in the branch as", list(then.node[0].input))
assert prefixed.graph.initializer[0].name == "p/k" and list(then.node[0].input) == ["p/r", "k"]
refused("add_prefix", prefixed)
extracted = utils.Extractor(shape_inference.infer_shapes(model)).extract_model(["c", "r"], ["y"])
print("Extractor: initializers kept:", [i.name for i in extracted.graph.initializer])
assert not extracted.graph.initializer
refused("Extractor", extracted)
PY
echo "as described: what only a branch uses is forgotten"
