"""Which sizes dynamic dimensions can have that nobody gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from bisect_trt.machine import native
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.windows import too_small
from bisect_trt.model.skeleton import set_sizes, skeleton

Shapes = Mapping[str, tuple[int, ...]]
_LARGER = (2, 8, 32, 64, 224)  # powers of two halve evenly, as often as pooling does; then the usual image


def fitting_shapes(
    proto: onnx.ModelProto,
    inputs: Sequence[GraphInput],
    shapes: Shapes,
    first: Callable[[Sequence[Shapes]], int | None],
) -> Shapes:
    """Return `shapes`, with those of the other inputs where 1 for each of their dynamic dimensions cannot be.

    A U-Net halves its input and joins it with what it was: at a size of 1 that fails everywhere, which says
    nothing of a target. ONNX's shape inference tells. The smallest size that it takes is chosen, for all
    dimensions but the first of an input if that will do, else for all; where it takes 1, or none of these,
    nothing is added. Symbols whose size follows from `shapes` keep it.

    Args:
        proto: the model.
        inputs: its inputs.
        shapes: what is known of them.
        first: asked where inference cannot tell: says at which of some shapes the model runs, if at any.
    """
    ones = filled(inputs, shapes, 1, 1)
    open_rank = any(item.dims is None for item in inputs)
    if ones is None or open_rank or ones == filled(inputs, shapes, 2, 2):
        return shapes
    fits = _fits(proto, ones)
    if fits:
        return shapes
    pairs = ((lead, size) for size in _LARGER for lead in (1, size))
    tried = [found for lead, size in pairs if (found := filled(inputs, shapes, lead, size)) is not None]
    if fits is None:
        k = first([ones, *tried])
        return tried[k - 1] if k else shapes
    return next((found for found in tried if _fits(proto, found) is not False), shapes)


def filled(
    inputs: Sequence[GraphInput], shapes: Mapping[str, Sequence[int]], lead: int, size: int
) -> dict[str, tuple[int, ...]] | None:
    """Return the shape of every input, `size` where it is open and `lead` for what comes first in it.

    A symbol has the size in all inputs that it has in one of `shapes`. None: nothing is known of an input.
    """
    sizes: dict[str, int] = {}
    found = {}
    for item in sorted(inputs, key=lambda item: item.name not in shapes):
        given = shapes.get(item.name)
        dims = given if item.dims is None else item.dims
        if dims is None or (given is not None and len(given) != len(dims)):
            return None
        shape = tuple(given or ()) or tuple(
            dim if isinstance(dim, int) else sizes.get(dim or "", size if k else lead)
            for k, dim in enumerate(dims)
        )
        for dim, known in zip(dims, shape, strict=True):
            if isinstance(dim, str):
                sizes.setdefault(dim, known)
        found[item.name] = shape
    return found


def _fits(proto: onnx.ModelProto, shapes: Shapes) -> bool | None:
    """Return whether inference takes these shapes, and nothing is too small for a node that reads it.

    None: cannot be told.
    """
    light = skeleton(proto)
    for value in light.graph.output:  # some exporters declare -1 where they mean that it is not known
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.Clear()
    for value in light.graph.input:
        set_sizes(value, shapes.get(value.name, ()))
    try:
        found = too_small(native.infer_shapes(light, strict_mode=True, data_prop=True).graph)
    except (native.RefusedError, native.NotKnownError):
        return False
    return None if found is None else not found
