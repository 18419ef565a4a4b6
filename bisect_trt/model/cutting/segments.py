"""Many isolated parts of a model as one candidate, so that one build measures all of them.

A segment is a node (or the few that cannot be cut apart) fed with its own recorded inputs. In the merged
model every segment has its own copy of each input and its own names of outputs: no segment sees what
another one made, and nothing can be fused across them. Weights are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
from msgspec import Struct

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.cutting.constants import types_named
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.cutting.types import TensorSource
from bisect_trt.model.graph import Graph
from bisect_trt.model.walk import copied, rename

_QUANTISED = types_named("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2", "FLOAT8", "FLOAT4")


class Segment(Struct, frozen=True):
    """A part of a model that is measured by itself.

    Attributes:
        nodes: names, in topological order; one, but where nodes cannot be cut apart.
        op: operators of the nodes, joined by `+`.
        candidate: the part by itself, as the cutter gives it.
        bytes: of its weights, and of recorded values that enter and leave it.
        fed: whether all that enters it was recorded.
    """

    nodes: tuple[str, ...]
    op: str
    candidate: Candidate
    bytes: int
    fed: bool = True

    @property
    def tensors(self) -> tuple[str, ...]:
        """Outputs that can be compared: those that were recorded."""
        return tuple(self.candidate.expected[0]) if self.candidate.expected else ()


class Merged(Struct, frozen=True):
    """Segments in one candidate; `names` has the tensor of the model behind each of its outputs."""

    candidate: Candidate
    names: Mapping[str, str]


def segments(graph: Graph, cutter: Cutter, record: TensorSource, nodes: Iterable[str]) -> list[Segment]:
    """Return the segments that hold all of `nodes`, none of them twice, in topological order."""
    found: dict[int, Candidate] = {}
    where: dict[str, int] = {}
    for number, name in enumerate(graph.sorted(nodes)):
        if name in where:
            continue
        selection = _together(graph, name)
        while True:
            candidate = cutter.cut(selection)
            touched = {where[n] for n in candidate.nodes if n in where}
            if not touched:
                break
            # It grew into others: all of them are one.
            selection = frozenset(candidate.nodes).union(*(found[k].nodes for k in touched))
            for k in touched:
                for n in found.pop(k).nodes:
                    del where[n]
        found[number] = candidate
        where.update(dict.fromkeys(candidate.nodes, number))
    return [_segment(graph, candidate, record) for candidate in found.values()]


def _together(graph: Graph, name: str) -> frozenset[str]:
    """Return a node with those that stay with it: builders take no quantised inputs or outputs."""
    quantiser = name
    node = graph.node(name)
    if node.op_type == "DequantizeLinear":
        quantiser = graph.producer.get(node.input[0], name)
    if graph.node(quantiser).op_type != "QuantizeLinear":
        return frozenset({name})
    made = graph.outputs_of(quantiser)
    readers = [c for t in made for c in graph.consumers.get(t, ())]
    if any(graph.elem_type(t) not in _QUANTISED for t in made) or not readers:
        return frozenset({name})
    return frozenset({quantiser, *(c for c in readers if graph.node(c).op_type == "DequantizeLinear")})


def _segment(graph: Graph, candidate: Candidate, record: TensorSource) -> Segment:
    ops = dict.fromkeys(graph.node(name).op_type for name in candidate.nodes)
    sides = (*candidate.feeds, *candidate.expected)
    values = sum(path.stat().st_size for side in sides for path in side.values())
    inputs = onnx.load_model_from_string(candidate.model).graph.input
    fed = all(value.name in record for value in inputs)  # the cutter makes up what was not recorded
    return Segment(candidate.nodes, "+".join(ops), candidate, candidate.bytes + values, fed)


def merge(parts: Sequence[Segment]) -> Merged:
    """Return all segments side by side in one model, which nothing connects.

    Node names, weights and frozen values keep their names; inputs and outputs get the number of their
    segment in front.
    """
    models = [onnx.load_model_from_string(part.candidate.model) for part in parts]
    merged = copied(models[0])
    merged.ClearField("graph")
    merged.graph.name = "segments"
    mark = _free_mark(models)
    shared: set[str] = set()
    names: dict[str, str] = {}
    feeds: list[dict[str, Path]] = [{} for _ in parts[0].candidate.feeds]
    expected: list[dict[str, Path]] = [{} for _ in parts[0].candidate.feeds]
    for number, (part, model) in enumerate(zip(parts, models, strict=True)):
        outputs = [value.name for value in model.graph.output]
        own = _add(merged.graph, model.graph, frozenset(part.nodes), f"{mark}{number}/", shared)
        for together, samples in ((feeds, part.candidate.feeds), (expected, part.candidate.expected)):
            for values, sample in zip(together, samples, strict=True):
                values.update({own[t]: path for t, path in sample.items()})
        names.update({own[t]: t for t in outputs})
    candidate = Candidate(
        content=merged.SerializeToString(),
        folder=parts[0].candidate.folder,
        nodes=tuple(name for part in parts for name in part.nodes),
        feeds=tuple(feeds),
        expected=tuple(expected),
        form=Form.SEGMENTS,
        bytes=sum(part.candidate.bytes for part in parts),
    )
    return Merged(candidate, names)


def _free_mark(models: Sequence[onnx.ModelProto]) -> str:
    """Return the beginning of no name of a weight."""
    kept = [t.name for model in models for t in model.graph.initializer]
    kept += [t for model in models for node in model.graph.node for t in node.output]
    mark = "s"
    while any(name.startswith(mark) and name[len(mark) :].partition("/")[0].isdecimal() for name in kept):
        mark += "_"
    return mark


def _add(
    merged: onnx.GraphProto, part: onnx.GraphProto, nodes: frozenset[str], prefix: str, shared: set[str]
) -> dict[str, str]:
    """Add one segment; gives the new names of what is its own. `shared` are weights that are there already.

    Nodes that are not in `nodes` make weights, see `Graph.generators`.
    """
    own = {value.name: prefix + value.name for value in part.input}
    own.update({t: prefix + t for node in part.node if node.name in nodes for t in node.output if t})
    rename(part, own)
    for node in part.node:
        if node.name in nodes:
            merged.node.append(node)
        elif node.name not in shared:
            shared.add(node.name)
            merged.node.insert(0, node)
    for tensor in part.initializer:
        if tensor.name not in shared:
            shared.add(tensor.name)
            merged.initializer.append(tensor)
    for field in ("input", "output", "value_info"):
        getattr(merged, field).extend(getattr(part, field))
    return own
