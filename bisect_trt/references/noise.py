"""The reference run with rounding errors put in at every step: what comes out is what rounding explains.

Errors of the size that `accuracy.rounding_bounds` allows, each with a random sign, are added to the inputs
and weights (where the target stores them with fewer bits), to what enters an operator and to what it makes. A
few such runs tell how far the outputs may be from the reference's without any fault, and where on the way the
errors grow. Imported in workers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from bisect_trt.accuracy import rounding_bounds as bounds
from bisect_trt.accuracy.arithmetic import Arithmetic
from bisect_trt.accuracy.operators import PLACED, SMOOTH, SUMS, sum_length
from bisect_trt.model.graph import bodies, consumed
from bisect_trt.references import ort

Array = npt.NDArray[Any]

RUNS = 16
MORE, MOST, WORK = 48, 512, 1 << 24
"""Further runs before anything is called wrong, by how many elements a run has: a threshold that is crossed
in few of them, or a small difference that is divided by, is seen in these."""
LARGEST = 1 << 27  # elements of all tensors together
_SMALL = 1 << 20  # elements of a weight that is looked at
_NOISE, _RAW, _SIZE, _SEEN = "#noise", "#raw", "#magnitude", "#value"
_DIVISORS = {"Div": 1, "Mod": 1, "Reciprocal": 0, "Log": 0, "Sqrt": 0, "Pow": 0}
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


class Unknown(Exception):
    """Nothing can be said of the rounding of this model; the message says why."""


@dataclass
class Spread:
    """How far a tensor was from the reference in all runs.

    Attributes:
        reference: the value without errors.
        largest: deviation of each element; 1 where a value that is no float was another one.
        squares: sum of squares of these over all runs.
        runs: that were counted.
        shapes: whether it had another shape in one of the runs.
    """

    reference: Array
    largest: Array
    squares: Array
    runs: int = 0
    shapes: bool = False

    @classmethod
    def of(cls, reference: Array) -> Spread:
        """Before the first run."""
        zero = np.zeros(reference.shape)
        return cls(reference, zero, zero.copy())

    def add(self, value: Array) -> None:
        """Count a run."""
        self.runs += 1
        if value.shape != self.reference.shape:
            self.shapes = True
            return
        with np.errstate(all="ignore"):
            if value.dtype.kind in "fc":
                off = np.abs(value.astype(np.float64) - self.reference.astype(np.float64))
                off = np.where(np.isfinite(off), off, 0)  # an overflow or a NaN is never rounding
            else:
                off = np.asarray(value != self.reference, np.float64)
            self.largest = np.maximum(self.largest, off)
            self.squares = self.squares + np.minimum(off, 1e150) ** 2

    @property
    def bound(self) -> Array:
        """Error of each element that is explained; for what is no float 1 or 0."""
        if self.reference.dtype.kind not in "fc":
            return self.largest
        typical = bounds.SPREAD * np.sqrt(self.squares / max(1, self.runs))
        bound: Array = np.maximum(bounds.FACTOR * np.maximum(self.largest, typical), bounds.FLUSHED)
        return bound

    def explains(self, target: Array) -> bool:
        """Whether each element of the target's value is within its bound."""
        if target.shape != self.reference.shape:
            return self.shapes
        with np.errstate(all="ignore"):
            if self.reference.dtype.kind not in "fc":
                return not np.any((target != self.reference) & (self.largest == 0))
            off = np.abs(target.astype(np.float64) - self.reference.astype(np.float64))
            return bool(np.all((off <= self.bound) | (target == self.reference)))

    @property
    def relative(self) -> float:
        """RMS of the deviation over RMS of the reference; the part that changed where it is no float."""
        if self.reference.size == 0:
            return 0.0
        mean = float(np.mean(self.squares)) / max(1, self.runs)
        if self.shapes:
            return 1.0
        if self.reference.dtype.kind not in "fc":
            return mean
        with np.errstate(all="ignore"):
            size = float(np.nanmean(np.square(self.reference.astype(np.float64))))
        return float(np.sqrt(mean / size)) if size > 0 and np.isfinite(size) else float(mean > 0)


@dataclass
class Noise:
    """A model with places at which errors are put in.

    `spreads` are those of all tensors, after `run`; `sources` the tensors that enter each node; `overflows`
    tensors that do not fit into the arithmetic.
    """

    arithmetic: Arithmetic
    seed: int = 0
    spreads: dict[str, Spread] = field(default_factory=dict)
    overflows: list[str] = field(default_factory=list)
    sources: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    _session: ort.Session | None = None
    _feeds: dict[str, Array] = field(default_factory=dict)
    _errors: dict[str, Array] = field(default_factory=dict)
    _rounded: dict[str, Array] = field(default_factory=dict)
    _outputs: tuple[str, ...] = ()

    def prepare(self, model: onnx.ModelProto, folder: Path, feeds: Mapping[str, Array]) -> None:
        """Run the model once, with all that it computes seen, and put places for errors into it.

        Raises:
            Unknown: it is too large, or ONNX Runtime does not run it so.
        """
        self._feeds = dict(feeds)
        seen = _seen(model, folder, feeds, self.arithmetic)
        noisy = _Places(model, seen, self.arithmetic)
        self._errors = noisy.errors
        self.overflows = [name for name, value in seen.items() if _is_beyond(value, self.arithmetic.largest)]
        self._outputs = tuple(o.name for o in model.graph.output)
        self.sources = {n.name: (n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node}
        tensors = [t for t in seen if not t.endswith((_SIZE, _SEEN)) and t not in feeds]
        self._session = _session(noisy.model(tensors), folder)
        self._rounded = noisy.rounded
        base = self._run({name: np.zeros_like(error) for name, error in self._errors.items()})
        self.spreads = {name: Spread.of(base[name]) for name in tensors if name in base}

    def run(self) -> None:
        """A few runs with errors that are as large as they may be, of random sign. Raises Unknown.

        One more has the very errors of rounding inputs and weights: those are the same on every target.
        """
        rng = np.random.default_rng(self.seed)
        if self._rounded:
            none = {name: np.zeros_like(error) for name, error in self._errors.items()}
            self._add({n: self._rounded.get(n, zero).astype(zero.dtype) for n, zero in none.items()})
        self._count(RUNS, lambda shape: np.where(rng.random(shape) < 0.5, -1.0, 1.0))

    def run_on(self) -> None:
        """Many more, with errors of any size up to that, so that what few of them hit is hit.

        Nothing is run where errors only add up: there the first runs have seen it all.

        Raises:
            Unknown: ONNX Runtime does not run it so.
        """
        if not self._rough():
            return
        rng = np.random.default_rng(self.seed + 1)
        runs = WORK // max(1, sum(spread.reference.size for spread in self.spreads.values()))
        for k in range(max(MORE, min(MOST, runs))):
            self._count(1, partial(_any_size, rng, 0.5 ** (k % 4)))

    def _rough(self) -> bool:
        """Whether an operator that is no smooth function gets an input with errors."""
        moved = {name for name, spread in self.spreads.items() if spread.shapes or np.any(spread.largest)}
        moved |= {name.removesuffix(_NOISE) for name in self._errors}
        steep = [(out, ins) for op, ins, out in self.sources.values() if op not in SMOOTH]
        return any(moved.intersection(ins) or moved.intersection(_places(out)) for out, ins in steep)

    def _count(self, runs: int, draw: Callable[[tuple[int, ...]], Array]) -> None:
        for _ in range(runs):
            self._add({n: (draw(e.shape) * e).astype(e.dtype) for n, e in self._errors.items()})

    def _add(self, errors: Mapping[str, Array]) -> None:
        found = self._run(errors)
        for name, spread in self.spreads.items():
            spread.add(found[name])

    def _run(self, errors: Mapping[str, Array]) -> dict[str, Array]:
        assert self._session is not None
        feeds = dict(self._feeds)
        for name, error in errors.items():
            base = name.removesuffix(_NOISE)
            if base in feeds:
                with np.errstate(over="ignore"):
                    value = feeds[base]
                    feeds[base] = (value.astype(np.float64) + error).astype(value.dtype)
            else:
                feeds[name] = error
        try:
            given = self._session.run(feeds)
        except ort.OrtError as error:
            raise Unknown(f"the reference does not run it with errors put in: {error}") from error
        return {name: value for name, value in given.items() if not isinstance(value, str)}


def _any_size(rng: np.random.Generator, most: float, shape: tuple[int, ...]) -> Array:
    return rng.uniform(-most, most, shape)


def _places(outputs: tuple[str, ...]) -> set[str]:
    """Names of the errors of what enters a node."""
    return {f"{outputs[0]}#{slot}" for slot in range(16)} if outputs else set()


def _session(model: onnx.ModelProto, folder: Path) -> ort.Session:
    try:
        return ort.Session(model.SerializeToString(), folder)
    except ort.OrtError as error:
        raise Unknown(f"the reference does not take it with errors put in: {error}") from error


def _seen(
    model: onnx.ModelProto, folder: Path, feeds: Mapping[str, Array], arithmetic: Arithmetic
) -> dict[str, Array]:
    """Values of inputs, weights and all that nodes make, and magnitudes of sums (`NAME#magnitude`)."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    graph = shown.graph
    names = {o.name for o in graph.output}
    for weight in model.graph.initializer:
        small = int(np.prod(weight.dims)) <= _SMALL or arithmetic.narrow
        if weight.data_type in _FLOATS and small:
            graph.node.append(helper.make_node("Identity", [weight.name], [weight.name + _SEEN]))
            names.add(weight.name + _SEEN)
    for node in model.graph.node:
        names.update(t for t in node.output if t)
        if node.op_type in SUMS and node.domain in ("", "ai.onnx", "com.microsoft"):
            graph.node.extend(_magnitude(node))
            names.add(node.output[0] + _SIZE)
    known = {o.name for o in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - known))
    try:
        given = ort.Session(shown.SerializeToString(), folder).run(feeds)
    except ort.OrtError as error:
        raise Unknown(f"the reference does not show all that it computes: {error}") from error
    found = {**feeds, **{name: v for name, v in given.items() if not isinstance(v, str)}}
    if sum(value.size for value in found.values()) > LARGEST:
        raise Unknown("it is too large")
    return found


def beyond(
    model: onnx.ModelProto, folder: Path, known: Mapping[str, Array], arithmetic: Arithmetic
) -> list[str]:
    """Nodes whose outputs are not what rounding allows them to make of their inputs, all of which are known.

    Raises:
        Unknown: a node cannot be run by itself.
    """
    found = []
    for node in model.graph.node:
        feeds = {t: known[t] for t in consumed(node) if t in known}
        part = onnx.ModelProto()
        part.CopyFrom(model)
        del part.graph.node[:], part.graph.input[:], part.graph.output[:], part.graph.value_info[:]
        part.graph.node.append(node)
        for name, value in feeds.items():
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            part.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
        part.graph.output.extend(onnx.ValueInfoProto(name=t) for t in node.output if t)
        weights = [w for w in model.graph.initializer if w.name in consumed(node)]
        del part.graph.initializer[:]
        part.graph.initializer.extend(weights)
        look = Noise(arithmetic)
        look.prepare(part, folder, feeds)
        look.run()
        made = [t for t in node.output if t in known and t in look.spreads]
        if not all(look.spreads[t].explains(known[t]) for t in made):
            found.append(node.name)
    return found


def hazards(
    model: onnx.ModelProto, folder: Path, feeds: Mapping[str, Array], arithmetic: Arithmetic
) -> set[str]:
    """How a model may give NaN or Inf: overflow, a divisor of zero, a root of less than zero.

    Raises:
        Unknown: the reference does not show what it computes.
    """
    shown = _seen(model, folder, feeds, arithmetic).items()
    seen = {k: v for k, v in shown if not k.endswith(_SIZE) and v.dtype.kind == "f"}
    found = set()
    for value in seen.values():
        if _is_beyond(value, arithmetic.largest):
            found.add("overflow")
    for node in model.graph.node:
        slot = _DIVISORS.get(node.op_type)
        name = node.input[slot] if slot is not None and slot < len(node.input) else ""
        known = seen.get(name, seen.get(name + _SEEN, np.ones(1)))
        if name and np.any(np.abs(known.astype(np.float64)) <= arithmetic.tiny):
            found.add("zero divisor")
        if node.op_type in ("Log", "Sqrt") and np.any(known < 0):
            found.add("outside the domain")
    return found


def _magnitude(node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
    """The same operator of the magnitudes of its data."""
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    data = 1 if node.op_type in PLACED else 3
    for slot in range(min(data, len(node.input))):
        if node.input[slot]:
            name = f"{node.output[0]}{_SIZE}{slot}"
            yield helper.make_node("Abs", [node.input[slot]], [name])
            twin.input[slot] = name
    for attribute in twin.attribute:
        if attribute.name in ("alpha", "beta"):
            attribute.f = abs(attribute.f)
    twin.name = ""
    del twin.output[1:]
    twin.output[0] += _SIZE
    yield twin


class _Places:
    """Puts an Add behind what is computed, and before what rounds its inputs."""

    def __init__(self, model: onnx.ModelProto, seen: Mapping[str, Array], arithmetic: Arithmetic) -> None:
        self.errors: dict[str, Array] = {}
        self.rounded: dict[str, Array] = {}
        self._made: list[onnx.NodeProto] = []
        self._model = model
        self._seen = seen
        self._arithmetic = arithmetic
        self._weights = {w.name for w in model.graph.initializer}
        self._renamed: dict[str, str] = {}
        for value in model.graph.input:
            known = seen.get(value.name, np.zeros(0))
            place = value.name + _NOISE
            if known.dtype.kind == "f" and self._keep(place, bounds.stored(arithmetic, known)):
                self._round(place, known, arithmetic.unit)
        if arithmetic.narrow:
            self._weights_with_errors()
        for node in model.graph.node:
            self._node(node)

    def model(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model with places for errors, and these outputs."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self._model)
        del proto.graph.node[:], proto.graph.output[:], proto.graph.value_info[:]
        proto.graph.node.extend(self._made)
        fed = {value.name for value in proto.graph.input}
        for name, error in self.errors.items():
            if name.removesuffix(_NOISE) not in fed:
                kind = helper.np_dtype_to_tensor_dtype(error.dtype)
                proto.graph.input.append(helper.make_tensor_value_info(name, kind, error.shape))
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        return proto

    def _keep(self, name: str, error: Array, dtype: Any = np.float64) -> bool:
        """Remember an error that is not zero everywhere; whether it is."""
        error = np.where(np.isfinite(error), error, 0.0)
        if not np.any(error):
            return False
        with np.errstate(over="ignore"):
            self.errors[name] = error.astype(dtype)
        return True

    def _round(self, name: str, value: Array, unit: float) -> None:
        self.rounded[name] = bounds.rounding(self._arithmetic, value, unit)

    def _weights_with_errors(self) -> None:
        for name in sorted(self._weights):
            value = self._seen.get(name + _SEEN)
            if value is None or value.dtype.kind != "f":
                continue
            if self._keep(name + _NOISE, bounds.stored(self._arithmetic, value), value.dtype):
                self._round(name + _NOISE, value, self._arithmetic.unit)
                self._made.append(helper.make_node("Add", [name, name + _NOISE], [name + _RAW]))
                self._renamed[name] = name + _RAW

    def _node(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
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
            if self._keep(name + _NOISE, error, value.dtype):
                copy.output[k] = name + _RAW
                self._made.append(helper.make_node("Add", [name + _RAW, name + _NOISE], [name]))

    def _entering(self, node: onnx.NodeProto, slot: int, name: str, terms: int) -> str:
        value = self._seen.get(node.input[slot], self._seen.get(node.input[slot] + _SEEN))
        if value is None or value.dtype.kind != "f" or list(bodies(node)):
            return name
        error = bounds.entering(self._arithmetic, node.op_type, slot, value, terms)
        place = f"{node.output[0]}#{slot}"
        if error is None or not self._keep(place + _NOISE, error, value.dtype):
            return name
        if self._arithmetic.products:
            self._round(place + _NOISE, value, self._arithmetic.products)
        self._made.append(helper.make_node("Add", [name, place + _NOISE], [place]))
        return place

    def _computed(
        self, node: onnx.NodeProto, name: str, value: Array, shapes: Sequence[tuple[int, ...]], terms: int
    ) -> Array:
        op = node.op_type
        if list(bodies(node)):  # nobody looked inside
            terms, op = 1 << 10, "ReduceSum"
        size = self._seen.get(name + _SIZE)
        fits = size is not None and size.shape == value.shape
        reach = max((max(shape, default=1) for shape in (*shapes, value.shape)), default=1)
        return bounds.computed(
            self._arithmetic, op, value, magnitude=size if fits else None, terms=terms, reach=reach,
            whole=_whole(value) and all(self._is_whole(t) for t in node.input if t),
        )  # fmt: skip

    def _shape(self, name: str) -> tuple[int, ...]:
        value = self._seen.get(name, self._seen.get(name + _SEEN))
        if value is not None:
            return value.shape
        weight = next((w for w in self._model.graph.initializer if w.name == name), None)
        return tuple(weight.dims) if weight is not None else ()

    def _is_whole(self, name: str) -> bool:
        value = self._seen.get(name, self._seen.get(name + _SEEN))
        if value is None:
            weight = next((w for w in self._model.graph.initializer if w.name == name), None)
            return weight is not None and weight.data_type not in _FLOATS
        return value.dtype.kind != "f" or _whole(value)


def _is_beyond(value: Array, largest: float) -> bool:
    if value.dtype.kind != "f":
        return False
    size = np.abs(value.astype(np.float64))
    return bool(np.any(np.isfinite(size) & (size > largest)))


def _whole(value: Array) -> bool:
    with np.errstate(all="ignore"):
        return bool(value.dtype.kind in "iub" or np.array_equal(value, np.round(value)))
