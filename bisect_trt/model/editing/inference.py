"""What ONNX says of an edited model: whether it is one, and the types of its tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.machine import native
from bisect_trt.model.graph import dims_of, is_static, without_symbols
from bisect_trt.model.skeleton import inferred, skeleton, stub
from bisect_trt.model.store import INLINE_LIMIT
from bisect_trt.model.walk import copied, refill, scopes
from bisect_trt.outcome import Array


class Invalid(Exception):
    """An edit made a model that ONNX's checker or shape inference refuses."""


def infer(proto: onnx.ModelProto, *, strict: bool, typed: bool, empty: bool) -> None:
    """Check a model and write the inferred types of its outputs, those of bodies too.

    Args:
        proto: changed in place.
        strict: ONNX's own checks have to accept the model.
        typed: write the types of interior tensors, too.
        empty: tensors without elements are allowed.

    Raises:
        Invalid: ONNX's checker or shape inference refuses it.
    """
    declared = skeleton(proto)
    ranks = [_forget_shapes(graph) for graph in scopes(proto.graph)]
    try:
        light = skeleton(proto)
        found = native.infer_shapes(light, check_type=strict, strict_mode=strict, data_prop=True).graph
    except (native.RefusedError, native.NotKnownError) as error:
        if strict or isinstance(error, native.RefusedError):
            raise Invalid(str(error)) from error
        found = declared.graph  # inference ends the process that is asked: what is declared stays
    seen = [v for graph in scopes(found) for v in (*graph.value_info, *graph.output)]
    if not empty and any(0 in (dims_of(v.type) or ()) for v in seen):
        raise Invalid("a tensor would be empty")
    for graph, known, rank in zip(scopes(proto.graph), scopes(found), ranks, strict=True):
        _write_outputs(graph, {v.name: v.type for v in known.output}, rank)
        if typed:
            refill(graph.value_info, (v for v in known.value_info if v.type.WhichOneof("value")))
    if strict:
        try:
            native.check_model(skeleton(proto, empty=True))
        except (native.RefusedError, native.NotKnownError) as error:
            raise Invalid(str(error)) from error


def _forget_shapes(graph: onnx.GraphProto) -> dict[str, int]:
    """Clear the declared shapes of outputs, which may be wrong by now, and return their ranks."""
    ranks = {}
    for output in graph.output:
        if output.type.HasField("tensor_type"):
            ranks[output.name] = len(output.type.tensor_type.shape.dim)
            output.type.tensor_type.ClearField("shape")
    return ranks


def _write_outputs(graph: onnx.GraphProto, types: dict[str, onnx.TypeProto], ranks: dict[str, int]) -> None:
    """Write inferred types; where no shape was inferred, as many unknown dimensions as were declared."""
    for output in graph.output:
        if output.name in types:
            output.type.CopyFrom(types[output.name])
        kind = output.type.tensor_type
        if output.type.HasField("tensor_type") and not kind.HasField("shape"):
            kind.shape.SetInParent()
            for _ in range(ranks.get(output.name, 0)):
                kind.shape.dim.add()
        for dim in output.type.tensor_type.shape.dim:
            if dim.dim_param.startswith("unk__"):  # inference gives names to what it does not know
                dim.Clear()


def without_shape(proto: onnx.ModelProto, *, typed: bool) -> dict[str, onnx.ValueInfoProto]:
    """Return the tensors of the graph, its outputs among them, of which some dimension could not be inferred.

    With `typed` also those in between, of which each has a place in the model then.
    """
    graph = proto.graph
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    made = (t for node in graph.node for t in node.output if t and t not in known)
    for name in made if typed else ():
        known[name] = graph.value_info.add(name=name)
    return {name: value for name, value in known.items() if not is_static(dims_of(value.type))}


def declare(places: Mapping[str, onnx.ValueInfoProto], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the shapes that a run has shown; what it has not is as it was."""
    for name, value in places.items():
        if name in shapes and value.type.HasField("tensor_type"):
            kind = value.type.tensor_type.elem_type
            value.type.CopyFrom(helper.make_tensor_type_proto(kind, shapes[name]))


def known_dims(
    model: onnx.ModelProto, weights: Mapping[str, Array]
) -> dict[str, tuple[int, tuple[int | None, ...]]]:
    """Return the element type and dimensions of all tensors, in bodies too, as far as ONNX can infer them.

    `weights` are those that the model lacks. Nothing is checked: what cannot be inferred is missing.
    """
    proto = copied(model)
    for graph in scopes(proto.graph):
        _forget_shapes(graph)
    known: dict[str, tuple[int, tuple[int | None, ...]]] = {}
    for name, array in weights.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        known[name] = (kind, array.shape)
        proto.graph.initializer.append(_for_inference(name, array, kind))
    for graph in scopes(inferred(proto, data_prop=True).graph):
        for info in (*graph.input, *graph.value_info, *graph.output):
            dims = without_symbols(dims_of(info.type))
            if dims is not None:
                known[info.name] = (info.type.tensor_type.elem_type, dims)
    return known


def _for_inference(name: str, array: Array, kind: int) -> TensorProto:
    """Return small integers with their values, which may be shapes; all else without."""
    if array.dtype.kind in "iu" and array.nbytes <= INLINE_LIMIT:
        return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    return stub(name, kind, array.shape)
