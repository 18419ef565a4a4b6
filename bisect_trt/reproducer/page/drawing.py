"""Where the boxes and arrows of a picture stand: layers from top to bottom, which a phone can show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from graphlib import TopologicalSorter

from msgspec import Struct

from bisect_trt.reproducer.picture import Box, Picture

_LETTER, _LINE, _PAD = 7.3, 17.0, 12.0  # of a monospaced font of 12 px
_BETWEEN, _LAYER, _MARGIN = 28.0, 58.0, 16.0
_BESIDE = 8.0  # between an arrow and its label
_SWEEPS = 4


class Placed(Struct, frozen=True):
    """A box; `x` and `y` are its upper left corner, in pixels."""

    box: Box
    x: float
    y: float
    width: float
    height: float


class Line(Struct, frozen=True):
    """An arrow as the data of an SVG path, and its label."""

    path: str
    label: str
    tensor: str
    x: float
    y: float


class Drawing(Struct, frozen=True):
    """Everything with its place."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    lines: tuple[Line, ...]


def draw(picture: Picture) -> Drawing | None:
    """Place a picture; None when there is nothing to draw."""
    if not picture.boxes:
        return None
    layers = _layers(picture)
    sizes = [_size(box) for box in picture.boxes]
    widths = [sum(sizes[k][0] for k in layer) + _BETWEEN * (len(layer) - 1) for layer in layers]
    label = max((len(a.label) * _LETTER for a in picture.arrows), default=0.0)
    width = max(*widths, 2 * (label + _BESIDE)) + 2 * _MARGIN
    places: dict[int, Placed] = {}
    y = _MARGIN
    for layer, taken in zip(layers, widths, strict=True):
        x = (width - taken) / 2
        for k in layer:
            places[k] = Placed(picture.boxes[k], x, y, *sizes[k])
            x += sizes[k][0] + _BETWEEN
        y += max(sizes[k][1] for k in layer) + _LAYER
    return Drawing(
        width, y - _LAYER + _MARGIN, tuple(places[k] for k in sorted(places)), tuple(_lines(picture, places))
    )


def _size(box: Box) -> tuple[float, float]:
    return max(len(line) for line in box.lines) * _LETTER + 2 * _PAD, len(box.lines) * _LINE + _PAD


def _layers(picture: Picture) -> list[list[int]]:
    """Place each box below all that lead to it, in the order of the middle of its neighbours."""
    before: dict[int, set[int]] = {k: set() for k in range(len(picture.boxes))}
    after: dict[int, set[int]] = {k: set() for k in before}
    for arrow in picture.arrows:
        before[arrow.target].add(arrow.source)
        after[arrow.source].add(arrow.target)
    sorter, layers = TopologicalSorter(before), []
    sorter.prepare()
    while sorter:
        layers.append(sorted(sorter.get_ready()))
        sorter.done(*layers[-1])
    for sweep in range(_SWEEPS):  # a few times down and up
        layers = _straightened(layers, before if sweep % 2 == 0 else after)
    return layers


def _straightened(layers: list[list[int]], near: Mapping[int, set[int]]) -> list[list[int]]:
    position = {k: i / max(1, len(layer) - 1) for layer in layers for i, k in enumerate(layer)}

    def middle(k: int) -> float:
        found = [position[n] for n in sorted(near[k])]
        return sum(found) / len(found) if found else position[k]

    return [sorted(layer, key=middle) for layer in layers]


def _lines(picture: Picture, places: dict[int, Placed]) -> list[Line]:
    """Return curves from the lower side of one box to the upper side of another, spread over both sides."""
    leaving, coming = Counter(a.source for a in picture.arrows), Counter(a.target for a in picture.arrows)
    out, into, found = Counter[int](), Counter[int](), []
    for number, arrow in enumerate(picture.arrows):
        source, target = places[arrow.source], places[arrow.target]
        out[arrow.source] += 1
        into[arrow.target] += 1
        x0 = source.x + source.width * out[arrow.source] / (leaving[arrow.source] + 1)
        x1 = target.x + target.width * into[arrow.target] / (coming[arrow.target] + 1)
        y0, y1 = source.y + source.height, target.y
        bend = (y1 - y0) / 2
        path = f"M{x0:.1f} {y0:.1f}C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
        shift = (number % 2) * 15.0 - 7.5 if leaving[arrow.source] + coming[arrow.target] > 2 else 0.0
        x, y = (x0 + x1) / 2 + _BESIDE, (y0 + y1) / 2 + 4.0 + shift
        found.append(Line(path, arrow.label, arrow.tensor, x, y))
    return found
