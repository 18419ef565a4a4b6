#!/usr/bin/env bash
# One would guess: the zero point of QuantizeLinear moves the result and changes nothing else.
# What happens: OpenVINO adds the zero point before it rounds halves to even, so that with an odd zero
# point they go to the odd side: [0.5, 1.5, 2.5] quantized and back are [1, 1, 3] with zero point 127 and
# [0, 2, 2] with 128. The standard rounds x / scale, and ONNX Runtime gives [0, 2, 2] with both.
# Versions: openvino 2026.4.1 on an x86-64 CPU, onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: an error of one whole step, where half a step is the worst a quantizer
# does, at every tie. With scales that are powers of two, ties are common; with random inputs there are
# none, and a search that makes its own data finds the two alike.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 openvino==2026.4.1
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
import openvino
from onnx import TensorProto, helper, numpy_helper

core = openvino.Core()
x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.4, 1.6], np.float32)
print("openvino", openvino.__version__.split("-")[0], "onnxruntime", ort.__version__, "of", x.astype(float).round(1).tolist())
for zero in (np.uint8(127), np.uint8(128), np.int8(1), np.int8(-3), np.int8(0)):
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"])]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [7])],
                              [info("q", helper.np_dtype_to_tensor_dtype(zero.dtype), [7]), info("y", TensorProto.FLOAT, [7])],
                              [numpy_helper.from_array(np.array(1, np.float32), "scale"), numpy_helper.from_array(np.array(zero), "zero")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    model = made.SerializeToString()
    q, runtime = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)
    vino_q, vino = compiled[0], compiled[1]
    print(f"{zero.dtype.name:5} zero point {int(zero):4}: onnxruntime {runtime.tolist()}  openvino {vino.tolist()}")
    assert runtime.tolist() == np.rint(x).tolist() and q.tolist() == (np.rint(x) + zero).tolist()
    assert vino.tolist() == (np.rint(x + np.float32(zero)) - np.float32(zero)).tolist()
    assert vino_q.tolist() == (vino + np.float32(zero)).tolist()
    assert (vino[:5].tolist() == runtime[:5].tolist()) == (int(zero) % 2 == 0)
PY
echo "as described: an odd zero point rounds halves the other way"
