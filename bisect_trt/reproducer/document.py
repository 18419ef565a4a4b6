"""Results as JSON: `report.json`, which docs/report.schema.json describes, and what `check` prints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from msgspec import Struct
from msgspec.structs import asdict

from bisect_trt._version import __version__
from bisect_trt.machine.environment import Environment
from bisect_trt.model.summary import figures
from bisect_trt.options import arguments, nameless, target_arguments
from bisect_trt.reproducer.files import REPORT
from bisect_trt.results import Check, Reduction

SCHEMA = 1


def report(reduction: Reduction, environment: Environment) -> dict[str, Any]:
    """Return plain JSON data. Holds file names but no folders of the user's machine."""
    return {
        "schema": SCHEMA,
        "tool": {"name": "bisect-trt", "version": __version__},
        "model": {"file": reduction.model.name, "nodes": reduction.original_nodes},
        "target": plain(reduction.target),
        "reference": reduction.reference,
        "finding": reduction.judgement.kind.value,
        "judgement": plain(reduction.judgement.to_json()),
        "failure": reduction.wanted.to_json(),
        "reworded": reduction.reworded.to_json() if reduction.reworded else None,
        "also_seen": [failure.to_json() for failure in reduction.also_seen],
        "nodes": list(reduction.nodes),
        "places": list(reduction.places),
        "origins": [origin.to_json() for origin in reduction.origins],
        "original": plain(reduction.original.to_json()) if reduction.original else None,
        "reduced": plain(figures(onnx.load_model_from_string(reduction.best.model)).to_json()),
        "workarounds": list(reduction.workarounds),
        "left": list(reduction.left),
        "simplification": reduction.simplification.to_json() if reduction.simplification else None,
        "one_minimal": reduction.one_minimal,
        "verified": 0 if reduction.script_objection else reduction.verified,
        "repeats": reduction.repeats,
        "outputs_compared": reduction.outputs_compared,
        "compared": plain(reduction.compared_as),
        "finished": reduction.finished,
        "stop_reason": reduction.stop_reason,
        "counts": plain(reduction.counts),
        "phases": plain(reduction.phases),
        "notes": list(reduction.notes),
        "accuracy": plain(reduction.accuracy),
        "built": plain(reduction.built),
        "settings": plain(nameless(reduction.settings)),
        "arguments": arguments(nameless(reduction.settings)),
        "builder_arguments": target_arguments(nameless(reduction.settings).target),
        "environment": asdict(environment),
    }


def written(reduction: Reduction) -> dict[str, Any]:
    """Return `report.json` as it was written, and where folder and zip are. Raises OSError."""
    document: dict[str, Any] = json.loads((reduction.out / REPORT).read_bytes())
    places = {"out": str(reduction.out), "zip": str(reduction.archive)}
    return {**document, "notes": list(reduction.notes), **places}


def check(result: Check) -> dict[str, Any]:
    """Return what `check --json` prints."""
    return {
        "tool": {"name": "bisect-trt", "version": __version__},
        "model": {"file": result.model.name, "nodes": result.nodes},
        "target": plain(result.target),
        "reference": result.reference,
        "agrees": not result.outcome.failures and not result.outcome.unresolved,
        "failures": [failure.to_json() for failure in result.outcome.failures],
        "unresolved": result.outcome.unresolved,
        "facts": plain(result.outcome.facts),
        "seconds": round(result.seconds, 3),
        "outputs_compared": result.outputs_compared,
        "finding": result.finding.value if result.outcome.failures or result.outcome.unresolved else None,
        "notes": list(result.notes),
        "reduce": result.next_line,
    }


def plain(value: Any) -> Any:
    """Write objects by their fields, tuples as lists, paths as file names, numbers JSON has not as text."""
    if isinstance(value, Struct):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
