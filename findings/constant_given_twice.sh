#!/usr/bin/env bash
# One would guess: a name that two Constants give is an error everywhere, or means the value that was given
# last before it is read.
# What happens: ONNX Runtime takes the last value of the file for every reader, also for those in front of
# it, and logs a warning; onnx's ReferenceEvaluator takes the value of the moment; TensorRT-RTX says that
# the nodes cannot be sorted; shape inference in strict mode has no complaint, the checker does.
# Versions: onnxruntime 1.32.0, onnx 1.23.2, tensorrt-rtx 1.7.1.116; seen 2026-11-30.
# Why it matters for bisecting: the first node that differs between the two that run it is the reader in
# front of the second Constant, which is innocent; and a tool that makes initializers of Constants decides
# by the order in which it does so. A model of ONNX Runtime's own tests (a GPT-2) is of this kind.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 tensorrt-rtx==1.7.1.116
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

info = helper.make_tensor_value_info


def constant(*values):
    return helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(values, np.float32)))


nodes = [constant(1, 2), helper.make_node("Add", ["x", "c"], ["h"]),
         constant(10, 20), helper.make_node("Mul", ["h", "c"], ["y"])]
graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [2])], [info("y", TensorProto.FLOAT, [2])])
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
x = np.array([1, 2], np.float32)
try:
    onnx.checker.check_model(made)
    refused = False
except onnx.checker.ValidationError:
    refused = True
onnx.shape_inference.infer_shapes(made, strict_mode=True)
options = ort.SessionOptions()
options.log_severity_level = 4
session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
runtime = session.run(None, {"x": x})[0].tolist()
reference = ReferenceEvaluator(made).run(None, {"x": x})[0].tolist()
logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
taken = parser.parse(made.SerializeToString())
print("onnx.checker refuses it:", refused)
print(f"onnxruntime {ort.__version__}: {runtime}  ((x + c) * c with [10, 20] in both places)")
print(f"onnx {onnx.__version__} ReferenceEvaluator: {reference}  (first [1, 2], then [10, 20])")
print(f"tensorrt-rtx {trt.__version__}: {'taken' if taken else parser.get_error(0).desc().strip()}")
assert refused and runtime == [110.0, 440.0] and reference == [20.0, 80.0] and not taken
PY
echo "as described: three readings of one name that two Constants give"
