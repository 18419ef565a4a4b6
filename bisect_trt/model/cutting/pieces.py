"""Serialised parts of a model, made once: protobuf fields concatenate."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from bisect_trt.model.graph import Dims, Graph
from bisect_trt.model.wire import field

_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 2, 5, 11, 12, 13  # of GraphProto
_GRAPH = 7  # of ModelProto


def type_of(elem_type: int, dims: Dims | None) -> onnx.TypeProto:
    """Return a tensor type; None: no shape."""
    return helper.make_tensor_type_proto(elem_type, dims)


class Pieces:
    """The fields of one model as bytes, serialised at first use."""

    def __init__(self, graph: Graph) -> None:
        """Cut pieces from the model of `graph`."""
        self._graph = graph
        head = onnx.ModelProto()
        for entry, value in graph.proto.ListFields():
            if entry.name == "graph":
                continue
            if hasattr(value, "extend"):
                getattr(head, entry.name).extend(value)
            else:
                setattr(head, entry.name, value)
        self._head: bytes = head.SerializeToString()
        self._name = field(_NAME, (graph.proto.graph.name or "graph").encode())
        self._nodes: dict[str, bytes] = {}
        self._weights: dict[str, bytes] = {}

    def node(self, name: str) -> bytes:
        """Return a node of the model."""
        if name not in self._nodes:
            self._nodes[name] = field(_NODE, self._graph.node(name).SerializeToString())
        return self._nodes[name]

    def weight(self, name: str) -> bytes:
        """Return a dense initializer of the model."""
        if name not in self._weights:
            self._weights[name] = self.initializer(self._graph.initializers[name])
        return self._weights[name]

    @staticmethod
    def initializer(tensor: TensorProto) -> bytes:
        """Make any tensor an initializer."""
        return field(_INITIALIZER, tensor.SerializeToString())

    @staticmethod
    def input(name: str, kind: onnx.TypeProto) -> bytes:
        """Return the bytes of an input of a graph."""
        return field(_INPUT, ValueInfoProto(name=name, type=kind).SerializeToString())

    @staticmethod
    def output(name: str, kind: onnx.TypeProto | None) -> bytes:
        """Return a graph output; without a type when it is unknown."""
        return field(_OUTPUT, ValueInfoProto(name=name, type=kind).SerializeToString())

    @staticmethod
    def value_info(name: str, kind: onnx.TypeProto) -> bytes:
        """Return the type of an interior tensor."""
        return field(_VALUE_INFO, ValueInfoProto(name=name, type=kind).SerializeToString())

    def model(self, parts: Iterable[bytes]) -> bytes:
        """Return the whole model around the fields of its graph."""
        return self._head + field(_GRAPH, self._name + b"".join(parts))
