#!/usr/bin/env bash
# One would guess: comparing two INT32 tensors is exact.
# What happens: the OpenVINO provider compares integers as float32. 16777216 < 16777217 is false,
# and Equal of the two is true. Add and Mul of the same INT32 numbers are exact, so the values that
# one prints look right.
# Versions: onnxruntime 1.32.0 with onnxruntime-ep-openvino 1.8.1 on an x86-64 CPU; seen 2026-11-29.
# Why it matters for bisecting: token ids, masks and loop counters above 2**24 take the wrong branch,
# and the first tensor that differs is a BOOL, for which no tolerance helps.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnxruntime-ep-openvino==1.8.1 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
from importlib import metadata

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime_ep_openvino as plugin
from onnx import TensorProto, helper

ort.set_default_logger_severity(4)
ort.register_execution_provider_library("OpenVINOExecutionProvider", plugin.get_library_path())
devices = [d for d in ort.get_ep_devices() if d.ep_name == "OpenVINOExecutionProvider"][:1]


def session(model, openvino):
    options = ort.SessionOptions()
    if openvino:
        # f32, lest the CPU's bfloat16 be used; and nothing may fall back to ONNX Runtime's own kernels.
        options.add_provider_for_devices(devices, {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'})
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return ort.InferenceSession(model.SerializeToString(), options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def one(op, inputs, kind, **attributes):
    info = helper.make_tensor_value_info
    names = [f"i{k}" for k in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        [info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in zip(names, inputs)],
        [info("y", kind, inputs[0].shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    feed = dict(zip(names, inputs))
    return [session(model, openvino).run(None, feed)[0].tolist() for openvino in (False, True)]


print("onnxruntime", ort.__version__, "onnxruntime-ep-openvino", metadata.version("onnxruntime-ep-openvino"))

low, high = np.array([16777216], np.int32), np.array([16777217], np.int32)
rows = {op: one(op, (low, high), TensorProto.BOOL) for op in ("Less", "Equal")}
rows["Add"] = one("Add", (high, np.array([0], np.int32)), TensorProto.INT32)
for op, (cpu, openvino) in rows.items():
    print(f"{op:6} CPU {cpu} OpenVINO {openvino}")
assert rows["Less"] == [[True], [False]] and rows["Equal"] == [[False], [True]], "the comparison is exact now"
assert rows["Add"] == [[16777217], [16777217]]
PY
echo "as described: 16777216 equals 16777217"
