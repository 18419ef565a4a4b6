#!/usr/bin/env bash
# One would guess: what is folded from a Shape is what the Shape returns.
# What happens: the attribute start of Shape (since opset 15) is forgotten. onnx-graphsurgeon's
# fold_constants makes the whole shape of it: Shape(start=2) of a [2, 3, 4] becomes [2, 3, 4] instead of
# [4], and a Gather behind it takes the wrong axis. onnxoptimizer's default passes get those right and
# take the wrong axis in a Slice: Shape(start=1) and [-1:] is 3 instead of 4.
# Versions: onnx-graphsurgeon 0.6.1, onnxoptimizer 0.4.2, onnx 1.23.2, onnxruntime 1.32.0 as the judge;
# seen 2026-11-29.
# Why it matters for bisecting: PyTorch's exporter writes Shape with start and end for x.size(i), and
# fixing the dimensions, an early step of every reduction, makes them foldable. A wrong size that fits by
# chance (a square picture, equal heads) goes through in silence; else the next Reshape gets the blame.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 onnx-graphsurgeon==0.6.1 onnxoptimizer==0.4.2
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxoptimizer
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ort.set_default_logger_severity(4)
x = np.zeros((2, 3, 4), np.float32)
gather = [helper.make_node("Gather", ["s", "zero"], ["y"])]
slice_ = [helper.make_node("Slice", ["s", "last", "end"], ["y"])]
models = {
    "Shape, Gather 0": (0, gather, 2),
    "Shape(start=1), Gather 0": (1, gather, 3),
    "Shape, Slice [-1:]": (0, slice_, 4),
    "Shape(start=1), Slice [-1:]": (1, slice_, 4),
    "Shape(start=2)": (2, [helper.make_node("Identity", ["s"], ["y"])], 4),
}
tools = {
    "onnx-graphsurgeon": lambda m: gs.export_onnx(gs.import_onnx(m).fold_constants().cleanup()),
    "onnxoptimizer": onnxoptimizer.optimize,
}


def run(made):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0].ravel().tolist()


print(*(f"{tool} {version(tool)}" for tool in tools), "onnxruntime", ort.__version__, "of a tensor", x.shape)
wrong = []
for name, (start, nodes, right) in models.items():
    info = helper.make_tensor_value_info
    weights = {"zero": 0, "last": [-1], "end": [99]}
    used = [numpy_helper.from_array(np.array(value, np.int64), key) for key, value in weights.items() if key in nodes[0].input]
    shape = helper.make_node("Shape", ["x"], ["s"], **({"start": start} if start else {}))
    graph = helper.make_graph([shape, *nodes], "g", [info("x", TensorProto.FLOAT, x.shape)],
                              [info("y", TensorProto.INT64, [] if "zero" in nodes[0].input else [1])], used)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    assert run(made) == [right]
    for tool, fold in tools.items():
        copy = onnx.ModelProto()
        copy.CopyFrom(made)
        result = run(fold(copy))
        print(f"  {name:28} {right}  {tool:18} {result}")
        wrong += [(name, tool, result)] if result != [right] else []
expected = [("Shape(start=1), Gather 0", "onnx-graphsurgeon", [2]), ("Shape(start=1), Slice [-1:]", "onnxoptimizer", [3]),
            ("Shape(start=2)", "onnx-graphsurgeon", [2, 3, 4])]
assert wrong == expected, wrong
PY
echo "as described: the size of another axis"
