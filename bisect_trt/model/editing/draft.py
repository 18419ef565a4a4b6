"""A candidate opened for editing: nodes as a proto, weights and input values as arrays.

Opening reads nothing but headers (big values are memory mapped), closing writes only what an edit
changed, under names that follow from the content: so an edited candidate has the same digest in every
run, and the journal of an interrupted run knows it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from msgspec import Struct, field
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.editing.inference import declare, infer, known_dims, without_shape
from bisect_trt.model.editing.simplicity import simplicity
from bisect_trt.model.graph import consumed, opset_of
from bisect_trt.model.normalise import replace_nodes
from bisect_trt.model.seeded_values import DESCRIBED_FROM, Recipe, description
from bisect_trt.model.store import INLINE_LIMIT, Store, point_to
from bisect_trt.model.walk import (
    copied,
    drop,
    hoist,
    inner_nodes,
    needed_for_outputs,
    refill,
    scopes,
    unique_names,
)
from bisect_trt.model.weight_values import mapped
from bisect_trt.outcome import Array
from bisect_trt.writing.files import written_whole

Shapes = Callable[[Candidate, Sequence[str]], Mapping[str, tuple[int, ...]]]


class Draft(Struct):
    """An edited candidate; `copy` before changing it.

    Attributes:
        proto: the model without dense initializers, generators and interior types. Never share it.
        weights: values of initializers by name; never written to. Strings stay in `proto`.
        generated: weights that are made by a ConstantOfShape node instead of being stored.
        recipes: weights that are seeded random numbers.
        samples: input values, one mapping a sample; empty when nothing was recorded.
        folder: the store.
        typed: interior types are written (some targets fail only with them).
        strict: ONNX's own checks have to accept the model; False when they refuse the original.
        empty: tensors without elements are nothing new.
        fed: input values that are seeded random numbers, by sample and name.
        origins: what tensors that were renamed are called in the original.
        confirm: the reference has to run it; False when it does not run the original either.
        parse_only: see `Candidate`.
        shapes: gives what tensors have that no inference can derive, from a run of the reference: some
            targets fail only where such a shape is declared. None: it stays unknown.
    """

    proto: onnx.ModelProto
    weights: dict[str, Array]
    generated: set[str]
    recipes: dict[str, Recipe]
    samples: list[dict[str, Array]]
    folder: Path
    typed: bool = False
    strict: bool = True
    confirm: bool = True
    parse_only: bool = False
    empty: bool = False
    fed: dict[tuple[int, str], Recipe] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    shapes: Shapes | None = None
    _stored: dict[str, tuple[Array, TensorProto]] = field(default_factory=dict)
    _paths: dict[int, tuple[Array, Path]] = field(default_factory=dict)

    def copy(self) -> Draft:
        """Return an independent draft; arrays are shared, as nobody writes to them."""
        return replace(
            self,
            proto=copied(self.proto),
            weights=dict(self.weights),
            generated=set(self.generated),
            recipes=dict(self.recipes),
            samples=[dict(sample) for sample in self.samples],
            fed=dict(self.fed),
        )

    @property
    def graph(self) -> onnx.GraphProto:
        """The graph of `proto`."""
        return self.proto.graph

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return opset_of(self.proto)

    def known_dims(self) -> dict[str, tuple[int, tuple[int | None, ...]]]:
        """Return the element type and dimensions of all tensors, as far as ONNX can infer them."""
        return known_dims(self.proto, self.weights)

    def node(self, name: str) -> onnx.NodeProto | None:
        """Return the node of that name, in a body too; None when it is gone."""
        return next((node for node in inner_nodes(self.graph) if node.name == name), None)

    def readers(self, tensor: str) -> Iterator[tuple[onnx.NodeProto, int]]:
        """Yield the nodes that read a tensor, in bodies too, with the number of the input."""
        for node in inner_nodes(self.graph):
            yield from ((node, k) for k, name in enumerate(node.input) if name == tensor)

    def is_read(self, tensor: str, scope: onnx.GraphProto | None = None) -> bool:
        """Return whether a node (or a body in it) of a scope reads the tensor, or it is an output of that."""
        scope = scope or self.graph
        named = any(tensor in consumed(node) for node in scope.node)
        return named or any(output.name == tensor for output in scope.output)

    def called(self, tensor: str) -> str:
        """Return a tensor for a person who knows the original."""
        old = self.origins.get(tensor, tensor)
        return tensor if old == tensor else f"{tensor} ({old!r} in the original)"

    def set_weight(self, name: str, value: Array, recipe: Recipe | None = None) -> None:
        """Give a weight another value; it is no longer generated unless that is asked again."""
        self.weights[name] = value
        self.recipes.pop(name, None)
        if recipe is not None:
            self.recipes[name] = recipe
            self.generated.discard(name)

    def set_input(self, sample: int, name: str, value: Array, recipe: Recipe | None = None) -> None:
        """Give an input another value in one sample."""
        self.samples[sample][name] = value
        self.fed.pop((sample, name), None)
        if recipe is not None:
            self.fed[sample, name] = recipe

    def drop_weight(self, name: str) -> None:
        """Forget a weight."""
        self.weights.pop(name, None)
        self.recipes.pop(name, None)
        self.generated.discard(name)

    def keep_weights(self, names: Container[str]) -> None:
        """Forget all other weights."""
        for name in [name for name in self.weights if name not in names]:
            self.drop_weight(name)

    def drop_unused(self) -> None:
        """Forget nodes, weights and inputs that no output needs, those of bodies first."""
        for graph in reversed(list(scopes(self.graph))):
            kept, needed = needed_for_outputs(graph)
            replace_nodes(graph, kept)
        self.keep_weights(needed)
        self.drop_inputs({i.name for i in self.graph.input} - needed)

    def drop_inputs(self, names: set[str]) -> None:
        """Forget graph inputs and their values."""
        drop(self.graph.input, lambda value: value.name in names)
        for sample in self.samples:
            for name in names:
                sample.pop(name, None)


def open_draft(candidate: Candidate, *, hoisted: bool = True) -> Draft:
    """Return a candidate as a draft. Raises OSError when values of it are missing.

    `hoisted`: weights of bodies become those of the graph; else they stay as they are and cannot be edited.
    """
    proto = onnx.load_model_from_string(candidate.model)
    draft = Draft(proto, {}, set(), {}, [], candidate.folder)
    graph = proto.graph
    unique_names(graph)
    if hoisted:
        hoist(graph)
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.STRING:
            array = mapped(tensor, candidate.folder)
            draft.weights[tensor.name] = array
            draft._stored[tensor.name] = (array, copied(tensor))
    drop(graph.initializer, lambda tensor: tensor.name in draft.weights)
    _take_generators(draft)
    draft.typed = bool(graph.value_info)
    for scope in scopes(graph):
        del scope.value_info[:]
    types = {i.name: i.type.tensor_type.elem_type for i in graph.input}
    for sample in candidate.feeds:
        values = {name: Store.load(path, types[name]) for name, path in sample.items() if name in types}
        for name, array in values.items():
            draft._paths[id(array)] = (array, sample[name])
        draft.samples.append(values)
    return draft


def close_draft(draft: Draft) -> Candidate:
    """Return the draft as a candidate whose expected values are not known yet.

    Raises:
        Invalid: ONNX's checker or shape inference refuses it.
    """
    proto = copied(draft.proto)
    graph = proto.graph
    carried = {name: array for name, array in draft.weights.items() if name not in draft.generated}
    graph.initializer.extend(_tensor(draft, name, array) for name, array in carried.items())
    generators = [_generator(draft, name, graph) for name in sorted(draft.generated)]
    if generators:
        refill(graph.node, [*generators, *graph.node])
    _tell_inputs(draft, graph)
    infer(proto, strict=draft.strict, typed=draft.typed, empty=draft.empty)
    made = {node.name for node in generators}
    candidate = Candidate(
        content=proto.SerializeToString(deterministic=True),
        folder=draft.folder,
        nodes=tuple(node.name for node in graph.node if node.name not in made),
        feeds=tuple({name: _file(draft, value) for name, value in s.items()} for s in draft.samples),
        form=Form.SIMPLIFIED,
        bytes=sum(array.nbytes for array in carried.values()),
        simplicity=simplicity(proto, draft.weights, draft.generated, draft.recipes, draft.samples, draft.fed),
        edited=draft.confirm,
        parse_only=draft.parse_only,
    )
    if draft.shapes is None or not (unknown := without_shape(proto, typed=draft.typed)):
        return candidate
    declare(unknown, draft.shapes(candidate, list(unknown)))
    return replace(candidate, content=proto.SerializeToString(deterministic=True))


def _take_generators(draft: Draft) -> None:
    """Make weights of ConstantOfShape nodes of known shape: one value, seen in all places."""
    graph, outputs = draft.graph, {output.name for output in draft.graph.output}
    for node in graph.node:
        shape = draft.weights.get(node.input[0]) if node.input else None
        if node.op_type == "ConstantOfShape" and shape is not None and node.output[0] not in outputs:
            given = (numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value")
            name, value = node.output[0], next(given, np.zeros(1, np.float32))
            draft.weights[name] = np.broadcast_to(value.reshape(()), tuple(int(d) for d in shape))
            draft.generated.add(name)
    if draft.generated:
        drop(graph.node, lambda node: node.op_type == "ConstantOfShape" and node.output[0] in draft.generated)
        draft.keep_weights({name for node in graph.node for name in consumed(node)} | outputs)


def _generator(draft: Draft, name: str, graph: onnx.GraphProto) -> onnx.NodeProto:
    array = draft.weights[name]
    shape = f"{name}_shape"
    graph.initializer.append(numpy_helper.from_array(np.array(array.shape, np.int64), shape))
    value = numpy_helper.from_array(np.array(array.reshape(-1)[:1]), "")
    return helper.make_node("ConstantOfShape", [shape], [name], f"{name}_fill", value=value)


def _tensor(draft: Draft, name: str, array: Array) -> TensorProto:
    """Return a weight as an initializer: unchanged, inline, or in a file of its own."""
    stored = draft._stored.get(name)
    if stored is not None and stored[0] is array:
        return stored[1]
    tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    if name in draft.recipes:
        tensor.doc_string = draft.recipes[name].text
    if len(tensor.raw_data) > INLINE_LIMIT:
        data = tensor.raw_data
        place = draft.folder / f"w{hashlib.sha256(data).hexdigest()[:24]}.bin"
        if not place.exists():
            with written_whole(place) as aside:
                aside.write_bytes(data)
        point_to(tensor, place.name, 0, len(data))
    draft._stored[name] = (array, tensor)
    return tensor


def _tell_inputs(draft: Draft, graph: onnx.GraphProto) -> None:
    """Write into the doc strings of inputs how their large values can be made: a line for each sample."""
    for info in graph.input:
        values = [sample.get(info.name) for sample in draft.samples]
        if any(v is not None and v.nbytes > DESCRIBED_FROM and v.dtype.kind in "fiu" for v in values):
            lines = (
                "" if v is None else description(v, draft.fed.get((k, info.name)))
                for k, v in enumerate(values)
            )
            info.doc_string = "\n".join(lines).rstrip()


def _file(draft: Draft, array: Array) -> Path:
    """Return the `.npy` file of an input value."""
    known = draft._paths.get(id(array))
    if known is not None and known[0] is array:
        return known[1]
    plain = np.ascontiguousarray(array).reshape(array.shape)
    kind = f"{array.dtype.name}{array.shape}".encode()
    data = "".join(map(str, array.flat)).encode() if array.dtype.kind in "OU" else plain.tobytes()
    place = draft.folder / f"v{hashlib.sha256(kind + data).hexdigest()[:24]}.npy"
    if not place.exists():
        Store(draft.folder).put("value", plain).replace(place)
    draft._paths[id(array)] = (array, place)
    return place
