#!/usr/bin/env bash
# One would guess: the ReferenceEvaluator is at least as exact in bfloat16 as the type allows, as it is in float16.
# What happens: its sums stop at 256. Softmax over 1000 equal scores gives 1/256 each, 3.9 in all; ReduceMean of
# 1000 ones is 0.256. In float16 the same two are 1.0004 and 1. MatMul of 1000 ones is right in bfloat16.
# Older releases are wrong in other ways: onnx 1.18.0 gives a mean of 2.8e-40, 1.16.2 a softmax of zeros.
# Why: numpy keeps a wider sum for its own float16 only. The bfloat16 of ml_dtypes is added in bfloat16, one
# by one, where 256 + 1 is 256 (jax-ml/ml_dtypes#63). The 2.8e-40 are the bits 3: 1000 times the bits 0x3f80 of 1.0
# added as uint16, which wraps to 3072, over 1000.
# Versions: onnx 1.16.2, 1.18.0 and 1.23.2, ml_dtypes 0.5.4, numpy 2.3.5 (1.26.4 with onnx 1.16.2); seen 2026-11-30.
# Why it matters for bisecting: ONNX Runtime 1.32's CPU provider runs no Softmax, ReduceMean, MatMul or Add in
# bfloat16, so this is the judge that is left. A backend that sums in float32 is blamed at the first softmax or
# reduction over more than 256 elements, and a constant folder that computes so stores the wrong sum.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for release in 1.16.2 1.18.0 1.23.2; do
"${PYTHON:-python3}" -m venv "$work/$release"
"$work/$release/bin/pip" install -q --no-compile onnx==$release ml_dtypes==0.5.4 numpy==$([ $release = 1.16.2 ] && echo 1.26.4 || echo 2.3.5)
"$work/$release/bin/python" -W ignore - "$release" <<'PY'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

info, node = helper.make_tensor_value_info, helper.make_node
ones = np.ones(1000, np.float32)


def computed(operator, kind):
    """The operator on 1000 ones in the type, given back as float32."""
    shape = [1000] if operator == "Softmax" else [1]
    nodes = [node("Cast", ["x"], ["low"], to=kind), node(operator, ["low"], ["done"]), node("Cast", ["done"], ["y"], to=TensorProto.FLOAT)]
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [1000])], [info("y", TensorProto.FLOAT, shape)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return ReferenceEvaluator(made).run(None, {"x": ones})[0]


probabilities = {name: float(computed("Softmax", kind).sum()) for name, kind in (("float16", 10), ("bfloat16", 16))}
means = {name: float(computed("ReduceMean", kind)[0]) for name, kind in (("float16", 10), ("bfloat16", 16))}
print("onnx", onnx.__version__, "sum of Softmax over 1000 equal scores", probabilities, "mean of 1000 ones", means)
assert abs(probabilities["float16"] - 1) < 0.01 and means["float16"] == 1
expected = {"1.16.2": (0, 2.755e-40), "1.18.0": (3.90625, 2.755e-40), "1.23.2": (3.90625, 0.255859375)}[sys.argv[1]]
assert np.allclose((probabilities["bfloat16"], means["bfloat16"]), expected, rtol=1e-3, atol=0)
if sys.argv[1] == "1.23.2":
    import ml_dtypes

    a, b, y = (info(name, TensorProto.BFLOAT16, shape) for name, shape in (("a", [1, 1000]), ("b", [1000, 1]), ("y", [1, 1])))
    made = helper.make_model(helper.make_graph([node("MatMul", ["a", "b"], ["y"])], "g", [a, b], [y]),
                             opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    low = ones.astype(ml_dtypes.bfloat16)
    product = ReferenceEvaluator(made).run(None, {"a": low[None], "b": low[:, None]})[0]
    print("MatMul of 1000 ones in bfloat16", product.astype(np.float32).tolist())
    assert float(product[0, 0]) == 1000
PY
done
echo "as described: sums in bfloat16 stop at 256"
