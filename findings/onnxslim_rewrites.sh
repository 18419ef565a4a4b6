#!/usr/bin/env bash
# One would guess: a simplifier that found nothing to warn about returns the same function.
# What happens: three rewrites of onnxslim's default run change results without a word.
# 1. Conv times a constant [W] along the width is folded into the channels when there are W of them.
# 2. Gemm, Reshape, Mul: the factor goes into the Gemm's weights, although the Gemm has another user.
# 3. Clip(x, low, "") and Clip(x, "", low) are taken for the same node, since empty inputs are dropped
#    before comparing: the negative part of x becomes the positive one.
# Versions: onnxslim 0.1.98, onnx 1.23.2, onnxruntime 1.32.0 as the judge; seen 2026-11-29.
# Why it matters for bisecting: simplify first, bisect then, and the node that is found is one that the
# simplifier made; both backends agree on the simplified model, and neither with the original.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 onnxslim==0.1.98
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime as ort
import onnxslim
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node


def run(made, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})


def before_and_after(nodes, weights, x, outputs):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, x.shape)],
                              [info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
                              [numpy_helper.from_array(value, name) for name, value in weights.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    slim = onnxslim.slim(copy)
    onnx.checker.check_model(slim, full_check=True)
    print("  ", [n.op_type for n in made.graph.node], "->", [n.op_type for n in slim.graph.node])
    return run(made, x), run(slim, x)


print("onnxslim", version("onnxslim"), "onnxruntime", ort.__version__)
ones, factors = np.ones((1, 1, 1, 2), np.float32), np.array([1, 10], np.float32)
(y,), (z,) = before_and_after([node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "factors"], ["y"])],
                              {"w": np.ones((2, 1, 1, 1), np.float32), "factors": factors}, ones, {"y": [1, 2, 1, 2]})
print("   Conv of ones times [1, 10] along the width:", y.ravel().tolist(), "->", z.ravel().tolist())
assert y.ravel().tolist() == [1, 10, 1, 10] and z.ravel().tolist() == [1, 1, 10, 10]

nodes = [node("Gemm", ["x", "w", "b"], ["g"], transB=1), node("Reshape", ["g", "s"], ["r"]), node("Mul", ["r", "factors"], ["y"]),
         node("Relu", ["g"], ["other"])]
weights = {"w": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32), "s": np.array([1, 1, 2], np.int64), "factors": factors}
before, after = before_and_after(nodes, weights, np.ones((1, 3), np.float32), {"y": [1, 1, 2], "other": [1, 2]})
print("   the other user of the Gemm:", before[1].tolist(), "->", after[1].tolist())
assert np.array_equal(before[0], after[0]) and before[1].tolist() == [[3, 3]] and after[1].tolist() == [[3, 30]]

nodes = [node("Clip", ["x", "zero", ""], ["positive"]), node("Clip", ["x", "", "zero"], ["negative"]),
         node("Sub", ["positive", "negative"], ["y"])]
x = np.array([-2, -1, 1, 2], np.float32)
(y,), (z,) = before_and_after(nodes, {"zero": np.array(0, np.float32)}, x, {"y": [4]})
print("   positive minus negative part of", x.tolist(), y.tolist(), "->", z.tolist())
assert y.tolist() == [2, 1, 1, 2] and z.tolist() == [0, 0, 0, 0]
PY
echo "as described: three models with other results, all valid"
