"""A model that is in FP16 already, in FP32: so that it can be asked which nodes of it should have been.

This file stands alone but for `values_of`: `apply.py` of a `precision` run holds a copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from bisect_trt.model.weight_values import values_of

_SUFFIX = "__raised"
_TYPES = ("to", "dtype", "output_dtype")


def raised(model: onnx.ModelProto, folder: Path) -> bool:
    """Make FP32 of all that is FP16, in place; inputs and outputs keep their types. Gives whether any was.

    Raises:
        OSError: a weight in `folder` cannot be read.
    """
    graph = model.graph
    if not _narrow(graph):
        return False
    inputs = [v.name for v in graph.input if _is_narrow(v)]
    outputs = [v.name for v in graph.output if _is_narrow(v)]
    names = {name: f"{name}{_SUFFIX}" for name in (*inputs, *outputs)}
    edges = onnx.GraphProto()
    edges.input.extend(graph.input)
    edges.output.extend(graph.output)
    _raise(graph, names, folder)
    weights = {t.name for t in graph.initializer}
    before = [
        helper.make_node("Cast", [n], [names[n]], f"{n}{_SUFFIX}", to=TensorProto.FLOAT)
        for n in inputs
        if names[n] not in weights
    ]
    behind = [
        helper.make_node("Cast", [names[n]], [n], f"{n}{_SUFFIX}_back", to=TensorProto.FLOAT16)
        for n in outputs
    ]
    fresh = onnx.GraphProto()
    fresh.node.extend([*before, *graph.node, *behind])
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(fresh.node)
    graph.input.extend(edges.input)
    graph.output.extend(edges.output)
    return True


def _narrow(graph: onnx.GraphProto) -> bool:
    values = (*graph.input, *graph.output, *graph.value_info)
    if any(t.data_type == TensorProto.FLOAT16 for t in graph.initializer) or any(map(_is_narrow, values)):
        return True
    attributes = [a for node in graph.node for a in node.attribute]
    if any(a.name in _TYPES and a.i == TensorProto.FLOAT16 for a in attributes):
        return True
    return any(_narrow(a.g) for a in attributes if a.type == AttributeProto.GRAPH)


def _is_narrow(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == TensorProto.FLOAT16


def _raise(graph: onnx.GraphProto, names: Mapping[str, str], folder: Path) -> None:
    """Make FP32 of weights, attributes and types, in bodies too, and give tensors their new names."""
    del graph.value_info[:]  # they are inferred again
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = values_of(tensor, folder).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), tensor.name))
        tensor.name = names.get(tensor.name, tensor.name)
    for value in (*graph.input, *graph.output):
        if _is_narrow(value):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for side in (node.input, node.output):
            for k, name in enumerate(side):
                side[k] = names.get(name, name)
        for attribute in node.attribute:
            _raise_attribute(attribute, names, folder)


def _raise_attribute(attribute: AttributeProto, names: Mapping[str, str], folder: Path) -> None:
    if attribute.name in _TYPES and attribute.i == TensorProto.FLOAT16:
        attribute.i = TensorProto.FLOAT
    elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
        values = values_of(attribute.t, folder).astype(np.float32)
        attribute.t.CopyFrom(numpy_helper.from_array(np.asarray(values), attribute.t.name))
    elif attribute.type == AttributeProto.GRAPH:
        _raise(attribute.g, names, folder)
