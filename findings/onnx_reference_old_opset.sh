#!/usr/bin/env bash
# One would guess: onnx's ReferenceEvaluator follows the opset that the model imports, or refuses it.
# What happens: for an op without an old implementation it takes the newest. In opset 11 Softmax,
# LogSoftmax and Hardmax flatten their input to two dimensions at the axis, 1 by default; the
# evaluator normalises over the last axis as in opset 13 and says nothing. Of four equal numbers in
# a tensor [1, 2, 2] Softmax makes 0.5 instead of 0.25.
# Versions: onnx 1.23.2, onnxruntime 1.32.0 as the judge; seen 2026-11-29.
# Why it matters for bisecting: the reference of last resort is wrong for the models of 2019 and 2020,
# and agrees with a converter that forgot the change, which is the bug one looks for.
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

SHAPE = (1, 2, 2)
x = {"x": np.array([1, 1, 1, 1], np.float32).reshape(SHAPE)}
print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
for op in ("Softmax", "LogSoftmax", "Hardmax"):
    info = helper.make_tensor_value_info
    rows = {}
    for opset in (11, 13):
        graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g",
                                  [info("x", TensorProto.FLOAT, SHAPE)], [info("y", TensorProto.FLOAT, SHAPE)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
        onnx.checker.check_model(model, full_check=True)
        runtime = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, x)[0]
        rows[opset] = runtime, np.asarray(ReferenceEvaluator(model).run(None, x)[0])
        shown = [y.ravel().round(2).tolist() for y in rows[opset]]
        print(f"{op} opset {opset}: onnxruntime {shown[0]} ReferenceEvaluator {shown[1]}")
    assert np.allclose(*rows[13]), "they agree in opset 13"
    assert not np.allclose(*rows[11]) and np.allclose(rows[11][1], rows[13][1]), "opset 11 is followed now"
PY
echo "as described: opset 11 is evaluated as opset 13"
