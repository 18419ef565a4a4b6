"""Runs the reference over a model slice by slice and keeps every tensor.

A slice is a run of tensors, in topological order, whose values fit into the budget. Its model holds
the nodes from what is recorded already up to these tensors, so that no node runs twice but those
behind edges that cannot be fed (sequences, strings, int4), and values that a random node gave once are
kept. A slice that ONNX Runtime cannot run is halved until the tensor that it cannot make stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from msgspec import Struct, field
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.accuracy.operators import GROWING
from bisect_trt.model.cutting.types import inferred_types
from bisect_trt.model.graph import Graph, dims_of, is_static
from bisect_trt.model.store import Store, bits_per_element, raw_size
from bisect_trt.outcome import Array
from bisect_trt.references import ort
from bisect_trt.references.base import Record, Tensor, recorded_inputs

UNKNOWN = 1 << 20  # bytes that a tensor of unknown shape is taken for
DEFAULT_BUDGET = 1 << 30
NO_TENSOR = "holds {}: only tensors are recorded"


def record(
    model: bytes,
    folder: Path,
    feeds: Sequence[Mapping[str, Path]],
    *,
    tensors: Sequence[str] | None = None,
    budget: int | None = None,
    stem: str = "r",
) -> Record:
    """Record `tensors` (None: all that nodes make, and the outputs) of a normalised model.

    Args:
        model: serialised; external data lies in `folder`, the store.
        folder: gets the values, as `.npy` files.
        feeds: files in `folder` with the value of each graph input, a mapping for each sample.
        tensors: names to record; graph inputs are always part of the record.
        budget: bytes of recorded values that may be in memory at once (a single tensor may be
            larger); None: 1 GiB.
        stem: what names of files begin with; the rest follows from the place of a tensor in the model.

    A tensor that cannot be recorded is no error: the reason is in `Record.missing`, and ONNX
    Runtime's first message in `Record.error`.
    """
    graph = Graph(onnx.load_model_from_string(model))
    run = _Run(graph, Store(folder), feeds, stem)
    run.take_inputs()
    for part in run.slices(run.named(tensors), budget or DEFAULT_BUDGET):
        run.make(part)
    return Record(
        folder=folder,
        samples=len(feeds),
        tensors=run.tensors,
        missing=run.missing,
        error=run.error,
        reference=ort.title(),
        hidden=frozenset(run.hidden),
    )


class _Run(Struct, dict=True):
    graph: Graph
    store: Store
    feeds: Sequence[Mapping[str, Path]]
    stem: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)  # part of missing: what needs these fails as well
    hidden: set[str] = field(default_factory=set)  # see Record
    error: str = ""
    largest: int = 0  # bytes that a tensor has in all samples

    def slices(self, names: Iterable[str], budget: int) -> Iterator[list[str]]:
        """Cut a list of tensors into pieces that fit into the budget; each is made before the next is cut."""
        part: list[str] = []
        held = 0
        for name in names:
            size = self.expected(name)
            if part and held + size > budget:
                yield part
                part, held = [], 0
            part.append(name)
            held += size
        if part:
            yield part

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Names of files must not depend on which tensors were asked for first."""
        graph = self.graph
        made = (t for node in graph.nodes for t in graph.outputs_of(node))
        return {name: k for k, name in enumerate(dict.fromkeys((*graph.initializers, *made)))}

    def take_inputs(self) -> None:
        """Take the graph inputs into the record: their files are the feeds."""
        for name, known in recorded_inputs(self.graph, self.store, self.feeds).items():
            self.add(name, known)
        for name in self.graph.graph_inputs:
            if name not in self.tensors:
                self.lack(name, "is an input without a value, or no tensor")

    def named(self, tensors: Sequence[str] | None) -> list[str]:
        """Return the tensors to run for, in topological order; weights that are outputs are taken at once."""
        graph = self.graph
        asked = None if tensors is None else set(tensors)
        for name in graph.graph_outputs if asked is None else asked:
            if name in graph.initializers:
                value = numpy_helper.to_array(graph.initializers[name], str(self.store.folder))
                self.keep(name, [value] * len(self.feeds))
        names = [t for node in graph.order for t in graph.outputs_of(node)]
        if asked is not None:
            generated = [t for node in sorted(graph.generators) for t in graph.outputs_of(node)]
            names = [t for t in (*generated, *names) if t in asked]
        return [name for name in names if not self.no_tensor(name)]

    def no_tensor(self, name: str) -> bool:
        """Return whether the declared type says that a value is none that can be kept; notes why."""
        kind = self.graph.value_info(name)
        which = "tensor_type" if kind is None else str(kind.WhichOneof("value"))
        if which != "tensor_type":
            self.missing[name] = NO_TENSOR.format(which.removesuffix("_type"))
        elif self.graph.elem_type(name) == TensorProto.STRING:
            self.missing[name] = NO_TENSOR.format("strings")
        else:
            return False
        return True

    def make(self, names: list[str]) -> None:
        """Run what is needed for these tensors and keep them; halve them when that fails."""
        names = [name for name in names if not self.lacks_input(name)]
        if not names or not self.feeds:
            return
        try:
            self.run(names)
        except ort.OrtError as error:
            if len(names) > 1:
                middle = len(names) // 2
                self.make(names[:middle])
                self.make(names[middle:])
                return
            try:  # the last one: with the recorded shapes, which some operators want to know beforehand
                self.run(names, static=True)
            except ort.OrtError:
                self.error = self.error or str(error)
                self.lack(names[0], str(error))

    def lack(self, name: str, why: str) -> None:
        """Note that there is no value of a tensor: what needs it fails as well."""
        self.missing[name] = why
        self.failed.add(name)

    def run(self, names: list[str], *, static: bool = False) -> None:
        """Run what is needed for these tensors and keep them. Raises OrtError."""
        nodes, borders = self.upstream(names)
        session = ort.Session(self.model_of(nodes, borders, names, static), self.store.folder)
        self.keep_all(names, [session.run(self.values(borders, k)) for k in range(len(self.feeds))])

    def lacks_input(self, name: str) -> bool:
        """Return whether a tensor needs another one that ONNX Runtime could not make; notes which."""
        reads = self.graph.inputs_of(self.graph.producer[name])
        source = next((source for source in reads if source in self.failed), None)
        if source is not None:
            self.lack(name, f"needs {source}, which is missing")
        return source is not None

    def upstream(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the nodes that make these tensors from recorded ones, in order, and those tensors."""
        graph = self.graph
        nodes: set[str] = set()
        borders: dict[str, None] = {}
        todo = [graph.producer[name] for name in names]
        while todo:
            node = todo.pop()
            if node in nodes:
                continue
            nodes.add(node)
            for source in graph.inputs_of(node):
                if source in self.tensors and source not in graph.initializers and self.can_feed(source):
                    borders[source] = None
                elif source in graph.producer:
                    todo.append(graph.producer[source])
        # A node may run again for one output although another one was recorded in an earlier slice.
        made = {t for node in nodes for t in graph.outputs_of(node)}
        return [n for n in graph.nodes if n in nodes], [t for t in borders if t not in made]

    def can_feed(self, name: str) -> bool:
        """Return whether a recorded value can be an input: ONNX Runtime takes no packed ones (int4)."""
        if name in self.hidden:
            return False
        return name in self.graph.graph_inputs or bits_per_element(self.tensors[name].elem_type) >= 8

    def model_of(
        self, nodes: Sequence[str], borders: Sequence[str], names: Sequence[str], static: bool
    ) -> bytes:
        """Make a model of these nodes, with recorded tensors as inputs and `names` as outputs."""
        graph = self.graph
        used = {t for node in nodes for t in graph.inputs_of(node)}
        sparse = [t for t in graph.proto.graph.sparse_initializer if t.values.name in used]
        part = helper.make_graph(
            [graph.node(name) for name in nodes],
            "slice",
            [self.border(t, static) for t in borders],
            [onnx.ValueInfoProto(name=name) for name in names],  # ONNX Runtime infers the types
            [t for name, t in graph.initializers.items() if name in used],
            sparse_initializer=sparse,
        )
        proto = helper.make_model(
            part, opset_imports=graph.proto.opset_import, ir_version=graph.proto.ir_version
        )
        proto.functions.extend(graph.proto.functions)
        return bytes(proto.SerializeToString())

    def border(self, name: str, static: bool) -> onnx.ValueInfoProto:
        """Return a recorded tensor as an input: what is known of its shape before the run, or as recorded.

        The recorded shape alone would not do: ONNX Runtime then refuses branches that are not taken.
        """
        known = self.tensors[name]
        shape = known.shapes[0] if static and len(set(known.shapes)) == 1 else self.graph.shape(name)
        return helper.make_tensor_value_info(name, known.elem_type, shape)

    def values(self, borders: Sequence[str], sample: int) -> dict[str, Array]:
        """Return recorded values, memory mapped."""
        folder, known = self.store.folder, {name: self.tensors[name] for name in borders}
        return {name: self.store.load(folder / t.files[sample], t.elem_type) for name, t in known.items()}

    def keep_all(self, names: Sequence[str], samples: Sequence[Mapping[str, Array | str]]) -> None:
        """Write each tensor of a slice."""
        for name in names:
            given = [sample[name] for sample in samples]
            arrays = [value for value in given if not isinstance(value, str)]
            if len(arrays) < len(given):
                self.missing[name] = NO_TENSOR.format(next(v for v in given if isinstance(v, str)))
            elif any(array.dtype.kind in "OUS" for array in arrays):
                self.missing[name] = NO_TENSOR.format("strings")
            else:
                self.keep(name, arrays)

    def keep(self, name: str, arrays: Sequence[Array]) -> None:
        """Write one tensor."""
        if arrays[0].dtype == np.float16 and self.overflows(name, arrays):
            self.hidden.add(name)
        place = f"{self.stem}{self.places[name]:06d}"
        paths = [self.store.put_at(f"{place}-{k}" if k else place, a) for k, a in enumerate(arrays)]
        self.add(name, Tensor.of(arrays, paths))

    def overflows(self, name: str, arrays: Sequence[Array]) -> bool:
        """Return whether a float16 tensor was made of finite numbers and does not fit into its type."""
        node = self.graph.node(self.graph.producer[name]) if name in self.graph.producer else None
        if node is None or node.op_type not in GROWING or not any(np.isinf(a).any() for a in arrays):
            return False
        weights = [self.graph.initializers[t] for t in node.input if t in self.graph.initializers]
        folder = str(self.store.folder)
        floats = (w for w in weights if w.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16))
        return all(np.isfinite(numpy_helper.to_array(w, folder)).all() for w in floats)

    def add(self, name: str, known: Tensor) -> None:
        """Take a tensor into the record."""
        self.tensors[name] = known
        size = sum(raw_size(known.elem_type, shape) for shape in known.shapes)
        self.largest = max(self.largest, size)

    def expected(self, name: str) -> int:
        """Return the bytes that a tensor will need in all samples, by inferred shapes.

        Where these say nothing, as the largest one so far.
        """
        samples, kind = max(1, len(self.feeds)), self.types.get(name)
        dims = None if kind is None else dims_of(kind)
        elem_type = self.graph.elem_type(name) or (kind.tensor_type.elem_type if kind else 0)
        if elem_type and is_static(dims):
            return samples * raw_size(elem_type, dims)
        return max(samples * UNKNOWN, self.largest)

    @cached_property
    def types(self) -> Mapping[str, onnx.TypeProto]:
        """What was declared; with dynamic inputs, what follows from the largest ones given."""
        graph, tensors = self.graph, self.tensors
        shapes = {t: max(tensors[t].shapes, key=math.prod) for t in graph.graph_inputs if t in tensors}
        if all(graph.shape(t) == shape for t, shape in shapes.items()):
            every = ((t, graph.value_info(t)) for node in graph.order for t in graph.outputs_of(node))
            return {t: kind for t, kind in every if kind is not None}
        kinds = {t: helper.make_tensor_type_proto(tensors[t].elem_type, s) for t, s in shapes.items()}
        return inferred_types(graph.proto, kinds)
