"""Types of tensors at the border of a cut: as recorded, declared, or as they follow from these.

Types of tensors that the reference could not make: inferred from what it made, else guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

import onnx
from onnx.helper import make_tensor_type_proto

from bisect_trt.model.graph import Dims, Graph, dims_of, is_static, without_symbols
from bisect_trt.model.skeleton import inferred, skeleton
from bisect_trt.model.store import shape_of
from bisect_trt.model.walk import refill


class TensorSource(Protocol):
    """Reference values of tensors; `samples` runs of the model, `t` numbers them from 0."""

    @property
    def samples(self) -> int:
        """Number of recorded runs."""

    @property
    def hidden(self) -> Collection[str]:
        """Recorded tensors whose values are not what flows: nothing can be cut there."""

    def path(self, sample: int, tensor: str) -> Path:
        """Return the file with the value, see `Store.put`."""

    def __contains__(self, tensor: object) -> bool:
        """Return whether the tensor was recorded."""

    def elem_type(self, tensor: str) -> int:
        """Return `TensorProto.DataType` of the value."""

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the dimensions in sample 0."""


class Types:
    """Types of the tensors of one model."""

    def __init__(self, graph: Graph, record: TensorSource) -> None:
        """Answer for the tensors of `graph`, whose reference values were recorded."""
        self._graph = graph
        self._record = record
        self.static = cache(self._static)

    def elem_type(self, tensor: str) -> int | None:
        """Return `TensorProto.DataType` of a tensor; None when it is unknown or no tensor."""
        if tensor in self._record:
            return self._record.elem_type(tensor)
        known = self._graph.elem_type(tensor)
        kind = self._inferred.get(tensor) if known is None else None
        return known if kind is None else (kind.tensor_type.elem_type or None)

    @cached_property
    def _inferred(self) -> Mapping[str, onnx.TypeProto]:
        """Types that follow from the recorded ones, for what the reference could not make."""
        graph, record = self._graph, self._record
        known = {t: self.static(t) for t in (*graph.graph_inputs, *graph.producer) if t in record}
        return inferred_types(graph.proto, {t: kind for t, kind in known.items() if kind is not None})

    def _static(self, tensor: str) -> onnx.TypeProto | None:
        """Return the recorded type with its static shape; else the inferred one without its symbols."""
        recorded = self._dims(tensor)
        if recorded is not None:
            return make_tensor_type_proto(self._record.elem_type(tensor), recorded)
        declared = self.declared(tensor)
        if declared is not None and (not declared.HasField("tensor_type") or is_static(dims_of(declared))):
            return declared
        kind = self._inferred.get(tensor, declared)
        if kind is None or not kind.HasField("tensor_type"):
            return kind
        return make_tensor_type_proto(kind.tensor_type.elem_type, without_symbols(dims_of(kind)))

    def declared(self, tensor: str) -> onnx.TypeProto | None:
        """Return the declared or inferred type without symbols.

        Interior tensors get this one, never the recorded type: ONNX Runtime would infer further
        from it than it does in the whole model, and then refuse branches that are not taken.
        """
        elem_type, shape = self._graph.elem_type(tensor), self._graph.shape(tensor)
        if elem_type is None:
            return self._graph.value_info(tensor)  # a sequence or the like
        return make_tensor_type_proto(elem_type, without_symbols(shape))

    def _dims(self, tensor: str) -> Dims | None:
        """Return the dimensions of the recorded values; those that differ between samples are left open."""
        record = self._record
        if tensor not in record:
            return None
        dims: Dims = record.shape(tensor)
        for sample in range(1, record.samples):
            other = shape_of(record.path(sample, tensor))
            if len(other) != len(dims):
                return self._graph.shape(tensor)
            dims = tuple(a if a == b else None for a, b in zip(dims, other, strict=True))
        return dims

    def dynamic(self, tensor: str) -> onnx.TypeProto | None:
        """Return the declared or inferred type with its symbols; what it leaves open is as recorded."""
        static, declared = self.static(tensor), self._graph.shape(tensor)
        if tensor not in self._graph.producer and declared is not None:
            return self._graph.value_info(tensor)
        elem_type, recorded = self.elem_type(tensor), self._dims(tensor)
        if elem_type is None or declared is None or recorded is None or len(declared) != len(recorded):
            return static
        dims = tuple(b if a is None else a for a, b in zip(declared, recorded, strict=True))
        return make_tensor_type_proto(elem_type, dims)


ROUNDS = 64
"""Of inference; each goes as far as the next operator that nobody knows."""

KnownTypes = Mapping[str, onnx.TypeProto]


def inferred_types(proto: onnx.ModelProto, known: KnownTypes) -> dict[str, onnx.TypeProto]:
    """Return the types of all tensors that follow from `known` ones, static where these are.

    An operator that ONNX does not know (a plugin) is taken to give what its first input is: most do. A
    declaration in the model goes before that.
    """
    light = skeleton(proto)
    graph = light.graph
    declared = [v for v in graph.value_info if v.name not in known and not _is_symbolic(v.type)]
    recorded = (onnx.ValueInfoProto(name=name, type=kind) for name, kind in known.items())
    refill(graph.value_info, (*declared, *recorded))
    for item in graph.input:
        if item.name in known:
            item.type.CopyFrom(known[item.name])
    del graph.output[:]  # declared shapes are those of other inputs
    weights = {t.name: make_tensor_type_proto(t.data_type, t.dims) for t in graph.initializer}
    for _ in range(ROUNDS):
        types = weights | _infer(light)
        guessed = list(_guesses(light.graph.node, types))
        if not guessed:
            break
        light.graph.value_info.extend(guessed)
    return _infer(light)


def _infer(light: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    graph = inferred(light, data_prop=True).graph
    return {v.name: v.type for v in (*graph.input, *graph.value_info)}


def _guesses(nodes: Iterable[onnx.NodeProto], types: KnownTypes) -> Iterable[onnx.ValueInfoProto]:
    """Guess outputs of unknown operators: they get the type of the first input that has one."""
    for node in nodes:
        if onnx.defs.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain):
            continue
        missing = [name for name in node.output if name and name not in types]
        source = next((types[name] for name in node.input if name in types), None)
        if source is not None:
            yield from (onnx.ValueInfoProto(name=name, type=source) for name in missing)


def _is_symbolic(kind: onnx.TypeProto) -> bool:
    """Return whether a declared type leaves dimensions open that static inputs may settle."""
    dims = kind.tensor_type.shape.dim
    return kind.HasField("tensor_type") and not all(d.HasField("dim_value") for d in dims)
