#!/usr/bin/env bash
# One would guess: onnxscript.optimizer.optimize, which onnxscript also hands to PyTorch's exporter
# (onnxscript/_framework_apis), returns the same function.
# What happens: three of its default rewrites change results without a word.
# 1. Relu(Clip(x, max=-1)) becomes Clip(x, 0, -1). With min above max Clip gives max, so the Relu is -1.
# 2. Clip(Clip(x, 0, 1), 2, 3), always 2, becomes Clip(x, 2, 1), always 1.
# 3. Pad with 0 and ConvInteger with a zero point of 128 become one ConvInteger, whose own padding is the zero
#    point: the padded places counted -128 and count 0 now.
# Why: the rules take the larger min and the smaller max without asking which clip comes last, and the rule
# for Pad asks for the value 0, which is zero for Conv and is not for ConvInteger.
# Versions: onnxscript 0.7.2, onnx-ir 1.1.0; the judges, which agree, are onnxruntime 1.32.0 with all optimisation off
# and the ReferenceEvaluator of onnx 1.23.2; seen 2026-11-30.
# Why it matters for bisecting: a model that was optimised on export is wrong before any backend saw it, and cutting
# layers away can bring such pairs of clips together.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxscript==0.7.2 onnx-ir==1.1.0 onnx==1.23.2 onnxruntime==1.32.0
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime as ort
import onnxscript.optimizer
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

node = helper.make_node


def run(made, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (y,) = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.array_equal(y, ReferenceEvaluator(made).run(None, {"x": x})[0]), "the judges differ"
    return y.ravel().tolist()


def before_and_after(nodes, weights, x, kind, shape):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)], [info("y", kind, shape)],
                              [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(made)
    better = onnxscript.optimizer.optimize(copy)
    onnx.checker.check_model(better, full_check=True)
    y, z = run(made, x), run(better, x)
    print("  ", [n.op_type for n in made.graph.node], "->", [n.op_type for n in better.graph.node], y, "->", z)
    return y, z


number = np.float32
print("onnxscript", version("onnxscript"), "onnx-ir", version("onnx-ir"), "onnxruntime", ort.__version__)
x = np.array([-2, 0, 2], np.float32)
y, z = before_and_after([node("Clip", ["x", "", "max"], ["c"]), node("Relu", ["c"], ["y"])], {"max": number(-1)}, x, TensorProto.FLOAT, [3])
assert y == [0, 0, 0] and z == [-1, -1, -1]
y, z = before_and_after([node("Clip", ["x", "zero", "one"], ["c"]), node("Clip", ["c", "two", "three"], ["y"])],
                           {"zero": number(0), "one": number(1), "two": number(2), "three": number(3)}, x, TensorProto.FLOAT, [3])
assert y == [2, 2, 2] and z == [1, 1, 1]
x = np.array([128, 129], np.uint8).reshape(1, 1, 1, 2)
weights = {"pads": np.array([0, 0, 0, 1, 0, 0, 0, 1]), "value": np.uint8(0), "w": np.ones((1, 1, 1, 2), np.uint8), "zero_point": np.uint8(128)}
y, z = before_and_after([node("Pad", ["x", "pads", "value"], ["p"]), node("ConvInteger", ["p", "w", "zero_point"], ["y"])], weights, x,
                              TensorProto.INT32, [1, 1, 1, 3])
assert y == [-128, 1, -127] and z == [0, 1, 1]
PY
echo "as described: three models with other results, all valid"
