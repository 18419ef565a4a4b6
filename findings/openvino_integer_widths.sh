#!/usr/bin/env bash
# One would guess: a Cast to INT4 leaves four bits, and INT8 and UINT8 arithmetic wraps as elsewhere.
# What happens: the OpenVINO provider keeps INT4 values in eight bits, so that 100 cast to INT4 and
# back is 100 (ONNX Runtime and the standard: 4). UINT8 Add and Sub saturate at 255 and 0
# instead of wrapping. INT64 is computed in 32 bits: 2**40 + 1 is 1. No message in any case.
# Versions: onnxruntime 1.32.0 with onnxruntime-ep-openvino 1.8.1 on an x86-64 CPU; seen 2026-11-29.
# Why it matters for bisecting: each is a real mismatch of a lone integer node, which tools that
# compare floats with a relative tolerance may call noise, and the tensors keep their declared types.
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


def there_and_back(values):
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Cast", ["x"], ["q"], to=TensorProto.INT4), helper.make_node("Cast", ["q"], ["y"], to=TensorProto.INT32)]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.INT8, values.shape)], [info("y", TensorProto.INT32, values.shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return [session(model, openvino).run(None, {"x": values})[0].tolist() for openvino in (False, True)]


byte = np.uint8
rows = {
    "INT4 of [100, 8, -9]": there_and_back(np.array([100, 8, -9], np.int8)),
    "UINT8 [250, 1] + [20, 1]": one("Add", (np.array([250, 1], byte), np.array([20, 1], byte)), TensorProto.UINT8),
    "UINT8 [1, 5] - [2, 3]": one("Sub", (np.array([1, 5], byte), np.array([2, 3], byte)), TensorProto.UINT8),
    "INT64 2**40 + 1": one("Add", (np.array([2**40]), np.array([1])), TensorProto.INT64),
}
for what, (cpu, openvino) in rows.items():
    print(f"{what:25} CPU {cpu} OpenVINO {openvino}")
assert list(rows.values()) == [[[4, -8, 7], [100, 8, -9]], [[14, 2], [255, 2]], [[255, 2], [0, 2]], [[2**40 + 1], [1]]]
PY
echo "as described: INT4 has eight bits, UINT8 saturates, INT64 has 32 bits"
