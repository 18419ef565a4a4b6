"""Rows in any order: detections of two runs are sets, and their order is a matter of equal scores.

A row of the target stands for one of the reference when all its elements agree; how many pairs there can be
at once is a question of bipartite matching (Kuhn's augmenting paths), so that no choice of a partner spoils
another one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bisect_trt.outcome import Array

MOST = 4096  # rows of one set; of more the order counts


def in_order(reference: Array, target: Array, rtol: float, atol: float) -> Array:
    """Return the target with its rows where their partners are; rows without one fill what is left.

    Rows are those of the last axis but one, for each index of the axes before; of up to two dimensions
    (leading ones left out) they lie along the first. Both have the same shape.
    """
    shape = reference.shape
    lead = next((k for k, size in enumerate(shape) if size != 1), len(shape))
    flat = shape[lead:]
    if not flat or reference.size == 0:
        return target
    sets = (-1, *flat[-2:]) if len(flat) > 2 else (1, flat[0], int(np.prod(flat[1:], dtype=int)))
    ones, others = reference.reshape(sets), target.reshape(sets)
    if ones.shape[1] > MOST:
        return target
    found = [other[_places(one, other, rtol, atol)] for one, other in zip(ones, others, strict=True)]
    return np.stack(found).reshape(shape)


def sorted_along(values: Mapping[str, Array], axes: Mapping[str, int]) -> dict[str, Array]:
    """Return tensors whose order along an axis means nothing, in one order: TopK with sorted=0 gives sets."""
    found = dict(values)
    for name, axis in axes.items():
        if name in found and -found[name].ndim <= axis < found[name].ndim:
            found[name] = np.sort(found[name], axis=axis)
    return found


def _places(reference: Array, target: Array, rtol: float, atol: float) -> list[int]:
    """Return, for each row of the reference, the row of the target that stands for it."""
    one, other = reference.astype(np.float64), target.astype(np.float64)
    partners: dict[int, int] = {}  # row of the target -> row of the reference
    near = []
    with np.errstate(all="ignore"):
        for row in one:
            close = (np.abs(other - row) <= atol + rtol * np.abs(row)) | (other == row)
            close |= np.isnan(other) & np.isnan(row)
            near.append(np.flatnonzero(close.all(axis=1)).tolist())
    for k in range(len(one)):
        _pair(k, near, partners)
    places = {row: k for k, row in partners.items()}
    free = iter([k for k in range(len(other)) if k not in partners])
    return [places[row] if row in places else next(free) for row in range(len(one))]


def _pair(start: int, near: list[list[int]], partners: dict[int, int]) -> None:
    """Find a partner for a row, others moved to other partners of theirs where that helps."""
    seen: set[int] = set()
    path: list[tuple[int, list[int]]] = [(start, list(near[start]))]
    taken: list[int] = []
    while path:
        left = path[-1][1]
        if not left:
            path.pop()
            if taken:
                taken.pop()
            continue
        k = left.pop(0)
        if k in seen:
            continue
        seen.add(k)
        taken.append(k)
        if k not in partners:
            for (row, _), place in zip(path, taken, strict=True):
                partners[place] = row
            return
        path.append((partners[k], list(near[partners[k]])))
