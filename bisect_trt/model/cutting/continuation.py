"""The rest of the model behind a candidate: what the target gave goes on to the model's outputs.

A candidate is fed with recorded values, so its nodes do not see each other's errors across a gap (nodes
in between that run on the reference). The rest therefore computes nodes of the candidate that lie
behind a gap again, and adds the difference that the target made there: right to first order, and exact
where there is no gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import onnx
from msgspec.structs import replace
from onnx import TensorProto, helper

from bisect_trt.model.candidate import DELTA, Candidate, Feeds, Form, Rest
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.cutting.segments import Segment, segments
from bisect_trt.model.cutting.types import TensorSource
from bisect_trt.model.graph import Graph, Selection, bodies
from bisect_trt.model.walk import refill

_RAW = "#raw"
_ADDS = (TensorProto.FLOAT, TensorProto.DOUBLE)  # ONNX Runtime's CPU provider adds these for sure


class Rests:
    """Continues candidates of one model."""

    def __init__(self, graph: Graph, cutter: Cutter, record: TensorSource) -> None:
        """Continue candidates of `graph` that were cut by `cutter`."""
        self._graph = graph
        self._cutter = cutter
        self._record = record

    def attach(self, candidate: Candidate, through: Sequence[str] = ()) -> Candidate:
        """Return the candidate with its rest. One whose outputs were not recorded stays as it is.

        `through` are recorded tensors that the rest makes and that are compared besides the model's outputs.
        """
        if not candidate.expected or not candidate.expected[0]:
            return candidate
        made = tuple(candidate.expected[0])
        inside = frozenset(candidate.nodes)
        behind = self._behind(made, inside)
        outputs = tuple(
            t
            for t in dict.fromkeys((*self._graph.graph_outputs, *through))
            if t in self._record and (t in made or self._graph.producer.get(t) in behind)
        )
        expected = tuple({t: self._record.path(k, t) for t in outputs} for k in range(self._record.samples))
        rest = Rest(outputs=outputs, expected=expected, inner=bool(through))
        if behind and any(self._graph.producer.get(t) in behind for t in outputs):
            rest = self._cut(rest, made, behind, behind & inside)
        return replace(candidate, rest=rest)

    def segments(self, nodes: Iterable[str]) -> list[Segment]:
        """Return the parts of a node each, fed with recorded values, whose outputs were recorded."""
        found = segments(self._graph, self._cutter, self._record, nodes)
        return [part for part in found if part.fed and part.tensors]

    def elements(self, tensor: str) -> int:
        """Return the elements of a recorded tensor; none of one that was not recorded."""
        return math.prod(self._record.shape(tensor)) if tensor in self._record else 0

    def _behind(self, made: Iterable[str], inside: Selection) -> Selection:
        """Return all nodes that the tensors influence through a node outside of the candidate."""
        first = {n for t in made for n in self._graph.consumers.get(t, ()) if n not in inside}
        return frozenset(first | self._graph.behind(first))

    def _cut(self, rest: Rest, made: Sequence[str], behind: Selection, again: Selection) -> Rest:
        part = self._cutter.cut(behind, Form.UNFROZEN, fed=made)
        proto = onnx.load_model_from_string(part.model)
        for value in proto.graph.input:
            if value.name in made:  # the target may give another shape
                value.type.tensor_type.ClearField("shape")
        del proto.graph.value_info[:]
        feeds: list[Feeds] = [dict(sample) for sample in part.feeds]
        deltas: tuple[str, ...] = ()
        if again:
            deltas, feeds = self._add_differences(proto, made, again, feeds)
        read = [t for t in rest.outputs if self._graph.producer.get(t) in behind]
        kinds = {t: self._record.elem_type(t) for t in read}
        refill(proto.graph.output, (helper.make_tensor_value_info(t, kinds[t], None) for t in read))
        return replace(rest, model=proto.SerializeToString(), feeds=tuple(feeds), deltas=deltas)

    def _add_differences(
        self, proto: onnx.ModelProto, made: Sequence[str], again: Selection, feeds: list[Feeds]
    ) -> tuple[tuple[str, ...], list[Feeds]]:
        """Have nodes of the candidate run again without the target's errors, and add these to what they make.

        Returns:
            The tensors to which an error is added, and the feeds of the part with all that it reads now.
        """
        graph = proto.graph
        kinds = {t: self._record.elem_type(t) for t in made}
        inner = {t for name in again for t in self._graph.outputs_of(name)}
        deltas = tuple(t for t in made if t in inner and kinds[t] in _ADDS)
        nodes = list(graph.node)
        read = {t for node in nodes if node.name in again for t in node.input}
        fed = [t for t in made if t in read and t not in inner]
        renamed = {t: t + _RAW for t in made if t in inner or t in fed}
        del graph.node[:]
        for node in nodes:
            if node.name in again:
                _rename(node, renamed)
            graph.node.append(node)
            for t in self._graph.outputs_of(node.name) if node.name in again else ():
                if t in deltas:
                    graph.node.append(helper.make_node("Add", [t + _RAW, t + DELTA], [t], f"{t}{DELTA}"))
        replaced = [t for t in made if t in inner and t not in deltas]  # an error cannot be added to these
        inputs = {t + DELTA: t for t in deltas} | {t + _RAW: t for t in fed} | {t: t for t in replaced}
        graph.input.extend(helper.make_tensor_value_info(name, kinds[t], None) for name, t in inputs.items())
        raw = [{t + _RAW: self._record.path(k, t) for t in fed} for k in range(len(feeds))]
        return deltas, [{**sample, **more} for sample, more in zip(feeds, raw, strict=True)]


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Rename tensors of a node; one with bodies, which read by name as well, keeps those that it reads."""
    if not list(bodies(node)):
        node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
