"""Marks inner tensors of a model as outputs, which keeps builders from fusing over them; fixes its shapes.

This file stands alone: `apply.py` beside a `workaround.onnx` holds a copy of it. It needs onnx.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx


def exposed(
    model: onnx.ModelProto, tensors: Iterable[str], inferred: onnx.ModelProto | None = None
) -> onnx.ModelProto:
    """A copy of the model in which these tensors of the main graph are outputs, too.

    Types and shapes are those of the model, or of it with inferred shapes; a tensor without is left out.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    known = {value.name: value for value in (inferred or model).graph.value_info}
    there = {value.name for value in graph.output}
    inner = {name for node in graph.node for name in node.output if name}
    for name in dict.fromkeys(tensors):
        if name in inner and name in known and name not in there:
            graph.output.append(known[name])
    return made


def fixed(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """A copy of the model whose dynamic inputs have these shapes; those of what follows are inferred."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    changed = False
    for value in made.graph.input:
        kind = value.type.tensor_type
        known = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        if value.name in shapes and not known:
            made_type = onnx.helper.make_tensor_type_proto(kind.elem_type, list(shapes[value.name]))
            value.type.CopyFrom(made_type)
            changed = True
    if changed:
        del made.graph.value_info[:]
        for value in made.graph.output:
            value.type.tensor_type.ClearField("shape")
    return made


def inner_tensors(model: onnx.ModelProto) -> list[str]:
    """The tensors of the main graph that nodes make and that are no outputs, in topological order."""
    there = {value.name for value in model.graph.output}
    return [name for node in model.graph.node for name in node.output if name and name not in there]
