"""Values that are made up for an input: described first, and made by whoever needs them first.

A description costs nothing however large the tensor is. The values follow from it alone, not from the order
of inputs nor from who makes them, so a worker makes them and the tool's own process never holds them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct, convert, to_builtins
from onnx import helper

from bisect_trt.errors import UsageError
from bisect_trt.model.seeded_values import is_whole
from bisect_trt.outcome import Array

MOST_DIMENSIONS = 64  # of NumPy's arrays
LARGEST_INPUTS = 1 << 30
"""Bytes of all values that are made up for a model."""

_PIECE = 1 << 20  # values drawn at once: a generator gives 8 bytes for each, whatever the type is
TOKENS = 16  # integer inputs are most often indices: small ones are valid nearly everywhere
NAMED_ONES = re.compile(r"mask|length|lens?$", re.IGNORECASE)


class Accepted(Struct, frozen=True):
    """Values that an operator takes: `low` to `high`, both included.

    Attributes:
        low, high: the bounds.
        index: whether they select one of `high + 1` places; what lies beyond is a mistake then, where
            other bounds are only what is sensible.
        pattern: values that depend on each other: `axes` (0, 1, 2, ...), `shape` (-1, 1, 1, ...),
            `boxes` (two corners, the larger one last).
    """

    low: float
    high: float
    index: bool = False
    pattern: str = ""

    def fill(self, shape: tuple[int, ...], rng: np.random.Generator, whole: bool) -> Array:
        """Return the values of a shape; integers unless not `whole`."""
        if self.pattern == "axes":
            return np.arange(int(np.prod(shape))).reshape(shape) + int(self.low)
        if self.pattern == "shape":
            values = np.ones(shape, np.int64)
            values.reshape(-1)[:1] = -1
            return values
        if self.pattern == "boxes" and shape[-1:] == (4,):
            corners = rng.uniform(self.low, self.high, shape)
            ends = np.sort(corners.reshape(*shape[:-1], 2, 2), axis=-2)
            return ends.reshape(shape)
        if not whole:
            return rng.uniform(self.low, self.high, shape)
        return rng.integers(int(self.low), int(self.high), shape, endpoint=True)


class MadeUp(Struct, frozen=True):
    """What the values of one input are to be.

    Attributes:
        name: of the input; the values depend on it.
        elem_type: `TensorProto.DataType`.
        shape: of the tensor.
        seed: of the run.
        longest: what an input that is called a length holds.
        bounds: the range that the user asked for, both ends included.
        accepted: what the model takes there; it does not count where `bounds` are given.
        alike: every row is the first one.
        turned: bools are turned round.
        refused: why it is not made, with a hint; nothing else counts then.
    """

    name: str
    elem_type: int
    shape: tuple[int, ...]
    seed: int
    longest: int = 1
    bounds: tuple[float, float] | None = None
    accepted: Accepted | None = None
    alike: bool = False
    turned: bool = False
    refused: tuple[str, str] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the array, as `GraphInput.dtype` does."""
        return helper.tensor_dtype_to_np_dtype(self.elem_type)

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the values, at least one for each."""
        return math.prod(self.shape) * max(1, self.dtype.itemsize)

    def make(self) -> Array:
        """Make the values.

        Raises:
            UsageError: those of all inputs take more than `LARGEST_INPUTS` bytes.
        """
        if self.refused is not None:
            raise UsageError(*self.refused)
        value = self._ranged(*self.bounds) if self.bounds is not None else self._usual()
        if self.alike and value.ndim:
            value = np.repeat(value[:1], value.shape[0], axis=0)
        return ~value if self.turned else value

    def to_json(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(to_builtins(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> MadeUp:
        """Make it from what `to_json` gave."""
        return convert(json.loads(text), cls)

    def _usual(self) -> Array:
        """Return what follows from type and name, unless the model takes something else there."""
        value, slot = self._by_type(), self.accepted
        if slot is None or (slot.index and _fits(value, slot)):
            return value
        whole = value.dtype.kind in "iu"
        return slot.fill(value.shape, self._generator(), whole).astype(value.dtype)

    def _by_type(self) -> Array:
        dtype, shape = self.dtype, self.shape
        rng = self._generator()
        if dtype == np.dtype(object):
            return np.full(shape, "a", dtype=object)
        special = NAMED_ONES.search(self.name)
        if special and special[0].lower() == "mask":
            return np.ones(shape, dtype)
        if dtype.kind == "b":
            return self._drawn(lambda count: rng.random(count) < 0.5)
        if is_whole(dtype):
            if special:
                return np.full(shape, self.longest).astype(dtype)
            return self._drawn(lambda count: rng.integers(0, _tokens(dtype), count))
        if dtype.kind == "c":
            return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
        return self._drawn(rng.standard_normal)

    def _ranged(self, low: float, high: float) -> Array:
        """Return values that are evenly spread between two bounds, both included."""
        rng = self._generator()
        if is_whole(self.dtype) or self.dtype.kind == "b":
            return self._drawn(lambda count: rng.integers(int(low), int(high), count, endpoint=True))
        return self._drawn(lambda count: rng.uniform(low, high, count))

    def _generator(self) -> np.random.Generator:
        digest = hashlib.sha256(self.name.encode()).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:8], "little")])

    def _drawn(self, draw: Callable[[int], Array]) -> Array:
        """Return the values that a generator gives, taken over in pieces."""
        values = np.empty(self.shape, self.dtype)
        flat = values.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            stop = min(start + _PIECE, flat.size)
            with np.errstate(all="ignore"):
                flat[start:stop] = draw(stop - start).astype(self.dtype)
        return values


Value = Array | MadeUp
"""An input value, or what it is to be."""


def made(value: Value) -> Array:
    """Return the array."""
    return value.make() if isinstance(value, MadeUp) else value


def _fits(value: Array, slot: Accepted) -> bool:
    """Return whether values that follow from type and name are accepted as they are."""
    return not value.size or bool(value.min() >= slot.low and value.max() <= slot.high)


def _tokens(dtype: np.dtype[Any]) -> int:
    """Return how many numbers from 0 on are drawn for a type: as many as it has, if these are few."""
    narrow = {"int2": 2, "uint2": 4, "int4": 8}
    return narrow.get(dtype.name, TOKENS)
