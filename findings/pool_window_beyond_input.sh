#!/usr/bin/env bash
# One would guess: a pooling window that is longer than what it slides over fits nowhere; floor((n - k) / s) + 1
# is 0 or less, and all tools give an empty tensor, or refuse.
# What happens: onnx's shape inference and ONNX Runtime divide as C does, towards zero: (2 - 4) / 3 is 0 and not -1, so
# there is one window, over what is there. TensorRT-RTX and onnx's own ReferenceEvaluator take the floor: no window. With
# a stride of 2 in place of 3 all four agree on none. MaxPool and AveragePool alike; the full checker accepts the model.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, tensorrt-rtx 1.7.1.116; seen 2026-11-30.
# Why it matters for bisecting: sizes that nobody gave are often made small. Then a tensor of one element is an empty
# one in the engine, and whatever reads it is refused, far from the pool that made the difference.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 tensorrt-rtx==1.7.1.116
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
import tensorrt_rtx as trt
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
info = helper.make_tensor_value_info


def places(op, size, window, stride):
    """How many places each tool gives to the window: inference, ONNX Runtime, ReferenceEvaluator, TensorRT-RTX."""
    node = helper.make_node(op, ["x"], ["y"], kernel_shape=[window], strides=[stride])
    graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, [1, 1, size])], [info("y", TensorProto.FLOAT, [1, 1, "n"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data = {"x": np.ones((1, 1, size), np.float32)}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type.shape.dim[2]
    run = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, data)[0]
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString())
    return inferred.dim_value, run.shape[2], ReferenceEvaluator(model).run(None, data)[0].shape[2], network.get_output(0).shape[2]


print(f"onnx {onnx.__version__}, onnxruntime {ort.__version__}, tensorrt-rtx {trt.__version__}")
for op in ("MaxPool", "AveragePool"):
    for size, window, stride, expected in ((2, 4, 3, (1, 1, 0, 0)), (1, 3, 3, (1, 1, 0, 0)), (2, 4, 2, (0, 0, 0, 0))):
        found = places(op, size, window, stride)
        print(f"{op} of {window} with stride {stride} over {size}: inference {found[0]}, ONNX Runtime {found[1]}, reference {found[2]}, TensorRT-RTX {found[3]}")
        assert found == expected, found
PY
echo "as described: one place or none"
