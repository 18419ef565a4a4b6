"""The same model in another form: what a failure may depend on although no node is to blame.

What is left of a model without its nodes: its inputs, handed on, and its versions.

A candidate with unrelated nodes in front, to see what depends on the size of a network alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise

import onnx
from msgspec import Struct
from msgspec.structs import replace
from onnx import TensorProto, helper

from bisect_trt.machine import native
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.graph import opset_of
from bisect_trt.model.normalise import drop_weight_inputs, name_nodes, write_out_sparse
from bisect_trt.model.patch import fix
from bisect_trt.model.skeleton import inferred, skeleton
from bisect_trt.model.summary import type_text
from bisect_trt.model.walk import copied, refill

MOST_BYTES = 1 << 29
"""Of a model that is taken apart by ONNX's own tools, which copy it several times."""

Shapes = Mapping[str, tuple[int, ...]]


class Variant(Struct, frozen=True):
    """A model in another form.

    Attributes:
        cause: what was varied, `dimension names`.
        change: what was done, so that one could say `... and the failure is gone`.
        model: the result.
        same_meaning: whether nothing else can have come into it; the converter of ONNX makes mistakes.
    """

    cause: str
    change: str
    model: onnx.ModelProto
    same_meaning: bool = True


def variants(proto: onnx.ModelProto, fed: Shapes) -> Iterator[Variant]:
    """Make all other forms of a model, the most informative first.

    `fed` are the shapes of inputs, and of outputs as far as they are known.
    """
    for cause, change, edit in _EDITS:
        copy = copied(proto)
        if edit(copy, fed):
            yield Variant(cause, change, copy)
    if proto.ByteSize() < MOST_BYTES:
        yield from _by_onnx(proto)


def _own_names(proto: onnx.ModelProto, fed: Shapes) -> bool:
    """Give each symbolic dimension a name of its own, where some share one."""
    dims = [dim for value in proto.graph.input for dim in value.type.tensor_type.shape.dim]
    shared = Counter(dim.dim_param for dim in dims if dim.dim_param)
    if max(shared.values(), default=0) < 2:
        return False
    for number, dim in enumerate(dims):
        if dim.dim_param:
            dim.dim_param = f"{dim.dim_param}_{number}"
    _forget_shapes(proto, fed)
    return True


def _forget_shapes(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Take away shapes of outputs and types of inner tensors: the target infers them."""
    declared = bool(proto.graph.value_info)
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        if output.type.HasField("tensor_type") and output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.ClearField("shape")
            declared = True
    return declared


def _typed_outputs(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Give outputs without a type the one that inference finds."""
    lacking = {output.name: output for output in proto.graph.output if not output.type.WhichOneof("value")}
    if not lacking:
        return False
    outputs = inferred(skeleton(proto)).graph.output
    found = [output for output in outputs if output.name in lacking and output.type.WhichOneof("value")]
    for output in found:
        lacking[output.name].CopyFrom(output)
    return bool(found)


def _shaped_outputs(proto: onnx.ModelProto, known: Shapes) -> bool:
    """Give outputs without a shape the one that the reference gives them."""
    changed = False
    for output in proto.graph.output:
        kind = output.type
        if kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape") and output.name in known:
            kind.CopyFrom(helper.make_tensor_type_proto(kind.tensor_type.elem_type, known[output.name]))
            changed = True
    return changed


def _right_types(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Declare the element types that outputs and inner tensors have, where the file says others."""
    bare = skeleton(proto)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.ClearField("type")
    found = inferred(bare).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*found.value_info, *found.output)}
    changed = False
    for value in (*proto.graph.value_info, *proto.graph.output):
        declared, known = value.type.tensor_type.elem_type, kinds.get(value.name, 0)
        if declared and known and declared != known:
            value.type.tensor_type.elem_type = known
            changed = True
    return changed


def _dense_weights(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Write sparse weights out."""
    changed = bool(proto.graph.sparse_initializer)
    write_out_sparse(proto.graph)
    return changed


def _weights_no_inputs(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Make constants of initializers that are inputs as well (IR version 3)."""
    before = len(proto.graph.input)
    drop_weight_inputs(proto.graph)
    if len(proto.graph.input) == before:
        return False
    proto.ir_version = max(4, proto.ir_version)
    return True


def _unique_names(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Give each node a name of its own, where some share one."""
    names = [node.name for node in proto.graph.node if node.name]
    name_nodes(proto.graph)
    return len(set(names)) < len(names)


def _other_ir(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Set the IR version that all releases since 2021 read."""
    changed = proto.ir_version != PLAIN_IR
    proto.ir_version = PLAIN_IR
    return changed


PLAIN_IR = 8
"""All releases since 2021 read it."""

_OPSETS = (17, 13, 20)  # to be tried in this order: what most exporters write comes first

_EDITS: tuple[tuple[str, str, Callable[[onnx.ModelProto, Shapes], bool]], ...] = (
    (
        "the names of dimensions",
        "a name of its own for each dimension (equal names mean equal sizes)",
        _own_names,
    ),
    ("outputs without a declared type", "the types of all outputs declared", _typed_outputs),
    ("outputs without a declared shape", "the shapes of all outputs declared", _shaped_outputs),
    ("a wrong type that is declared", "outputs and inner tensors declared as what they are", _right_types),
    ("equal names of nodes", "a name of its own for each node", _unique_names),
    ("sparse weights", "the sparse initializers written as dense ones", _dense_weights),
    ("weights that are inputs", "the initializers taken out of the inputs", _weights_no_inputs),
    ("declared shapes", "no declared shapes of outputs and inner tensors", _forget_shapes),
    ("the IR version", f"IR version {PLAIN_IR}", _other_ir),
    ("dynamic dimensions", "the dimensions of all inputs fixed to what was fed", fix),
)


def _by_onnx(proto: onnx.ModelProto) -> Iterator[Variant]:
    """Yield what ONNX's tools make; they refuse some models."""
    if proto.functions:
        yield Variant("local functions", "the local functions inlined", native.inline_local_functions(proto))
    for version, change in _other_opsets(proto):
        with suppress(native.RefusedError, native.NotKnownError):  # no adapter, an unknown operator, ...
            made = native.convert_version(proto, version)
            yield Variant("the operator set version", change, made, same_meaning=False)


def _other_opsets(proto: onnx.ModelProto) -> Iterator[tuple[int, str]]:
    now = opset_of(proto)
    return ((k, f"operator set {k} instead of {now}") for k in _OPSETS if k != now)


def frame(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return the model with one plain node behind each input instead of its own; None: it has no inputs.

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
        kind = copied(value.type)
        kind.tensor_type.ClearField("shape")
        outputs.append(helper.make_value_info(f"handed_on_{k}", kind))
    graph = helper.make_graph(nodes, "frame", inputs, outputs)
    return helper.make_model(graph, ir_version=proto.ir_version, opset_imports=proto.opset_import)


def frames(made: onnx.ModelProto) -> Iterator[Variant]:
    """Yield the frames that differ in one thing: the IR version, the operator set version, an input less."""
    if made.ir_version != PLAIN_IR:
        other = copied(made)
        other.ir_version = PLAIN_IR
        yield Variant("the IR version", f"IR version {PLAIN_IR} instead of {made.ir_version}", other)
    for version, change in _other_opsets(made):
        other = copied(made)
        refill(other.opset_import, [helper.make_opsetid("", version)])
        yield Variant("the operator set version", change, other)
    for k, value in enumerate(made.graph.input if len(made.graph.input) > 1 else ()):
        other = copied(made)
        for part in (other.graph.input, other.graph.node, other.graph.output):
            del part[k]
        yield Variant(f"the input {value.name} ({type_text(value.type)})", "that input left out", other)


PADDING = 32
"""Nodes; TensorRT-RTX 1.7.1 was seen to word a shape error differently below 17 layers."""


def padded(candidate: Candidate) -> Candidate:
    """Return the candidate with `PADDING` Relu nodes before its own, from an input to an output of theirs.

    The new input has no feed: this is for stages before the run.
    """
    proto = onnx.load_model_from_string(candidate.model)
    names = [f"bisect_trt_padding_{k}" for k in range(PADDING + 1)]
    nodes = [
        helper.make_node("Relu", [source], [result], f"{result}_node") for source, result in pairwise(names)
    ]
    refill(proto.graph.node, [*nodes, *proto.graph.node])
    proto.graph.input.append(helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [1]))
    proto.graph.output.append(helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [1]))
    content = proto.SerializeToString(deterministic=True)
    return replace(candidate, content=content, form=Form.PADDED, expected=())
