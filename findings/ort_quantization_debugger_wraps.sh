#!/usr/bin/env bash
# One would guess: ONNX Runtime's own debugger for quantized models computes what DequantizeLinear computes.
# What happens: create_weight_matching (onnxruntime.quantization.qdq_loss_debug) subtracts the zero point in the
# integer type of the weights. Unsigned weights below their zero point wrap round: -0.12 is told as 6.08.
# compute_weight_error then reports -13 and -10 dB for weights that are good to 43 and 45 dB, by the model's own
# DequantizeLinear; with signed symmetric weights (the default) it tells the truth.
# Why: `weight_tensor - weight_zp` in NumPy has the type of both, uint8.
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; seen 2026-11-30.
# Why it matters for bisecting: this is the table by which one chooses the layers to keep in float. With uint8
# weights a good layer looks like the culprit.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.qdq_loss_debug import (
    compute_signal_to_quantization_noice_ratio as decibels,
    compute_weight_error,
    create_weight_matching,
)

ort.set_default_logger_severity(3)
logging.disable(logging.WARNING)
random = np.random.default_rng(0)
weights = random.normal(size=(16, 16)).astype(np.float32)
samples = [random.normal(size=(1, 16)).astype(np.float32) for _ in range(8)]
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy")
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "float.onnx")


class Samples(CalibrationDataReader):
    def __init__(self):
        self.left = iter(samples)

    def get_next(self):
        sample = next(self.left, None)
        return None if sample is None else {"x": sample}


def run(path, feed, output="y"):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run([output], {"x": feed})[0]


def measured(weight_type, per_channel):
    """What the debugger reports of the weights, what they really are, and what the outputs are, in dB."""
    quantize_static("float.onnx", "quantized.onnx", Samples(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
                    weight_type=weight_type, per_channel=per_channel)
    match = create_weight_matching("float.onnx", "quantized.onnx")
    quantized = onnx.load("quantized.onnx")
    (shown,) = [node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear" and node.input[0] == "w_quantized"]
    quantized.graph.output.append(helper.make_tensor_value_info(shown, TensorProto.FLOAT, [16, 16]))
    onnx.save(quantized, "shown.onnx")
    real = run("shown.onnx", samples[0], shown)
    outputs = decibels([run("float.onnx", s) for s in samples], [run("quantized.onnx", s) for s in samples])
    return compute_weight_error(match)["w"], decibels(weights, real), outputs, match["w"]["dequantized"], real


print("onnxruntime", ort.__version__, "numpy", np.__version__)
for kind in (QuantType.QInt8, QuantType.QUInt8):
    for per_channel in (False, True):
        told, true, outputs, dequantized, real = measured(kind, per_channel)
        worst = np.unravel_index(np.argmax(np.abs(dequantized - real)), real.shape)
        print(f"{kind!s:7} {'per channel' if per_channel else 'per tensor ':11} weights told {told:6.1f} dB, really {true:5.1f} dB, outputs {outputs:5.1f} dB;"
              f" the worst: {weights[worst]:.3f} quantized {real[worst]:.3f} told {dequantized[worst]:.3f}")
        assert true > 40 and outputs > 30, "the quantized model is a good one"
        if kind == QuantType.QInt8:
            assert np.array_equal(dequantized, real) and abs(told - true) < 0.01
        else:
            assert told < -5 and np.any((real < -0.5) & (dequantized > 0.5))
PY
echo "as described: what the debugger calls the worst weights are fine ones"
