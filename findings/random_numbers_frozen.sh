#!/usr/bin/env bash
# One would guess: constant folding leaves random ops alone, since they have no inputs by nature.
# What happens: onnx-graphsurgeon's fold_constants and onnxslim replace a RandomNormal by one sample,
# stored as a weight; they and onnxscript's optimizer do it to a Bernoulli with constant
# probabilities. onnxsim and onnxoptimizer keep the nodes.
# Versions: onnx-graphsurgeon 0.6.1, onnxslim 0.1.98, onnxscript 0.7.2, onnxoptimizer 0.4.2, onnxsim
# 0.8.1, onnx 1.23.2, onnxruntime 1.32.0; seen 2026-11-29.
# Why it matters for bisecting: noise that should differ in each run is the same for ever; a flaky
# failure gets stable, or is frozen into a sample that never fails. And every fold makes another model.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 onnx-graphsurgeon==0.6.1 onnxslim==0.1.98 \
  onnxscript==0.7.2 onnxoptimizer==0.4.2 onnxsim==0.8.1
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxoptimizer
import onnxscript.optimizer
import onnxsim
import onnxslim
from onnx import TensorProto, helper, numpy_helper

info = helper.make_tensor_value_info


def model(node, initializers=()):
    graph = helper.make_graph([node, helper.make_node("Add", ["x", "r"], ["y"])], "g",
                              [info("x", TensorProto.FLOAT, [4])], [info("y", TensorProto.FLOAT, [4])], list(initializers))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


half = numpy_helper.from_array(np.full(4, 0.5, np.float32), "p")
models = {
    "RandomNormal": lambda: model(helper.make_node("RandomNormal", [], ["r"], shape=[4])),
    "Bernoulli": lambda: model(helper.make_node("Bernoulli", ["p"], ["r"]), [half]),
}
tools = {
    "onnx-graphsurgeon": lambda m: gs.export_onnx(gs.import_onnx(m).fold_constants().cleanup()),
    "onnxslim": onnxslim.slim,
    "onnxscript": onnxscript.optimizer.optimize,
    "onnxoptimizer": onnxoptimizer.optimize,
    "onnxsim": lambda m: onnxsim.simplify(m)[0],
}
frozen = {}
for tool, optimise in tools.items():
    frozen[tool] = [op for op, make in models.items() if op not in [n.op_type for n in optimise(make()).graph.node]]
    print(f"{tool:18} freezes {frozen[tool] or 'nothing'}")
assert frozen == {
    "onnx-graphsurgeon": ["RandomNormal", "Bernoulli"],
    "onnxslim": ["RandomNormal", "Bernoulli"],
    "onnxscript": ["Bernoulli"],
    "onnxoptimizer": [],
    "onnxsim": [],
}
PY
echo "as described: a sample becomes a weight"
