"""One model that takes the precision of each node as an input.

Where a tensor goes from the node `p` to the node `c`, it is rounded unless both stay in FP32: an element of
one input says which (`Where(flag, as it is, rounded)`). Large weights are inputs themselves, one for each
reader, and are fed as they are or rounded. So one session answers for every set of nodes, and nothing of
it is built twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from msgspec import Struct, field
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.mixed_precision.quantise import KINDS, Quantiser
from bisect_trt.mixed_precision.weights import is_large, mapped, weights_of
from bisect_trt.model.external import embedded
from bisect_trt.model.graph import consumed, opset_of
from bisect_trt.model.normalise import unname_twins
from bisect_trt.model.patch import key_of
from bisect_trt.outcome import Array
from bisect_trt.targets.emulate.rounding import FORMATS, Rounder
from bisect_trt.targets.roles import Roles

Edge = tuple[str, str]
"""Maker and reader, by `key_of`; empty for what is always in FP32."""

PREFIX = "precision:"
FLAGS = f"{PREFIX}flags"
OLDEST = 9  # Where


class Narrowing(Protocol):
    """How a tensor loses what the low precision does not hold."""

    def nodes(self, tensor: str, source: str, made: str) -> list[onnx.NodeProto]:
        """Nodes that give `made` the rounded values of `source`, which is `tensor` under another name."""

    def values(self, tensor: str, values: Array) -> Array:
        """Give the rounded values of a weight."""


class ByCast(Struct):
    """Rounding to a narrow float type."""

    rounder: Rounder
    to: str

    def nodes(self, tensor: str, source: str, made: str) -> list[onnx.NodeProto]:
        """See `Narrowing`."""
        return list(self.rounder.nodes(source, TensorProto.FLOAT, made, TensorProto.FLOAT))

    def values(self, tensor: str, values: Array) -> Array:
        """See `Narrowing`."""
        return rounded_to(self.to)(values)


def narrowing(graph: onnx.GraphProto, opset: int, to: str, scales: Mapping[str, float]) -> Narrowing:
    """Give what `--to` asks for; new constants go into `graph`."""
    if to in KINDS:
        return Quantiser(to, scales, graph, f"{PREFIX}q:")
    return ByCast(Rounder(FORMATS[to], opset, graph, f"{PREFIX}r"), to)


def rounded_to(to: str) -> Callable[[Array], Array]:
    """Rounds float32 arrays to a type that numpy knows."""
    kind = FORMATS[to].cast
    assert kind is not None
    dtype = helper.tensor_dtype_to_np_dtype(kind)

    def rounded(values: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(dtype).astype(np.float32)

    return rounded


class Switch(Struct):
    """The model and what its inputs mean.

    Attributes:
        model: inputs and outputs of the original, and those below.
        narrowing: what low precision does to values.
        edges: the input `FLAGS` says of each whether what goes along it stays in FP32.
        weights: input to the weight and its reader.
        values: the weights that are fed, mapped from their files where these are suitably aligned.
    """

    model: onnx.ModelProto
    narrowing: Narrowing
    edges: list[Edge] = field(default_factory=list)
    weights: dict[str, tuple[str, str]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)


def switched(
    flat: onnx.ModelProto, folder: Path, known: Roles, to: str, scales: Mapping[str, float]
) -> Switch:
    """Make the model; its weights lie in `folder` as far as they are external data."""
    return _Switching(flat, folder, known, to, scales).run()


class _Switching:
    def __init__(
        self, flat: onnx.ModelProto, folder: Path, known: Roles, to: str, scales: Mapping[str, float]
    ) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(flat)
        self.model.ir_version = max(4, self.model.ir_version)
        self.folder, self.known = folder, known
        self.graph = self.model.graph
        unname_twins(self.graph)
        self.switch = Switch(self.model, narrowing(self.graph, opset_of(flat), to, scales))
        self._nodes: list[onnx.NodeProto] = []
        self._low: dict[str, str] = {}  # tensor to the name of the rounded one
        self._raw: dict[str, str] = {}  # tensor to the name under which its node makes it
        self._maker: dict[str, str] = {}  # tensor to the node that decides about it
        self._edges: dict[tuple[str, Edge], str] = {}
        self._flags: dict[Edge, str] = {}
        self._there: set[str] = set()  # tensors that exist under their own name

    def run(self) -> Switch:
        graph = self.graph
        nodes = [node for node in graph.node if node.op_type != "Constant"]
        self._take_weights(weights_of(graph), nodes)
        self._there |= {value.name for value in graph.input}
        for node in nodes:
            self._take(node)
        for value in graph.output:
            self._wide(value.name)
        fresh = onnx.GraphProto()
        fresh.node.extend(self._nodes)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(fresh.node)
        if self.switch.edges:
            graph.input.append(
                helper.make_tensor_value_info(FLAGS, TensorProto.BOOL, [len(self.switch.edges)])
            )
        return self.switch

    def _take_weights(self, weights: Mapping[str, TensorProto], nodes: list[onnx.NodeProto]) -> None:
        """Small float weights become initializers with their values, large ones inputs."""
        graph = self.graph
        fed = {name for name, tensor in weights.items() if is_large(tensor)}
        fresh = onnx.GraphProto()
        for name, tensor in weights.items():
            if name in fed:
                self.switch.values[name] = mapped(tensor, self.folder)
            else:
                is_float = tensor.data_type == TensorProto.FLOAT
                fresh.initializer.append(embedded(tensor, self.folder) if is_float else tensor)
        inputs = [i for i in graph.input if i.name not in weights]
        fresh.input.extend(inputs)
        del graph.initializer[:], graph.input[:]
        graph.initializer.extend(fresh.initializer)
        graph.input.extend(fresh.input)
        self._small = {tensor.name: tensor for tensor in graph.initializer}
        as_they_are = {output.name for output in graph.output}.union(*map(self._unrounded, nodes))
        for name in sorted(fed & as_they_are):
            self._feed(name, name, "")
        self._there |= set(weights)

    def _unrounded(self, node: onnx.NodeProto) -> set[str]:
        """Give what a node reads without a choice, captures of its bodies included."""
        slots = self.known.slots.get(key_of(node), ((), ()))[0]
        chosen = {name for k, name in enumerate(node.input) if k in slots}
        return {t for k, t in enumerate(node.input) if k not in slots} | (set(consumed(node)) - chosen)

    def _feed(self, name: str, weight: str, reader: str) -> None:
        values = self.switch.values[weight]
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)
        self.graph.input.append(info)
        self.switch.weights[name] = (weight, reader)

    def _take(self, node: onnx.NodeProto) -> None:
        key = key_of(node)
        inputs, outputs = self.known.slots.get(key, ((), ()))
        choice = key if key in self.known.slots else ""
        for name in consumed(node):
            if any(t == name and k not in inputs for k, t in enumerate(node.input)) or name not in node.input:
                self._wide(name)
        for k in inputs:
            node.input[k] = self._along(node.input[k], choice)
        for k, name in enumerate(list(node.output)):
            if name and self.known.types.get(name) == TensorProto.FLOAT:
                self._maker[name] = choice if k in outputs else ""
                self._raw[name] = node.output[k] = f"{PREFIX}raw:{name}"
        self._nodes.append(node)

    def _wide(self, name: str) -> None:
        """Put the tensor under its own name from here on, rounded if its maker is lowered."""
        if name in self._there or name not in self._raw:
            return
        self._there.add(name)
        if self._maker[name]:
            self._choose(name, (self._maker[name], ""), name)
        else:
            self._nodes.append(helper.make_node("Identity", [self._raw[name]], [name]))

    def _along(self, name: str, reader: str) -> str:
        """Give what the reader gets of a tensor."""
        neutral = reader in self.known.neutral
        edge = (self._maker.get(name, ""), reader)
        if neutral:
            return self._rounded_one(name)
        known = (name, edge)
        if known not in self._edges:
            made = f"{PREFIX}{len(self._edges)}:{name}"
            self._edges[known] = made
            if name in self.switch.values:
                self._feed(made, name, reader)
            else:
                self._choose(name, edge, made)
        return self._edges[known]

    def _choose(self, name: str, edge: Edge, made: str) -> None:
        flag = self._flags.get(edge)
        if flag is None:
            flag = self._flags[edge] = f"{PREFIX}flag:{len(self._flags)}"
            place = numpy_helper.from_array(np.array(len(self.switch.edges)), f"{flag}:place")
            self.graph.initializer.append(place)
            self.switch.edges.append(edge)
            self._nodes.append(helper.make_node("Gather", [FLAGS, place.name], [flag]))
        inputs = [flag, self._raw.get(name, name), self._rounded_one(name)]
        self._nodes.append(helper.make_node("Where", inputs, [made]))

    def _rounded_one(self, name: str) -> str:
        """Give the tensor, rounded whatever happens."""
        if name in self.switch.values:  # Shape of a weight
            return self._along(name, "")
        if name not in self._low:
            weight = self._small.get(name)
            low = self._low[name] = f"{PREFIX}low:{name}"
            if weight is not None:
                values = self.switch.narrowing.values(name, numpy_helper.to_array(weight))
                self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), low))
            else:
                source = self._raw.get(name, name)
                self._nodes += self.switch.narrowing.nodes(name, source, low)
        return self._low[name]
