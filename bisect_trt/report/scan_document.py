"""A scan as JSON: `scan.json`, which docs/scan.schema.json describes."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from bisect_trt.commandline import target_arguments
from bisect_trt.reproducer.documents import plain
from bisect_trt.scanned import Scan, Scanned

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
