#!/usr/bin/env bash
# One would guess: an input of the graph that has a default (an initializer of its name) is an input.
# What happens: in ONNX Runtime it is one, optional, and feeding it changes the result. TensorRT-RTX
# makes a constant of it: the network has one input less, no message is given, and whoever feeds the
# other value gets the result of the default.
# Versions: tensorrt-rtx 1.7.1.116, onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: exporters with keep_initializers_as_inputs make every weight such an
# input; a comparison that feeds both sides alike compares two different models.
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

info = helper.make_tensor_value_info
graph = helper.make_graph([helper.make_node("Add", ["x", "bias"], ["y"])], "g",
                          [info("x", TensorProto.FLOAT, [2]), info("bias", TensorProto.FLOAT, [2])],
                          [info("y", TensorProto.FLOAT, [2])], [numpy_helper.from_array(np.ones(2, np.float32), "bias")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
data = model.SerializeToString()
session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
x = np.zeros(2, np.float32)
default = session.run(None, {"x": x})[0].tolist()
fed = session.run(None, {"x": x, "bias": x + 5})[0].tolist()
print("onnxruntime", ort.__version__, "default:", default, "with bias 5 fed:", fed)
said = []


class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)

    def log(self, severity, message):
        if severity <= trt.ILogger.WARNING:
            said.append(message)


logger = Logger()
builder = trt.Builder(logger)
network = builder.create_network(0)
said.clear()
parser = trt.OnnxParser(network, logger)
assert parser.parse(data)
inputs = [network.get_input(i).name for i in range(network.num_inputs)]
print("tensorrt-rtx", trt.__version__, "inputs", inputs, "warnings", said)
assert (default, fed, inputs, said) == ([1, 1], [5, 5], ["x"], [])
PY
echo "as described: an input less, and no word of it"
