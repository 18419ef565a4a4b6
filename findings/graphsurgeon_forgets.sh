#!/usr/bin/env bash
# One would guess: importing a model into onnx-graphsurgeon and exporting it at once changes nothing.
# What happens: gone are the metadata_props of nodes and of the model, doc_string of nodes, inputs and the
# model, model_version, the denotation of an input, and the entry of an initializer among the graph
# inputs, which makes it a default that the caller may override.
# Versions: onnx-graphsurgeon 0.6.1, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: PyTorch's exporter keeps source file and line of each node in its
# metadata_props; after one pass through the editor, or through a tool built on it, a culprit
# cannot be led back to the code. And a caller that feeds the default is refused.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnx==1.23.2 onnx-graphsurgeon==0.6.1
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

info = helper.make_tensor_value_info
node = helper.make_node("Add", ["x", "bias"], ["y"], name="add", doc_string="of the node")
node.metadata_props.add(key="source", value="net.py:12")
inputs = [info("x", TensorProto.FLOAT, [2], doc_string="of the input"), info("bias", TensorProto.FLOAT, [2])]
inputs[0].type.denotation = "IMAGE"
graph = helper.make_graph([node], "g", inputs, [info("y", TensorProto.FLOAT, [2])], [numpy_helper.from_array(np.ones(2, np.float32), "bias")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10, model_version=7, doc_string="of the model")
model.metadata_props.add(key="trained", value="yesterday")
onnx.checker.check_model(model, full_check=True)
back = gs.export_onnx(gs.import_onnx(model))


def kept(m):
    return {
        "node metadata": len(m.graph.node[0].metadata_props),
        "node doc": m.graph.node[0].doc_string,
        "input doc": m.graph.input[0].doc_string,
        "input denotation": m.graph.input[0].type.denotation,
        "graph inputs": [i.name for i in m.graph.input],
        "model metadata": len(m.metadata_props),
        "model doc": m.doc_string,
        "model version": m.model_version,
    }


print("onnx-graphsurgeon", gs.__version__)
before, after = kept(model), kept(back)
for what in before:
    print(f"{what:17} {before[what]!r} -> {after[what]!r}")
assert after == {"node metadata": 0, "node doc": "", "input doc": "", "input denotation": "", "graph inputs": ["x"],
                 "model metadata": 0, "model doc": "", "model version": 0}
PY
echo "as described: an import and an export lose all that"
