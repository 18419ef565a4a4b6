#!/usr/bin/env bash
# One would guess: onnx's ReferenceEvaluator normalises every channel in LRN.
# What happens: it goes over as many channels as the batch is large. With one picture only channel 0 is
# normalised, all others are divided by bias ** beta, 1 by default, and come out as they went in. With
# as many pictures as channels the result is right, and with more it raises IndexError.
# Versions: onnx 1.23.2 (1.16.2 too), onnxruntime 1.32.0 as the judge, and the formula in NumPy; seen
# 2026-11-29. The op's own backend test has 5 pictures of 5 channels.
# Why it matters for bisecting: LRN is in AlexNet, GoogLeNet and their kin. Asked for its opinion on one
# picture, the reference contradicts every backend at the first LRN, and agrees again at batch C.
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

channels, size, alpha, beta = 4, 3, 1.0, 0.5


def formula(x):
    y = np.empty_like(x)
    for c in range(channels):
        near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        y[:, c] = x[:, c] / (1 + alpha / size * (near**2).sum(axis=1)) ** beta
    return y


seen = {}
for batch in (1, 2, 4, 5):
    info = helper.make_tensor_value_info
    shape = [batch, channels, 1, 1]
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=alpha, beta=beta)
    graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, shape)], [info("y", TensorProto.FLOAT, shape)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    x = np.tile(np.array([1, 2, 3, 4], np.float32).reshape(1, channels, 1, 1), (batch, 1, 1, 1))
    runtime = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert np.allclose(runtime, formula(x), atol=1e-5)
    try:
        reference = ReferenceEvaluator(made).run(None, {"x": x})[0]
        wrong = [c for c in range(channels) if not np.allclose(reference[:, c], runtime[:, c], atol=1e-5)]
        assert np.array_equal(reference[:, wrong], x[:, wrong])
        shown = reference[0].ravel().astype(float).round(3).tolist()
    except IndexError as error:
        wrong, shown = "IndexError", str(error)
    seen[batch] = wrong
    print(f"batch {batch}: onnxruntime {ort.__version__} {runtime[0].ravel().astype(float).round(3).tolist()}  "
          f"onnx {onnx.__version__} {shown}  untouched channels: {wrong}")
assert seen == {1: [1, 2, 3], 2: [2, 3], 4: [], 5: "IndexError"}, seen
PY
echo "as described: only the first channels are normalised"
