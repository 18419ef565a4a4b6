"""Plots of a report: how the search went, and where and how large the errors are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bisect_trt.accuracy.sums import largest
from bisect_trt.model.seeded_values import mixed
from bisect_trt.outcome import Array
from bisect_trt.reproducer.page.timeline import Row
from bisect_trt.writing.axis import Axis, around
from bisect_trt.writing.plot import Colour, Mark, Plot

_SIDE = 96  # cells of a heat map along one side
_POINTS = 2000  # of a scatter plot
_BINS = 40  # of a histogram
_MANY = 30  # nodes from which they are drawn in powers of ten


def left_against(rows: Sequence[Row], nodes: int, label: str) -> str:
    """Return the nodes of the best candidate against the number of `probes`, else against seconds."""
    x = [0, *(row.number for row in rows)] if label == "probes" else [0.0, *(row.spent for row in rows)]
    y = [nodes, *(row.left for row in rows)]
    left = around(y, "nodes left", log=True) if max(y) > _MANY else _counts(y, "nodes left")
    plot = Plot(f"nodes left against {label}", around(x, label, zero=True, whole=label == "probes"), left)
    plot.line(zip(x, y, strict=True), Colour.FIRST, steps=True)
    return plot.svg()


def histogram(error: Array) -> str:
    """Say how many elements have an error of which size; equal ones stand apart."""
    sizes = np.abs(error[np.isfinite(error)]).ravel()
    wrong = sizes[sizes > 0]
    equal = f"absolute error ({sizes.size - wrong.size:,} elements are equal)"
    x = around([wrong.min(), wrong.max()] if wrong.size else [], equal, log=True)
    edges = np.geomspace(x.low, x.high, _BINS + 1)
    counts = np.histogram(wrong, edges)[0].tolist()
    plot = Plot("how many elements have an error of which size", x, _counts(counts, "elements"))
    plot.bars(edges.tolist(), counts, Colour.FIRST)
    return plot.svg()


def scatter(reference: Array, target: Array) -> str:
    """Return what the target gives against what the reference gives.

    At most 2000 elements, the worst among them.
    """
    a, b = reference.ravel(), target.ravel()
    both = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    if both.size > _POINTS:
        shown = np.zeros(both.size, bool)  # numpy's own way to draw and to join takes 25 ms to import
        shown[largest(np.abs(a[both] - b[both]), _POINTS // 4)] = True
        shown[mixed(0, _POINTS - _POINTS // 4) % np.uint64(both.size)] = True
        both = both[shown]
    right, given = a[both].tolist(), b[both].tolist()
    x, y = around(right, "reference"), around(given, "target")
    plot = Plot("target against reference", x, y, height=260)
    ends = max(x.low, y.low), min(x.high, y.high)
    if ends[0] < ends[1]:
        plot.guide((ends[0], ends[0]), (ends[1], ends[1]))
    plot.marks([Mark(*pair) for pair in zip(right, given, strict=True)], Colour.SECOND)
    return plot.svg()


def heat_map(error: Array) -> str:
    """Draw where the errors are: the largest in each cell, all axes but the last as rows."""
    flat = np.abs(np.nan_to_num(error.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    table = flat.reshape(-1, flat.shape[-1]) if flat.ndim > 1 else flat.reshape(1, -1)
    rows, columns = table.shape
    for axis in (0, 1):
        table = _coarse(table, axis)
    x = Axis(-0.5, columns - 0.5, "index on the last axis", whole=True)
    y = Axis(rows - 0.5, -0.5, "row: all other axes", whole=True)
    plot = Plot("where the errors are", x, y)
    plot.heat(table.tolist(), "largest absolute error")
    return plot.svg()


def _coarse(table: Array, axis: int) -> Array:
    """Return at most `_SIDE` cells along an axis."""
    if table.shape[axis] <= _SIDE:
        return table
    starts = np.linspace(0, table.shape[axis], _SIDE, endpoint=False).astype(int)
    coarse: Array = np.maximum.reduceat(table, starts, axis=axis)
    return coarse


def _counts(values: Sequence[int], label: str) -> Axis:
    return around(values, label, zero=True, whole=True)

