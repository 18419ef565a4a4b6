#!/usr/bin/env bash
# One would guess: converting the opset touches opset matters only.
# What happens: the model comes back without its local functions (calls of them stay, so that no one
# can run it), without the metadata_props of its nodes (where PyTorch's exporter keeps source lines),
# and nothing is raised. A sparse initializer, on the other hand, does raise: it is called undefined.
# Versions: onnx 1.23.2, onnxruntime 1.32.0; seen 2026-11-29. Public: onnx/onnx issue 4370 for functions.
# Why it matters for bisecting: "fails at opset 18, runs at 17" can be the loss, not the opset; and a
# culprit can no longer be traced to the source once the node's metadata is gone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnxruntime==1.32.0 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, version_converter

info = helper.make_tensor_value_info
opset = helper.make_opsetid("", 17)
function = helper.make_function("mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [opset])
nodes = [helper.make_node("Twice", ["x"], ["t"], domain="mine"), helper.make_node("Relu", ["t"], ["y"], name="last")]
nodes[1].metadata_props.add(key="source", value="net.py:12")
graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [2])], [info("y", TensorProto.FLOAT, [2])])
model = helper.make_model(graph, opset_imports=[opset, helper.make_opsetid("mine", 1)], functions=[function], ir_version=10)
onnx.checker.check_model(model, full_check=True)
ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

converted = version_converter.convert_version(model, 18)
left = [n.op_type for n in converted.graph.node]
print("onnx", onnx.__version__, "nodes", left, "functions", len(model.functions), "->", len(converted.functions))
print("node metadata", len(model.graph.node[1].metadata_props), "->", len(converted.graph.node[1].metadata_props))
assert left == ["Twice", "Relu"] and len(converted.functions) == 0 and not converted.graph.node[1].metadata_props
try:
    ort.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
except Exception as error:
    print("onnxruntime:", str(error).splitlines()[0][:110])
else:
    raise AssertionError("the converted model runs now")

values = helper.make_tensor("w", TensorProto.FLOAT, [1], [5.0])
indices = helper.make_tensor("w_at", TensorProto.INT64, [1], [2])
graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [info("x", TensorProto.FLOAT, [4])], [info("y", TensorProto.FLOAT, [4])])
graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
sparse = helper.make_model(graph, opset_imports=[opset], ir_version=8)
onnx.checker.check_model(sparse)
try:
    version_converter.convert_version(sparse, 18)
except Exception as error:
    print("sparse initializer:", str(error)[:80])
    assert "undefined" in str(error)
else:
    raise AssertionError("sparse initializers are converted now")
PY
echo "as described: functions and node metadata are gone after the conversion"
