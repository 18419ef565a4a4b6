#!/usr/bin/env bash
# One would guess: a converter to float16 clips what float16 cannot hold, beyond 65504.
# What happens: onnxconverter-common clips at 10000 unless told otherwise, so a weight of 20000, exact
# in float16, becomes 10000; and it lifts tiny numbers to 1e-7, above the smallest of float16. The
# module of the same name and function inside onnxruntime clips at 65504 and at 5.96e-08.
# Versions: onnxconverter-common 1.16.0, onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29. It is in the
# signature (max_finite_val=1e4), which one reads afterwards.
# Why it matters for bisecting: the FP16 model differs by its weights, not by its arithmetic; no choice
# of nodes to keep in FP32 finds that, since the damage goes with the node that holds the weight.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 onnxconverter-common==1.16.0
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib import metadata

import numpy as np
import onnx
import onnxconverter_common.float16 as common
import onnxruntime.transformers.float16 as bundled
from onnx import TensorProto, helper, numpy_helper

weights = np.array([20000, -20000, 65504, 7e-8], np.float32)
assert np.array_equal(weights[:3].astype(np.float16).astype(np.float32), weights[:3]), "float16 holds them exactly"


def converted(module):
    info = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"], name="mul")], "g", [info("x", TensorProto.FLOAT, [4])],
                              [info("y", TensorProto.FLOAT, [4])], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    half = module.convert_float_to_float16(model, keep_io_types=True)
    return numpy_helper.to_array(half.graph.initializer[0])


one, other = converted(common), converted(bundled)
print("onnxconverter-common", metadata.version("onnxconverter-common"), weights.tolist(), "->", one.tolist())
print("onnxruntime         ", metadata.version("onnxruntime"), weights.tolist(), "->", other.tolist())
assert one[:3].tolist() == [10000, -10000, 10000] and one[3] == np.float16(1e-7)
assert other[:3].tolist() == [20000, -20000, 65504] and other[3] == np.float16(7e-8)
PY
echo "as described: 20000 becomes 10000"
