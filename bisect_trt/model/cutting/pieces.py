"""Serialised parts of a model, made once: protobuf fields concatenate."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import onnx
from onnx import TensorProto, ValueInfoProto

from bisect_trt.model.graph import Graph
from bisect_trt.model.skeleton import without_graph
from bisect_trt.model.wire import field

_NODE, _NAME, _INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 2, 5, 11, 12, 13  # fields of GraphProto
_GRAPH = 7  # field of ModelProto


class Pieces:
    """The fields of one model as bytes, serialised at first use."""

    def __init__(self, graph: Graph) -> None:
        """Cut pieces from the model of `graph`."""
        self._graph = graph
        self._head: bytes = without_graph(graph.proto).SerializeToString()
        self._name = field(_NAME, (graph.proto.graph.name or "graph").encode())
        self.node = cache(self._node)
        self.weight = cache(self._weight)

    def _node(self, name: str) -> bytes:
        """Return a node of the model."""
        return field(_NODE, self._graph.node(name).SerializeToString())

    def _weight(self, name: str) -> bytes:
        """Return a dense initializer of the model."""
        return self.initializer(self._graph.initializers[name])

    @staticmethod
    def initializer(tensor: TensorProto) -> bytes:
        """Make any tensor an initializer."""
        return field(_INITIALIZER, tensor.SerializeToString())

    @staticmethod
    def value(number: int, name: str, kind: onnx.TypeProto | None) -> bytes:
        """Return a tensor as an `INPUT`, `OUTPUT` or `VALUE_INFO`; None: its type is not known."""
        return field(number, ValueInfoProto(name=name, type=kind).SerializeToString())

    def model(self, parts: Iterable[bytes]) -> bytes:
        """Return the whole model around the fields of its graph."""
        return self._head + field(_GRAPH, self._name + b"".join(parts))
