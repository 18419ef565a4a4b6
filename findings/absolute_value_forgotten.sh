#!/usr/bin/env bash
# One would guess: an Lp norm is made of absolute values, and the sign of the data cancels out.
# What happens: onnx's ReferenceEvaluator sums the signed numbers in LpNormalization with p=1, so that
# [-1, 2, -3] becomes [0.5, -1, 1.5], of the opposite sign. TensorRT-RTX does right there and makes
# the same mistake in GlobalLpPool: the network has Pow, Sum, Pow and no Abs (LpPool has one), so that
# with p=1 it is -2 instead of 6. ONNX Runtime takes absolute values in both.
# Versions: onnx 1.23.2, tensorrt-rtx 1.7.1.116 (and 1.4.0.76), onnxruntime 1.32.0; seen 2026-11-29.
# Why it matters for bisecting: with p=2, the default and the usual test, all agree. With p=1 the node is
# wrong in the reference or in the engine by which of two sister ops it is, and only for negative data.
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

x = np.array([[[-1, 2, -3]]], np.float32)
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)


def model(op, width, **attributes):
    info = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g",
                              [info("x", TensorProto.FLOAT, [1, 1, 3])], [info("y", TensorProto.FLOAT, [1, 1, width])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def layers(made):
    """The layers of the network that TensorRT-RTX makes, with the operation of the element-wise ones."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(made.SerializeToString())
    found = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        kinds = {trt.LayerType.UNARY: trt.IUnaryLayer, trt.LayerType.REDUCE: trt.IReduceLayer,
                 trt.LayerType.ELEMENTWISE: trt.IElementWiseLayer}
        if layer.type in kinds:
            layer.__class__ = kinds[layer.type]
            found.append(layer.op.name)
    return found


cases = {"LpNormalization": (model("LpNormalization", 3, p=1, axis=2), [-1 / 6, 2 / 6, -3 / 6]),
         "GlobalLpPool": (model("GlobalLpPool", 1, p=1), [6.0])}
for op, (made, right) in cases.items():
    runtime = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    network = layers(made)
    print(f"{op}: right {np.round(right, 4).tolist()}, onnxruntime {ort.__version__} {runtime.ravel().astype(float).round(4).tolist()}, "
          f"tensorrt-rtx {trt.__version__} {network}")
    assert np.allclose(runtime.ravel(), right)
    assert ("ABS" in network) == (op == "LpNormalization") and network
assert layers(cases["GlobalLpPool"][0]) == ["POW", "SUM", "POW"]
reference = ReferenceEvaluator(cases["LpNormalization"][0]).run(None, {"x": x})[0].ravel().tolist()
print(f"onnx {onnx.__version__} ReferenceEvaluator, LpNormalization: {reference}")
assert reference == [0.5, -1.0, 1.5]
PY
echo "as described: the norm has a sign in two places"
