#!/usr/bin/env bash
# One would guess: the name of a dynamic dimension is a label, or else every runtime holds one to it.
# What happens: with two inputs declared [N], ONNX Runtime takes sizes 2 and 3 in one run and joins
# them to 5, without a warning. TensorRT-RTX refuses to build for the same sizes, and builds when the
# second dimension is called M. Nothing else differs between the two models.
# Versions: tensorrt-rtx 1.7.1.116, onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: renaming a dimension, or giving all unknown ones the same name, makes
# and cures builder failures; and the reference run proves nothing about which sizes are allowed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 tensorrt-rtx==1.7.1.116
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
import tensorrt_rtx as trt
from onnx import TensorProto, helper

said = []


class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)

    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            said.append(message)


logger = Logger()
builder = trt.Builder(logger)
print("tensorrt-rtx", trt.__version__, "onnxruntime", ort.__version__)


def joined(second_name):
    info = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Concat", ["a", "b"], ["y"], axis=0)], "g",
                              [info("a", TensorProto.FLOAT, ["N"]), info("b", TensorProto.FLOAT, [second_name])],
                              [info("y", TensorProto.FLOAT, ["K"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    size = session.run(None, {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)})[0].shape[0]
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(data)
    profile = builder.create_optimization_profile()
    for name, n in (("a", 2), ("b", 3)):
        profile.set_shape(name, [n], [n], [n])
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    said.clear()
    built = builder.build_serialized_network(network, config) is not None
    print(f"a[N], b[{second_name}] of sizes 2 and 3: onnxruntime gives {size}, tensorrt-rtx", "builds" if built else f"says {said[0][:140]}")
    return size, built


assert joined("N") == (5, False) and joined("M") == (5, True)
PY
echo "as described: the name is a promise to one and nothing to the other"
