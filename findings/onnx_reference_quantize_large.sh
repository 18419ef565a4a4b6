#!/usr/bin/env bash
# One would guess: QuantizeLinear saturates, so 3e9 becomes 127 as 1000 does.
# What happens: onnx's ReferenceEvaluator goes through a 32-bit integer before it clips: 3e9 and inf
# become -128 for INT8 and 0 for UINT8. Release 1.14.1 had it right (and rounded halves wrongly
# instead: 0.5 to 1 and 2.5 to 3).
# Versions: onnx 1.14.1 and 1.23.2 (1.16.2 to 1.20.1 as the latter), onnxruntime 1.32.0; seen 2026-11-29.
# Why it matters for bisecting: on the very input that one examines, an overflow, the reference turns
# the largest value into the smallest, and calls the backend that saturates wrong by 255 steps.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for triple in "1.14.1 [1,3,127,127,127]" "1.23.2 [0,2,127,-128,-128]"; do
set -- $triple
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnx==$1 onnxruntime==1.32.0 $([ $1 = 1.14.1 ] && echo 'numpy<2')
"$work/$1/bin/python" -W ignore - "$2" <<'PY'
import sys
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

info = helper.make_tensor_value_info
graph = helper.make_graph(
    [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
    "g",
    [info("x", TensorProto.FLOAT, [5])],
    [info("y", TensorProto.INT8, [5])],
    [numpy_helper.from_array(np.array(1, np.float32), "scale"), numpy_helper.from_array(np.array(0, np.int8), "zero")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
x = np.array([0.5, 2.5, 1000, 3e9, np.inf], np.float32)
reference = np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0]).tolist()
runtime = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].tolist()
print("onnx", onnx.__version__, x.tolist(), "ReferenceEvaluator", reference, "onnxruntime", runtime)
assert runtime == [0, 2, 127, 127, 127] and str(reference).replace(" ", "") == sys.argv[1]
PY
done
echo "as described: 3e9 is quantized to -128"
