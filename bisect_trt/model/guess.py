"""Types of tensors that the reference could not make: inferred from what it made, else guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from bisect_trt.model.skeleton import skeleton

ROUNDS = 64
"""Of inference; each goes as far as the next operator that nobody knows."""

Types = Mapping[str, onnx.TypeProto]


def inferred_types(proto: onnx.ModelProto, known: Types) -> dict[str, onnx.TypeProto]:
    """Types of all tensors that follow from `known` ones, static where these are.

    An operator that ONNX does not know (a plugin) is taken to give what its first input is: most do. A
    declaration in the model goes before that.
    """
    light = skeleton(proto)
    graph = light.graph
    declared = [v for v in graph.value_info if v.name not in known and not _is_symbolic(v.type)]
    fresh = onnx.GraphProto()
    fresh.value_info.extend(declared)
    fresh.value_info.extend(onnx.ValueInfoProto(name=name, type=kind) for name, kind in known.items())
    del graph.value_info[:]
    graph.value_info.extend(fresh.value_info)
    for item in graph.input:
        if item.name in known:
            item.type.CopyFrom(known[item.name])
    del graph.output[:]  # declared shapes are those of other inputs
    weights = {t.name: onnx.helper.make_tensor_type_proto(t.data_type, t.dims) for t in graph.initializer}
    for _ in range(ROUNDS):
        types = weights | _infer(light)
        guessed = list(_guesses(light.graph.node, types))
        if not guessed:
            break
        light.graph.value_info.extend(guessed)
    return _infer(light)


def _infer(light: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    try:
        inferred = onnx.shape_inference.infer_shapes(light, strict_mode=False, data_prop=True).graph
    except Exception:  # it is a help only: odd models make it raise
        inferred = light.graph
    return {v.name: v.type for v in (*inferred.input, *inferred.value_info)}


def _guesses(nodes: Iterable[onnx.NodeProto], types: Types) -> Iterable[onnx.ValueInfoProto]:
    """For outputs of unknown operators: the type of the first input that has one."""
    for node in nodes:
        if onnx.defs.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain):
            continue
        missing = [name for name in node.output if name and name not in types]
        source = next((types[name] for name in node.input if name in types), None)
        if source is not None:
            yield from (onnx.ValueInfoProto(name=name, type=source) for name in missing)


def _is_symbolic(kind: onnx.TypeProto) -> bool:
    """Whether a declared type leaves dimensions open that static inputs may settle."""
    dims = kind.tensor_type.shape.dim
    return kind.HasField("tensor_type") and not all(d.HasField("dim_value") for d in dims)
