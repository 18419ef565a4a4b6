"""A model with places at which rounding errors are put in: an Add behind what is computed. For workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from bisect_trt.accuracy import rounding_bounds as bounds
from bisect_trt.accuracy.arithmetic import Arithmetic
from bisect_trt.accuracy.operators import sum_length
from bisect_trt.model.graph import bodies, consumed, is_random
from bisect_trt.model.walk import copied, refill
from bisect_trt.outcome import Array
from bisect_trt.references.inner_values import FLOATS, MAGNITUDE, SEEN

NOISE = "#noise"
"""What follows the name of a tensor to which errors are added."""
_RAW = "#raw"


class Places:
    """Puts an Add behind what is computed, and before what rounds its inputs.

    `errors` are the largest at each place, `rounded` those of rounding inputs and weights, and `beyond` Inf
    where a number does not fit into the arithmetic.
    """

    def __init__(self, model: onnx.ModelProto, seen: Mapping[str, Array], arithmetic: Arithmetic) -> None:
        self.errors: dict[str, Array] = {}
        self.rounded: dict[str, Array] = {}
        self.beyond: dict[str, Array] = {}
        self._made: list[onnx.NodeProto] = []
        self._model = model
        self._seen = seen
        self._arithmetic = arithmetic
        self._weights = {w.name for w in model.graph.initializer}
        self._renamed: dict[str, str] = {}
        self._bare: dict[str, str] = {}  # what is computed before an error is added, and its usual name
        for value in model.graph.input:
            known = seen.get(value.name, np.zeros(0))
            place = value.name + NOISE
            if known.dtype.kind == "f" and self._keep(place, bounds.stored(arithmetic, known), known):
                self._round(place, known, arithmetic.unit)
        if arithmetic.narrow:
            self._weights_with_errors()
        for node in model.graph.node:
            self._node(node)

    def model(self, outputs: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """Return what errors reach of the model, with places for them, and the values that enter it besides.

        What comes before the first error is the same in each run: what was seen of it is taken. It has those
        of `outputs` that errors reach.
        """
        fed = {value.name for value in self._model.graph.input}
        moved = {name if (bare := name.removesuffix(NOISE)) not in fed else bare for name in self.errors}
        nodes, before = self._behind(moved)
        proto = copied(self._model)
        graph = proto.graph
        del graph.value_info[:]
        refill(graph.node, nodes)
        made = {t for node in nodes for t in node.output}
        refill(graph.output, [onnx.ValueInfoProto(name=name) for name in outputs if name in made])
        read = {t for node in nodes for t in consumed(node)}
        refill(graph.initializer, [w for w in graph.initializer if w.name in read])
        values = {name: error for name, error in self.errors.items() if name in moved} | before
        for name, value in values.items():
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
        return proto, before

    def _behind(self, moved: set[str]) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """Return the nodes that something of `moved` reaches, and values of what they read of others.

        All nodes where a value is not known, or has 16 bits: ONNX Runtime computes such in float32, and
        rounds at the border of a model what it does not round within.
        """
        reached, made, before = set(moved), set[str](), dict[str, Array]()
        nodes = []
        for node in self._made:
            if is_random(node) or not reached.isdisjoint(consumed(node)):
                nodes.append(node)
                reached.update(node.output)
            else:
                made.update(node.output)
        for name in sorted(made.intersection(t for node in nodes for t in consumed(node))):
            value = self._seen.get(self._bare.get(name, name))
            if value is None or value.dtype.itemsize == 2:
                return self._made, {}
            before[name] = value
        return nodes, before

    def _keep(self, name: str, error: Array, value: Array) -> bool:
        """Remember the error of a value unless it is zero everywhere; return whether it was kept."""
        error = np.where(np.isfinite(error), error, 0.0)
        if not np.any(error):
            return False
        with np.errstate(over="ignore"):
            self.errors[name] = error.astype(value.dtype)
        large = np.abs(value) > min(self._arithmetic.largest, float(np.finfo(value.dtype).max))
        if np.any(large):
            self.beyond[name] = np.where(large, np.copysign(np.inf, value), 0.0)
        return True

    def _round(self, name: str, value: Array, unit: float) -> None:
        self.rounded[name] = bounds.rounding(self._arithmetic, value, unit)

    def _weights_with_errors(self) -> None:
        for name in sorted(self._weights):
            value = self._seen.get(name + SEEN)
            if value is None or value.dtype.kind != "f":
                continue
            if self._keep(name + NOISE, bounds.stored(self._arithmetic, value), value):
                self._round(name + NOISE, value, self._arithmetic.unit)
                self._made.append(helper.make_node("Add", [name, name + NOISE], [name + _RAW]))
                self._renamed[name] = name + _RAW

    def _node(self, node: onnx.NodeProto) -> None:
        copy = copied(node)
        shapes = [self._shape(t) for t in node.input]
        first = next((self._seen[t] for t in node.output if t in self._seen), np.zeros(0))
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.type != a.GRAPH}
        terms = sum_length(node.op_type, shapes, first.shape, attributes)
        for slot, name in enumerate(node.input):
            copy.input[slot] = self._entering(node, slot, self._renamed.get(name, name), terms)
        self._made.append(copy)
        for k, name in enumerate(node.output):
            value = self._seen.get(name)
            if value is None or value.dtype.kind != "f" or value.dtype.name == "bfloat16":
                continue
            error = self._computed(node, name, value, shapes, terms)
            if self._keep(name + NOISE, error, value):
                copy.output[k] = name + _RAW
                self._bare[name + _RAW] = name
                self._made.append(helper.make_node("Add", [name + _RAW, name + NOISE], [name]))

    def _entering(self, node: onnx.NodeProto, slot: int, name: str, terms: int) -> str:
        value = self._seen.get(node.input[slot], self._seen.get(node.input[slot] + SEEN))
        if value is None or value.dtype.kind != "f" or list(bodies(node)):
            return name
        error = bounds.entering(self._arithmetic, node.op_type, slot, value, terms)
        place = f"{node.output[0]}#{slot}"
        if error is None or not self._keep(place + NOISE, error, value):
            return name
        if self._arithmetic.products:
            self._round(place + NOISE, value, self._arithmetic.products)
        self._made.append(helper.make_node("Add", [name, place + NOISE], [place]))
        return place

    def _computed(
        self, node: onnx.NodeProto, name: str, value: Array, shapes: Sequence[tuple[int, ...]], terms: int
    ) -> Array:
        op = node.op_type
        if list(bodies(node)):  # nobody looked inside
            terms, op = 1 << 10, "ReduceSum"
        size = self._seen.get(name + MAGNITUDE)
        fits = size is not None and size.shape == value.shape
        reach = max((max(shape, default=1) for shape in (*shapes, value.shape)), default=1)
        return bounds.computed(
            self._arithmetic, op, value, magnitude=size if fits else None, terms=terms, reach=reach,
            whole=_whole(value) and all(self._is_whole(t) for t in node.input if t),
        )  # fmt: skip

    def _shape(self, name: str) -> tuple[int, ...]:
        value = self._seen.get(name, self._seen.get(name + SEEN))
        if value is not None:
            return value.shape
        weight = next((w for w in self._model.graph.initializer if w.name == name), None)
        return tuple(weight.dims) if weight is not None else ()

    def _is_whole(self, name: str) -> bool:
        value = self._seen.get(name, self._seen.get(name + SEEN))
        if value is None:
            weight = next((w for w in self._model.graph.initializer if w.name == name), None)
            return weight is not None and weight.data_type not in FLOATS
        return value.dtype.kind != "f" or _whole(value)


def _whole(value: Array) -> bool:
    with np.errstate(all="ignore"):
        return bool(value.dtype.kind in "iub" or np.array_equal(value, np.round(value)))
