#!/usr/bin/env bash
# One would guess: the same MatMul of the same numbers on the same machine with one thread gives the same
# bits, whether the matrix is stored in the model or fed.
# What happens: ONNX Runtime packs a stored matrix when the session is made and multiplies it by another
# kernel, which adds in another order: most elements differ in the last bits. session.disable_prepacking=1
# gives the bits of the fed matrix (and leaves weights in external files mapped instead of copied).
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-30 on x86-64 with AVX-512.
# Why it matters for bisecting: a cut that turns a weight into an input, or the other way round, is not the
# same arithmetic as the model that it was cut from; near a tolerance the verdict changes with it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ROWS, DEPTH, COLUMNS = 3, 513, 70
rng = np.random.default_rng(0)
a = rng.standard_normal((ROWS, DEPTH)).astype(np.float32)
b = rng.standard_normal((DEPTH, COLUMNS)).astype(np.float32)


def product(*, stored, packed=True):
    info = helper.make_tensor_value_info
    inputs = [info("a", TensorProto.FLOAT, a.shape), info("b", TensorProto.FLOAT, b.shape)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        "g",
        inputs[:1] if stored else inputs,
        [info("y", TensorProto.FLOAT, [ROWS, COLUMNS])],
        [numpy_helper.from_array(b, "b")] if stored else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"a": a} if stored else {"a": a, "b": b})[0]


fed, stored, unpacked = product(stored=False), product(stored=True), product(stored=True, packed=False)
exact = a.astype(np.float64) @ b.astype(np.float64)
print("onnxruntime", ort.__version__)
print("stored and fed differ in     ", np.count_nonzero(stored != fed), "of", fed.size, "elements")
print("without packing they differ in", np.count_nonzero(unpacked != fed))
print("largest error of each        ", np.abs(stored - exact).max(), np.abs(fed - exact).max())
assert np.count_nonzero(stored != fed) > fed.size // 4, "the bits are the same now"
assert np.array_equal(unpacked, fed), "packing is not the reason"
PY
echo "as described: whether a weight is stored or fed decides the last bits"
