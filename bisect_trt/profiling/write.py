"""Files of a profile: `profile.json`, `profile.csv`, `layers.csv`, and the page with its pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from msgspec.structs import asdict

from bisect_trt._version import __version__
from bisect_trt.options import target_arguments
from bisect_trt.profiling import versus
from bisect_trt.profiling.picture import pictures
from bisect_trt.profiling.result import CONCURRENCY, Change, LayerTable, Point, Profile
from bisect_trt.writing.files import write_all

DOCUMENT, TABLE, LAYERS = "profile.json", "profile.csv", "layers.csv"
SCHEMA_VERSION = 1


def write(result: Profile) -> None:
    """Write all files into the folder of the result. Raises OSError."""
    texts = {
        DOCUMENT: json.dumps(document(result), indent=1) + "\n",
        TABLE: _csv(_HEAD, (_row(result, point) for point in result.points)),
        **pictures(result),
    }
    if result.layers is not None:
        texts[LAYERS] = _csv(_LAYER_HEAD, _layer_rows(result.layers))
    write_all(result.out, texts, DOCUMENT)


def document(result: Profile) -> dict[str, Any]:
    """Return everything as plain JSON data, seconds as numbers; see docs/profile.md."""
    layers = result.layers
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": f"bisect-trt {__version__}",
        "model": result.model.name,
        "target": result.target.title,
        "versions": dict(result.target.versions),
        "options": target_arguments(result.settings.target),
        "clock": result.opened.clock,
        "concurrency": CONCURRENCY,
        "build_seconds": result.opened.build_seconds,
        "bytes": dict(result.opened.bytes),
        "precision_of_time": result.precision,
        "unit": result.unit,
        "points": [_point(point) for point in result.points],
        "cliffs": [asdict(cliff) for cliff in result.cliffs],
        "likely": [asdict(cliff) for cliff in result.likely],
        "denied": list(result.denied),
        "not_looked_into": [list(pair) for pair in result.left],
        "measured": result.measured,
        "layers": None if layers is None else _layers(layers),
        "changes": [_change(change) for change in result.changes],
        "against": None if result.versus is None else versus.document(result.versus),
        "not_compared": result.not_compared,
        "notes": list(result.notes),
        "finished": result.finished,
        "stop_reason": result.stop_reason,
        "seconds": round(result.seconds, 3),
    }


def _point(point: Point) -> dict[str, Any]:
    times = None if point.times is None else point.times.to_json()
    shapes = {name: list(shape) for name, shape in point.shapes.items()}
    return {
        "size": point.size,
        "shapes": shapes,
        "times": times,
        "throughput": point.throughput,
        "error": point.error,
    }


def _change(change: Change) -> dict[str, Any]:
    layers = [
        {"name": layer.name, "nodes": list(layer.nodes), "more_seconds": more}
        for layer, more in change.layers
    ]
    return {"size": change.size, "layers": layers, "gone": list(change.gone), "new": list(change.new)}


def _layers(table: LayerTable) -> dict[str, Any]:
    return {
        "size": table.size,
        "seconds": table.total,
        "run_seconds": table.whole,
        "doubts": table.doubts(),
        "by_operator": [
            {"operator": op, "seconds": taken, "layers": count} for op, taken, count in table.by_operator
        ],
        "layers": [
            {
                "name": layer.name,
                "operator": layer.op,
                "nodes": list(layer.nodes),
                "seconds": layer.seconds,
                "share": table.share(layer),
            }
            for layer in table.layers
        ],
    }


_HEAD = (
    *("size", "shapes", "runs", "median_ms", "low_ms", "high_ms", "p90_ms", "p99_ms"),
    *("per_second", "ms_per_unit", "cliff", "error"),
)
_LAYER_HEAD = ("layer", "operator", "nodes", "ms", "share")


def _row(result: Profile, point: Point) -> Sequence[Any]:
    shapes = " ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in point.shapes.items())
    if point.times is None:
        return (point.size, shapes, 0, *[""] * 8, point.error)
    t = point.times
    figures = (_ms(value) for value in (t.median, t.low, t.high, t.p90, t.p99))
    jump = next((f"{cliff.jump:.3f}" for cliff in result.cliffs if cliff.size == point.size), "")
    rate = f"{point.throughput:.6g}"
    return (point.size, shapes, t.runs, *figures, rate, _ms(t.median / point.size), jump, "")


def _layer_rows(table: LayerTable) -> Iterable[Sequence[Any]]:
    for layer in table.ranked:
        nodes = " ".join(layer.nodes)
        yield layer.name, layer.op, nodes, _ms(layer.seconds), f"{table.share(layer):.4f}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.6g}"


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
