#!/usr/bin/env bash
# One would guess: `onnx.version_converter` either keeps the meaning of a model or raises.
# What happens: three conversions pass the full checker and compute something else.
# Hardmax 11 -> 13: the default axis changed from 1-and-flatten to -1; Softmax and LogSoftmax are
# rewritten for it, Hardmax is not. Resize 10 -> 11: linear in opset 10 is "asymmetric", the
# converted node has the new default "half_pixel". Softmax 13 -> 11 with axis=1 of rank 3: the
# attribute is kept, and now flattens.
# Versions: onnx 1.23.2, onnxruntime 1.32.0 as the judge; seen 2026-11-29.
# Why it matters for bisecting: raising the opset is what one tries first on a failing model; if the
# failure goes, that may be because the model is another one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper, version_converter

info = helper.make_tensor_value_info
SHAPE = [2, 2, 2]
x = np.arange(8, dtype=np.float32).reshape(SHAPE)
scales = numpy_helper.from_array(np.array([1, 1, 1.5], np.float32), "scales")


def model(opset, op, inputs=("x",), out=SHAPE, **attributes):
    graph = helper.make_graph([helper.make_node(op, list(inputs), ["y"], **attributes)], "g",
                              [info("x", TensorProto.FLOAT, SHAPE)], [info("y", TensorProto.FLOAT, out)],
                              [scales] if "scales" in inputs else [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(made):
    return ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def largest_change(made, target):
    converted = version_converter.convert_version(made, target)
    onnx.checker.check_model(converted, full_check=True)
    return float(np.abs(run(made) - run(converted)).max()), [n.op_type for n in converted.graph.node]


print("onnx", onnx.__version__)
cases = {
    "Softmax 11 -> 13": (model(11, "Softmax"), 13, False),
    "Hardmax 11 -> 13": (model(11, "Hardmax"), 13, True),
    "Softmax axis=1 13 -> 11": (model(13, "Softmax", axis=1), 11, True),
    "Resize nearest 10 -> 11": (model(10, "Resize", ("x", "scales"), [2, 2, 3], mode="nearest"), 11, None),
    "Resize linear 10 -> 11": (model(10, "Resize", ("x", "scales"), [2, 2, 3], mode="linear"), 11, True),
}
for what, (made, target, changes) in cases.items():
    error, nodes = largest_change(made, target)
    print(f"{what:24} {nodes}: results differ by {error:.3g}")
    assert changes is None or (error > 0.01) == changes, what
PY
echo "as described: Hardmax, Resize and Softmax (downwards) change their results in silence"
