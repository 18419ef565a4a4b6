#!/usr/bin/env bash
# One would guess: onnx's ReferenceEvaluator implements the overload field of IR version 10, which is
# onnx's own, and a graph editor writes back what it read.
# What happens: the evaluator knows functions by domain and name only; of two overloads it runs the
# last for both calls: Neg(Neg(x)) instead of Neg(Relu(x)). ONNX Runtime and onnx's inliner get it
# right. onnx-graphsurgeon drops the field on import, so that its export holds two functions of one
# name, which ONNX Runtime refuses.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, onnx-graphsurgeon 0.6.1; seen 2026-11-29.
# Why it matters for bisecting: the reference result itself is wrong, so that the healthy backend is
# reported; and one pass through an editor makes a model that fails elsewhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2 onnx-graphsurgeon==0.6.1
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

info = helper.make_tensor_value_info
opset = helper.make_opsetid("", 17)
functions = [helper.make_function("mine", "F", ["a"], ["b"], [helper.make_node(op, ["a"], ["b"])], [opset], overload=overload)
             for op, overload in (("Relu", "first"), ("Neg", "second"))]
nodes = [helper.make_node("F", ["x"], ["t"], domain="mine", overload="first"),
         helper.make_node("F", ["t"], ["y"], domain="mine", overload="second")]
graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [2])], [info("y", TensorProto.FLOAT, [2])])
model = helper.make_model(graph, opset_imports=[opset, helper.make_opsetid("mine", 1)], functions=functions, ir_version=10)
onnx.checker.check_model(model, full_check=True)
x = {"x": np.array([-1, 2], np.float32)}
ort.set_default_logger_severity(4)
runtime = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, x)[0].tolist()
evaluator = ReferenceEvaluator(model).run(None, x)[0].tolist()
inlined = [n.op_type for n in onnx.inliner.inline_local_functions(model).graph.node]
print("onnx", onnx.__version__, "inlined:", inlined)
print("Neg(Relu([-1, 2])): onnxruntime", runtime, "ReferenceEvaluator", evaluator)
assert runtime == [0, -2] and inlined == ["Relu", "Neg"] and evaluator == [-1, 2]
back = gs.export_onnx(gs.import_onnx(model))
names = [(f.domain, f.name, f.overload) for f in back.functions]
print("onnx-graphsurgeon", gs.__version__, "writes back", names)
assert names == [("mine", "F", "")] * 2
try:
    ort.InferenceSession(back.SerializeToString(), providers=["CPUExecutionProvider"])
except Exception as error:
    print("onnxruntime:", " ".join(str(error).split())[:60], "...")
else:
    raise AssertionError("the written model runs now")
PY
echo "as described: the evaluator runs the wrong overload, the editor loses it"
