"""Files of a `precision` run: the model, and what was found as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx

from bisect_trt.mixed_precision.evaluate import Trial, patched
from bisect_trt.mixed_precision.handover import readme
from bisect_trt.mixed_precision.result import Precision
from bisect_trt.model.weight_values import save_whole

MIXED = "mixed.onnx"
DOCUMENT = "precision.json"
SCHEMA_VERSION = 1


def write_model(trial: Trial, keep: Collection[str], place: Path, outside: bool) -> int:
    """Write `mixed.onnx` into the folder `place`, in a worker; give the number of casts.

    Weights are external data where that is asked for, or where they do not fit.
    """
    flat = onnx.load_model_from_string(trial.model.read_bytes())
    made = patched(trial, flat, keep)
    save_whole(made.model, trial.folder, place / MIXED, outside=outside)
    return made.casts


def document(result: Precision, version: str) -> dict[str, Any]:
    """Give everything as plain JSON data, see docs/precision.md."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": f"bisect-trt {version}",
        "model": result.model.name,
        "status": result.status,
        "to": result.to,
        "target": result.target.title,
        "reference": result.reference,
        "keep": [item.name for item in result.kept],
        "kept": [
            {"name": k.name, "op": k.op, "why": k.why, "error_without": _plain(k.error)} for k in result.kept
        ],
        "float_nodes": result.nodes,
        "cost": result.cost,
        "activation_bytes": dict(result.activations),
        "stays": dict(result.stays),
        "one_minimal": result.one_minimal,
        "smallest": result.smallest,
        "verified": result.verified,
        "repeats": result.repeats,
        "tolerances": {k: _plain(v) for k, v in result.tolerances.items()},
        "errors": {k: {n: _plain(e) for n, e in v.items()} for k, v in result.errors.items()},
        "run_seconds": dict(result.run_seconds),
        "evaluations": dict(result.evaluations),
        "curve": [[count, _plain(error)] for count, error in result.curve],
        "casts": result.casts,
        "finished": result.finished,
        "stop_reason": result.stop_reason,
        "readme": readme(result),
        "notes": list(result.notes),
        "seconds": round(result.seconds, 3),
    }


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def write_document(result: Precision, version: str) -> None:
    """Write `precision.json`."""
    (result.out / DOCUMENT).write_text(json.dumps(document(result, version), indent=2) + "\n")
