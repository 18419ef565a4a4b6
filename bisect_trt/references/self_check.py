"""`self`: no reference. The same input twice, identical rows of a batch, NaN and Inf out of nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences
from bisect_trt.model.inputs.made_up import MadeUp, Value
from bisect_trt.outcome import Array, Symptom, Values
from bisect_trt.settings import AccuracySettings

UNSTEADY = "the same input gives two different outputs"


def rows_alike(sample: Mapping[str, Value]) -> dict[str, Value] | None:
    """Return a sample in which every row of the batch is the first one; None when there is no batch.

    The batch is the first dimension, when all inputs that have one agree and it is above 1.
    """
    sizes = {value.shape[0] for value in sample.values() if value.ndim > 0}
    if len(sizes) != 1 or next(iter(sizes)) < 2:
        return None
    return {name: _alike(value) for name, value in sample.items()}


def _alike(value: Value) -> Value:
    if isinstance(value, MadeUp):
        return replace(value, alike=True)
    return np.repeat(value[:1], value.shape[0], axis=0) if value.ndim else value


def inspect(
    feeds: Values, first: Values, second: Values, accuracy: AccuracySettings, least: float = 0.0
) -> list[TensorDiff]:
    """Return what is wrong with two runs of the same inputs; each kind of fault in words of its own."""
    found = _in_words(UNSTEADY, differences(first, second, accuracy, least))
    for k, (given, outputs) in enumerate(zip(feeds, first, strict=True)):
        finite = all(bool(np.isfinite(v).all()) for v in given.values() if v.dtype.kind == "f")
        for name, value in outputs.items():
            if name not in accuracy.ignore and finite and value.dtype.kind == "f":
                found += [replace(diff, sample=k) for diff in _lost(name, value)]
        found += [replace(diff, sample=k) for diff in _rows(given, outputs, accuracy, least)]
    return found


def _lost(name: str, value: Array) -> list[TensorDiff]:
    wrong = ~np.isfinite(value)
    if not wrong.any():
        return []
    count, at = int(np.count_nonzero(wrong)), tuple(int(i) for i in np.argwhere(wrong)[0])
    words = "not finite although all inputs are"
    infs = int(np.count_nonzero(np.isinf(value)))
    return [
        TensorDiff(
            name, False, int(value.size), count, at, nans=(0, count - infs), infs=(0, infs),
            difference=words, symptom=Symptom.NOT_FINITE,
        )
    ]  # fmt: skip


def _rows(
    given: Mapping[str, Array], outputs: Mapping[str, Array], accuracy: AccuracySettings, least: float
) -> list[TensorDiff]:
    """Return rows that differ although all rows of the inputs are identical; nothing where these differ."""
    batched = [v for v in given.values() if v.ndim and v.shape[0] > 1]
    sizes = {v.shape[0] for v in batched}
    if len(sizes) != 1 or not all(np.array_equal(v, np.broadcast_to(v[:1], v.shape)) for v in batched):
        return []
    size = next(iter(sizes))
    rows = {k: v for k, v in outputs.items() if v.ndim and v.shape[0] == size}
    repeated = {k: np.broadcast_to(v[:1], v.shape) for k, v in rows.items()}
    found = differences([repeated], [rows], accuracy, least)
    return _in_words("identical rows of a batch give different outputs", found)


def _in_words(words: str, diffs: Sequence[TensorDiff]) -> list[TensorDiff]:
    """Return those that do not agree, with other words for the difference."""
    return [replace(diff, difference=words) for diff in diffs if not diff.ok]
