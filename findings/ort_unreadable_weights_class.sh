#!/usr/bin/env bash
# One would guess: a file of weights that may not be read raises what a missing one raises, or what a model that may
# not be read raises, and the text names the file.
# What happens: the whole text is "SystemError : 13", without a file, and from 1.23.2 on the exception is
# ModelRequiresCompilation: 13 is the operating system's number for "permission denied", and it is also ONNX Runtime's
# own number for that status, which 1.22.1 did not have (there it is a RuntimeError). Missing weights raise Fail or
# RuntimeException and are named, a missing model raises NoSuchFile, and a model that may not be read Fail with its name.
# Versions: onnxruntime 1.22.1, 1.23.2 and 1.32.0 (1.20.1 as the first, 1.27.0 and 1.28.0 as the last), onnx 1.20.1, on
# Linux; seen 2026-11-30.
# Why it matters for bisecting: failures are told apart by class and text. By its class this one is of a model that must
# first be compiled, so a matter of permissions becomes a signature of the model and of each candidate saved beside it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
for pair in "1.22.1 RuntimeError" "1.23.2 ModelRequiresCompilation" "1.32.0 ModelRequiresCompilation"; do
set -- $pair
"${PYTHON:-python3}" -m venv "$work/$1"
"$work/$1/bin/pip" install -q --no-compile onnxruntime==$1 onnx==1.20.1
mkdir -m 755 "$work/data$1"
(cd "$work/data$1" && "$work/$1/bin/python" - "$2" <<'PY'
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ort.set_default_logger_severity(4)


def seen(path):
    """The class and the text of what a session of this file raises."""
    try:
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:
        return type(error).__name__, str(error).replace(os.getcwd(), "")
    return "runs", ""


def save(name):
    """A model of one Add, with its weights in a file beside it."""
    info = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones(1000, np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [info("x", TensorProto.FLOAT, [1000])],
                              [info("y", TensorProto.FLOAT, [1000])], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, name + ".onnx", save_as_external_data=True, location=name + ".data", size_threshold=0)
    onnx.checker.check_model(name + ".onnx", full_check=True)
    assert seen(name + ".onnx") == ("runs", "")


for name in ("weights_locked", "weights_gone", "model_locked"):
    save(name)
os.chmod("weights_locked.data", 0)
os.remove("weights_gone.data")
os.chmod("model_locked.onnx", 0)
if os.geteuid() == 0:
    os.setuid(65534)  # root may read everything: be the user nobody from here on
got = {name: seen(name + ".onnx") for name in ("weights_locked", "weights_gone", "model_locked", "model_gone")}
print("onnxruntime", ort.__version__)
for name, (kind, text) in got.items():
    print(f"  {name:14} {kind}: {text}")
assert got["weights_locked"] == (sys.argv[1], "SystemError : 13")
assert got["weights_gone"][0] in ("Fail", "RuntimeException") and "weights_gone.data" in got["weights_gone"][1]
assert got["model_locked"][0] == "Fail" and got["model_locked"][1].endswith("system error number 13")
assert got["model_gone"][0] == "NoSuchFile"
PY
)
done
echo "as described: weights that may not be read count as a model that must be compiled"
