"""Which nodes of a model may compute in a narrow type, and which tensors of theirs become narrow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
from msgspec import Struct, field
from onnx import TensorProto

from bisect_trt.model.external import embedded
from bisect_trt.model.graph import bodies, is_onnx, opset_of
from bisect_trt.model.lenient import read_as_the_reference
from bisect_trt.model.normalise import inline_functions, sort_nodes
from bisect_trt.model.operators import allowed_types, types_by_schema
from bisect_trt.model.patch import NARROW, key_of, lowered, narrow_copy
from bisect_trt.model.skeleton import inferred, skeleton
from bisect_trt.targets.emulate.graph import PARAMETERS, host_tensors
from bisect_trt.targets.raised import raised
from bisect_trt.targets.tensorrt.blame import labels

_NEUTRAL = frozenset({"Shape", "Size"})
_STAYS = frozenset(
    {"Bernoulli", "DequantizeLinear", "DynamicQuantizeLinear", "Multinomial", "QuantizeLinear"}
    | {"QLinearConv", "QLinearMatMul", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)
"""Scales are FP32 in TensorRT, and random values are others in another type."""


class Roles(Struct, frozen=True):
    """What may be lowered.

    Attributes:
        slots: by `key_of`, in the order of the model: inputs and outputs that become narrow. All nodes of the
            main graph that may be lowered, `neutral` ones included.
        neutral: those of `slots` that give the same in any precision: they are always lowered.
        stays: nodes with float tensors that stay as they are, and why.
        types: element types of tensors, as far as they are known.
        names: key to the name that people know the node by: its own where it is the only one, else the key.
        ops: key to operator.
    """

    slots: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    neutral: frozenset[str] = frozenset()
    stays: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    ops: Mapping[str, str] = field(default_factory=dict)

    @property
    def items(self) -> tuple[str, ...]:
        """Keys of the nodes about which there is a choice, in order."""
        return tuple(key for key in self.slots if key not in self.neutral)


def flat(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the user's model ready for casts: functions inlined and nodes in order."""
    model = inline_functions(proto)
    read_as_the_reference(model)
    sort_nodes(model.graph)
    return model


def with_casts(model: bytes, folder: Path, to: str, keep: Collection[str]) -> onnx.ModelProto:
    """Return the model with all in `to` but the nodes named in `keep`, and what has no such form.

    Raises:
        OSError: a weight cannot be read.
    """
    proto = flat(onnx.load_model_from_string(model))
    raised(proto, folder)
    known = roles(proto, to)
    stay = set(keep)
    slots = {k: s for k, s in known.slots.items() if k not in stay and known.names[k] not in stay}
    return lowered(proto, slots, to, lambda t, name, kind: narrow_copy(embedded(t, folder), name, kind)).model


def roles(model: onnx.ModelProto, to: str) -> Roles:
    """Look at a model whose functions are inlined and whose nodes are in topological order."""
    types = float_types(model)
    opset = opset_of(model)
    host = host_tensors(model.graph)
    slots, neutral, stays = {}, set(), {}
    for node in model.graph.node:
        key = key_of(node)
        touched = [t for t in (*node.input, *node.output) if types.get(t) == TensorProto.FLOAT]
        if key and not touched and is_onnx(node.domain) and any(t and t not in types for t in node.output):
            stays[key] = "the types of its tensors are not known"
        if not key or not touched or node.op_type == "Constant":
            continue
        joins = _joins_fp16(node, types)
        why = "it joins what is in FP16" if joins and to != "fp16" else _why_not(node, host)
        found = ((), ()) if why else _slots(node, types, opset, to)
        if found == ((), ()):
            stays[key] = why or f"{node.op_type} has no {to.upper()} form in opset {opset}"
            continue
        slots[key] = found
        if node.op_type in _NEUTRAL or joins:
            neutral.add(key)
    ops = {key_of(node): node.op_type for node in model.graph.node}
    return Roles(slots, frozenset(neutral), stays, types, node_names(model.graph), ops)


def node_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the key of each node to the name that people know it by."""
    return dict(zip(map(key_of, graph.node), labels(graph), strict=True))


def float_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element types of the tensors of the main graph."""
    light = skeleton(model)
    found = inferred(light).graph
    values = (*model.graph.value_info, *found.value_info, *found.output, *model.graph.input)
    types = {v.name: v.type.tensor_type.elem_type for v in values if v.type.HasField("tensor_type")}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    version = opset_of(model)
    for node in model.graph.node:  # tensors whose type is not known even so stay as they are
        if is_onnx(node.domain) and not all(name in types for name in node.output if name):
            for name, kind in types_by_schema(node, version, types).items():
                types.setdefault(name, kind)
    return types


def _joins_fp16(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    """Say whether it is a Cast from or to FP16, which `raised` puts at inputs and outputs.

    Whether it is lowered to FP16 or not it gives the same: there is no choice about it.
    """
    return node.op_type == "Cast" and TensorProto.FLOAT16 in map(types.get, (node.input[0], node.output[0]))


def _why_not(node: onnx.NodeProto, host: frozenset[str]) -> str:
    """Say why a node stays as it is, if so."""
    if any(True for _ in bodies(node)):
        return "it stays in FP32 with its bodies"
    if node.op_type in _STAYS:
        return "its values or scales are FP32 by definition"
    if not is_onnx(node.domain):
        return f"nothing is known of operators of {node.domain}"
    if host.intersection(node.output) and node.op_type not in _NEUTRAL:
        return "it computes with shapes"
    return ""


def _slots(
    node: onnx.NodeProto, types: Mapping[str, int], opset: int, to: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Say which inputs and outputs become narrow; none at all when the operator does not allow it."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return (), ()
    inputs, outputs = allowed_types(node, schema)
    each = (*inputs.values(), *outputs.values())
    if any(all(t.startswith(("seq", "optional", "map")) for t in allowed) for allowed in each):
        return (), ()
    narrow = "tensor(float16)" if NARROW[to] == TensorProto.FLOAT16 else "tensor(bfloat16)"
    fixed = PARAMETERS.get(node.op_type, ())
    into = [k for k, allowed in inputs.items() if narrow in allowed and k not in fixed]
    out = [k for k, allowed in outputs.items() if narrow in allowed]
    return (
        tuple(k for k in into if types.get(node.input[k]) == TensorProto.FLOAT),
        tuple(k for k in out if types.get(node.output[k]) == TensorProto.FLOAT),
    )
