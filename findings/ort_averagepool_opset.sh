#!/usr/bin/env bash
# One would guess: raising the opset of a model whose AveragePool keeps its attributes changes no value.
# What happens: with ceil_mode=1 and count_include_pad=1 the last, partly outside window of [1,2,3,4,5]
# (kernel 2, stride 2) is 5/2 = 2.5 or 5/1 = 5. ONNX Runtime 1.20.1 says 2.5 for opset 17 and 19;
# 1.25.1 says 2.5 for opset 17 and 5 for opset 19; 1.32.0 says 5 for both. So between two releases
# the same node differed by the opset, and `onnx.version_converter` 17 -> 19 changed the result.
# Versions: onnxruntime 1.20.1, 1.25.1, 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: the values of one corner of the feature map change with the release
# of the reference; "it broke with opset 19" is true, and no fault of the exporter.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for triple in "1.20.1 2.5 2.5" "1.25.1 2.5 5.0" "1.32.0 5.0 5.0"; do
set -- $triple
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnxruntime==$1 onnx==1.23.2
"$work/$1/bin/python" - "$2" "$3" <<'PY'
import sys
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, version_converter

info = helper.make_tensor_value_info
node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2], strides=[2], ceil_mode=1, count_include_pad=1)
graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, [1, 1, 5])], [info("y", TensorProto.FLOAT, [1, 1, 3])])
old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
new = version_converter.convert_version(old, 19)
got = []
for model in (old, new):
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got.append(session.run(None, {"x": np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5)})[0].ravel().tolist())
print("onnxruntime", ort.__version__, "opset 17:", got[0], "opset 19:", got[1])
assert [str(g[-1]) for g in got] == sys.argv[1:]
PY
done
echo "as described: 2.5 and 5 by release and by opset"
