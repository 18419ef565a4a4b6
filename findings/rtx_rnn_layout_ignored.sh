#!/usr/bin/env bash
# One would guess: a parser that knows LSTM, GRU and RNN either honours their attribute `layout`
# or refuses it.
# What happens: TensorRT-RTX takes layout=1 without a word and reads the tensors as layout 0. The
# batch becomes the sequence: of an input [batch 3, time 5, features 4] it makes a network that
# runs over 3 steps with a batch of 5, and the engine builds. Only the output shape tells.
# Versions: tensorrt-rtx 1.7.1.116 (and 1.6.1.120), onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: the accuracy check blames the recurrent node with no error and no
# warning to go by, and where batch equals time even the shapes agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 1.7.1.116; do
"${PYTHON:-python3}" -m venv "$work/$version"
"$work/$version/bin/pip" install -q --no-compile tensorrt-rtx==$version onnx==1.23.2
"$work/$version/bin/python" - <<'PY'
import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper

print("tensorrt-rtx", trt.__version__)
BATCH, TIME, FEATURES, HIDDEN = 3, 5, 4, 2
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    weights = [
        numpy_helper.from_array(np.ones((1, gates * HIDDEN, n), np.float32), name)
        for name, n in (("W", FEATURES), ("R", HIDDEN))
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "W", "R"], ["y", "y_h"], hidden_size=HIDDEN, layout=1)],
        "g",
        [info("x", TensorProto.FLOAT, [BATCH, TIME, FEATURES])],
        [info("y", TensorProto.FLOAT, [BATCH, TIME, 1, HIDDEN]), info("y_h", TensorProto.FLOAT, [BATCH, 1, HIDDEN])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString()) and parser.num_errors == 0
    shapes = [tuple(network.get_output(i).shape) for i in range(2)]
    print(f"{op} layout=1: y is {shapes[0]}, by the standard {(BATCH, TIME, 1, HIDDEN)}; "
          f"y_h is {shapes[1]}, by the standard {(BATCH, 1, HIDDEN)}")
    assert shapes == [(BATCH, 1, TIME, HIDDEN), (1, TIME, HIDDEN)], "layout is honoured now"
    assert builder.build_serialized_network(network, builder.create_builder_config()) is not None
PY
done
echo "as described: layout=1 is accepted and ignored"
