#!/usr/bin/env bash
# One would guess: a crop is cut out whatever the size it is resized to.
# What happens: Resize with tf_crop_and_resize returns its input uncropped when the output happens to be
# as large as the input: the left half of [0, 1, 2, 3] resized to 4 numbers is [0, 1, 2, 3], not
# [0, 0.5, 1, 1.5]. For 3 or 5 numbers, the neighbours, the crop is right. Optimization makes no
# difference. onnx's ReferenceEvaluator and the formula of the standard crop in all cases.
# Versions: onnxruntime 1.32.0 (1.20.1 and 1.31.1 too), onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: the reference is wrong at one input size and right at all others, so a
# smaller test input "repairs" the model; the engine that crops is the one that gets the blame.
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
from onnx.reference import ReferenceEvaluator

x = np.array([[0, 1, 2, 3]], np.float32)
end = 0.5
correct = {}
for opset in (13, 19):
    for size in (3, 4, 5):
        info = helper.make_tensor_value_info
        node = helper.make_node("Resize", ["x", "roi", "", "sizes"], ["y"], mode="linear",
                                coordinate_transformation_mode="tf_crop_and_resize")
        graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, [1, 4])], [info("y", TensorProto.FLOAT, [1, size])],
                                  [numpy_helper.from_array(np.array([0, 0, 1, end], np.float32), "roi"),
                                   numpy_helper.from_array(np.array([1, size], np.int64), "sizes")])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
        runtime = session.run(None, {"x": x})[0][0]
        reference = ReferenceEvaluator(made).run(None, {"x": x})[0][0]
        formula = np.arange(size) * end * (4 - 1) / (size - 1)  # the input is its own index
        print(f"opset {opset}, {size} numbers: formula {formula.tolist()}  onnxruntime {ort.__version__} {runtime.tolist()}")
        assert np.allclose(reference, formula)
        correct[opset, size] = bool(np.allclose(runtime, formula))
        assert size != 4 or runtime.tolist() == x[0].tolist()
assert correct == {(opset, size): size != 4 for opset in (13, 19) for size in (3, 4, 5)}
PY
echo "as described: no crop when the sizes are equal"
