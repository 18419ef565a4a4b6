#!/usr/bin/env bash
# One would guess: activations of one kind treat NaN alike, and two providers agree at least on that.
# What happens: Relu keeps NaN in ONNX Runtime and makes 0 of it in OpenVINO; ThresholdedRelu is the
# other way round. Max and Min with 0 give NaN in ONNX Runtime and 0 in OpenVINO. A Cast of NaN to
# BOOL is true in one and false in the other.
# Versions: onnxruntime 1.32.0 with onnxruntime-ep-openvino 1.8.1 on an x86-64 CPU; seen 2026-11-29.
# Why it matters for bisecting: a NaN made early is washed out by the next Relu, and the outputs are
# finite but wrong. A search for the first NaN must look in front of every activation.
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

nan, zero = np.array([np.nan], np.float32), np.zeros(1, np.float32)
rows = {op: one(op, (nan,), TensorProto.FLOAT) for op in ("Relu", "ThresholdedRelu")}
rows |= {op: one(op, (nan, zero), TensorProto.FLOAT) for op in ("Max", "Min")}
rows["Cast to BOOL"] = one("Cast", (nan,), TensorProto.BOOL, to=TensorProto.BOOL)
for op, (cpu, openvino) in rows.items():
    print(f"{op:15} of NaN: CPU {cpu} OpenVINO {openvino}")
assert {op: str(r) for op, r in rows.items()} == {
    "Relu": "[[nan], [0.0]]",
    "ThresholdedRelu": "[[0.0], [nan]]",
    "Max": "[[nan], [0.0]]",
    "Min": "[[nan], [0.0]]",
    "Cast to BOOL": "[[True], [False]]",
}
PY
echo "as described: where one provider keeps NaN the other drops it"
