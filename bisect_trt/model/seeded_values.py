"""Values described by a few numbers, so that a reproducer need not carry them.

The generator is written out (splitmix64, https://prng.di.unimi.it/splitmix64.c) and uses integer
arithmetic, one product and one sum of doubles for each element: every machine and every version of
numpy gives the same bits, and `repro.py` holds the same few lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from bisect_trt.outcome import Array

DESCRIBED_FROM = 4096
"""Bytes; what is no larger is stored, as that is simpler."""

_MARK = "bisect-trt random"
_RAMP = "bisect-trt ramp"
_ALL = "bisect-trt all"
_PARTS = 4  # pieces of 16 bits that are summed: nearly a normal distribution
MIDDLE = _PARTS * 65535 / 2
SPREAD = math.sqrt(_PARTS * (65536**2 - 1) / 12)
"""Mean and deviation of `bits`."""


class Recipe(Struct, frozen=True):
    """Seeded numbers of a mean and a deviation, about normal, at most 3.5 deviations from the mean.

    With `points`, smallest first, they are distributed with these quantiles instead.
    """

    seed: int
    mean: float
    deviation: float
    points: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        """Return the recipe as the doc string of a tensor; `parse` reads it again."""
        numbers = (self.mean, self.deviation, *self.points)
        return " ".join([_MARK, str(self.seed), *map(repr, numbers)])

    def make(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Return the values, the same on every machine. Integers are rounded and kept in their range."""
        count = math.prod(shape)
        values: Array
        if self.points:
            # not np.interp, which may contract a product and a sum to one operation
            points = np.array((*self.points, self.points[-1]))
            at = mixed(self.seed, count).astype(np.float64) / 2.0**64 * (len(self.points) - 1)
            k = at.astype(np.int64)
            values = points[k] + (at - k) * (points[k + 1] - points[k])
        else:
            values = (bits(self.seed, count) - MIDDLE) * (self.deviation / SPREAD) + self.mean
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        elif dtype.kind == "b":
            values = values > 0.5
        with np.errstate(over="ignore"):
            return values.astype(dtype).reshape(tuple(shape))


def mixed(seed: int, count: int) -> Array:
    """Return `count` numbers of splitmix64: 64 random bits each."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def bits(seed: int, count: int) -> Array:
    """Return `count` sums of four 16-bit pieces of `mixed`, as doubles: 0 to 262140."""
    z = mixed(seed, count)
    pieces = (z >> np.uint64(16 * k) & np.uint64(0xFFFF) for k in range(_PARTS))
    total: Array = sum(pieces, start=np.zeros(count, np.uint64))
    return total.astype(np.float64)


def parse(text: str) -> Recipe | None:
    """Return the recipe that a doc string holds; None when it holds none."""
    found = re.fullmatch(rf"{_MARK} (\d+) (\S+) (\S+)((?: \S+)*)", text)
    if found is None:
        return None
    try:
        points = tuple(float(point) for point in found[4].split())
        return Recipe(int(found[1]), float(found[2]), float(found[3]), points)
    except ValueError:
        return None


def description(values: Array, recipe: Recipe | None) -> str:
    """Describe in one line how numbers can be made; empty when nothing shorter than the numbers does."""
    if recipe is not None:
        return recipe.text
    if is_ramp(values):
        return _RAMP
    finite = is_uniform(values) and np.isfinite(values.reshape(-1)[0])
    return f"{_ALL} {float(values.reshape(-1)[0])!r}" if finite else ""


def described_values(text: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Array | None:
    """Return the numbers that a `description` stands for; None when the text is no description."""
    recipe = parse(text)
    if recipe is not None:
        return recipe.make(shape, dtype)
    if text == _RAMP:
        return ramp(shape, dtype)
    try:
        value = float(text.removeprefix(_ALL)) if text.startswith(_ALL) else None
    except ValueError:
        return None
    return None if value is None else np.full(tuple(shape), value, np.float64).astype(dtype)


def resembling(values: Array, seed: int) -> Recipe | None:
    """Return a recipe of the mean and deviation of some numbers, both to three digits; None: not finite."""
    narrow = values.dtype.isbuiltin != 1 and "float" in values.dtype.name
    if values.size == 0 or (values.dtype.kind not in "fiu" and not narrow):
        return None
    with np.errstate(all="ignore"):
        wide = np.asarray(values, dtype=np.float64)
        mean, deviation = float(wide.mean()), float(wide.std())
    if not (math.isfinite(mean) and math.isfinite(deviation)):
        return None
    return Recipe(seed, three_digits(mean), three_digits(deviation))


def three_digits(value: float) -> float:
    """Return a number rounded to three significant digits."""
    return float(f"{value:.3g}")


def is_uniform(values: Array) -> bool:
    """Return whether all elements have the same bits (so NaN equals itself); False when there are none."""
    if values.size == 0:
        return False
    steps = zip(values.strides, values.shape, strict=True)
    if all(step == 0 or n == 1 for step, n in steps):
        return True  # a broadcast value
    raw = np.ascontiguousarray(values).reshape(-1).view(f"V{values.dtype.itemsize}")
    return bool((raw == raw[0]).all())


def is_ramp(values: Array) -> bool:
    """Return whether the elements are those of `ramp`."""
    return values.size > 1 and np.array_equal(values, ramp(values.shape, values.dtype))


def ramp(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Return integers from 0 to 15 and again; floats from 0 towards 1."""
    count = math.prod(shape)
    if is_whole(dtype):
        values = np.arange(count) % min(16, 2 ** (4 * dtype.itemsize - 1))
    else:
        values = np.arange(count) / max(1, count)
    made: Array = values.astype(dtype).reshape(tuple(shape))
    return made


def is_whole(dtype: np.dtype[Any]) -> bool:
    """Return whether a type holds whole numbers; those of ml_dtypes (int4) are known by their names."""
    return dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))
