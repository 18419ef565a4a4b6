#!/usr/bin/env bash
# One would guess: a fusion to LayerNormalization, which works on the last axis, is done where the means are
# taken over the last axis.
# What happens: the Python optimizer of onnxruntime.transformers (optimize_model) fuses the same nodes for means
# over axis 1, over two axes and over all of them: every time the result is LayerNormalization over the last axis,
# without a warning, for model_type bert and vit (and gpt2, unet, swin). ONNX Runtime's own optimiser, which
# looks for the same pattern inside of a session, gives the right result on all of them.
# Why: its comment says "axis=2 or -1"; the code does not read the axes. The fusion to RMSNorm next to it does.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-30. The session's optimiser had its checks of the axes
# extended in microsoft/onnxruntime#15844.
# Why it matters for bisecting: models are optimised so before they go to a backend, and a norm over time and
# channels with a weight for each channel is no rarity. The shapes fit, the checker is content, and every
# backend agrees with every other on the wrong numbers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 sympy==1.14.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.optimizer import optimize_model

logging.disable(logging.WARNING)
random = np.random.default_rng(0)
x = random.normal(size=(2, 5, 4)).astype(np.float32)
weight, bias = (random.normal(size=4).astype(np.float32) for _ in range(2))


def normalised(axes):
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + 1e-5) * weight + bias


def model(axes):
    values = {"two": np.float32(2), "epsilon": np.float32(1e-5), "weight": weight, "bias": bias, "axes": np.array(axes)}
    nodes = [("ReduceMean", ["x", "axes"], "mean"), ("Sub", ["x", "mean"], "centred"), ("Pow", ["centred", "two"], "square"),
             ("ReduceMean", ["square", "axes"], "variance"), ("Add", ["variance", "epsilon"], "raised"), ("Sqrt", ["raised"], "deviation"),
             ("Div", ["centred", "deviation"], "scaled"), ("Mul", ["scaled", "weight"], "weighted"), ("Add", ["weighted", "bias"], "y")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, inputs, [name], name=name) for op, inputs, name in nodes], "g", info[:1], info[1:],
                              [numpy_helper.from_array(value, name) for name, value in values.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


print("onnxruntime", ort.__version__)
for axes in ([-1], [1], [1, 2], [0, 1, 2]):
    onnx.save(model(axes), "model.onnx")
    right, plain = normalised(tuple(axes)), run("model.onnx")
    for kind in ("bert", "vit"):
        fused = optimize_model("model.onnx", model_type=kind, opt_level=0)
        fused.save_model_to_file("fused.onnx")
        got, nodes = run("fused.onnx"), [n.op_type for n in fused.model.graph.node]
        print(f"means over {axes!s:9} as it is off by {abs(plain - right).max():.1e}, optimised for {kind}: {nodes}"
              f" off by {abs(got - right).max():.1e}, from the last axis by {abs(got - normalised((-1,))).max():.1e}")
        assert np.allclose(plain, right, atol=1e-5), "the session is right"
        assert nodes == ["LayerNormalization"] and np.allclose(got, normalised((-1,)), atol=1e-5)
        assert np.allclose(got, right, atol=1e-5) == (axes == [-1])
PY
echo "as described: whatever the axes, it becomes the norm over the last one"
