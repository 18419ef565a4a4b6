#!/usr/bin/env bash
# One would guess: the slope of PRelu is broadcast as in NumPy, from the last axis, as the standard says.
# What happens: OpenVINO and OpenCV take a slope [C] for one number a channel whenever C is the size of
# axis 1: for an input [1, 2, 2, 2] the slope [2, 3] is laid along axis 1 and not along the width.
# ONNX Runtime and onnx's ReferenceEvaluator lay it along the width. Nothing is said by anyone.
# Versions: openvino 2026.4.1, opencv-python-headless 5.0.0.93, onnxruntime 1.32.0, onnx 1.23.2; seen
# 2026-11-29.
# Why it matters for bisecting: whether two backends agree depends on the sizes of the picture: same
# weights, other crop, other verdict. Writing the slope as [C, 1, 1] is what all read alike.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 openvino==2026.4.1 opencv-python-headless==5.0.0.93
"$work/venv/bin/python" -W ignore - <<'PY'
import cv2
import numpy as np
import onnx
import onnxruntime as ort
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

core = openvino.Core()
x = -np.ones((1, 2, 2, 2), np.float32)


def results(slope):
    info = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("PRelu", ["x", "slope"], ["y"])], "g", [info("x", TensorProto.FLOAT, x.shape)],
                              [info("y", TensorProto.FLOAT, x.shape)], [numpy_helper.from_array(slope, "slope")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    model = made.SerializeToString()
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    net.setInput(x)
    return {
        "onnxruntime " + ort.__version__: ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0],
        "onnx " + onnx.__version__: ReferenceEvaluator(made).run(None, {"x": x})[0],
        "openvino " + openvino.__version__.split("-")[0]: core.compile_model(core.read_model(model), "CPU")(x)[0],
        "opencv " + cv2.__version__: net.forward(),
    }


flat = np.array([2, 3], np.float32)
per_width, per_channel = x * flat, x * flat.reshape(2, 1, 1)  # NumPy's rule, and the other reading
seen = {}
for name, y in results(flat).items():
    seen[name.split()[0]] = "width" if np.allclose(y, per_width) else "channel" if np.allclose(y, per_channel) else "neither"
    print(f"{name:22} slope [2] goes along the {seen[name.split()[0]]}: {np.asarray(y).ravel().tolist()}")
assert seen == {"onnxruntime": "width", "onnx": "width", "openvino": "channel", "opencv": "channel"}, seen
assert all(np.allclose(y, per_channel) for y in results(flat.reshape(2, 1, 1)).values())  # [C, 1, 1]: one reading
PY
echo "as described: the same slope on two axes"
