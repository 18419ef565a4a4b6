#!/usr/bin/env bash
# One would guess: shape inference gives at least the type of every value of a model that the checker takes.
# What happens: onnx.shape_inference gives no type for the output of GroupNormalization, and so none for
# anything behind it; LayerNormalization and InstanceNormalization get types and shapes. data_prop changes
# nothing, strict_mode refuses the valid model and blames the Relu behind it, check_type=True gives the types
# (not the shapes). The float16 converter reads inferred types: behind a GroupNormalization it ignores
# op_block_list without a message, so that Exp is in float16 and gives inf; given a model with the types of
# check_type it keeps Exp in float32.
# Versions: onnx 1.16.2 and 1.23.2 (1.17.0, 1.18.0 and 1.20.1 alike), onnxconverter-common 1.16.0; seen 2026-11-30.
# Why it matters for bisecting: "hold this op in float32" is the experiment that finds the op which overflows;
# behind the first GroupNormalization of a diffusion model it changes nothing, and acquits every op.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for onnx in 1.16.2 1.23.2; do
"${PYTHON:-python3}" -m venv "$work/$onnx"
"$work/$onnx/bin/pip" install -q --no-compile onnx==$onnx $([ $onnx = 1.16.2 ] && echo 'numpy<2' || echo onnxconverter-common==1.16.0)
"$work/$onnx/bin/python" - <<'PY'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference


def model(norm):
    """Log(Exp(Relu(norm(x)))), which is Relu(norm(x)); the norm is scaled by 12, and exp(12) is beyond float16."""
    info = helper.make_tensor_value_info
    width = 3 if norm == "LayerNormalization" else 4
    attributes = {"num_groups": 2} if norm == "GroupNormalization" else {}
    names = ["x", "n", "r", "e", "l", "y"]
    nodes = [helper.make_node(norm, ["x", "scale", "bias"], ["n"], norm, **attributes)]
    nodes += [helper.make_node(op, [a], [b], op) for op, a, b in zip(("Relu", "Exp", "Log", "Identity"), names[1:], names[2:])]
    weights = [numpy_helper.from_array(np.full(width, value, np.float32), name) for name, value in (("scale", 12), ("bias", 0))]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [1, 4, 3])], [info("y", TensorProto.FLOAT, [1, 4, 3])], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def known(made, **options):
    """Name and shape of all that inference knows between input and output, or its complaint."""
    try:
        values = shape_inference.infer_shapes(made, **options).graph.value_info
    except shape_inference.InferenceError as error:
        return str(error).split(": ", 1)[1].splitlines()[0]
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] if v.type.tensor_type.HasField("shape") else "no shape" for v in values}


print("onnx", onnx.__version__)
seen = {}
for norm in ("GroupNormalization", "LayerNormalization", "InstanceNormalization"):
    for options in ({}, {"data_prop": True}, {"strict_mode": True}, {"check_type": True}):
        seen[norm, *options] = known(model(norm), **options)
        print(f"{norm:22} {str(options):21} {seen[norm, *options]}")
group = "GroupNormalization"
assert seen[group,] == seen[group, "data_prop"] == {}
assert "Relu" in seen[group, "strict_mode"] and "expected to have type" in seen[group, "strict_mode"]
assert seen[group, "check_type"] == dict.fromkeys("nrel", "no shape")
assert all(found == dict.fromkeys("nrel", [1, 4, 3]) for (norm, *_), found in seen.items() if norm != group)

if onnx.__version__ == "1.23.2":
    from onnx.reference import ReferenceEvaluator
    from onnxconverter_common import float16

    x = np.arange(12, dtype=np.float32).reshape(1, 4, 3)

    def converted(made):
        """Its nodes and its largest result, in float16 but for Exp and Log."""
        half = float16.convert_float_to_float16(made, keep_io_types=True, op_block_list=["Exp", "Log"])
        onnx.checker.check_model(half, full_check=True)
        # By onnx's own evaluator: ONNX Runtime's CPU computes a float16 Exp in float32.
        with np.errstate(over="ignore"):
            result = ReferenceEvaluator(half).run(None, {"x": x})[0]
        return [node.op_type for node in half.graph.node][2:-2], round(float(result.max()), 2)

    kept = {
        "GroupNormalization": converted(model(group)),
        "the same, typed first": converted(shape_inference.infer_shapes(model(group), check_type=True)),
        "LayerNormalization": converted(model("LayerNormalization")),
    }
    for name, (nodes, largest) in kept.items():
        print(f"float16 but for Exp and Log, {name:22} largest {largest:6} {nodes}")
    assert kept[group] == (["Relu", "Exp", "Log"], np.inf)
    assert all("Cast" in nodes and 10 < largest < 20 for name, (nodes, largest) in kept.items() if name != group)
PY
done
echo "as described: nothing behind a GroupNormalization has a type, and what was to stay float32 there does not"
