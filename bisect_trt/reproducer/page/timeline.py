"""What a page shows of a search, its journal as rows, and of an accuracy failure, tensors side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import helper

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences, precision_rtol
from bisect_trt.outcome import Array, Verdict
from bisect_trt.reproducer.files import ACTUAL, EXPECTED, MODEL
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.writing.text import printable

_NAMES = 3  # of the nodes of a probe that are told


class Row(Struct, frozen=True):
    """One probe as the timeline shows it.

    Attributes:
        number: from 1, in the order in which they ended.
        nodes: of the candidate.
        what: how it was cut, and some of its nodes.
        verdict: what it said of the wanted failure.
        seconds: inside the target.
        spent: seconds inside the target up to its end.
        left: nodes of the smallest candidate that was known to fail afterwards.
        saw: the first failure, if any, or why nothing can be said.
    """

    number: int
    nodes: int
    what: str
    verdict: str
    seconds: float
    spent: float
    left: int
    saw: str


def rows(events: Iterable[Mapping[str, Any]], nodes: int, *, names: bool = True) -> list[Row]:
    """The finished probes of a journal; `nodes` has the whole model. Without `names` nothing is named."""
    begun: dict[str, Mapping[str, Any]] = {}
    found: list[Row] = []
    left, spent = nodes, 0.0
    for event in events:
        if event["event"] == "begin":
            begun[event["key"]] = event
        if event["event"] != "end":
            continue
        start, seconds = begun.get(event["key"], {}), float(event.get("seconds", 0.0))
        count, verdict = int(start.get("count", 0)), str(event["verdict"])
        spent += seconds
        if verdict == Verdict.REPRODUCES and count:
            left = min(left, count)
        what = _what(start, count, names)
        saw = _saw(event["outcome"], names)
        found.append(Row(len(found) + 1, count, what, verdict, seconds, spent, left, saw))
    return found


def _what(start: Mapping[str, Any], count: int, names: bool) -> str:
    cut = str(start.get("cut", ""))
    shown = [printable(name) for name in start.get("nodes", ())[:_NAMES]] if names else []
    more = ", ..." if shown and count > len(shown) else ""
    return ": ".join(part for part in (cut, ", ".join(shown) + more) if part)


def _saw(outcome: Mapping[str, Any], names: bool) -> str:
    failures = outcome.get("failures", ())
    if not failures:
        return printable(outcome.get("unresolved", ""))[:200] if names else ""
    first = failures[0]
    text = f"{first['stage']} {first['symptom']}"
    return f"{text}: {printable(first['message'])[:200]}" if names and first.get("message") else text


MOST_ELEMENTS = 1 << 24
"""Elements of a tensor that is looked at in a page."""


class Compared(Struct, frozen=True):
    """The outputs of the first sample, the worst first; `reference` and `target` are of the worst one."""

    diffs: tuple[TensorDiff, ...]
    reference: Array
    target: Array


def compared(out: Path, accuracy: AccuracySettings, target: TargetSettings) -> Compared | None:
    """Compare `expected.npz` and `actual.npz`; None where these are not both there, or are too large."""
    if not (out / EXPECTED).exists() or not (out / ACTUAL).exists():
        return None
    graph = onnx.load(out / MODEL, load_external_data=False).graph
    types = {v.name: v.type.tensor_type.elem_type for v in graph.output}
    expected, actual = (_values(out / name, types) for name in (EXPECTED, ACTUAL))
    diffs = differences([expected], [actual], accuracy, precision_rtol(target))
    plain = [d for d in diffs if d.name in actual and expected[d.name].shape == actual[d.name].shape]
    if not plain or expected[plain[0].name].size > MOST_ELEMENTS:
        return None
    worst = plain[0].name
    return Compared(tuple(diffs), _floats(expected[worst]), _floats(actual[worst]))


def _values(file: Path, types: Mapping[str, int]) -> dict[str, Array]:
    """Return the arrays in the types that the model declares; odd ones are stored as their bits."""
    found = {}
    with np.load(file, allow_pickle=False) as archive:
        for name in archive.files:
            value = archive[name]
            dtype = helper.tensor_dtype_to_np_dtype(types[name]) if types.get(name) else value.dtype
            same_bits = dtype.itemsize == value.dtype.itemsize and dtype.isbuiltin != 1
            found[name] = value.view(dtype) if same_bits else value
    return found


def _floats(value: Array) -> Array:
    plain = value.astype(np.float64) if value.dtype.kind not in "OU" else np.zeros(value.shape)
    return plain.reshape(1) if plain.ndim == 0 else plain
