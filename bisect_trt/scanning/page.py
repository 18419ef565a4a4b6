"""`scan.html`: a page that needs nothing but itself, and `scan.json` beside it.

The plots are SVG drawn by the template: so they are there without a plotting library, follow the reader's
light or dark theme, and tell each tensor's name under the pointer.


A scan as JSON: `scan.json`, which docs/scan.schema.json describes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jinja2

from bisect_trt._version import __version__
from bisect_trt.options import target_arguments
from bisect_trt.reproducer.document import plain
from bisect_trt.scanning import words
from bisect_trt.scanning.files import DOCUMENT, PAGE
from bisect_trt.scanning.result import Histogram, Scan, Scanned
from bisect_trt.text import printable, seconds

ROWS = 100
WIDTH = 1000.0
"""Of the drawings; they are scaled to the page."""
_PLOT, _TOP, _LEFT = 260.0, 28.0, 70.0
_HEAT = 8  # the last shade: an error of 1 or more; each one before is a tenth
_BARS = 120.0
_LOWEST = -12  # power of ten; what is smaller is drawn there


def write(scan: Scan) -> None:
    """Write both files. Raises OSError."""
    (scan.out / DOCUMENT).write_text(json.dumps(document(scan, __version__), indent=1) + "\n")
    (scan.out / PAGE).write_text(page(scan))


def page(scan: Scan) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bisect_trt.scanning"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"figure": words.figure, "plain": printable, "duration": seconds}
    ranked = scan.ranked
    return environment.get_template("scan.html.j2").render(
        scan=scan,
        version=__version__,
        verdict=words.verdict(scan),
        lost=words.first_lost(scan),
        failing=words.failing(scan),
        unmeasured=words.unmeasured(scan),
        notes=words.notes(scan),
        rows=ranked[:ROWS],
        left=len(ranked) - ROWS,
        fused={item.tensor for item in scan.only_in_context},
        strip=list(_strip(scan)),
        plot=_plot(scan),
        bars=_bars(scan.histogram),
        document=DOCUMENT,
    )


@dataclass(frozen=True)
class Lane:
    """A row of the heat strip: a label, and for each tensor the place, a class and a text."""

    label: str
    cells: list[tuple[float, float, str, str]]


def _strip(scan: Scan) -> Iterator[Lane]:
    lanes = [("own error", "own_error"), ("effect", "effect_error")]
    lanes += [("in context", "context_error")] if not scan.context_why else []
    width = WIDTH / max(1, len(scan.tensors))
    for label, name in lanes:
        cells = []
        for k, item in enumerate(scan.tensors):
            value: float | None = getattr(item, name)
            kind = "failed" if item.failure is not None and label == "own error" else _shade(value)
            shown = words.figure(value) or (item.failure and "fails") or "not run"
            text = f"{words.short(item)}: {label} {shown}"
            cells.append((round(k * width, 3), round(width, 3), kind, text))
        yield Lane(label, cells)


def _shade(value: float | None) -> str:
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "lost"
    return f"h{max(0, min(_HEAT, math.floor(math.log10(value)) + _HEAT)) if value > 0 else 0}"


def _plot(scan: Scan) -> dict[str, Any]:
    """Errors against depth: points, and lines of the axes; empty when there is nothing to draw."""
    series = [("own", _values(scan, "own_error")), ("effect", _values(scan, "effect_error"))]
    series += [("context", _values(scan, "context_error"))] if not scan.context_why else []
    finite = [v for _, points in series for _, v in points if 0 < v < math.inf]
    low = max(_LOWEST, math.floor(math.log10(min(finite)))) if finite else -6
    high = max(low + 2, math.ceil(math.log10(max(finite)))) if finite else 0
    deepest = max((item.depth for item in scan.tensors), default=1)

    def x(depth: int) -> float:
        return round(_LEFT + (WIDTH - _LEFT - 20) * depth / max(1, deepest), 1)

    def y(value: float) -> float:
        if not math.isfinite(value):
            return _TOP / 2
        power = max(low, math.log10(value)) if value > 0 else low
        return round(_TOP + (_PLOT - _TOP) * (high - power) / (high - low), 1)

    step = -(-(high - low) // 6)
    return {
        "points": [
            (name, x(item.depth), y(value), f"{words.short(item)}: {words.figure(value)}")
            for name, points in series
            for item, value in points
            if value > 0
        ],
        "rows": [(y(10.0**p), f"1e{p}") for p in range(low, high + 1, step)],
        "columns": [(x(d), d) for d in _ticks(deepest)],
        "lost": any(not math.isfinite(v) for _, points in series for _, v in points),
        "bottom": _PLOT,
    }


def _values(scan: Scan, name: str) -> list[tuple[Scanned, float]]:
    pairs = ((item, getattr(item, name)) for item in scan.tensors)
    return [(item, value) for item, value in pairs if value is not None]


def _ticks(last: int) -> Iterable[int]:
    """Give at most eight round numbers from 0 to `last`."""
    step = 10 ** max(0, math.floor(math.log10(max(1, last))))
    while last / step < 4 and step > 1:
        step = step // 2 if step % 2 == 0 else step // 5
    return range(0, last + 1, step)


def _bars(histogram: Histogram | None) -> dict[str, Any] | None:
    """Bars of the two histograms; None when there is none."""
    if histogram is None or not histogram.edges:
        return None
    most = max(1, *histogram.reference, *histogram.target)
    step = WIDTH / len(histogram.reference)
    sides = {
        side: [_bar(k * step, step, _height(n, most), n, _span(histogram, k)) for k, n in enumerate(counts)]
        for side, counts in (("reference", histogram.reference), ("target", histogram.target))
    }
    top = max((1, *histogram.errors))
    wide = WIDTH / max(8, len(histogram.errors))
    errors = [
        _bar(k * wide, wide, n / top, n, f"1e{p}")
        for k, (p, n) in enumerate(zip(histogram.error_powers, histogram.errors, strict=True))
    ]
    ends = {"low": histogram.edges[0], "high": histogram.edges[-1]}
    return {"sides": sides, "errors": errors, "height": _BARS, "slots": max(8, len(errors)), **ends}


def _bar(x: float, width: float, height: float, count: int, text: str) -> tuple[float | int | str, ...]:
    """Place, top and width of a bar that is `height` (0 to 1) high, with its count and what it stands for."""
    return round(x, 2), round(_BARS * (1 - height), 2), round(width, 2), count, text


def _height(count: int, most: int) -> float:
    """Logarithmic: tails are what matters."""
    return math.log1p(count) / math.log1p(most)


def _span(histogram: Histogram, k: int) -> str:
    return f"{histogram.edges[k]:.4g} to {histogram.edges[k + 1]:.4g}"


SCHEMA = 1


def document(scan: Scan, version: str) -> dict[str, Any]:
    """Plain JSON data, without folders of the user's machine."""
    first = scan.first_lost
    return {
        "schema": SCHEMA,
        "tool": {"name": "bisect-trt", "version": version},
        "model": {"file": scan.model.name, "nodes": scan.nodes},
        "target": {
            "name": scan.target.name,
            "title": scan.target.title,
            "versions": dict(scan.target.versions),
        },
        "reference": scan.reference,
        "arguments": plain(target_arguments(scan.settings.target)),
        "accuracy": plain(asdict(scan.settings.accuracy)),
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
        "histogram": None if scan.histogram is None else plain(asdict(scan.histogram)),
        "seconds": dict(scan.seconds or {}),
        "notes": list(scan.notes),
    }


def _tensor(item: Scanned) -> dict[str, Any]:
    return {
        "tensor": item.tensor,
        "node": item.node,
        "op": item.op,
        "position": item.position,
        "depth": item.depth,
        "own_error": number(item.own_error),
        "above_noise": item.above_noise,
        "effect": number(item.effect_error),
        "context_error": number(item.context_error),
        "guilty": item.guilty,
        "own": None if item.own is None else item.own.to_json(),
        "outputs": None if item.effect is None else [diff.to_json() for diff in item.effect],
        "context": None if item.context is None else item.context.to_json(),
        "failure": None if item.failure is None else item.failure.to_json(),
        "suspects": item.suspects,
        "why": item.why,
    }


def number(value: float | None) -> float | str | None:
    """An error as JSON knows it: infinite as text."""
    return str(value) if value is not None and not math.isfinite(value) else value
