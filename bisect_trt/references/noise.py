"""The reference run with rounding errors put in at every step: what comes out is what rounding explains.

Errors of the size that `accuracy.rounding_bounds` allows, each with a random sign, are added to the inputs
and weights (where the target stores them with fewer bits), to what enters an operator and to what it makes. A
few such runs tell how far the outputs may be from the reference's without any fault, and where on the way the
errors grow. Imported in workers only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from msgspec import Struct, field

from bisect_trt.accuracy import rounding_bounds as bounds
from bisect_trt.accuracy.arithmetic import Arithmetic
from bisect_trt.accuracy.operators import SMOOTH
from bisect_trt.outcome import Array
from bisect_trt.references import ort
from bisect_trt.references.inner_values import MAGNITUDE, SEEN, Unknown, inner_values, is_beyond, overflown
from bisect_trt.references.noise_places import NOISE, Places

RUNS, FEW = 16, 4
"""Runs of each look; after the first few a difference that is far beyond all that they show is clear."""

MORE, MOST, WORK = 48, 512, 1 << 24
"""Further runs before anything is called wrong, by how many elements a run has: a threshold that is crossed
in few of them, or a small difference that is divided by, is seen in these."""


class Spread(Struct):
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
        """Begin with no run."""
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
                off = value.astype(np.float64)
                np.abs(np.subtract(off, self.reference.astype(np.float64), out=off), out=off)
                if not np.isfinite(off.max(initial=0.0)):
                    off[~np.isfinite(off)] = 0  # an overflow or a NaN is never rounding
            else:
                off = np.asarray(value != self.reference, np.float64)
            np.maximum(self.largest, off, out=self.largest)
            np.square(np.minimum(off, 1e150, out=off), out=off)
            self.squares += off

    @property
    def bound(self) -> Array:
        """Return the error of each element that rounding explains; 1 or 0 where the type is no float."""
        if self.reference.dtype.kind not in "fc":
            return self.largest
        typical = bounds.SPREAD * np.sqrt(self.squares / max(1, self.runs))
        bound: Array = np.maximum(bounds.FACTOR * np.maximum(self.largest, typical), bounds.FLUSHED)
        return bound

    def explains(self, target: Array, times: float = 1.0) -> bool:
        """Return whether each element of the target's value is within so many times its bound."""
        if target.shape != self.reference.shape:
            return self.shapes
        with np.errstate(all="ignore"):
            if self.reference.dtype.kind not in "fc":
                return not np.any((target != self.reference) & (self.largest == 0))
            off = np.abs(target.astype(np.float64) - self.reference.astype(np.float64))
            same = (target == self.reference) | (np.isnan(target) & np.isnan(self.reference))
            return bool(np.all((off <= times * self.bound) | same))

    @property
    def relative(self) -> float:
        """Return the RMS error over the reference's RMS; for other types the share of changed elements."""
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


class Noise(Struct):
    """A model with places at which errors are put in.

    `spreads` are those of all tensors, after `run`; `sources` the tensors that enter each node; `overflows`
    tensors that do not fit into the arithmetic.
    """

    arithmetic: Arithmetic
    seed: int = 0
    spreads: dict[str, Spread] = field(default_factory=dict)
    overflows: list[str] = field(default_factory=list)
    sources: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    _session: ort.Session | None = None  # none where no error reaches anything
    _steady: dict[str, Array] = field(default_factory=dict)  # what no error reaches
    _feeds: dict[str, Array] = field(default_factory=dict)
    _errors: dict[str, Array] = field(default_factory=dict)
    _rounded: dict[str, Array] = field(default_factory=dict)
    _beyond: dict[str, Array] = field(default_factory=dict)
    _outputs: tuple[str, ...] = ()

    def prepare(
        self,
        model: onnx.ModelProto,
        folder: Path,
        feeds: Mapping[str, Array],
        known: Mapping[str, Array] | None = None,
    ) -> None:
        """Run the model once, with all that it computes seen, and put places for errors into it.

        `known` is what the reference gave for it before, if it was just asked.

        What no error reaches is not run again.

        Raises:
            Unknown: it is too large, or ONNX Runtime does not run it so.
        """
        self._feeds = dict(feeds)
        seen = inner_values(model, folder, feeds, self.arithmetic, known)
        noisy = Places(model, seen, self.arithmetic)
        self._errors = noisy.errors
        self.overflows = [name for name, value in seen.items() if is_beyond(value, self.arithmetic.largest)]
        self.overflows += [t for t in overflown(model, seen) if t not in self.overflows]
        self._outputs = tuple(o.name for o in model.graph.output)
        self.sources = {n.name: (n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node}
        tensors = [t for t in seen if not t.endswith((MAGNITUDE, SEEN)) and t not in feeds]
        proto, before = noisy.model(tensors)
        self._feeds |= before
        reached = {output.name for output in proto.graph.output}
        self._steady = {name: seen[name] for name in tensors if name not in reached}
        self._session = _session(proto, folder) if reached else None
        self._rounded, self._beyond = noisy.rounded, noisy.beyond
        base = self._run(self._only({}))
        self.spreads = {name: Spread.of(base[name]) for name in tensors if name in base}

    def run(self, clear: Callable[[], bool] = lambda: False) -> None:
        """Run a few times with errors that are as large as they may be, of random sign. Raises Unknown.

        One more has the very errors of rounding inputs and weights: those are the same on every target.
        `clear` says after `FEW` of them whether no further one can matter; it is asked only where errors do
        no more than add up.
        """
        rng = np.random.default_rng(self.seed)
        if self._rounded:
            self._add(self._only(self._rounded))
        draw = partial(_any_sign, rng)
        self._count(FEW, draw)
        if self._rough() or not clear():
            self._count(RUNS - FEW, draw)

    def run_on(self) -> bool:
        """Run many more times, with errors of any size up to that, so that what few of them hit is hit.

        Nothing is run where errors only add up: there the first runs have seen it all.

        Returns:
            Whether anything was run.

        Raises:
            Unknown: ONNX Runtime does not run it so.
        """
        if not self._rough():
            return False
        rng = np.random.default_rng(self.seed + 1)
        runs = WORK // max(1, sum(spread.reference.size for spread in self.spreads.values()))
        for k in range(max(MORE, min(MOST, runs))):
            self._count(1, partial(_any_size, rng, 0.5 ** (k % 4)))
        return True

    def overflown(self) -> dict[str, Array]:
        """Return the model's values when numbers that overflow the arithmetic become Inf.

        Raises:
            Unknown: ONNX Runtime does not run it so.
        """
        return self._run(self._only(self._beyond))

    def _only(self, errors: Mapping[str, Array]) -> dict[str, Array]:
        """Keep these errors, and none elsewhere."""
        none = {name: np.zeros_like(error) for name, error in self._errors.items()}
        return {name: errors.get(name, zero).astype(zero.dtype) for name, zero in none.items()}

    def _rough(self) -> bool:
        """Return whether an operator that is no smooth function gets an input with errors."""
        moved = {name for name, spread in self.spreads.items() if spread.shapes or np.any(spread.largest)}
        moved |= {name.removesuffix(NOISE) for name in self._errors}
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
        if self._session is None:
            return self._steady
        feeds = dict(self._feeds)
        for name, error in errors.items():
            base = name.removesuffix(NOISE)
            if base in feeds:
                with np.errstate(over="ignore", invalid="ignore"):
                    value = feeds[base]
                    feeds[base] = (value.astype(np.float64) + error).astype(value.dtype)
            else:
                feeds[name] = error
        try:
            return {**self._steady, **ort.tensors(self._session.run(feeds))}
        except ort.OrtError as error:
            raise Unknown(f"the reference does not run it with errors put in: {error}") from error


def _any_sign(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0)


def _any_size(rng: np.random.Generator, most: float, shape: tuple[int, ...]) -> Array:
    return rng.uniform(-most, most, shape)


def _places(outputs: tuple[str, ...]) -> set[str]:
    """Return the names of the errors of what enters a node."""
    return {f"{outputs[0]}#{slot}" for slot in range(16)} if outputs else set()


def _session(model: onnx.ModelProto, folder: Path) -> ort.Session:
    try:
        return ort.Session(model.SerializeToString(), folder)
    except ort.OrtError as error:
        raise Unknown(f"the reference does not take it with errors put in: {error}") from error
