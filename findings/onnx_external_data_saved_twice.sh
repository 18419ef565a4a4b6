#!/usr/bin/env bash
# One would guess: saving a model again to the same names overwrites the files.
# What happens: with save_as_external_data onnx 1.16.2 appends the weights to the data file: each save
# makes it larger by the whole model, and the old half is dead. onnx 1.23.2 raises FileExistsError
# instead (as 1.18.0 does), so the same script that filled the disk now stops.
# Versions: onnx 1.16.2 and 1.23.2 (1.18.0 and 1.20.1 as the latter); seen 2026-11-29.
# Why it matters for bisecting: a search writes hundreds of candidates. In one working folder that is
# hundreds of times the weights with one release, and an error at the second candidate with another.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for pair in "1.16.2 appended" "1.23.2 refused"; do
set -- $pair
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnx==$1 $([ $1 = 1.16.2 ] && echo 'numpy<2')
mkdir "$work/data$1"
(cd "$work/data$1" && "$work/$1/bin/python" - "$2" <<'PY'
import os
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

info = helper.make_tensor_value_info


def save():
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [info("x", TensorProto.FLOAT, [1000])],
                              [info("y", TensorProto.FLOAT, [1000])], [numpy_helper.from_array(np.ones(1000, np.float32), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return os.path.getsize("m.data")


sizes = [save()]
try:
    sizes.append(save())
    result = {(4000, 4000): "overwritten", (4000, 8000): "appended"}[tuple(sizes)]
except FileExistsError as error:
    result = "refused"
    print("onnx", onnx.__version__, "second save:", error)
print("onnx", onnx.__version__, "bytes of weights 4000, size of the data file", sizes, result)
assert result == sys.argv[1]
PY
)
done
echo "as described: appended by one release, refused by another"
