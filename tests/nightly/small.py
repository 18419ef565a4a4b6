"""Small models: a chain of ops, of which one may be a planted culprit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

CRASH, HANG, BOMB, ERROR, NUMBERS, FLAKY = "Sin", "Cos", "Tan", "Erf", "Sign", "Softplus"

SPEC = "planted:" + "+".join(
    (
        f"op={CRASH},fail=crash",
        f"op={HANG},fail=hang",
        f"op={BOMB},fail=oom",
        f"op={ERROR},fail=error,message=Erf is not taken: {{node}}",
        f"op={NUMBERS},fail=mismatch",
        f"op={FLAKY},p=0.5",
    )
)


def chain(path: Path, *ops: str, size: int = 8) -> Path:
    """`Relu -> ops... -> Add` over `size` floats, names after the file's."""
    stem = path.stem
    weight = numpy_helper.from_array(np.ones(1, np.float32), f"{stem}_w")
    nodes, last = [], "x"
    for k, op in enumerate(("Relu", *ops)):
        nodes.append(helper.make_node(op, [last], [f"{stem}_{k}"], name=f"{stem}/{op}_{k}"))
        last = f"{stem}_{k}"
    nodes.append(helper.make_node("Add", [last, f"{stem}_w"], ["y"], name=f"{stem}/Add"))
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [size]) for n in "xy"]
    graph = helper.make_graph(nodes, stem, sides[:1], sides[1:], [weight])
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path
