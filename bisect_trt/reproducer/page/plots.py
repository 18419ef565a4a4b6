"""Plots of a report, drawn by matplotlib as SVG that follows the reader's light or dark theme.

matplotlib is imported here only. Where it cannot be (in environments of machine learning it is often
built for another numpy) a report says so and has everything in its tables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bisect_trt.reproducer.page.timeline import Row

Array = npt.NDArray[Any]

_INK, _FIRST, _SECOND = "#010203", "#020304", "#030405"  # stand for colours of the page
_COLOURS = {_INK: "currentColor", _FIRST: "var(--accent)", _SECOND: "var(--bad)"}
_SIDE = 96  # cells of a heat map along one side
_POINTS = 2000  # of a scatter plot
_FRAME = (0.17, 0.2, 0.8, 0.74)  # of the axes: a layout engine takes longer than all the rest
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bisect-trt",
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def unavailable() -> str:
    """Why there can be no plots; empty when there can."""
    try:
        import matplotlib.figure  # noqa: F401
    except Exception as error:  # a broken installation raises what it likes
        return f"matplotlib cannot be imported ({type(error).__name__}: {error})"
    return ""


def left_against_probes(rows: Sequence[Row], nodes: int) -> str:
    """Nodes of the best candidate against the number of probes."""
    return _left([0, *(row.number for row in rows)], [nodes, *(row.left for row in rows)], "probes")


def left_against_seconds(rows: Sequence[Row], nodes: int) -> str:
    """Nodes of the best candidate against seconds inside the target."""
    spent = [0.0, *(row.spent for row in rows)]
    return _left(spent, [nodes, *(row.left for row in rows)], "seconds in the target")


def histogram(error: Array) -> str:
    """How many elements have an error of which size; equal ones stand apart on the left."""
    sizes = np.abs(error[np.isfinite(error)]).ravel()
    wrong = sizes[sizes > 0]

    def plot(axes: Any) -> None:
        if wrong.size:
            low, high = np.floor(np.log10(wrong.min())), np.ceil(np.log10(wrong.max()))
            axes.hist(np.log10(wrong), bins=np.linspace(low, max(high, low + 1), 40), color=_FIRST)
        axes.set_xlabel(f"log10 of the absolute error ({sizes.size - wrong.size:,} elements are equal)")
        axes.set_ylabel("elements")

    return _svg(plot)


def scatter(reference: Array, target: Array) -> str:
    """What the target gives against what the reference gives; at most 2000 elements, the worst among them."""
    a, b = reference.ravel(), target.ravel()
    both = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    if both.size > _POINTS:
        worst = both[np.argsort(-np.abs(a[both] - b[both]), kind="stable")[: _POINTS // 4]]
        rest = np.random.default_rng(0).choice(both, _POINTS - worst.size, replace=False)
        both = np.union1d(worst, rest)

    def plot(axes: Any) -> None:
        if both.size:
            ends = [min(a[both].min(), b[both].min()), max(a[both].max(), b[both].max())]
            axes.plot(ends, ends, color=_INK, linewidth=0.8, alpha=0.5)
        axes.scatter(a[both], b[both], s=9, color=_SECOND, alpha=0.6, linewidths=0)
        axes.set_xlabel("reference")
        axes.set_ylabel("target")

    return _svg(plot, height=3.4)


def heat_map(error: Array) -> str:
    """Where the errors are: the largest in each cell, all axes but the last as rows."""
    flat = np.abs(np.nan_to_num(error.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))
    table = flat.reshape(-1, flat.shape[-1]) if flat.ndim > 1 else flat.reshape(1, -1)
    rows, columns = table.shape
    for axis in (0, 1):
        table = _coarse(table, axis)

    def plot(axes: Any) -> None:
        looks = {"aspect": "auto", "cmap": "magma", "interpolation": "nearest", "vmin": 0.0}
        drawn = axes.imshow(table, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), **looks)
        bar = axes.figure.colorbar(drawn, ax=axes)
        bar.set_label("largest absolute error")
        bar.outline.set_visible(False)
        axes.set_xlabel("index on the last axis")
        axes.set_ylabel("row: all other axes")
        axes.locator_params(integer=True, nbins=6)

    return _svg(plot)


def _coarse(table: Array, axis: int) -> Array:
    """Give at most `_SIDE` cells along an axis."""
    if table.shape[axis] <= _SIDE:
        return table
    starts = np.linspace(0, table.shape[axis], _SIDE, endpoint=False).astype(int)
    coarse: Array = np.maximum.reduceat(table, starts, axis=axis)
    return coarse


def _left(x: Sequence[float], y: Sequence[int], label: str) -> str:
    def plot(axes: Any) -> None:
        axes.step(x, y, where="post", color=_FIRST, linewidth=2)
        if max(y) > 30:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_minor_formatter("")
        axes.set_ylim(bottom=0 if max(y) <= 30 else 0.8)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.set_ylabel("nodes left")

    return _svg(plot)


def _svg(plot: Callable[[Any], None], height: float = 2.6) -> str:
    """An `svg` element for a page: no size of its own, colours of the page, names of its own."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(5.4, height))
        figure.patch.set_alpha(0.0)
        axes = figure.add_axes(_FRAME)
        axes.patch.set_alpha(0.0)
        plot(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for stand_in, colour in _COLOURS.items():
        text = text.replace(stand_in, colour)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
