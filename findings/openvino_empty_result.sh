#!/usr/bin/env bash
# One would guess: a Range that has nothing to count is empty, and whether its bounds are constants or
# computed plays no role.
# What happens: OpenVINO counts the steps by their absolute value when the bounds are computed:
# Range(0, -2, 1) is [0, 1] and Range(5, 1, 1) is [5, 6, 7, 8]. With constant bounds it is empty, as the
# standard's max(ceil((limit - start) / delta), 0), ONNX Runtime and NumPy have it.
# Versions: openvino 2026.4.1 on an x86-64 CPU, onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: windows and positions of short sequences get numbers out of nowhere; and
# cutting the model in front of the Range, or folding it, makes the failure go away.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 openvino==2026.4.1
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
import openvino
from onnx import TensorProto, helper, numpy_helper

core = openvino.Core()


def both(bounds, constant):
    """What ONNX Runtime and OpenVINO make of a Range plus zero, the bounds being constants or inputs."""
    info = helper.make_tensor_value_info
    values = {name: np.array(value, np.int64) for name, value in zip(("start", "limit", "delta"), bounds)}
    nodes = [helper.make_node("Range", list(values), ["r"]), helper.make_node("Add", ["r", "zero"], ["y"])]
    inputs = [info(name, TensorProto.INT64, []) for name in ["zero", *([] if constant else values)]]
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()] if constant else []
    graph = helper.make_graph(nodes, "g", inputs, [info("y", TensorProto.INT64, ["n"])], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    feed = {"zero": np.array(0, np.int64), **({} if constant else values)}
    model = made.SerializeToString()
    runtime = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed)[0]
    return runtime.tolist(), core.compile_model(core.read_model(model), "CPU")(feed)[0].tolist()


print("openvino", openvino.__version__.split("-")[0], "onnxruntime", ort.__version__)
for bounds, computed in (((0, -2, 1), [0, 1]), ((5, 1, 1), [5, 6, 7, 8]), ((1, 4, -1), [1, 0, -1]), ((1, 6, 2), [1, 3, 5])):
    (runtime, vino), (folded, vino_folded) = both(bounds, False), both(bounds, True)
    print(f"Range{bounds}: onnxruntime {runtime}, openvino {vino}, of constants {vino_folded}")
    assert runtime == folded == vino_folded == np.arange(*bounds).tolist() and vino == computed
PY
echo "as described: a range with nothing to count is not empty, unless it is constant"
