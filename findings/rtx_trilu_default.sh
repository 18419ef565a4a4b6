#!/usr/bin/env bash
# One would guess: leaving an attribute out is the same as writing its default value.
# What happens: the default of Trilu's `upper` is 1 (keep the upper triangle). TensorRT-RTX reads an
# absent `upper` as 0 and keeps the lower one: the network is layer for layer that of upper=0.
# Versions: tensorrt-rtx 1.7.1.116 (and 1.6.1.120), onnx 1.23.2, onnxruntime 1.32.0 as the other
# opinion; seen 2026-11-29.
# Why it matters for bisecting: a causal mask made by a plain Trilu turns over in silence. And a tool
# that drops attributes equal to their default, an innocent tidying, changes what the engine computes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 1.7.1.116; do
"${PYTHON:-python3}" -m venv "$work/$version"
"$work/$version/bin/pip" install -q --no-compile tensorrt-rtx==$version onnx==1.23.2 onnxruntime==1.32.0
"$work/$version/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
import tensorrt_rtx as trt
from onnx import TensorProto, helper

print("tensorrt-rtx", trt.__version__)
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)


def model(**attributes):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Trilu", ["x"], ["y"], **attributes)],
        "g",
        [info("x", TensorProto.FLOAT, [3, 3])],
        [info("y", TensorProto.FLOAT, [3, 3])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def compared_with(data):
    """The comparison of row and column numbers that the parser writes down."""
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(data)
    found = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.ELEMENTWISE:
            layer.__class__ = trt.IElementWiseLayer
            found.append(layer.op.name)
    return found


said = {name: compared_with(model(**a)) for name, a in (("absent", {}), ("upper=1", {"upper": 1}), ("upper=0", {"upper": 0}))}
for name, ops in said.items():
    print(f"{name:8}", ops)
x = np.ones((3, 3), np.float32)
runs = {name: onnxruntime.InferenceSession(model(**a)).run(None, {"x": x})[0] for name, a in (("absent", {}), ("upper=1", {"upper": 1}))}
assert np.array_equal(runs["absent"], runs["upper=1"]), "ONNX Runtime: absent is upper=1"
assert said["absent"] == said["upper=0"] != said["upper=1"], "the default is read rightly now"
PY
done
echo "as described: TensorRT-RTX takes an absent upper for 0"
