#!/usr/bin/env bash
# One would guess: a float16 graph output that is inf makes inf of everything computed from it, and
# making a tensor a graph output shows the value that the rest of the graph uses.
# What happens: the CPU provider computes float16 nodes in float32 and takes out the pairs of casts
# between them, with all graph optimisations disabled as well. In one and the same run the output t
# is inf and the output y = t * 0.001 is 1000.5.
# Versions: onnxruntime 1.32.0 on x86-64, onnx 1.23.2; seen 2026-11-29.
# Public: microsoft/onnxruntime issue 11831 tells of the inserted casts, not of what an output shows.
# Why it matters for bisecting: a search that reads every intermediate tensor finds an overflow at t,
# a search by outputs finds none; both are right about what they looked at.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

HALF = TensorProto.FLOAT16
info = helper.make_tensor_value_info
graph = helper.make_graph(
    [helper.make_node("Mul", ["x", "big"], ["t"]), helper.make_node("Mul", ["t", "small"], ["y"])],
    "g",
    [info("x", HALF, [1])],
    [info("t", HALF, [1]), info("y", HALF, [1])],
    [numpy_helper.from_array(np.array([v], np.float16), n) for n, v in (("big", 1000), ("small", 0.001))],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
print("onnxruntime", ort.__version__)
for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    t, y = session.run(["t", "y"], {"x": np.array([1000], np.float16)})
    print(f"{level}: t = {t[0]}, y = t * 0.001 = {y[0]}")
    assert np.isinf(t[0]) and abs(float(y[0]) - 1000) < 2, "float16 is float16 now"
PY
echo "as described: inf * 0.001 = 1000.5 in one run"
