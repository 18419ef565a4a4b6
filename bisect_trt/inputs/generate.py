"""Seeded input values, sensible for type and name. They do not depend on the order of inputs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bisect_trt.errors import UsageError
from bisect_trt.inputs.feeds import GraphInput

Array = npt.NDArray[Any]

TOKENS = 16  # integer inputs are most often indices: small ones are valid nearly everywhere
NAMED_ONES = re.compile(r"mask|length|lens?$", re.IGNORECASE)


def generate(
    inputs: Sequence[GraphInput], seed: int, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Array]:
    """One sample: an array for each input.

    Dynamic dimensions come from `shapes`; a symbol that is known from one input has that size in all
    others; what is left is 1. Floats are normal(0, 1), integers 0..15, bools random, strings `a`;
    masks are all ones, lengths the size of the longest other dimension that is declared.

    Raises:
        UsageError: an input has unknown rank or is no tensor; two shapes disagree about a symbol.
    """
    sizes = _symbols(inputs, shapes)
    known = {item.name: _shape(item, shapes.get(item.name), sizes) for item in inputs}
    longest = max((shape[1] for shape in known.values() if len(shape) > 1), default=1)
    return {item.name: _values(item, known[item.name], seed, longest) for item in inputs}


def _symbols(inputs: Sequence[GraphInput], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of symbolic dimensions that follow from given shapes."""
    sizes: dict[str, tuple[int, str]] = {}
    for item in inputs:
        given = shapes.get(item.name)
        if given is None or item.dims is None:
            continue
        if len(given) != len(item.dims):
            text = "x".join(map(str, given)) or "a scalar"
            raise UsageError(f"the shape {text} does not fit {item.name}, declared as {item.shape_text()}")
        for dim, size in zip(item.dims, given, strict=True):
            if isinstance(dim, str):
                old, other = sizes.setdefault(dim, (size, item.name))
                if old != size:
                    raise UsageError(f"the dimension {dim} is {old} in {other} but {size} in {item.name}")
    return {name: size for name, (size, _) in sizes.items()}


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
    digest = hashlib.sha256(item.name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
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
    return rng.standard_normal(shape).astype(dtype)


def _tokens(dtype: np.dtype[Any]) -> int:
    narrow = {"int2": 2, "uint2": 4, "int4": 8}
    return narrow.get(dtype.name, TOKENS)
