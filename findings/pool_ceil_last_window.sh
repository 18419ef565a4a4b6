#!/usr/bin/env bash
# One would guess: how many windows a MaxPool with ceil_mode=1 has is arithmetic, and all agree.
# What happens, for size 5, kernel 3, stride 3, pads [0, 2]: the third window would start in the
# padding. onnx's shape inference counts 3 windows in 1.14.1, 2 in 1.16.2 and 3 again in 1.18.0 and
# 1.23.2, while the ReferenceEvaluator of the same 1.23.2 computes 2. ONNX Runtime gives 3 in 1.20.1,
# the last being the lowest float, and 2 from 1.21.1 to 1.32.0. TensorRT-RTX says 3.
# The standard says that windows which would start in the right padding are ignored: 2.
# Versions: as above (the script leaves out onnx 1.14.1 and onnxruntime 1.21.1) and tensorrt-rtx
# 1.7.1.116; seen 2026-11-29. Public: onnx/onnx pull 5741,
# microsoft/onnxruntime issue 15446.
# Why it matters for bisecting: the shape stored in the model depends on the release of onnx that
# stored it, and a mismatch of shapes appears, goes and comes back with upgrades that look unrelated.
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
packages make onnx==1.23.2
python make - "$work/pool.onnx" <<'PY'
import sys
import onnx
from onnx import TensorProto, helper
info = helper.make_tensor_value_info
node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3], strides=[3], pads=[0, 2], ceil_mode=1)
graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, [1, 1, 5])], [info("y", TensorProto.FLOAT, [1, 1, "w"])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, sys.argv[1])
PY
infer='
import sys, onnx
g = onnx.shape_inference.infer_shapes(onnx.load(sys.argv[1])).graph
print(g.output[0].type.tensor_type.shape.dim[2].dim_value)'
# The name "w" of the declared dimension is replaced by what inference finds.
evaluate='
import sys, numpy, onnx
from onnx.reference import ReferenceEvaluator
x = numpy.arange(1, 6, dtype=numpy.float32).reshape(1, 1, 5)
print(ReferenceEvaluator(onnx.load(sys.argv[1])).run(None, {"x": x})[0].shape[2])'
run='
import sys, numpy, onnxruntime
onnxruntime.set_default_logger_severity(4)
x = numpy.arange(1, 6, dtype=numpy.float32).reshape(1, 1, 5)
y = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": x})[0]
print(y.shape[2], "last:", y[0, 0, -1])'
parse='
import sys, tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
assert parser.parse(open(sys.argv[1], "rb").read())
print(network.get_output(0).shape[2])'
check() { # label, expected first word, folder, code
  got=$(python "$3" -c "$4" "$work/pool.onnx")
  echo "$1: $got windows"
  [ "${got%% *}" = "$2" ] || { echo "expected $2"; exit 1; }
}
check "onnx 1.23.2 infer_shapes      " 3 make "$infer"
check "onnx 1.23.2 ReferenceEvaluator" 2 make "$evaluate"
packages onnx16 onnx==1.16.2 "numpy<2"
check "onnx 1.16.2 infer_shapes      " 2 onnx16 "$infer"
packages onnx18 onnx==1.18.0 numpy
check "onnx 1.18.0 infer_shapes      " 3 onnx18 "$infer"
for pair in 1.20.1:3 1.32.0:2; do
  packages "ort${pair%:*}" onnxruntime==${pair%:*} numpy
  check "onnxruntime ${pair%:*}            " "${pair#*:}" "ort${pair%:*}" "$run"
done
packages rtx tensorrt-rtx==1.7.1.116
check "tensorrt-rtx 1.7.1.116 parser " 3 rtx "$parse"
echo "as described: 2 or 3 by library, by release and within one package"
