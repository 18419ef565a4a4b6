#!/usr/bin/env bash
# One would guess: reading the values of a weight does not change whether the graph can be exported.
# What happens: onnx-graphsurgeon reads an INT4 initializer well and exports it well, but not one after
# the other: once `.values` was looked at, export raises "Raw data size does not match", since four-bit
# numbers are written back one a byte. BFLOAT16 and FLOAT8 weights survive the look.
# Versions: onnx-graphsurgeon 0.6.1, onnx 1.23.2; seen 2026-11-29.
# Why it matters for bisecting: a print in a script, or a fold that peeks at shapes and values, makes
# every quantized candidate fail in the tool instead of in the backend.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile onnx==1.23.2 onnx-graphsurgeon==0.6.1
"$work/venv/bin/python" - <<'PY'
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

info = helper.make_tensor_value_info
print("onnx-graphsurgeon", gs.__version__, "onnx", onnx.__version__)


def export(kind, look):
    nodes = [helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "f"], ["y"])]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [4])], [info("y", TensorProto.FLOAT, [4])],
                              [helper.make_tensor("w", kind, [4], [1, -2, 3, -4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    imported = gs.import_onnx(model)
    if look:
        assert [int(v) for v in imported.tensors()["w"].values] == [1, -2, 3, -4]
    try:
        gs.export_onnx(imported)
    except ValueError as error:
        return str(error)
    return "exported"


for kind in ("INT4", "BFLOAT16", "FLOAT8E4M3FN"):
    results = [export(getattr(TensorProto, kind), look) for look in (False, True)]
    print(f"{kind}: untouched: {results[0]}; after a look at the values: {results[1]}")
    assert results[0] == "exported" and (results[1] != "exported") == (kind == "INT4")
PY
echo "as described: a look at INT4 weights makes the graph unexportable"
