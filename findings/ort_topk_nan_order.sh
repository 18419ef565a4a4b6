#!/usr/bin/env bash
# One would guess: TopK of the same numbers gives the same answer in two neighbouring releases.
# What happens: NaN was the smallest of all in ONNX Runtime 1.31.1 and is the largest in 1.32.0. A
# TopK with k=2 of [1, NaN, 3] gave 3 and 1, and gives NaN and 3.
# Versions: onnxruntime 1.31.1 and 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: a reference run that was clean until yesterday is full of NaN after
# an upgrade, and the NaN itself is made by a node far before the TopK that let it through.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for pair in "1.31.1 [3.0,1.0]" "1.32.0 [nan,3.0]"; do
set -- $pair
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnxruntime==$1 onnx==1.23.2
"$work/$1/bin/python" - "$2" <<'PY'
import sys
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

info = helper.make_tensor_value_info
graph = helper.make_graph(
    [helper.make_node("TopK", ["x", "k"], ["values", "indices"])],
    "g",
    [info("x", TensorProto.FLOAT, [3])],
    [info("values", TensorProto.FLOAT, [2]), info("indices", TensorProto.INT64, [2])],
    [numpy_helper.from_array(np.array([2]), "k")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
values, indices = session.run(None, {"x": np.array([1, np.nan, 3], np.float32)})
print("onnxruntime", ort.__version__, "top 2 of [1, nan, 3]:", values.tolist(), "at", indices.tolist())
assert str(values.tolist()).replace(" ", "") == sys.argv[1]
PY
done
echo "as described: NaN went from last to first"
