"""What is left of a model without its nodes: its inputs, handed on, and its versions."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from bisect_trt.model.figures import type_text
from bisect_trt.model.variants import PLAIN_IR, Variant

_OPSETS = (17, 13, 20)


def frame(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model with one plain node behind each input instead of its own; None: it has no inputs.

    The plain nodes are of a kind that the model does not have, so that what fails is none of its kinds.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if not inputs:
        return None
    op = "Transpose" if any(node.op_type == "Identity" for node in proto.graph.node) else "Identity"
    nodes, outputs = [], []
    for k, value in enumerate(inputs):
        nodes.append(helper.make_node(op, [value.name], [f"handed_on_{k}"], f"plain_{k}"))
        kind = onnx.TypeProto()
        kind.CopyFrom(value.type)
        kind.tensor_type.ClearField("shape")
        outputs.append(helper.make_value_info(f"handed_on_{k}", kind))
    graph = helper.make_graph(nodes, "frame", inputs, outputs)
    return helper.make_model(graph, ir_version=proto.ir_version, opset_imports=proto.opset_import)


def frames(made: onnx.ModelProto) -> Iterator[Variant]:
    """Frames that differ in one thing: the IR version, the operator set version, an input less."""
    if made.ir_version != PLAIN_IR:
        other = _copy(made)
        other.ir_version = PLAIN_IR
        yield Variant("the IR version", f"IR version {PLAIN_IR} instead of {made.ir_version}", other)
    now = next((o.version for o in made.opset_import if o.domain in ("", "ai.onnx")), 0)
    for version in _OPSETS:
        if version != now:
            other = _copy(made)
            del other.opset_import[:]
            other.opset_import.append(helper.make_opsetid("", version))
            change = f"operator set {version} instead of {now}"
            yield Variant("the operator set version", change, other)
    for k, value in enumerate(made.graph.input if len(made.graph.input) > 1 else ()):
        other = _copy(made)
        for part in (other.graph.input, other.graph.node, other.graph.output):
            del part[k]
        yield Variant(f"the input {value.name} ({type_text(value.type)})", "that input left out", other)


def _copy(made: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(made)
    return other
