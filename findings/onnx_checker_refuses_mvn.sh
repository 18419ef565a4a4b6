#!/usr/bin/env bash
# One would guess: onnx's checker accepts the models of onnx's own backend tests.
# What happens: since 1.16.2 at the latest, check_model(full_check=True) refuses every
# MeanVarianceNormalization that leaves out `axes`, an attribute with a default. The message blames a
# Constant node, of which the model has none: it is in the function body of the op, where the default
# is not filled in. The model is onnx's test_mvn; 1.14.1 accepts it, and so does ONNX Runtime.
# Versions: onnx 1.14.1 and 1.23.2 (1.16.2, 1.18.0 and 1.20.1 as the latter), onnxruntime 1.32.0; seen
# 2026-11-29.
# Why it matters for bisecting: a tool that checks its candidates with full_check throws away a valid
# one, and a report that says "Constant node" sends people to look for a node that does not exist.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for pair in "1.14.1 accepted" "1.23.2 refused"; do
set -- $pair
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnx==$1 onnxruntime==1.32.0 $([ $1 = 1.14.1 ] && echo 'numpy<2')
"$work/$1/bin/python" - "$2" <<'PY'
import sys
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

info = helper.make_tensor_value_info
SHAPE = (1, 2, 2, 2)


def verdict(**attributes):
    graph = helper.make_graph([helper.make_node("MeanVarianceNormalization", ["x"], ["y"], **attributes)], "g",
                              [info("x", TensorProto.FLOAT, SHAPE)], [info("y", TensorProto.FLOAT, SHAPE)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    x = np.arange(8, dtype=np.float32).reshape(SHAPE)
    y = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert np.isfinite(y).all()
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        print("onnx", onnx.__version__, attributes, "->", " ".join(str(error).split())[-110:])
        return "refused"
    print("onnx", onnx.__version__, attributes, "-> accepted")
    return "accepted"


assert verdict() == sys.argv[1]
assert verdict(axes=[0, 2, 3]) == "accepted"
PY
done
echo "as described: a valid model of onnx's own tests is refused"
