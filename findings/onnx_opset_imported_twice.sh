#!/usr/bin/env bash
# One would guess: a model that imports one domain twice, in two versions, is refused by the checker,
# or is at least read alike by all.
# What happens: the checker accepts it (full_check too), ONNX Runtime goes by the last entry and
# TensorRT-RTX by the first. Softmax without an axis shows it: in opset 11 it flattens, in 17 not.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, tensorrt-rtx 1.7.1.116; seen 2026-11-29.
# Why it matters for bisecting: scripts that join models by hand leave such lists behind. The model
# gives a stable mismatch that moves to the next op whose meaning changed between the two versions.
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
from onnx import TensorProto, helper

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
SHAPE = (1, 2, 2)
x = {"x": np.zeros(SHAPE, np.float32)}


def readings(*versions):
    info = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g",
                              [info("x", TensorProto.FLOAT, SHAPE)], [info("y", TensorProto.FLOAT, SHAPE)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", v) for v in versions], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    network = builder.create_network(0)
    assert trt.OnnxParser(network, logger).parse(data)
    # Opset 11 is read as reshape to 2-D, softmax, reshape; opset 17 starts with the softmax.
    rtx = 17 if network.get_layer(0).type == trt.LayerType.SOFTMAX else 11
    # Four equal values: 1/4 where they were flattened to one row (11), 1/2 over the last axis (17).
    runtime = 11 if ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, x)[0][0, 0, 0] == 0.25 else 17
    print(list(versions), "onnxruntime reads", runtime, "tensorrt-rtx", rtx)
    return runtime, rtx


assert readings(11) == (11, 11) and readings(17) == (17, 17)
assert readings(17, 11) == (11, 17) and readings(11, 17) == (17, 11)
PY
echo "as described: the last entry counts for one, the first for the other"
