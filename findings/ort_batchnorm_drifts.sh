#!/usr/bin/env bash
# One would guess: one session, one input, a model without random ops: every run gives the same.
# What happens: a BatchNormalization in training mode whose parameters are as they are at birth (scale 1,
# bias 0, mean 0, variance 1) gives another Y in each run, and none is right. The default optimization
# merges the equal weights, the kernel writes the running mean and variance into them, and so into
# scale and bias. With optimization off, or with weights that differ, all runs give the right Y.
# Versions: onnxruntime 1.32.0 (1.20.1, 1.25.1 and 1.31.1 too), onnx 1.23.2; seen 2026-11-29.
# Public: microsoft/onnxruntime issue 29790 tells that Y depends on the momentum, not that it drifts.
# Why it matters for bisecting: a second run of the same candidate gives another verdict, which looks
# like a flaky backend; a fresh session for each probe makes it stable, and wrong all the same.
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

x = np.array([0, 1, 2, 3], np.float32).reshape(1, 1, 4)


def runs(scale, bias, mean, variance, level):
    info = helper.make_tensor_value_info
    values = {"scale": scale, "bias": bias, "mean": mean, "variance": variance}
    node = helper.make_node("BatchNormalization", ["x", *values], ["y", "new_mean", "new_variance"], training_mode=1)
    graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, [1, 1, 4])], [info("y", TensorProto.FLOAT, [1, 1, 4])],
                              [numpy_helper.from_array(np.array([value], np.float32), name) for name, value in values.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": x})[0].ravel() for _ in range(3)]


def right(scale, bias):
    return (x.ravel() - x.mean()) / np.sqrt(x.var() + 1e-5) * scale + bias


levels = ort.GraphOptimizationLevel
fresh = runs(1, 0, 0, 1, levels.ORT_ENABLE_ALL)
off = runs(1, 0, 0, 1, levels.ORT_DISABLE_ALL)
other = runs(2, 0.5, 0.25, 3, levels.ORT_ENABLE_ALL)
print("onnxruntime", ort.__version__, "right", right(1, 0).astype(float).round(3).tolist())
for number, y in enumerate(fresh, 1):
    print(f"  run {number} of one session:", y.astype(float).round(3).tolist())
assert all(np.allclose(y, right(1, 0), atol=1e-4) for y in off)
assert all(np.allclose(y, right(2, 0.5), atol=1e-4) for y in other)
assert np.allclose([y[0] for y in fresh], [-1.2252, -1.1204, -1.0260], atol=1e-3)
PY
echo "as described: three runs, three results"
