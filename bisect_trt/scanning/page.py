"""`scan.html`, a page that needs nothing but itself, and `scan.json` (docs/scan.schema.json)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import asdict

from bisect_trt._version import __version__
from bisect_trt.options import target_arguments
from bisect_trt.reproducer.document import plain
from bisect_trt.scanning import words
from bisect_trt.scanning.files import DOCUMENT, PAGE
from bisect_trt.scanning.result import Histogram, Scan, Scanned
from bisect_trt.writing import templates
from bisect_trt.writing.axis import Axis, around
from bisect_trt.writing.files import write_all
from bisect_trt.writing.plot import SHADES, Colour, Mark, Plot, Shape, Span, strip, style
from bisect_trt.writing.text import printable, seconds

ROWS = 100
_WIDTH = 1000.0  # of the plot of all tensors, which is as wide as the page
_LOWEST = 1e-12  # what is smaller is drawn there


def write(scan: Scan) -> None:
    """Write both files, each whole or not at all. Raises OSError."""
    texts = {DOCUMENT: json.dumps(document(scan), indent=1) + "\n", PAGE: page(scan)}
    write_all(scan.out, texts, DOCUMENT)


def page(scan: Scan) -> str:
    """Return the page as HTML."""
    environment = templates.environment(
        "bisect_trt.scanning", figure=words.figure, plain=printable, duration=seconds
    )
    ranked = scan.ranked
    return environment.get_template("scan.html.j2").render(
        scan=scan,
        version=__version__,
        words=words,
        rows=ranked[:ROWS],
        left=len(ranked) - ROWS,
        fused={item.tensor for item in scan.only_in_context},
        lanes=list(_lanes(scan)),
        plot=_plot(scan),
        values=_values(scan.histogram),
        distances=_distances(scan.histogram),
        plot_style=style(),
        document=DOCUMENT,
    )


def _lanes(scan: Scan) -> Iterator[tuple[str, str]]:
    """Yield the rows of the heat strip: a label, and the strip of all tensors in the order of the model."""
    width = 1 / max(1, len(scan.tensors))
    for label, name, *_ in _series(scan):
        spans = []
        for k, item in enumerate(scan.tensors):
            value: float | None = getattr(item, name)
            kind = "failed" if item.failure is not None and label == "own error" else _shade(value)
            shown = words.figure(value) or (item.failure and "fails") or "not run"
            text = f"{words.short(item)}: {label} {shown}"
            spans.append(Span(k * width, (k + 1) * width, kind, text))
        yield label, strip(spans, f"{label} of each tensor, in the order of the model")


def _shade(value: float | None) -> str:
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "lost"
    last = SHADES - 1  # an error of 1 or more; each one before is a tenth
    return f"h{max(0, min(last, math.floor(math.log10(value)) + last)) if value > 0 else 0}"


def _series(scan: Scan) -> list[tuple[str, str, Colour, Shape]]:
    """Return what each tensor has a figure of: its name, the attribute, and how it is drawn."""
    context = ("in context", "context_error", Colour.THIRD, Shape.TRIANGLE)
    return [
        ("own error", "own_error", Colour.FIRST, Shape.CIRCLE),
        ("effect", "effect_error", Colour.SECOND, Shape.DIAMOND),
        *([] if scan.context_why else [context]),
    ]


def _plot(scan: Scan) -> str:
    """Return errors against depth; empty when there is nothing to draw."""
    series = [(*row, _marks(scan, row[0], row[1])) for row in _series(scan)]
    values = [mark.y for *_, marks in series for mark in marks]
    if not values:
        return ""
    y = around([max(v, _LOWEST) for v in values], "error", log=True)
    depths = [item.depth for item in scan.tensors]
    x = around(depths, "nodes on the longest way from an input", zero=True, whole=True)
    lost = not all(map(math.isfinite, values))
    plot = Plot("error of each tensor against its depth", x, y, width=_WIDTH, height=300, lost=lost)
    for _, _, colour, shape, marks in series:
        plot.marks(marks, colour, shape)
    return plot.svg()


def _marks(scan: Scan, label: str, name: str) -> list[Mark]:
    """Return the errors of one kind that are above zero."""
    pairs = ((item, getattr(item, name)) for item in scan.tensors)
    return [
        Mark(item.depth, value, f"{label} of {words.short(item)}: {words.figure(value)}")
        for item, value in pairs
        if value is not None and value > 0
    ]


def _values(histogram: Histogram | None) -> str:
    """Return the values on both sides, counts as their logarithm since tails are what matters.

    Empty without any.
    """
    if histogram is None or not histogram.edges:
        return ""
    edges = histogram.edges
    both = (*histogram.reference, *histogram.target)
    y = Axis(0.5, around(both, "", log=True).high, "elements", log=True)
    plot = Plot("histogram of the values on both sides", Axis(edges[0], edges[-1], "value"), y)
    spans = [f"reference, {_span(edges, k)}: {n:,}" for k, n in enumerate(histogram.reference)]
    plot.bars(edges, histogram.reference, Colour.FIRST, spans)
    plot.outline(edges, histogram.target, Colour.SECOND)
    return plot.svg()


def _span(edges: Sequence[float], k: int) -> str:
    return f"{edges[k]:.4g} to {edges[k + 1]:.4g}"


def _distances(histogram: Histogram | None) -> str:
    """Say how far both sides are apart, in powers of ten; empty without any."""
    if histogram is None or not histogram.errors:
        return ""
    powers = histogram.error_powers
    edges = [10.0**p for p in (*powers, powers[-1] + 1)]
    y = around(histogram.errors, "elements", zero=True, whole=True)
    plot = Plot(
        "histogram of the distance between both sides", Axis(edges[0], edges[-1], "distance", log=True), y
    )
    texts = [f"from 1e{p}: {n:,}" for p, n in zip(powers, histogram.errors, strict=True)]
    plot.bars(edges, histogram.errors, Colour.SECOND, texts)
    return plot.svg()


SCHEMA = 1


def document(scan: Scan) -> dict[str, Any]:
    """Return plain JSON data, without folders of the user's machine."""
    first = scan.first_lost
    return {
        "schema": SCHEMA,
        "tool": {"name": "bisect-trt", "version": __version__},
        "model": {"file": scan.model.name, "nodes": scan.nodes},
        "target": {key: plain(getattr(scan.target, key)) for key in ("name", "title", "versions")},
        "reference": scan.reference,
        "arguments": plain(target_arguments(scan.settings.target)),
        "accuracy": plain(scan.settings.accuracy),
        "agrees": scan.agrees,
        "accumulates": scan.accumulates,
        "outputs": [diff.to_json() for diff in scan.outputs],
        "whole": scan.whole,
        "guilty": [item.tensor for item in scan.guilty],
        "first_not_finite": first.tensor if first else None,
        "in_context": {
            "available": not scan.context_why,
            "why": scan.context_why,
            "only_there": [item.tensor for item in scan.only_in_context],
            "unmapped": list(scan.unmapped),
        },
        "builds": scan.builds,
        "effects_left": scan.effects_left,
        "tensors": [_tensor(item) for item in scan.tensors],
        "histogram": plain(scan.histogram),
        "seconds": dict(scan.seconds or {}),
        "notes": list(scan.notes),
    }


def _tensor(item: Scanned) -> dict[str, Any]:
    return {
        **{key: value for key, value in asdict(item).items() if isinstance(value, str | int)},
        "own_error": plain(item.own_error),
        "effect": plain(item.effect_error),
        "context_error": plain(item.context_error),
        "guilty": item.guilty,
        "own": None if item.own is None else item.own.to_json(),
        "outputs": None if item.effect is None else [diff.to_json() for diff in item.effect],
        "context": None if item.context is None else item.context.to_json(),
        "failure": None if item.failure is None else item.failure.to_json(),
    }
