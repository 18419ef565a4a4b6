#!/usr/bin/env bash
# One would guess: value_info is a note for people and tools; at most a wrong one is reported.
# What happens: where ONNX Runtime cannot infer a shape itself (behind NonZero), it believes the note
# and folds Shape by it. A stale entry of [1, 9] makes Shape return [1, 9] at run time although
# the tensor is [1, 3]; with optimisation disabled it returns [1, 3]. onnx's checker accepts the
# model with full_check, and nothing is raised in the run.
# Versions: onnxruntime 1.32.0, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: a reducer that keeps old value_info while it changes the graph above
# makes a new failure of its own; and the same model passes with optimisation off.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

info = helper.make_tensor_value_info


def shape_seen(level, note):
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Shape", ["where"], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, [4])],
        [info("y", TensorProto.INT64, [2])],
        value_info=[info("where", TensorProto.INT64, [1, 9])] if note else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.array([1, 0, 1, 1], np.float32)})[0].tolist()


got = {(level, note): shape_seen(level, note) for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL") for note in (False, True)}
print("onnxruntime", ort.__version__)
for (level, note), shape in got.items():
    print(f"{level:17} {'with the note [1, 9]' if note else 'without a note':21} Shape = {shape}")
for (level, note), shape in got.items():
    assert shape == ([1, 9] if note and level != "ORT_DISABLE_ALL" else [1, 3])
PY
echo "as described: the note in the file is returned for the shape of the data"
