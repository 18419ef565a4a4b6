#!/usr/bin/env bash
# One would guess: a model that the checker accepts and that runs with optimisation off loads with it on,
# all the more at the basic level, whose rewrites keep the meaning.
# What happens: ONNX Runtime finds a LayerNorm written out in single nodes, looks through the Cast in the
# middle of it, and puts in one LayerNormalization that reads float16 data and a float scale. Its own type
# check then refuses the whole model, already at the basic level, with the name of a node that is in no file.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-30.
# Why it matters for bisecting: mixed precision puts just such casts around norms. The model is fine, and
# the reference seems to fail.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

WIDTH = 8
CONSTANTS = {"two": 2.0, "epsilon": 1e-5, "scale": np.ones(WIDTH), "bias": np.zeros(WIDTH)}
STEPS = [
    ("Sub", ["x", "mean"], "off"),
    ("Cast", ["off"], "wide"),
    ("Pow", ["wide", "two"], "squares"),
    ("ReduceMean", ["squares"], "variance"),
    ("Add", ["variance", "epsilon"], "more"),
    ("Sqrt", ["more"], "deviation"),
    ("Div", ["wide", "deviation"], "normed"),
    ("Mul", ["normed", "scale"], "scaled"),
    ("Add", ["scaled", "bias"], "y"),
]
ATTRIBUTES = {"Cast": {"to": TensorProto.FLOAT}, "ReduceMean": {"axes": [-1], "keepdims": 1}}

nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], **ATTRIBUTES["ReduceMean"])]
nodes += [helper.make_node(op, read, [made], **ATTRIBUTES.get(op, {})) for op, read, made in STEPS]
info = helper.make_tensor_value_info
graph = helper.make_graph(
    nodes,
    "norm",
    [info("x", TensorProto.FLOAT16, [2, WIDTH])],
    [info("y", TensorProto.FLOAT, [2, WIDTH])],
    [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in CONSTANTS.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)


def run(level):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    x = np.arange(2 * WIDTH, dtype=np.float16).reshape(2, WIDTH)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error)
    return session.run(None, {"x": x})[0]


print("onnxruntime", ort.__version__)
seen = {level: run(level) for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL")}
for level, answer in seen.items():
    print(f"{level:17}", answer if isinstance(answer, str) else np.round(answer[0], 3))
assert not isinstance(seen["ORT_DISABLE_ALL"], str), "it does not run with optimisation off either"
assert all("bound to different types" in str(seen[level]) for level in list(seen)[1:]), "it loads now"
PY
echo "as described: a valid model is refused by what an optimiser made of it"
