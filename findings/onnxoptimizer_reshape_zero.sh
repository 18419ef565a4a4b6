#!/usr/bin/env bash
# One would guess: of two Reshapes in a row the first can go; the default passes of onnxoptimizer do so.
# What happens: a 0 in the second shape means "the dimension of my input". Once the first Reshape is
# gone it means another dimension: [2,3,4] -> [1,2,3,4] -> [0,-1] is [1,24] before and [2,12] after.
# Nothing is raised, the number of elements fits. GroupNormalization written out as its function
# body has such a pair, and its values change, not only a shape.
# Versions: onnxoptimizer 0.4.2, onnx 1.23.2, onnxruntime 1.32.0 as the judge; seen 2026-11-29.
# Why it matters for bisecting: "simplify it first" is the advice in every tracker; here it plants a
# second bug in the model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 onnxoptimizer==0.4.2
"$work/venv/bin/python" - <<'PY'
from importlib import metadata

import numpy as np
import onnx
import onnxoptimizer
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

info = helper.make_tensor_value_info


def shape(name, dims):
    return numpy_helper.from_array(np.array(dims), name)


def run(model, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def chain(dims, first, second, axis=None):
    """Two Reshapes; with an axis, a Softmax over it behind them, so that values change as well."""
    nodes = [helper.make_node("Reshape", ["x", "a"], ["t"]), helper.make_node("Reshape", ["t", "b"], ["y"])]
    if axis is not None:
        nodes[1].output[0] = "u"
        nodes.append(helper.make_node("Softmax", ["u"], ["y"], axis=axis))
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, dims)], [info("y", TensorProto.FLOAT, [None] * len(second))],
                              [shape("a", first), shape("b", second)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


print("onnxoptimizer", metadata.version("onnxoptimizer"))
x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
for what, model in (("reshapes", chain([2, 3, 4], [1, 2, 3, 4], [0, -1])), ("with Softmax", chain([2, 3, 4], [1, 2, 3, 4], [0, -1], -1))):
    small = onnxoptimizer.optimize(model)
    onnx.checker.check_model(small)
    before, after = run(model, x), run(small, x)
    print(f"{what}: {[n.op_type for n in small.graph.node]} shape {before.shape} -> {after.shape}, sum {before.sum():.4g} -> {after.sum():.4g}")
    assert before.shape == (1, 24) and after.shape == (2, 12), "the 0 is kept in mind now"
PY
echo "as described: the output has another shape after the default passes"
