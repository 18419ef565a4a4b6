"""Which nodes give other values each time, and which outputs of the model depend on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx
from onnx import numpy_helper

from bisect_trt.model.graph import RANDOM_OPS, UNSTEADY, Graph, bodies, consumed, is_onnx, is_unsteady
from bisect_trt.model.walk import copied, refill

_KNOWN = frozenset({"ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""Domains besides ONNX's own whose random operators are known; of others nobody can tell without a run."""
HOW_TO_EXPORT = "Export the model in evaluation mode (model.eval() in PyTorch), or without its random nodes."


def random_nodes(graph: Graph) -> dict[str, str]:
    """Return the random nodes, each with a phrase that says why; local functions must be inlined already.

    A Dropout counts when its training mode is not known to be off, a BatchNormalization in training mode
    since its statistics are those of whatever batch it gets, and a custom operator once it was seen to give
    two values for the same inputs (`marked`).
    """
    off = {name for name, tensor in graph.initializers.items() if _is_off(tensor)}
    found = {}
    for name in graph.order:
        if why := _why(graph.node(name), off):
            found[name] = why
    return found


def unknown_nodes(graph: Graph) -> list[str]:
    """Return the nodes of custom operators: only two runs tell whether they are random."""
    domains = ((name, graph.node(name).domain) for name in graph.order)
    return [name for name, domain in domains if not is_onnx(domain) and domain not in _KNOWN]


def marked(graph: Graph, nodes: Iterable[str]) -> Graph:
    """Return the model with a note that these nodes gave different values for the same inputs."""
    proto, found = copied(graph.proto), set(nodes)
    for node in proto.graph.node:
        if node.name in found:
            node.metadata_props.add(key=UNSTEADY, value="yes")
    return Graph(proto)


def outputs_behind(graph: Graph, nodes: Collection[str]) -> tuple[str, ...]:
    """Return the outputs of the model that depend on these nodes, in the order of the model."""
    reached = {*nodes, *graph.behind(nodes)}
    made = {tensor for node in reached for tensor in graph.outputs_of(node)}
    return tuple(output for output in graph.graph_outputs if output in made)


def pinned(graph: Graph, types: Mapping[str, onnx.TypeProto]) -> onnx.ModelProto:
    """Return the model without its random nodes: what they make are inputs of these types.

    Outputs that a random node makes itself are left out.
    """
    found = random_nodes(graph)
    made = [tensor for name in found for tensor in graph.outputs_of(name)]
    proto = copied(graph.proto)
    kept = [node for node in proto.graph.node if node.name not in found]
    refill(proto.graph.node, kept)
    for field in (proto.graph.output, proto.graph.value_info):
        refill(field, [value for value in field if value.name not in made])
    read = {tensor for node in kept for tensor in consumed(node)}
    proto.graph.input.extend(
        onnx.ValueInfoProto(name=tensor, type=types[tensor]) for tensor in made if tensor in read
    )
    return proto


def words(graph: Graph, *, given: bool = False) -> list[str]:
    """Return what has to be said of a model that is random, or computes as in training; for the first lines.

    `given`: whether what a random node gave the reference is taken for its value on the target, too.
    """
    found, sentences = random_nodes(graph), []
    if found:
        name, why = next(iter(found.items()))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        behind = outputs_behind(graph, found)
        drawn = "is judged with the value that the reference drew, as if it were an input"
        what = drawn if given else "was not compared"
        batch = ", as the rest of its batch has it" if why.startswith("BatchNormalization") else ""
        sentences.append(
            f"The model is random: {name} ({why}){more} gives other values each time{batch}. What depends on "
            f"it ({', '.join(behind[:4]) or 'no output'}) {what}. {HOW_TO_EXPORT}"
        )
    return sentences


def _why(node: onnx.NodeProto, off: set[str]) -> str:
    if node.op_type in RANDOM_OPS and is_onnx(node.domain):
        return node.op_type
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] and node.input[2] not in off:
        return "Dropout in training mode"
    trained = any(a.name == "training_mode" and a.i for a in node.attribute)
    if node.op_type == "BatchNormalization" and trained:
        return "BatchNormalization in training mode"
    if is_unsteady(node):
        return f"{node.op_type}: two runs of the reference differ"
    for body in bodies(node):
        inner = off | {tensor.name for tensor in body.initializer if _is_off(tensor)}
        for one in body.node:
            if one.op_type == "Constant" and any(a.HasField("t") and _is_off(a.t) for a in one.attribute):
                inner.add(one.output[0])
        for why in filter(None, (_why(one, inner) for one in body.node)):
            return f"{node.op_type}, by the {why} in its body"
    return ""


def _is_off(tensor: onnx.TensorProto) -> bool:
    """Return whether a weight is a single False."""
    single = tensor.data_type == onnx.TensorProto.BOOL and list(tensor.dims) in ([], [1])
    return single and not numpy_helper.to_array(tensor).any()
