#!/usr/bin/env bash
# One would guess: a kernel for an op that the standard defines by a function body computes that body.
# What happens: MeanVarianceNormalization of a constant channel is NaN in ONNX Runtime. The function
# body in the standard adds 1e-9 before it divides, and gives 0 when ONNX Runtime runs it node by
# node. onnx's ReferenceEvaluator gives 0 as well.
# Versions: onnxruntime 1.32.0 (1.16.3 too), onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: inlining, which one does to look inside, cures the failure; padding
# and black images, the usual stand-ins for private inputs, cause it.
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
from onnx.reference import ReferenceEvaluator

info = helper.make_tensor_value_info
SHAPE, AXES = (1, 2, 2, 2), [0, 2, 3]
x = np.full(SHAPE, 3, np.float32)
x[0, 1] = [[1, 2], [3, 4]]


def model(nodes, name_in, name_out):
    graph = helper.make_graph(nodes, "g", [info(name_in, TensorProto.FLOAT, SHAPE)], [info(name_out, TensorProto.FLOAT, SHAPE)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def run(made):
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


op = model([helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=AXES)], "x", "y")
body = onnx.defs.get_schema("MeanVarianceNormalization", 18).function_body
nodes = list(body.node)
for node in nodes:
    for attribute in node.attribute:
        if attribute.ref_attr_name == "axes":
            attribute.CopyFrom(helper.make_attribute(attribute.name, AXES))
written_out = model(nodes, body.input[0], body.output[0])
rows = {
    "onnxruntime, the op": run(op),
    "onnxruntime, its body": run(written_out),
    "ReferenceEvaluator": ReferenceEvaluator(op).run(None, {"x": x})[0],
}
print("onnxruntime", ort.__version__, "onnx", onnx.__version__)
for name, y in rows.items():
    print(f"{name:22} constant channel {y[0, 0].ravel().tolist()} other channel {y[0, 1].ravel().round(4).tolist()}")
op_y, body_y, reference_y = rows.values()
assert np.isnan(op_y[0, 0]).all() and not body_y[0, 0].any() and not reference_y[0, 0].any(), "the kernel gives 0 now"
assert np.allclose(op_y[0, 1], body_y[0, 1])
PY
echo "as described: the op gives NaN, its own definition 0"
