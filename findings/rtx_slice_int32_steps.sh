#!/usr/bin/env bash
# One would guess: Slice takes its indices as INT32 or as INT64, and it makes no difference which.
# What happens: TensorRT-RTX 1.7.1 refuses a Slice with INT32 indices and without steps, unless it has an
# index for every axis of the data: the steps that nobody wrote become as many as the data has axes.
# With the steps written out, or with INT64 indices, it takes the same node. 1.6.1 takes all of them.
# Versions: tensorrt-rtx 1.7.1.116 and 1.6.1.120, onnx 1.23.2, onnxruntime 1.32.0 as the other opinion;
# seen 2026-11-30.
# Why it matters for bisecting: a tool that narrows or widens integers, or drops an input that equals its
# default, turns this failure on and off, and the message speaks of steps that the model does not have.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 1.7.1.116 1.6.1.120; do
"${PYTHON:-python3}" -m venv "$work/$version"
"$work/$version/bin/pip" install -q --no-compile tensorrt-rtx==$version onnx==1.23.2 onnxruntime==1.32.0
"$work/$version/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper

logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(logger)
x = np.arange(6, dtype=np.float32).reshape(2, 3)


def model(kind, steps):
    info = helper.make_tensor_value_info
    values = {"starts": 0, "ends": 1, "axes": 1, **({"steps": 1} if steps else {})}
    weights = [numpy_helper.from_array(np.array([v], kind), name) for name, v in values.items()]
    node = helper.make_node("Slice", ["x", *values], ["y"])
    graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, [2, 3])],
                              [info("y", TensorProto.FLOAT, [2, 1])], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


seen = {}
for kind in (np.int32, np.int64):
    for steps in (False, True):
        data = model(kind, steps)
        given = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        assert np.array_equal(given, x[:, :1])
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        taken = parser.parse(data)
        seen[kind.__name__, steps] = taken
        said = "taken" if taken else f"refused: {parser.get_error(0).desc().strip()}"
        print(f"tensorrt-rtx {trt.__version__}  {kind.__name__}  {'with' if steps else 'without'} steps: {said}")
refused = [key for key, taken in seen.items() if not taken]
assert refused == ([("int32", False)] if trt.__version__ == "1.7.1.116" else []), refused
PY
done
echo "as described: 1.7.1 refuses INT32 indices without steps, 1.6.1 takes them"
