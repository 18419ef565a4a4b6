"""Cut a selection of nodes out of a model, as a candidate fed with recorded values."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from onnx import TensorProto, TypeProto

from bisect_trt.model.candidate import Candidate, Feeds, Form
from bisect_trt.model.cutting.constants import INNER_TYPES, feeds_build_time_slot, is_shape_like
from bisect_trt.model.cutting.pieces import INPUT, OUTPUT, VALUE_INFO, Pieces
from bisect_trt.model.cutting.types import TensorSource, Types
from bisect_trt.model.graph import Boundary, Graph, Selection, dims_of
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.generate import generate
from bisect_trt.model.store import Store, raw_size

_Frozen = tuple[bytes, int]
"""A constant, serialised, and the bytes of its values."""


class Cutter:
    """Cuts one model; what it serialises and decides is kept for the next cut."""

    def __init__(
        self, graph: Graph, store: Store, record: TensorSource, *, only_recorded: bool = False
    ) -> None:
        """Cut the model of `graph`, whose weights were adopted by `store`.

        With `only_recorded` nothing is cut through tensors that were not recorded, nor exposed of them.
        """
        self._graph = graph
        self._store = store
        self._record = record
        self._only_recorded = only_recorded
        self._pieces = Pieces(graph)
        self._types = Types(graph, record)
        self._constant = cache(self._make_constant)
        self._interior = cache(self._types_of)
        self._weight_size = cache(self._size_of_weight)
        self._seeded = cache(self._make_seeded)
        self._carried = cache(self._carried_by)

    def cut(self, selection: Selection, style: Form = Form.DEFAULT, fed: Iterable[str] = ()) -> Candidate:
        """Return the selection as a model of its own; tensors in `fed` become inputs whatever the style says.

        It grows over edges that cannot be cut (sequences, optionals, strings, tensors of unknown
        type), so `Candidate.nodes` may be more. Tensors that were not recorded get an input of the
        inferred shape and seeded values.

        `style` is one of the forms that are cut.

        Raises:
            KeyError: a node does not exist.
            ValueError: no node was selected.
        """
        assert style.is_cut
        names, (inputs, outputs) = self._grow(self._graph.sorted(selection), style)
        if not names:
            raise ValueError("nothing selected")
        if style is Form.HIDDEN:
            outputs = self._visible(names, outputs)
        if self._only_recorded:
            outputs = tuple(t for t in outputs if t in self._record) or outputs
        inside, fed = frozenset(names), frozenset(fed)
        frozen = {t: f for t in inputs if t not in fed and (f := self._freeze(t, inside, style))}
        return self._assemble(names, [t for t in inputs if t not in frozen], outputs, frozen, style)

    def whole(self, style: Form = Form.DYNAMIC) -> Candidate:
        """Return all nodes, with all inputs and outputs of the model; dimensions as declared by default."""
        graph = self._graph
        return self._assemble(list(graph.order), list(graph.graph_inputs), graph.graph_outputs, {}, style)

    def _grow(self, names: list[str], style: Form) -> tuple[list[str], Boundary]:
        """Return the selection (sorted) grown until its boundary can be cut, and that boundary."""
        graph = self._graph
        feedable = self._record if self._only_recorded else graph.producer
        while True:
            boundary = graph.boundary(names)
            added = {
                graph.producer[t]
                for t in boundary.inputs
                if t in graph.producer and not (t in feedable and self._can_cut(t, style))
            }
            for tensor in boundary.outputs if style is not Form.NARROW else ():
                if not self._can_cut(tensor, style):
                    added.update(graph.consumers.get(tensor, ()))
            if added.issubset(names):
                return names, boundary
            names = graph.sorted(added.union(names))

    def _can_cut(self, tensor: str, style: Form) -> bool:
        elem_type = self._types.elem_type(tensor)
        if elem_type is None or elem_type == TensorProto.STRING or tensor in self._record.hidden:
            return False
        return style is Form.NARROW or elem_type not in INNER_TYPES

    def _visible(self, names: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
        """Return the outputs of the model, and of nodes that feed no other node of the selection."""
        read = {t for name in names for t in self._graph.inputs_of(name)}
        sinks = {name for name in names if read.isdisjoint(self._graph.outputs_of(name))}
        shown = set(self._graph.graph_outputs)
        return tuple(t for t in outputs if t in shown or self._graph.producer[t] in sinks)

    def _freeze(self, tensor: str, inside: Selection, style: Form) -> _Frozen | None:
        """Return the cut tensor as a constant, if it has to be one."""
        graph = self._graph
        if tensor not in graph.producer or tensor not in self._record:  # inputs of the model stay inputs
            return None
        if tensor not in graph.constants:
            if style is Form.UNFROZEN:
                return None
            shape_like = is_shape_like(self._record.elem_type(tensor), self._record.shape(tensor))
            if not shape_like and not self._wired(tensor, inside):
                return None
        return self._constant(tensor)

    def _wired(self, tensor: str, inside: Selection) -> bool:
        consumers = self._graph.consumers.get(tensor, ())
        return any(c in inside and feeds_build_time_slot(self._graph, c, tensor) for c in consumers)

    def _make_constant(self, tensor: str) -> _Frozen | None:
        """Return the recorded value as an initializer; None when the samples differ."""
        record = self._record
        elem_type, shape = record.elem_type(tensor), record.shape(tensor)
        first = record.path(0, tensor)
        others = (record.path(sample, tensor) for sample in range(1, record.samples))
        if not all(filecmp.cmp(first, other, shallow=False) for other in others):  # so NaN equals itself
            return None
        proto = self._store.tensor(tensor, first, elem_type, shape)
        return self._pieces.initializer(proto), raw_size(elem_type, shape)

    def _assemble(
        self,
        names: Sequence[str],
        inputs: Sequence[str],
        outputs: Sequence[str],
        frozen: dict[str, _Frozen],
        style: Form,
    ) -> Candidate:
        pieces, graph = self._pieces, self._graph
        carried = dict.fromkeys(chain.from_iterable(map(self._carried, names)))
        generators = [graph.producer[t] for t in carried if t in graph.producer]
        weights = [t for t in carried if t in graph.initializers]
        weights += [t for name in generators for t in graph.inputs_of(name) if t not in carried]
        weights += [t for t in outputs if t in graph.initializers and t not in carried]
        weights = list(dict.fromkeys(weights))
        dynamic = style is Form.DYNAMIC
        type_of = self._types.dynamic if dynamic else self._types.static
        parts = [pieces.value(INPUT, t, type_of(t)) for t in inputs]
        shown = type_of if style is not Form.UNTYPED else lambda t: _without_shape(type_of(t))
        parts += [pieces.value(OUTPUT, t, shown(t)) for t in outputs]
        parts += [pieces.weight(t) for t in weights]
        parts += [piece for piece, _ in frozen.values()]
        parts += [pieces.node(name) for name in (*generators, *names)]
        if style is not Form.UNTYPED:
            parts += self._interior_types(names, outputs, dynamic)
        size = sum(map(self._weight_size, weights))
        return Candidate(
            content=pieces.model(parts),
            folder=self._store.folder,
            nodes=tuple(names),
            feeds=self._feeds(inputs),
            # What was recorded does not follow from seeded values.
            expected=self._values(outputs if all(t in self._record for t in inputs) else ()),
            form=style,
            bytes=size + sum(count for _, count in frozen.values()),
        )

    def _size_of_weight(self, name: str) -> int:
        weight = self._graph.initializers[name]
        return raw_size(weight.data_type, weight.dims)

    def _carried_by(self, name: str) -> tuple[str, ...]:
        """Return the weights that a node reads, and tensors that generators make for it."""
        graph = self._graph
        return tuple(
            t
            for t in graph.inputs_of(name)
            if t in graph.initializers or graph.producer.get(t) in graph.generators
        )

    def _feeds(self, inputs: Sequence[str]) -> tuple[Feeds, ...]:
        """Return recorded values, and seeded ones for inputs that were not recorded."""
        made = {t: path for t in inputs if t not in self._record and (path := self._seeded(t)) is not None}
        return tuple({**sample, **made} for sample in self._values(inputs))

    def _make_seeded(self, tensor: str) -> Path | None:
        """Return a value for an input that the reference could not make, written once.

        Dimensions unknown are 1.
        """
        kind = self._types.static(tensor)
        if kind is None or (dims := dims_of(kind)) is None:
            return None
        needed = GraphInput(tensor, kind.tensor_type.elem_type, dims)
        return self._store.put_once(tensor, generate([needed], 0, {})[tensor].make())

    def _values(self, tensors: Iterable[str]) -> tuple[Feeds, ...]:
        known = [t for t in tensors if t in self._record]
        return tuple({t: self._record.path(s, t) for t in known} for s in range(self._record.samples))

    def _interior_types(self, names: Sequence[str], outputs: Sequence[str], dynamic: bool) -> list[bytes]:
        exposed, known = frozenset(outputs), (self._interior(name, dynamic) for name in names)
        return [piece for types in known for tensor, piece in types.items() if tensor not in exposed]

    def _types_of(self, name: str, dynamic: bool) -> dict[str, bytes]:
        """Return the types of what a node makes, serialised; unknown ones are left out."""
        types = {}
        for tensor in self._graph.outputs_of(name):
            kind = self._graph.value_info(tensor) if dynamic else self._types.declared(tensor)
            if kind:
                types[tensor] = self._pieces.value(VALUE_INFO, tensor, kind)
        return types


def _without_shape(kind: TypeProto | None) -> TypeProto | None:
    if kind is None or not kind.HasField("tensor_type"):
        return kind
    return TypeProto(tensor_type=TypeProto.Tensor(elem_type=kind.tensor_type.elem_type))
