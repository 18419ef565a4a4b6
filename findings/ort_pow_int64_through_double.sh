#!/usr/bin/env bash
# One would guess: Pow of INT64 by INT64 is integer arithmetic.
# What happens: ONNX Runtime goes through double. 3**39 fits in 63 bits and comes out 11 too small.
# Cubes are exact only when the exponent is a single number, for which there is a loop of
# multiplications; the same numbers with one exponent for each element are rounded.
# An overflow gives the lowest integer and does not wrap, unlike Mul.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: hashes and packed indices differ in the last digits, and the fault
# goes away when constant folding or broadcasting makes the exponent a scalar.
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


def power(base, exponent):
    base, exponent = np.array(base, np.int64), np.array(exponent, np.int64)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Pow", ["x", "e"], ["y"])],
        "g",
        [info("x", TensorProto.INT64, base.shape), info("e", TensorProto.INT64, exponent.shape)],
        [info("y", TensorProto.INT64, base.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": base, "e": exponent})[0].tolist()


cubes = [208067, 1290001]
rows = (power([3], [39]), power(cubes, [3]), power(cubes, [3, 3]), power([2, 2], [63, 64]))
print("onnxruntime", ort.__version__)
print("3**39                        ", rows[0], "exactly", 3**39)
print("cubes, one exponent          ", rows[1], "exactly", [v**3 for v in cubes])
print("cubes, an exponent for each  ", rows[2])
print("2**63, 2**64                 ", rows[3])
assert rows[0] != [3**39] and abs(rows[0][0] - 3**39) < 512, "integers stay integers now"
assert rows[1] == [v**3 for v in cubes] != rows[2]
PY
echo "as described: the shape of the exponent decides the last digits"
