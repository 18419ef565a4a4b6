#!/usr/bin/env bash
# One would guess: an optimiser that makes y / x of y * (1 / x) does so for floats only, where it saves a
# rounding. Integer division cuts off, so for integers the two are different numbers.
# What happens: ONNX Runtime's basic level rewrites it for every type: 10 * (1 / 4) is 0 with optimisation
# off and 2 with it on; negative and 64-bit integers likewise.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-30.
# Why it matters for bisecting: the reference itself is wrong where shapes or indices are computed so, and a
# target that divides rightly is accused. Comparing ONNX Runtime with itself, optimised and not, shows it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def run(dtype, y, x, level):
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Div", ["one", "x"], ["inverse"]), helper.make_node("Mul", ["y", "inverse"], ["z"])],
        "g",
        [info("y", elem, [len(y)]), info("x", elem, [len(x)])],
        [info("z", elem, [len(y)])],
        [numpy_helper.from_array(np.array(1, dtype), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"y": np.array(y, dtype), "x": np.array(x, dtype)})[0].tolist()


levels = ort.GraphOptimizationLevel
print("onnxruntime", ort.__version__)
for dtype in (np.int32, np.int64):
    given = (dtype, [10, 7, -9, 5], [4, 2, 4, 1])
    off, basic = run(*given, levels.ORT_DISABLE_ALL), run(*given, levels.ORT_ENABLE_BASIC)
    print(f"{dtype.__name__:6} y * (1 / x), off: {off}  basic level: {basic}")
    assert off == [0, 0, 0, 5], "integer division does not cut off"
    assert basic == [2, 3, -2, 5], "the rewrite is gone"
PY
echo "as described: the optimiser changes what integers give"
