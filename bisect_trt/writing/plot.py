"""A plot as SVG: a frame with figures, and lines, points, bars or cells in it. A strip has no frame.

How to use it:

    x = around(batches, "batch size", log=True)
    y = around(milliseconds, "milliseconds", zero=True)
    plot = Plot("latency against the batch size", x, y)
    plot.line(zip(batches, milliseconds), Colour.FIRST)
    plot.marks([Mark(8, 1.25, "batch 8: 1.25 ms")], Colour.SECOND, Shape.DIAMOND)
    svg = plot.svg()

The text goes into a page as it is (`{{ svg | safe }}`): every name in it is escaped. The page puts `style()`
into its own `<style>` once (`{{ plot_style | safe }}`), which has the colours of both themes and of paper. A
legend is plain HTML: `<ul class="legend"><li><i class="first circle"></i>own error</li></ul>`.

A plot has a size in units of its own and is scaled to the width that the page gives it: at the default width
of 400 its letters can be read on a phone. The same data give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache
from html import escape
from pathlib import Path

from msgspec import Struct

from bisect_trt.writing.axis import Axis, number

_LETTER = 6.6  # width of a digit of 12 units
_TOP, _BOTTOM, _RIGHT, _GAP = 24.0, 42.0, 16.0, 7.0
_LOST = 16.0  # height of the row above the frame in which values that are not finite stand
_KEY = 68.0  # width of the key of a heat map
SHADES = 9
"""Shades of a heat map: classes `h0` (least) to `h8` (most)."""


class Colour(StrEnum):
    """A series has a colour; the class of that name gives it in both themes."""

    FIRST = "first"
    SECOND = "second"
    THIRD = "third"


class Shape(StrEnum):
    """What a point is drawn as, so that a series is known without its colour too."""

    DOT = "dot"
    CIRCLE = "circle"
    DIAMOND = "diamond"
    TRIANGLE = "triangle"


class Mark(Struct, frozen=True):
    """A point; `tip` is what a pointer on it shows. A `y` that is not finite stands above the frame."""

    x: float
    y: float
    tip: str = ""


class Span(Struct, frozen=True):
    """A part of a strip from `start` to `end`, both from 0 to 1; the class `kind` gives its colour."""

    start: float
    end: float
    kind: str
    tip: str = ""


@cache
def style() -> str:
    """Return what a page with plots puts into its style sheet."""
    return Path(__file__).with_name("style.css").read_text()


class Plot:
    """A plot that is drawn part by part: what is added later lies on top.

    `title` says what it shows to those who cannot see it. Width and height are in units of its own. With
    `lost` there is a row above the frame for values that are not finite.
    """

    def __init__(
        self, title: str, x: Axis, y: Axis, *, width: float = 400.0, height: float = 210.0, lost: bool = False
    ) -> None:
        self._label, self._x, self._y, self._width, self._height = title, x, y, width, height
        self._parts: list[str] = []
        self._lost = lost
        self._top = _TOP + (_LOST if lost else 0.0)
        self._left = _GAP + 4 + _LETTER * max(len(number(tick)) for tick in (*y.ticks(5), 0.0))
        self._right = _RIGHT

    def line(self, points: Iterable[tuple[float, float]], colour: Colour, *, steps: bool = False) -> None:
        """Draw a line through points from left to right; with `steps` a value holds until the next one."""
        data = ""
        for x, y in points:
            at_x, at_y = self._place(x, y)
            begun = data != ""
            data += f"H{at_x:.1f}V{at_y:.1f}" if begun and steps else f"{'ML'[begun]}{at_x:.1f} {at_y:.1f}"
        self._parts.append(f'<path class="line {colour}" d="{data}"/>')

    def guide(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a dashed line to compare with: a limit, or where both are equal."""
        (x1, y1), (x2, y2) = self._place(*start), self._place(*end)
        self._parts.append(f'<path class="ink" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')

    def marks(self, marks: Iterable[Mark], colour: Colour, shape: Shape = Shape.DOT) -> None:
        """Draw points, each with what a pointer on it shows."""
        kind = "hollow" if shape in (Shape.CIRCLE, Shape.TRIANGLE) else "full"
        for mark in marks:
            x, y = self._place(mark.x, mark.y)
            form = f"M{x:.1f} {y:.1f}{_FORMS[shape]}"
            self._parts.append(f'<path class="{kind} {colour}" d="{form}">{_title(mark.tip)}</path>')

    def bars(
        self, edges: Sequence[float], heights: Sequence[float], colour: Colour, titles: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Draw bars from the lower end of the axis, each between two neighbours of `edges`: one more."""
        for k, height in enumerate(heights):
            (left, bottom), (right, top) = (
                self._place(edges[k], self._y.low),
                self._place(edges[k + 1], height),
            )
            gap = 0.5 if right - left > 3 else 0.0
            if bottom > top:
                at = f'x="{left + gap:.2f}" y="{top:.1f}" '
                size = f'width="{right - left - 2 * gap:.2f}" height="{bottom - top:.1f}"'
                title = _title(titles[k]) if titles else ""
                self._parts.append(f'<rect class="full {colour}" {at}{size}>{title}</rect>')

    def outline(self, edges: Sequence[float], heights: Sequence[float], colour: Colour) -> None:
        """Draw the outline of what `bars` draws: a second histogram over the first."""
        points = [(edges[0], self._y.low), *zip(edges, heights, strict=False), (edges[-1], heights[-1])]
        self.line([*points, (edges[-1], self._y.low)], colour, steps=True)

    def heat(self, table: Sequence[Sequence[float]], title: str) -> None:
        """Draw cells that fill the frame, rows from the top, the stronger the nearer to the largest.

        A key stands on the right. `title` says what the figures are.
        """
        most = max((v for row in table for v in row), default=0.0)
        self._right = _KEY
        across, down = self._inside(len(table[0]), len(table))
        for shade, runs in sorted(_runs(table, most).items()):
            data = "".join(
                f"M{self._left + k * across:.1f} {self._top + r * down:.1f}h{n * across:.1f}v{down:.1f}"
                f"h{-n * across:.1f}z"
                for r, k, n in runs
            )
            self._parts.append(f'<path class="cells h{shade}" d="{data}"/>')
        x, height = self._width - _KEY + 10, self._inside(1, SHADES)[1]
        for k in range(SHADES):
            at = f'x="{x:.1f}" y="{self._top + (SHADES - 1 - k) * height:.1f}"'
            size = f'width="10" height="{height + 0.2:.1f}"'
            self._parts.append(f'<rect class="cells h{k}" {at} {size}/>')
        self._parts.append(_text(x + 14, self._top + 9, number(float(f"{most:.2g}"))))
        self._parts.append(_text(x + 14, self._height - _BOTTOM, "0"))
        self._parts.append(_text(self._width - 2, 14, title, "end"))

    def svg(self) -> str:
        """Return the finished plot as an `svg` element."""
        size = f"0 0 {self._width:g} {self._height:g}"
        head = f'<svg class="plot" viewBox="{size}" role="img" aria-label="{escape(self._label)}">'
        return "\n".join([head, *self._frame(), *self._parts, "</svg>"])

    def _inside(self, columns: int, rows: int) -> tuple[float, float]:
        """Return the width and height of a cell when the frame is shared out."""
        width, height = self._width - self._left - self._right, self._height - self._top - _BOTTOM
        return width / columns, height / rows

    def _place(self, x: float, y: float) -> tuple[float, float]:
        width, height = self._inside(1, 1)
        across = self._left + width * self._x.place(x)
        if not math.isfinite(y):
            return across, self._top - _LOST / 2
        return across, self._top + height * (1 - self._y.place(y))

    def _frame(self) -> list[str]:
        """Draw both axes with figures, as many as there is room for, and labels."""
        width, height = self._inside(1, 1)
        bottom, right = self._top + height, self._left + width
        lines, texts = f"M{self._left:.1f} {self._top:.1f}V{bottom:.1f}H{right:.1f}", []
        for tick in self._y.ticks(5):
            y = self._place(self._x.low, tick)[1]
            lines += f"M{self._left - 4:.1f} {y:.1f}h4"
            texts.append(_text(self._left - _GAP, y + 4, number(tick), "end"))
        for tick in _fitting(self._x, width):
            x = self._place(tick, self._y.low)[0]
            lines += f"M{x:.1f} {bottom:.1f}v4"
            texts.append(_text(x, bottom + 17, number(tick), "middle"))
        if self._lost:
            texts.append(_text(right, self._top - 4, "not finite", "end"))
        texts.append(_text(2, 14, self._y.label))
        texts.append(_text(self._left + width / 2, bottom + 36, self._x.label, "middle"))
        return [f'<path class="axis" d="{lines}"/>', *texts]


def strip(spans: Iterable[Span], title: str) -> str:
    """Return a strip from 0 to 1 with coloured spans, as an `svg` element as wide as its place."""
    cells = [
        f'<rect class="{span.kind}" x="{1000 * span.start:.2f}" width="{1000 * (span.end - span.start):.2f}" '
        f'height="34">{_title(span.tip)}</rect>'
        for span in spans
    ]
    head = '<svg class="strip" viewBox="0 0 1000 34" preserveAspectRatio="none" role="img" '
    return "\n".join([f'{head}aria-label="{escape(title)}">', *cells, "</svg>"])


_FORMS = {
    Shape.DOT: "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z",
    Shape.CIRCLE: "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    Shape.DIAMOND: "m0-4.5l4.5 4.5l-4.5 4.5l-4.5-4.5z",
    Shape.TRIANGLE: "m0-4.5l4.5 8h-9z",
}


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _title(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""


def _fitting(axis: Axis, width: float) -> list[float]:
    """Take as many figures as fit below an axis of that width."""
    for most in (8, 5, 4, 3):
        found = axis.ticks(most)
        if sum(len(number(tick)) * _LETTER + 16 for tick in found) <= width:
            return found
    return axis.ticks(2)


def _runs(table: Sequence[Sequence[float]], most: float) -> dict[int, list[tuple[int, int, int]]]:
    """Return the cells of one shade beside each other: row, first column and number of cells, by shade."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for r, row in enumerate(table):
        start, shades = 0, [min(SHADES - 1, int(SHADES * v / most)) if most > 0 else 0 for v in row]
        for k in range(1, len(row) + 1):
            if k == len(row) or shades[k] != shades[start]:
                found.setdefault(shades[start], []).append((r, start, k - start))
                start = k
    return found
