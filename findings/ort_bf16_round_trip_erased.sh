#!/usr/bin/env bash
# One would guess: with graph optimisation disabled, a Cast to bfloat16 and back rounds.
# What happens: ONNX Runtime 1.16.3 takes the two casts out even with ORT_DISABLE_ALL and returns its
# input to the bit; 1.17.3 rounds to nearest even. onnx's own ReferenceEvaluator cuts the bits off in
# 1.18.0 and rounds in 1.20.1: 65520 becomes 65520, 65536, 65280 or 65536.
# Versions: onnxruntime 1.16.3 and 1.17.3, onnx 1.18.0 and 1.20.1; seen 2026-11-29.
# Public: microsoft/onnxruntime issue 9915, repaired by its pull 17953.
# Why it matters for bisecting: emulating a precision by casts, which mixed-precision searches do,
# measured nothing at all on old releases and half a unit too much on others.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
packages() { # folder, packages: one environment, and a folder for each set of releases
  "$work/venv/bin/pip" install -q --no-compile --target "$work/$1" "${@:2}"
}
python() { # folder, arguments
  PYTHONPATH="$work/$1" "$work/venv/bin/python" "${@:2}"
}
packages onnx18 onnx==1.18.0
packages onnx20 onnx==1.20.1
packages ort16 onnxruntime==1.16.3 "numpy<2"
packages ort17 onnxruntime==1.17.3 "numpy<2"
python onnx20 - "$work/m.onnx" <<'PY'
import sys
import onnx
from onnx import TensorProto, helper
info = helper.make_tensor_value_info
nodes = [helper.make_node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16), helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)]
graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [1])], [info("y", TensorProto.FLOAT, [1])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
PY
run='
import sys, numpy, onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(session.run(None, {"x": numpy.array([65520], numpy.float32)})[0][0])'
evaluate='
import sys, numpy, onnx
from onnx.reference import ReferenceEvaluator
print(float(ReferenceEvaluator(onnx.load(sys.argv[1])).run(None, {"x": numpy.array([65520], numpy.float32)})[0][0]))'
check() { # label, expected, folder, code
  got=$(python "$3" -c "$4" "$work/m.onnx")
  echo "$1: 65520 -> bfloat16 -> float = $got"
  [ "$got" = "$2" ] || { echo "expected $2"; exit 1; }
}
check "onnxruntime 1.16.3, no optimisation" 65520.0 ort16 "$run"
check "onnxruntime 1.17.3, no optimisation" 65536.0 ort17 "$run"
check "onnx 1.18.0 ReferenceEvaluator     " 65280.0 onnx18 "$evaluate"
check "onnx 1.20.1 ReferenceEvaluator     " 65536.0 onnx20 "$evaluate"
echo "as described: erased, rounded, cut off, rounded"
