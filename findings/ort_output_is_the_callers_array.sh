#!/usr/bin/env bash
# One would guess: what a session returns belongs to the caller and stays as it is.
# What happens: where an output of the model is one of its inputs, ONNX Runtime's run_with_ort_values
# returns the very array that was fed: refilling the input for the next sample changes the answer to the
# last one. session.run copies, so the two calls differ on a model that the checker accepts.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-30.
# Why it matters for bisecting: marking tensors as outputs marks inputs, too, and a loop over samples with
# one buffer then compares the last sample with itself.
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

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy")
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [x, y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

sample = np.arange(3, dtype=np.float32)
kept = session.run_with_ort_values(["x", "y"], {"x": ort.OrtValue.ortvalue_from_numpy(sample)})
copied = session.run(["x", "y"], {"x": sample})
before = [kept[0].numpy().tolist(), copied[0].tolist()]
sample[:] = 7  # the next sample, in the same buffer
after = [kept[0].numpy().tolist(), copied[0].tolist()]
print("onnxruntime", ort.__version__)
print("run_with_ort_values  before", before[0], "after", after[0])
print("run                  before", before[1], "after", after[1])
assert after[0] == [7, 7, 7] != before[0], "it is a copy now"
assert after[1] == before[1] == [0, 1, 2]
assert kept[1].numpy().tolist() == [0, -1, -2], "the other output is computed"
PY
echo "as described: one of the outputs is the caller's own array"
