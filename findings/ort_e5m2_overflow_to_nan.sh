#!/usr/bin/env bash
# One would guess: Cast to FLOAT8E5M2 with saturate=0 makes inf of what is too large (the type has
# inf, and the table of the standard says so).
# What happens: ONNX Runtime makes inf of 1e20, but NaN of the band just above the largest number,
# 61440 to 65535, where rounding carries into the exponent. onnx's ReferenceEvaluator says inf.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: NaN and inf send one to different culprits (0*inf, inf-inf against a
# plain overflow), and this NaN is born of finite numbers in a lone Cast.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

info = helper.make_tensor_value_info
nodes = [
    helper.make_node("Cast", ["x"], ["q"], to=TensorProto.FLOAT8E5M2, saturate=0),
    helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT),
]
graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [5])], [info("y", TensorProto.FLOAT, [5])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
x = np.array([57344, 61440, 65520, 1e20, np.inf], np.float32)
ours = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
theirs = np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0], np.float32)
print("x                 ", x.tolist())
print("onnxruntime", ort.__version__, ours.tolist())
print("onnx", onnx.__version__, "       ", theirs.tolist())
assert np.isnan(ours[1]) and np.isnan(ours[2]) and np.isinf(ours[3]) and np.isinf(ours[4]), "the band is inf now"
assert np.isinf(theirs[1:]).all()
PY
echo "as described: 61440 is NaN and 1e20 is inf"
