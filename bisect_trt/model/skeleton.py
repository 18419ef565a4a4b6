"""A light copy of a model for tools that take it whole and need no big weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import onnx
from onnx import TensorProto

from bisect_trt.machine import native
from bisect_trt.model.external import tensors
from bisect_trt.model.store import INLINE_LIMIT, raw_size

M = TypeVar("M", onnx.ModelProto, onnx.GraphProto)


def skeleton(proto: onnx.ModelProto, *, empty: bool = False) -> onnx.ModelProto:
    """Copy `proto` without the data of weights above `INLINE_LIMIT`: below 2 GB whatever the model.

    Args:
        proto: the model; it is not changed.
        empty: big and external weights get no elements (the checker looks for external files);
            else they keep their shape and refer to a file that need not exist (for inference).
    """
    copy = without_graph(proto)
    _copy_all_but("initializer", proto.graph, copy.graph)
    copy.graph.initializer.extend(_light(tensor, empty) for tensor in proto.graph.initializer)
    _import_all(copy)
    for tensor in tensors(copy) if empty else ():
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(_light(tensor, True))
    return copy


def without_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of all that a model has besides its graph: versions, imports, functions, metadata."""
    copy = onnx.ModelProto()
    _copy_all_but("graph", proto, copy)
    return copy


def set_sizes(value: onnx.ValueInfoProto, sizes: Iterable[int]) -> None:
    """Give the declared dimensions of a tensor these sizes, in place, as far as there are any."""
    for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=False):
        dim.dim_value = size


def _import_all(copy: onnx.ModelProto) -> None:
    """Import the domains that are used without: runtimes take that, onnx's tools then say nothing at all."""
    imported = {entry.domain for entry in copy.opset_import}
    used = {node.domain for node in copy.graph.node} - imported - {"", "ai.onnx"}
    for domain in sorted(used):
        copy.opset_import.add(domain=domain, version=1)


def inferred(light: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto:
    """Return a model with the types that ONNX infers; as it is where ONNX refuses it, or would die of it."""
    try:
        return native.infer_shapes(light, data_prop=data_prop)
    except (native.RefusedError, native.NotKnownError):  # types are a help only
        return light


def _copy_all_but(left_out: str, source: M, target: M) -> None:
    for field, value in source.ListFields():
        if field.name != left_out and hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif field.name != left_out:
            setattr(target, field.name, value)


def _light(tensor: TensorProto, empty: bool) -> TensorProto:
    external = tensor.data_location == TensorProto.EXTERNAL
    if not external and raw_size(tensor.data_type, tensor.dims) <= INLINE_LIMIT:
        return tensor
    if empty:
        return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0])
    return stub(tensor.name, tensor.data_type, tensor.dims)


def stub(name: str, kind: int, dims: Sequence[int]) -> TensorProto:
    """Return a tensor without values, for inference: it refers to a file that need not exist."""
    light = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    light.external_data.add(key="location", value="weights")
    return light
