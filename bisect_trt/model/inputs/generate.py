"""What is made up for the inputs of a model: shapes that fit together, values sensible for type and name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.indices import require_inside
from bisect_trt.model.inputs.made_up import LARGEST_INPUTS, MOST_DIMENSIONS, Accepted, MadeUp
from bisect_trt.model.inputs.sizes import filled
from bisect_trt.model.seeded_values import is_whole


def generate(
    inputs: Sequence[GraphInput],
    seed: int,
    shapes: Mapping[str, Sequence[int]],
    ranges: Mapping[str, tuple[float, float]] | None = None,
    accepted: Mapping[str, Accepted] | None = None,
) -> dict[str, MadeUp]:
    """Generate one sample: an array for each input.

    Dynamic dimensions come from `shapes`; a symbol that is known from one input has that size in all
    others; what is left is 1 (`sizes.fitting_shapes` gives shapes where that cannot be). Floats are
    normal(0, 1), integers 0..15, bools random, strings `a`; masks are all ones, lengths the size of the
    longest other dimension that is declared. `ranges` are inclusive and win; then what the model accepts
    (`indices.accepted_values`).

    Raises:
        UsageError: an input has unknown rank or is no tensor; a shape or a range does not fit.
    """
    for item in inputs:
        _ = item.dtype  # what is no tensor is said before its shape is asked for
    for item in inputs:
        _require_rank(item, shapes.get(item.name))
    known = filled(inputs, shapes, 1, 1) or {}
    longest = max((shape[1] for shape in known.values() if len(shape) > 1), default=1)
    found = {}
    for item in inputs:
        slot, bounds = (accepted or {}).get(item.name), (ranges or {}).get(item.name)
        if bounds is not None:
            _require_range(item, bounds, slot)
        found[item.name] = MadeUp(
            item.name, item.elem_type, known[item.name], seed, longest, bounds, None if bounds else slot
        )
    why = _too_much(found.values())
    return found if why is None else {name: replace(item, refused=why) for name, item in found.items()}


def _too_much(items: Collection[MadeUp]) -> tuple[str, str] | None:
    """Say why values are not made, with a hint: they may be more than there is room for, or no array."""
    deep = next((item for item in items if item.ndim > MOST_DIMENSIONS), None)
    if deep is not None:
        return (
            f"the input {deep.name} has {deep.ndim} dimensions; NumPy's arrays have up to {MOST_DIMENSIONS}",
            "export the model with fewer",
        )
    if sum(item.nbytes for item in items) <= LARGEST_INPUTS:
        return None
    most = max(items, key=lambda item: item.nbytes)
    shape = "x".join(map(str, most.shape)) or "a scalar"
    return (
        f"the input {most.name} of shape {shape} takes {most.nbytes:,} bytes: values for it are not made up",
        f"make it smaller with --shapes {most.name}:... where the model leaves that open, or give --inputs",
    )


def _require_range(item: GraphInput, bounds: tuple[float, float], slot: Accepted | None) -> None:
    """Raises UsageError for a range that the type cannot hold, or whose ends an index must not have."""
    dtype, (low, high) = item.dtype, bounds
    where = f"--input-range {item.name}"
    if dtype == np.dtype(object):
        raise UsageError(f"{where}: strings have no range")
    if not is_whole(dtype) and dtype.kind != "b":
        return
    if low != int(low) or high != int(high):
        raise UsageError(f"{where}: {dtype} has no fractions")
    try:
        ends = np.array([int(low), int(high)], np.int64)
        fits = dtype.kind not in "iu" or np.array_equal(ends.astype(dtype), ends)
    except OverflowError:
        fits = False
    if not fits:
        raise UsageError(f"{where}: {dtype} cannot hold {low:g}..{high:g}")
    if slot is not None:
        require_inside("--input-range", item.name, ends, slot)


def _require_rank(item: GraphInput, given: Sequence[int] | None) -> None:
    """Raises UsageError for a shape of another rank than declared, and where no rank is known."""
    if given is None and item.dims is None:
        raise UsageError(
            f"the input {item.name} has no declared rank", f"give its shape: --shapes {item.name}:1x3x224x224"
        )
    if given is not None and item.dims is not None and len(given) != len(item.dims):
        text = "x".join(map(str, given)) or "a scalar"
        raise UsageError(f"the shape {text} does not fit {item.name}, declared as {item.shape_text()}")
