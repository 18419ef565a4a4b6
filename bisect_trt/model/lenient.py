"""What ONNX Runtime reads in a file although ONNX forbids it, put into the form that ONNX has for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from bisect_trt.model.graph import is_onnx
from bisect_trt.model.normalise import replace_nodes
from bisect_trt.model.operators import label
from bisect_trt.model.walk import drop
from bisect_trt.writing.text import some_names

SHOWN = 3  # names in a note


def read_as_the_reference(model: ModelProto) -> list[str]:
    """Change a parsed file, in place, into what ONNX Runtime 1.32 makes of it; says what, as sentences.

    - A Constant outside of bodies may give a value anew that a weight or Constant before it has given: the
      last holds wherever it is read. ONNX has every name given once.
    - The attribute `value` of a Constant may be sparse, as `sparse_value` is.
    - A node outside of bodies that reads nothing and gives nothing is left out, whatever its operator is.
    """
    graph = model.graph
    notes = []
    if idle := {k: node for k, node in enumerate(graph.node) if _is_idle(node)}:
        named = some_names([label(node, k) for k, node in idle.items()], SHOWN)
        verb = "has" if len(idle) == 1 else "have"
        notes.append(
            f"{named} {verb} neither inputs nor outputs: ONNX forbids that, and ONNX Runtime leaves "
            f"{'it' if len(idle) == 1 else 'them'} out."
        )
        replace_nodes(graph, [node for node in graph.node if not _is_idle(node)])
    if again := _given_again(graph):
        verb = "is" if len(again) == 1 else "are"
        notes.append(
            f"{some_names(again, SHOWN)} {verb} given more than once, by Constants: ONNX forbids that, "
            "and ONNX Runtime takes the last value everywhere."
        )
        _keep_last(graph, again)
    if sparse := [node for node in graph.node if _has_sparse_value(node)]:
        named = some_names([node.output[0] for node in sparse], SHOWN)
        notes.append(f"{named}: sparse in the attribute `value`; ONNX calls it `sparse_value`.")
        for node in sparse:
            node.attribute[0].name = "sparse_value"
    return notes


def _is_constant(node: NodeProto) -> bool:
    return bool(node.op_type == "Constant" and is_onnx(node.domain))


def _is_idle(node: NodeProto) -> bool:
    return not node.input and not node.output and not _is_constant(node)


def _has_sparse_value(node: NodeProto) -> bool:
    one = node.attribute[0] if _is_constant(node) and len(node.attribute) == 1 else None
    return one is not None and one.name == "value" and one.type == AttributeProto.SPARSE_TENSOR


def _given_again(graph: GraphProto) -> list[str]:
    """Return names that a Constant gives anew; not those of inputs, which ONNX Runtime treats otherwise."""
    constants = [node.output[0] for node in graph.node if _is_constant(node) and node.output]
    weights = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}
    times = Counter(constants)
    return [name for name in times if times[name] + (name in weights) > 1]


def _keep_last(graph: GraphProto, names: Collection[str]) -> None:
    left = set(names)
    kept = []
    for node in reversed(graph.node):
        if _is_constant(node) and node.output and node.output[0] in names:
            if node.output[0] not in left:
                continue
            left.remove(node.output[0])
        kept.append(node)
    replace_nodes(graph, kept[::-1])
    drop(graph.initializer, lambda tensor: tensor.name in names)
