"""Seeded input values, sensible for type and name. They do not depend on the order of inputs."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bisect_trt.errors import UsageError
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.indices import Accepted, require_inside

Array = npt.NDArray[Any]

LARGEST_INPUTS = 1 << 30
"""Bytes of all values that are made up for a model."""

_PIECE = 1 << 20  # values drawn at once
TOKENS = 16  # integer inputs are most often indices: small ones are valid nearly everywhere
NAMED_ONES = re.compile(r"mask|length|lens?$", re.IGNORECASE)


def generate(
    inputs: Sequence[GraphInput],
    seed: int,
    shapes: Mapping[str, Sequence[int]],
    ranges: Mapping[str, tuple[float, float]] | None = None,
    accepted: Mapping[str, Accepted] | None = None,
) -> dict[str, Array]:
    """One sample: an array for each input.

    Dynamic dimensions come from `shapes`; a symbol that is known from one input has that size in all
    others; what is left is 1. Floats are normal(0, 1), integers 0..15, bools random, strings `a`;
    masks are all ones, lengths the size of the longest other dimension that is declared. `ranges` are
    inclusive and win; then what the model accepts (`indices.accepted_values`).

    Raises:
        UsageError: an input has unknown rank, is no tensor, or would be very large; a shape does not fit.
    """
    for item in inputs:
        _ = item.dtype  # what is no tensor is said before its shape is asked for
    sizes = _symbols(inputs, shapes)
    known = {item.name: _shape(item, shapes.get(item.name), sizes) for item in inputs}
    _require_size(inputs, known)
    longest = max((shape[1] for shape in known.values() if len(shape) > 1), default=1)
    found = {}
    for item in inputs:
        slot = (accepted or {}).get(item.name)
        if ranges and item.name in ranges:
            value = _ranged(item, known[item.name], seed, ranges[item.name])
            if slot is not None:
                require_inside("--input-range", item.name, value, slot)
        else:
            value = _values(item, known[item.name], seed, longest)
            if slot is not None and not (slot.index and _fits(value, slot)):
                whole = value.dtype.kind in "iu"
                value = slot.fill(value.shape, _generator(item, seed), whole).astype(value.dtype)
        found[item.name] = value
    return found


def _require_size(inputs: Sequence[GraphInput], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UsageError before anything is made that the machine may not have room for."""
    sizes = {i.name: math.prod(shapes[i.name]) * max(1, i.dtype.itemsize) for i in inputs}
    if sum(sizes.values()) > LARGEST_INPUTS:
        name = max(sizes, key=lambda name: sizes[name])
        shape = "x".join(map(str, shapes[name])) or "a scalar"
        raise UsageError(
            f"the input {name} of shape {shape} takes {sizes[name]:,} bytes: values for it are not made up",
            f"make it smaller with --shapes {name}:... where the model leaves that open, or give --inputs",
        )


def _normal(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Normal values, drawn in pieces: the generator gives 8 bytes for each, whatever the type is."""
    values = np.empty(shape, dtype)
    flat = values.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        stop = min(start + _PIECE, flat.size)
        flat[start:stop] = rng.standard_normal(stop - start).astype(dtype)
    return values


def _fits(value: Array, slot: Accepted) -> bool:
    """Whether values that follow from type and name (masks, small integers) are accepted as they are."""
    return not value.size or bool(value.min() >= slot.low and value.max() <= slot.high)


def _ranged(item: GraphInput, shape: tuple[int, ...], seed: int, bounds: tuple[float, float]) -> Array:
    """Evenly spread between two bounds, both included."""
    dtype, (low, high) = item.dtype, bounds
    rng = _generator(item, seed)
    if dtype == np.dtype(object):
        raise UsageError(f"--input-range {item.name}: strings have no range")
    if dtype.kind in "iub" or dtype.name.startswith(("int", "uint")):
        if low != int(low) or high != int(high):
            raise UsageError(f"--input-range {item.name}: {dtype} has no fractions")
        values: Array = rng.integers(int(low), int(high), shape, endpoint=True)
    else:
        values = rng.uniform(low, high, shape)
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, values):
        raise UsageError(f"--input-range {item.name}: {dtype} cannot hold {low:g}..{high:g}")
    return cast


def _generator(item: GraphInput, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(item.name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def _symbols(inputs: Sequence[GraphInput], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of symbolic dimensions that follow from given shapes."""
    sizes: dict[str, int] = {}
    for item in inputs:
        given = shapes.get(item.name)
        if given is None or item.dims is None:
            continue
        if len(given) != len(item.dims):
            text = "x".join(map(str, given)) or "a scalar"
            raise UsageError(f"the shape {text} does not fit {item.name}, declared as {item.shape_text()}")
        for dim, size in zip(item.dims, given, strict=True):
            if isinstance(dim, str):
                sizes.setdefault(dim, size)  # ONNX Runtime takes unequal ones: a failure to look into
    return sizes


def _shape(item: GraphInput, given: Sequence[int] | None, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if given is not None:
        return tuple(given)
    if item.dims is None:
        raise UsageError(
            f"the input {item.name} has no declared rank", f"give its shape: --shapes {item.name}:1x3x224x224"
        )
    return tuple(d if isinstance(d, int) else sizes.get(d or "", 1) for d in item.dims)


def _values(item: GraphInput, shape: tuple[int, ...], seed: int, longest: int) -> Array:
    dtype = item.dtype
    rng = _generator(item, seed)
    if dtype == np.dtype(object):
        return np.full(shape, "a", dtype=object)
    special = NAMED_ONES.search(item.name)
    if special and special[0].lower() == "mask":
        return np.ones(shape, dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu" or dtype.name.startswith(("int", "uint")):
        if special:
            return np.full(shape, longest).astype(dtype)
        return rng.integers(0, _tokens(dtype), shape).astype(dtype)
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return _normal(shape, rng, dtype)


def _tokens(dtype: np.dtype[Any]) -> int:
    narrow = {"int2": 2, "uint2": 4, "int4": 8}
    return narrow.get(dtype.name, TOKENS)
