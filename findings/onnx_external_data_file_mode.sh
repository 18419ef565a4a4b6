#!/usr/bin/env bash
# One would guess: a model and its file of weights are saved with the same permissions, those of the umask.
# What happens: since onnx 1.21.0 the file of weights is made with mode 0600 whatever the umask is, and the model
# beside it with 0644 under umask 022 and 0664 under umask 002. Up to 1.20.1 both follow the umask, as an
# ordinary open() does and as onnx_ir's writer does with the same model.
# Versions: onnx 1.20.1, 1.21.0 and 1.23.2 (1.16.2 to 1.19.1 as the first, 1.22.0 and 1.23.0 as the last), onnx-ir 1.1.0,
# on Linux; seen 2026-11-30.
# Why it matters for bisecting: a job or a container with another user id reads the saved model and not its weights; ONNX
# Runtime says "SystemError : 13". That failure is of the file and not of the model, and small models, which keep their
# weights inside, do not have it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for pair in "1.20.1 umask" "1.21.0 0600" "1.23.2 0600"; do
set -- $pair
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnx==$1 $([ $1 = 1.23.2 ] && echo onnx-ir==1.1.0)
for umask in 022 002; do
mkdir "$work/data$1-$umask"
(umask $umask && cd "$work/data$1-$umask" && "$work/$1/bin/python" - "$2" "$umask" <<'PY'
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

info = helper.make_tensor_value_info
graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [info("x", TensorProto.FLOAT, [1000])],
                          [info("y", TensorProto.FLOAT, [1000])], [numpy_helper.from_array(np.ones(1000, np.float32), "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)

with open("plain.txt", "w") as file:
    file.write("what open() makes here\n")
if onnx.__version__ == "1.23.2":
    import onnx_ir

    onnx_ir.save(onnx_ir.from_proto(model), "ir.onnx", external_data="ir.data", size_threshold_bytes=0)
onnx.save(model, "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
assert os.path.getsize("m.data") == 4000 and onnx.load("m.onnx").graph.initializer[0].raw_data

modes = {name: f"{os.stat(name).st_mode & 0o777:04o}" for name in sorted(os.listdir())}
print("onnx", onnx.__version__, "umask", sys.argv[2], modes)
by_umask = f"{0o666 & ~int(sys.argv[2], 8):04o}"
weights = modes.pop("m.data")
assert set(modes.values()) == {by_umask} and weights == ("0600" if sys.argv[1] == "0600" else by_umask)
PY
)
done
done
echo "as described: everybody may read the model, and only its owner the weights"
