"""Pictures of a range: time of a unit of work, and throughput, against the size, with cliffs marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from bisect_trt.profiling.result import Point, Profile, milliseconds
from bisect_trt.writing.axis import Axis, around
from bisect_trt.writing.plot import Colour, Mark, Plot, Shape, style

_WIDTH, _HEIGHT = 640.0, 300.0
LATENCY, COST, THROUGHPUT = "latency.svg", "cost.svg", "throughput.svg"


def pictures(result: Profile) -> Mapping[str, str]:
    """Return SVG files by name; none for one shape."""
    points = [point for point in result.points if point.times is not None]
    if not result.is_range or len(points) < 2:
        return {}
    return {
        LATENCY: _file(_latency(result, points)),
        COST: _file(_cost(result, points)),
        THROUGHPUT: _file(_throughput(result, points)),
    }


def _latency(result: Profile, points: Sequence[Point]) -> Plot:
    """Return median and p90 against the size."""
    medians = [(point.size, point.times.median * 1e3) for point in points if point.times]
    p90 = [(point.size, point.times.p90 * 1e3) for point in points if point.times and point.times.p90]
    y = around([v for _, v in (*medians, *p90)], "milliseconds (line: median, dashes: p90)", log=True)
    plot = Plot(f"latency of {result.model.name} against {result.unit}", _sizes(result, points), y,
                width=_WIDTH, height=_HEIGHT)  # fmt: skip
    for start, end in pairwise(p90):
        plot.guide(start, end)
    plot.line(medians, Colour.FIRST)
    plot.marks([Mark(x, v, f"{result.unit} {x}: {milliseconds(v / 1e3)}") for x, v in medians], Colour.FIRST)
    _cliffs(plot, result, dict(medians))
    return plot


def _cost(result: Profile, points: Sequence[Point]) -> Plot:
    """Return the least time of a unit of work, which the search compares: a cliff is a step up in it."""
    costs = [(p.size, p.times.least * 1e3 / p.size) for p in points if p.times]
    y = around([v for _, v in costs], f"milliseconds a unit of {result.unit} (fastest run)", log=True)
    plot = Plot(f"time of a unit of {result.unit}", _sizes(result, points), y, width=_WIDTH, height=_HEIGHT)
    plot.line(costs, Colour.FIRST)
    costly = [Mark(x, v, f"{result.unit} {x}: {milliseconds(v / 1e3)} a unit") for x, v in costs]
    plot.marks(costly, Colour.FIRST)
    _cliffs(plot, result, dict(costs))
    return plot


def _throughput(result: Profile, points: Sequence[Point]) -> Plot:
    rates = [(point.size, point.throughput) for point in points if point.throughput]
    y = around([v for _, v in rates], f"units of {result.unit} a second, one request at a time", zero=True)
    plot = Plot(f"throughput of {result.model.name}", _sizes(result, points), y, width=_WIDTH, height=_HEIGHT)
    plot.line(rates, Colour.FIRST)
    plot.marks([Mark(x, v, f"{result.unit} {x}: {v:,.4g} a second") for x, v in rates], Colour.FIRST)
    _cliffs(plot, result, dict(rates))
    return plot


def _sizes(result: Profile, points: Sequence[Point]) -> Axis:
    """Return the axis of sizes, logarithmic as they are measured in powers of two."""
    wide = points[-1].size / points[0].size > 16
    label = f"{result.unit} (marks: measured; diamonds: a cliff)"
    return Axis(points[0].size, points[-1].size, label, log=wide, whole=True)


def _cliffs(plot: Plot, result: Profile, at: Mapping[int, float]) -> None:
    """Mark each cliff on both of its sizes."""
    marks = []
    for cliff in result.cliffs:
        text = f"{result.unit} {cliff.size}: {cliff.jump:.2f} times what {cliff.size - 1} costs"
        marks += [Mark(size, at[size], text) for size in (cliff.size - 1, cliff.size) if size in at]
    plot.marks(marks, Colour.SECOND, Shape.DIAMOND)


def _file(plot: Plot) -> str:
    """Return a file of its own: it has the colours of both themes in it."""
    head, _, rest = plot.svg().partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style()}</style>{rest}\n'
