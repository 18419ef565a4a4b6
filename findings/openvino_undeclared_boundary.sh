#!/usr/bin/env bash
# One would guess: value_info of inner values is optional: a provider that takes a part of a model finds out the
# shapes at its border itself, or leaves the part to another.
# What happens: where the part that OpenVINO takes ends in a value behind GroupNormalization, and a node that it does not
# take (here Scaler of ai.onnx.ml) follows, the session is not made: "I/O size mismatch between ONNX and OpenVINO"
# with the name of that value, and the CPU does not step in. One value_info, even without sizes, lets it run, and so does
# InstanceNormalization in its place. ONNX Runtime's CPU runs all of them.
# Versions: onnxruntime 1.32.0 with onnxruntime-ep-openvino 1.8.1 on an x86-64 CPU, onnx 1.23.2; seen 2026-11-30.
# Why it matters for bisecting: what a model fails with depends on notes in the file, and on where it is cut: a
# reducer that drops value_info makes this failure, and one that keeps it cannot see it.
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
from onnx import TensorProto, helper, numpy_helper

ort.set_default_logger_severity(4)
ort.register_execution_provider_library("OpenVINOExecutionProvider", plugin.get_library_path())
devices = [d for d in ort.get_ep_devices() if d.ep_name == "OpenVINOExecutionProvider"][:1]
x = np.arange(12, dtype=np.float32).reshape(1, 4, 3) ** 2


def model(norm, notes, last):
    """norm and Relu, then what OpenVINO does not take (Scaler) or what it takes (Neg)."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node(norm, ["x", "scale", "bias"], ["n"], **({"num_groups": 2} if norm == "GroupNormalization" else {})),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Neg", ["r"], ["y"]) if last == "Neg" else
        helper.make_node("Scaler", ["r"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[-1.0]),
    ]
    weights = [numpy_helper.from_array(np.full(4, value, np.float32), name) for name, value in (("scale", 1), ("bias", 0))]
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, x.shape)], [info("y", TensorProto.FLOAT, x.shape)], weights,
        value_info=[info(name, TensorProto.FLOAT, shape) for name, shape in notes.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def seen(data):
    """What OpenVINO takes, where it gives with the CPU's rest what the CPU alone gives; else the complaint."""
    alone = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    options = ort.SessionOptions()
    options.add_provider_for_devices(devices, {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'})
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(data, options)
    except Exception as error:
        return "not made: " + str(error).rsplit(" - ", 1)[1]
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == "OpenVINOExecutionProvider"]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], alone, rtol=1e-5, atol=1e-6)
    return "runs, OpenVINO has " + ", ".join(node.op_type for part in parts for node in part.get_nodes())


print("onnxruntime", ort.__version__, "onnxruntime-ep-openvino", metadata.version("onnxruntime-ep-openvino"))
group = "GroupNormalization"
cases = {
    (group, "Scaler", ""): {},
    (group, "Scaler", "r is [1, 4, 3]"): {"r": [1, 4, 3]},
    (group, "Scaler", "r is [?, ?, ?]"): {"r": [None, None, None]},
    (group, "Scaler", "n is [1, 4, 3]"): {"n": [1, 4, 3]},
    (group, "Neg", ""): {},
    ("InstanceNormalization", "Scaler", ""): {},
}
for (norm, last, note), notes in cases.items():
    outcome = seen(model(norm, notes, last))
    print(f"{norm:21} Relu {last:6} {note or 'nothing declared':16} {outcome}")
    bad = (norm, last, note) == (group, "Scaler", "")
    assert outcome == ("not made: I/O size mismatch between ONNX and OpenVINO for r" if bad else f"runs, OpenVINO has {norm}, Relu" + (", Neg" if last == "Neg" else ""))
PY
echo "as described: an optional note in the file decides whether the session is made"
