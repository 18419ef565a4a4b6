#!/usr/bin/env bash
# One would guess: ReduceMax over data with a NaN is NaN always (as in NumPy) or never.
# What happens: in ONNX Runtime it depends on where the NaN stands. First: the result is NaN. Anywhere
# else: the NaN is lost. ArgMax and ReduceMin are of that kind too, while the element-wise Max gives
# NaN in every position. GlobalMaxPool loses it in all three places.
# Versions: onnxruntime 1.32.0 (1.16.3 too), onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: "ReduceMax(Abs(x))" is the usual probe for overflow, and it reports a
# tensor as clean that holds NaN. Transposing or slicing the input changes the verdict.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

NAN = float("nan")
print("onnxruntime", ort.__version__)


def run(op, data, kind=TensorProto.FLOAT, **attributes):
    info = helper.make_tensor_value_info
    x = np.array(data, np.float32).reshape((1, 1, -1) if "Pool" in op else (-1,))
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g",
                              [info("x", TensorProto.FLOAT, x.shape)], [info("y", kind, ["n"] * x.ndim)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].ravel()[0]


seen = {}
for data in ([NAN, 1, 2], [1, NAN, 2], [2, 1, NAN]):
    arg = run("ArgMax", data, TensorProto.INT64, axis=0)
    seen[str(data)] = row = (run("ReduceMax", data), run("ReduceMin", data), arg, run("GlobalMaxPool", data))
    print(f"{data!s:15} ReduceMax {row[0]} ReduceMin {row[1]} ArgMax {row[2]} GlobalMaxPool {row[3]}")
first, middle, last = seen.values()
assert np.isnan(first[0]) and np.isnan(first[1]), "a NaN in front is kept"
assert (middle[0], middle[1], last[0], last[1]) == (2, 1, 2, 1), "a NaN elsewhere is kept now"
assert (middle[2], last[2]) == (2, 0), "ArgMax finds the NaN now"
PY
echo "as described: the place of the NaN decides whether it is seen"
