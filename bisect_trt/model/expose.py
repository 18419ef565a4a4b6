"""Marks inner tensors of a model as outputs, which keeps builders from fusing over them.

This file stands alone: `apply.py` beside a `workaround.onnx` holds a copy of it. It needs onnx.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def inner_tensors(model: onnx.ModelProto) -> list[str]:
    """The tensors of the main graph that nodes make and that are no outputs, in topological order."""
    there = {value.name for value in model.graph.output}
    return [name for node in model.graph.node for name in node.output if name and name not in there]
