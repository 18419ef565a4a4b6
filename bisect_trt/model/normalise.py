"""Bring a model into the one form that everything else relies on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.machine import native
from bisect_trt.model.graph import bodies, consumed, topological
from bisect_trt.model.operators import merge_domains
from bisect_trt.model.skeleton import inferred, skeleton
from bisect_trt.model.walk import copied, drop, inner_nodes, needed_for_outputs, refill

_DENSE_LIMIT = 1 << 28
"""Elements."""

_SMALL_CONSTANT = 1 << 10  # bytes of a node


def normalise(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a new model of the same meaning: flat, sorted, with unique node names and inferred types.

    Local functions are inlined, Constant nodes (also in bodies) become initializers, and weights are no
    inputs any more (so the IR version is 4 at least). Nodes and weights that no output needs are dropped.
    Tensors and node metadata keep their names; so do nodes, where the name is unique. The model has to be
    sound (see `load`), and is not changed.

    Raises:
        UsageError: a sparse weight is too large to be made dense.
    """
    model = inline_functions(proto)
    model.ir_version = max(model.ir_version, 4)
    model.ClearField("training_info")
    merge_domains(model)
    graph = model.graph
    graph.name = graph.name or "graph"
    _lower(graph)
    drop_weight_inputs(graph)
    _drop_unneeded(graph)
    name_nodes(graph)
    _infer(model)
    return model


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the model in which calls of its own functions are replaced by what these do."""
    if not proto.functions:
        return copied(proto)
    weights = proto.graph.initializer
    light = skeleton(proto)
    for function in light.functions:
        for k, node in enumerate(function.node):
            node.name = node.name or f"{function.name}/{node.op_type}_{k}"  # else nobody finds it again
    model = native.inline_local_functions(light)
    if model.functions:  # they import other operator set versions than the model
        model = native.inline_local_functions(light, convert_version=True)
    refill(model.graph.initializer, weights)
    return model


def _lower(graph: onnx.GraphProto, *, inside: bool = False) -> None:
    """Make initializers of Constants and sparse weights, and sort the nodes; bodies are treated alike.

    A Constant that is an output becomes an Identity: not all runtimes take a weight as output. One that is
    nothing else stays what it is outside of bodies, so that a model of nothing but these can be searched.
    """
    outputs = {o.name for o in graph.output}
    reads = [consumed(node) for node in graph.node]
    loose = outputs.difference(*reads)
    kept, kept_reads = [], []
    for node, tensors in zip(graph.node, reads, strict=True):
        if node.op_type != "Constant" or node.domain or (not inside and _stands_alone(node, loose)):
            kept.append(node)
            kept_reads.append(tensors)
            continue
        value = constant_value(node)
        if value.name in outputs:
            value.name = _fresh(f"{value.name}_value", graph)
            kept.append(helper.make_node("Identity", [value.name], list(node.output), node.name))
            kept_reads.append([value.name])
        graph.initializer.append(value)
    write_out_sparse(graph)
    replace_nodes(graph, [kept[i] for i in topological(kept, kept_reads)])
    for node in graph.node:
        for body in bodies(node):
            _lower(body, inside=True)


def write_out_sparse(graph: onnx.GraphProto) -> None:
    """Make weights of the sparse weights of a graph, in place. Raises UsageError for one too large."""
    graph.initializer.extend(dense(sparse.values.name, sparse) for sparse in graph.sparse_initializer)
    graph.ClearField("sparse_initializer")


def _stands_alone(node: onnx.NodeProto, outputs: Collection[str]) -> bool:
    """Return whether a Constant is one of these outputs, and is too small to be a weight in the store."""
    return node.output[0] in outputs and node.ByteSize() <= _SMALL_CONSTANT


def _fresh(name: str, graph: onnx.GraphProto) -> str:
    """Return `name`, made longer until nothing in the graph or its bodies has it."""
    taken = {t.name for t in graph.initializer}
    taken.update(t for node in inner_nodes(graph) for t in (*node.input, *node.output))
    while name in taken:
        name += "_"
    return name


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give a graph these nodes, which may be its own."""
    if len(nodes) == len(graph.node) and all(a is b for a, b in zip(nodes, graph.node, strict=True)):
        return
    refill(graph.node, nodes)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put the nodes of a graph into topological order, in place; those of bodies stay as they are."""
    nodes = list(graph.node)
    replace_nodes(graph, [nodes[i] for i in topological(nodes)])


def constant_value(node: onnx.NodeProto) -> TensorProto:
    """Return the value of a Constant node, in any of its attribute forms, named as its output."""
    name = node.output[0]
    attribute = next(a for a in node.attribute if a.name.startswith(("value", "sparse_value")))
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        return dense(name, attribute.sparse_tensor)
    if attribute.type == AttributeProto.TENSOR:
        tensor: TensorProto = copied(attribute.t)
        tensor.name = name
        return tensor
    value = helper.get_attribute_value(attribute)
    kinds = {"float": TensorProto.FLOAT, "int": TensorProto.INT64, "string": TensorProto.STRING}
    kind = kinds[attribute.name.removeprefix("value_").removesuffix("s")]
    if attribute.name.endswith("s"):
        return helper.make_tensor(name, kind, [len(value)], list(value))
    return helper.make_tensor(name, kind, [], [value])


def dense(name: str, sparse: onnx.SparseTensorProto) -> TensorProto:
    """Return a sparse tensor written out. Raises UsageError when it would be too large."""
    if math.prod(sparse.dims) > _DENSE_LIMIT:
        raise UsageError(
            f"sparse tensor {name!r} of shape {list(sparse.dims)} is too large to be made dense",
            "store it as a dense tensor",
        )
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 2:  # one row of coordinates each; else positions in the flattened tensor
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return numpy_helper.from_array(dense, name)


def drop_weight_inputs(graph: onnx.GraphProto) -> None:
    """Take the initializers out of the inputs of a graph: nobody may give them another value then."""
    weights = {t.name for t in graph.initializer}
    drop(graph.input, lambda value: value.name in weights)


def _drop_unneeded(graph: onnx.GraphProto) -> None:
    """Keep what an output needs."""
    kept, needed = needed_for_outputs(graph)
    replace_nodes(graph, kept)
    drop(graph.initializer, lambda tensor: tensor.name not in needed)
    known = needed | {t for node in graph.node for t in node.output}
    # One without a type says nothing, and onnx's checker refuses it.
    drop(graph.value_info, lambda v: v.name not in known or not v.type.WhichOneof("value"))


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own, in place.

    Names of top-level nodes count first; a name that is taken or empty becomes `<Op>_<k>`.
    """
    nodes = list(graph.node)
    nodes += [inner for node in graph.node for body in bodies(node) for inner in inner_nodes(body)]
    names = {node.name for node in nodes}
    taken: set[str] = set()
    for k, node in enumerate(nodes):
        if not node.name or node.name in taken:
            number = k
            while f"{node.op_type}_{number}" in names:
                number += len(nodes)
            node.name = f"{node.op_type}_{number}"
            names.add(node.name)
        taken.add(node.name)


def unname_twins(graph: onnx.GraphProto) -> None:
    """Take the name of every node that another one before it has: ONNX Runtime refuses equal names."""
    seen = {""}
    for node in inner_nodes(graph):
        node.name = "" if node.name in seen else node.name
        seen.add(node.name)


def _infer(model: onnx.ModelProto) -> None:
    """Add the types that ONNX infers; what it cannot infer is filled from the recorded run later."""
    graph, found = model.graph, inferred(skeleton(model), data_prop=True).graph
    refill(graph.value_info, found.value_info)
    types = {v.name: v.type for v in (*found.output, *found.value_info)}
    for output in graph.output:
        kind = output.type.WhichOneof("value")
        known = kind is not None and (kind != "tensor_type" or output.type.tensor_type.HasField("shape"))
        if not known and output.name in types:
            output.type.CopyFrom(types[output.name])
