#!/usr/bin/env bash
# One would guess: a Pad in front of a pooling can go into the pads of the pooling.
# What happens: the default passes of onnxoptimizer do that for MaxPool too, but a Pad puts zeros and the
# pads of a MaxPool count for nothing. Where all values are negative the border was 0 and becomes
# negative: [-1, -1] padded and pooled is [0, 0] before and [-1, -1] after. Pads as large as the window,
# fine for a Pad, go into the pooling as well, and ONNX Runtime refuses that model.
# onnxsim 0.8.1, built on the same passes, leaves the MaxPool alone.
# Versions: onnxoptimizer 0.4.2, onnx 1.23.2, onnxruntime 1.32.0 as the judge; seen 2026-11-29.
# Why it matters for bisecting: behind a Relu nothing can be seen, behind a convolution the border of the
# picture changes; and "the optimized model does not load" is then blamed on the runtime.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 onnxoptimizer==0.4.2 onnxsim==0.8.1
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxoptimizer
import onnxruntime as ort
import onnxsim
from onnx import TensorProto, helper, numpy_helper

ort.set_default_logger_severity(4)
x = np.array([[[-1, -1]]], np.float32)
tools = {"unchanged": lambda m: m, "onnxoptimizer": onnxoptimizer.optimize, "onnxsim": lambda m: onnxsim.simplify(m)[0]}
print(*(f"{tool} {version(tool)}" for tool in ("onnxoptimizer", "onnxsim", "onnxruntime")))
seen = {}
for pad in (1, 2):
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Pad", ["x", "pads"], ["p"]), helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[2], strides=[2])]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [1, 1, 2])], [info("y", TensorProto.FLOAT, [1, 1, 1 + pad])],
                              [numpy_helper.from_array(np.array([0, 0, pad, 0, 0, pad], np.int64), "pads")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    for tool, change in tools.items():
        copy = onnx.ModelProto()
        copy.CopyFrom(made)
        changed = change(copy)
        try:
            session = ort.InferenceSession(changed.SerializeToString(), providers=["CPUExecutionProvider"])
            seen[pad, tool] = session.run(None, {"x": x})[0].ravel().tolist()
        except Exception as error:
            assert "Pad should be smaller than kernel" in str(error), error
            seen[pad, tool] = "refused"
        print(f"  pad {pad}: {tool:13} {[n.op_type for n in changed.graph.node]} {seen[pad, tool]}")
right = {1: [0.0, 0.0], 2: [0.0, -1.0, 0.0]}
for pad in (1, 2):
    assert seen[pad, "unchanged"] == seen[pad, "onnxsim"] == right[pad]
assert seen[1, "onnxoptimizer"] == [-1.0, -1.0] and seen[2, "onnxoptimizer"] == "refused"
PY
echo "as described: zeros that were padded are gone"
