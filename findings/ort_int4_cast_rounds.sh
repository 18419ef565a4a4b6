#!/usr/bin/env bash
# One would guess: a Cast of a float to INT4 drops the fraction, as a Cast to INT8 does.
# What happens: ONNX Runtime rounds for INT4 (-1.5 to -2, 3.7 to 4) and truncates for INT8 (-1, 3).
# The rounding comes before the four bits are cut out: 7.5 becomes 8 and so -8. onnx's own
# ReferenceEvaluator truncates for both.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: a weight that is 7.5 steps large changes its sign, and only in the
# runtime; the reference evaluator, asked for its opinion, sees nothing.
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

x = np.array([-1.5, 3.7, 7.5, -8.4], np.float32)
rows = {}
for name in ("INT4", "INT8"):
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["x"], ["q"], to=getattr(TensorProto, name)),
        helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [4])], [info("y", TensorProto.FLOAT, [4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    rows[name] = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].tolist()
    rows[name + " by onnx"] = np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0], np.float32).tolist()
print("onnxruntime", ort.__version__, "onnx", onnx.__version__, "x", x.tolist())
for name, row in rows.items():
    print(f"{name:13}", row)
assert rows["INT4"] == [-2, 4, -8, -8], "INT4 truncates now"
assert rows["INT8"] == [-1, 3, 7, -8] == rows["INT4 by onnx"] == rows["INT8 by onnx"]
PY
echo "as described: INT4 rounds, INT8 truncates"
