#!/usr/bin/env bash
# One would guess: TopK puts NaN first or last, and the other numbers come in order.
# What happens: up to ONNX Runtime 1.31.1 one NaN spoils the comparison itself. The two largest of
# [1, NaN, 3] are 1 and NaN: the 3, larger than both, is lost. Of [NaN, 1, 3] they are NaN and 3.
# Since 1.32.0 NaN counts as the largest and both give NaN and 3.
# Versions: onnxruntime 1.31.1 (1.16.3 too) and 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: a detection head loses its best box because of one NaN elsewhere, and
# all outputs may be finite. After the upgrade the same model gives NaN, though the bug is older.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for triple in "1.31.1 [1.0,nan] [nan,3.0]" "1.32.0 [nan,3.0] [nan,3.0]"; do
set -- $triple
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnxruntime==$1 onnx==1.23.2
"$work/$1/bin/python" - "$2" "$3" <<'PY'
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
for x, expected in zip(([1, np.nan, 3], [np.nan, 1, 3]), sys.argv[1:]):
    values, indices = session.run(None, {"x": np.array(x, np.float32)})
    print("onnxruntime", ort.__version__, f"top 2 of {x}:", values.tolist(), "at", indices.tolist())
    assert str(values.tolist()).replace(" ", "") == expected
PY
done
echo "as described: up to 1.31.1 a NaN hides the largest number"
