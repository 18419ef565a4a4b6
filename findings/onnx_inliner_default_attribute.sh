#!/usr/bin/env bash
# One would guess: inlining the local functions of a model does not change what it computes.
# What happens: where a function declares an attribute with a default value (FunctionProto.attribute_proto, IR
# version 9) and the call leaves it out, onnx.inliner removes the attribute from the node of the body, which
# then takes the default of its own operator: F<alpha = 0.5> around LeakyRelu runs with 0.01. ONNX Runtime
# and onnx-ir's inliner use 0.5; onnx's ReferenceEvaluator raises a TypeError. The checker accepts both models.
# Why: the binder of attributes (onnx/shape_inference/attribute_binder.h) knows only those of the call.
# Versions: onnx 1.23.2 (1.16.2 as well), onnxruntime 1.32.0, onnx-ir 1.1.0; seen 2026-11-30.
# Why it matters for bisecting: cutting starts with inlining, since cutters work on the main graph, and onnxscript
# writes the Python defaults of a function's attributes so. The inlined model is another model: the failure is
# gone or a new one is there, and both backends agree on it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for release in 1.16.2 1.23.2; do
"${PYTHON:-python3}" -m venv "$work/$release"
others="onnxruntime==1.32.0 onnx-ir==1.1.0"
[ $release != 1.16.2 ] || others="onnxruntime==1.20.1 numpy<2"
"$work/$release/bin/pip" install -q --no-compile onnx==$release $others
"$work/$release/bin/python" -W ignore - "$release" <<'PY'
import sys

import numpy as np
import onnx
import onnx.inliner
import onnx.parser
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

model = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["": 18, "local": 1]>
g (float[2] x) => (float[2] silent, float[2] spoken)
{
    silent = local.F (x)
    spoken = local.F <alpha: float = 0.25> (x)
}
<domain: "local", opset_import: ["": 18]>
F <alpha: float = 0.5> (a) => (b)
{
    b = LeakyRelu <alpha: float = @alpha> (a)
}
""")
onnx.checker.check_model(model, full_check=True)
x = np.array([-1, 1], np.float32)


def run(made):
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return [y.tolist() for y in session.run(None, {"x": x})]


inlined = onnx.inliner.inline_local_functions(model)
before, after = run(model), run(inlined)
print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
print("F(-1) by its default 0.5 and with 0.25: as it is", before, "inlined by onnx", after)
print("nodes of the inlined model", [(n.op_type, [(a.name, a.f) for a in n.attribute]) for n in inlined.graph.node])
assert before == [[-0.5, 1], [-0.25, 1]]
assert after == [[np.float32(-0.01), 1], [-0.25, 1]]
try:
    print("ReferenceEvaluator", ReferenceEvaluator(model).run(None, {"x": x}))
    raise SystemExit("the ReferenceEvaluator runs it now")
except (TypeError, AttributeError) as error:
    print("ReferenceEvaluator:", type(error).__name__, str(error)[:90])
if sys.argv[1] == "1.23.2":
    import onnx_ir
    from onnx_ir.passes.common import InlinePass

    made = onnx_ir.from_proto(model)
    result = InlinePass()(made)
    other = run(onnx_ir.to_proto(result.model))
    print("inlined by onnx-ir", onnx_ir.__version__, other)
    assert other == before
PY
done
echo "as described: the default of the function is forgotten"
