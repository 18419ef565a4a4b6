"""What a scan runs in worker processes: many segments in one build, the whole model, effects, a histogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.accuracy.compare import compare
from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences, precision_rtol
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.cutting.segments import Merged
from bisect_trt.model.store import Store
from bisect_trt.outcome import Array, Failure, Stage
from bisect_trt.references.base import Record
from bisect_trt.scanning.result import Histogram, error_of
from bisect_trt.settings import DEFAULT_ACCURACY, AccuracySettings, TargetSettings
from bisect_trt.targets.base import Target, TargetResult, announce, announce_reference
from bisect_trt.workers import continue_rest
from bisect_trt.workers import reference as references
from bisect_trt.workers.jobs import opened

# RMS errors that rounding explains: 16 units in the last place where long sums may be added up in another
# order, 2 where sums are kept in a wider type.
_NOISE = {"float64": 16 * 2**-52, "float32": 16 * 2**-23, "float16": 2 * 2**-10, "bfloat16": 2 * 2**-7}
_NOISE_NARROW = 0.25
_BINS = 40
_DECADES = 24
_CHUNK = 1 << 20
_NO_DEBUG = "only TensorRT shows the tensors inside an engine"


class Row(Struct, frozen=True):
    """One tensor in one sample; `file` of the store has the target's value, empty when it was not kept."""

    diff: TensorDiff
    above_noise: bool
    file: str = ""


class Measurement(Struct, frozen=True):
    """What one build of many segments gave: failures, or rows; else why nothing can be said."""

    failures: tuple[Failure, ...] = ()
    rows: tuple[Row, ...] = ()
    unresolved: str = ""


class Whole(Struct, frozen=True):
    """What the whole model gave.

    Attributes:
        failures: of the target.
        outputs: of the model, the worst first.
        context: the worst sample of tensors inside the engine.
        context_why: why there are none.
        unmapped: tensors of the engine that are none of the model.
        unresolved: why nothing can be said.
        builds: that this took.
    """

    failures: tuple[Failure, ...] = ()
    outputs: tuple[TensorDiff, ...] = ()
    context: tuple[TensorDiff, ...] = ()
    context_why: str = _NO_DEBUG
    unmapped: tuple[str, ...] = ()
    unresolved: str = ""
    builds: int = 1


def measure(
    settings: TargetSettings, merged: Merged, accuracy: AccuracySettings, keep_all: bool
) -> Measurement:
    """Run segments on the target and compare each tensor with what was recorded.

    Values above noise are written to the store, with `keep_all` the others too.
    """
    candidate = merged.candidate
    references.use(accuracy)
    result = opened(settings).run(candidate)
    if result.failures or result.unresolved or result.outputs is None:
        return Measurement(result.failures, unresolved=result.unresolved)
    announce(Stage.COMPARE)
    expected = continue_rest.load(candidate, candidate.expected)
    store = Store(candidate.folder)
    rows = []
    for diff in differences(expected, result.outputs, DEFAULT_ACCURACY, precision_rtol(settings)):
        value, given = expected[diff.sample][diff.name], result.outputs[diff.sample].get(diff.name)
        above = error_of(diff) > noise(value.dtype)
        kept = _kept(value, given) if above or keep_all else None
        file = "" if kept is None else store.put(diff.name, kept).name
        rows.append(Row(replace(diff, name=merged.names[diff.name]), above, file))
    return Measurement(rows=tuple(rows))


def noise(dtype: np.dtype[Any]) -> float:
    """Return the error (see `result.error_of`) of a tensor of this type that says nothing."""
    if dtype.kind in "iubOUS" or dtype.name.startswith(("int", "uint")):
        return 0.0
    return _NOISE.get("float64" if dtype.kind == "c" else dtype.name, _NOISE_NARROW)


def _kept(value: Array, given: Array | None) -> Array | None:
    """Return the target's value in the type of the reference's; None when it cannot stand in for it."""
    if given is None or (given.dtype != value.dtype and given.dtype.kind != value.dtype.kind):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(given).astype(value.dtype, copy=False)


def whole(
    settings: TargetSettings, candidate: Candidate, accuracy: AccuracySettings, record: Record
) -> Whole:
    """Run the whole model, where possible with an eye on the tensors inside the engine."""
    references.use(accuracy)
    target = opened(settings)
    result, why, builds = _run_whole(target, candidate)
    if result.failures or result.unresolved or result.outputs is None:
        return Whole(result.failures, context_why=why, unresolved=result.unresolved, builds=builds)
    announce(Stage.COMPARE)
    expected = continue_rest.load(candidate, candidate.expected)
    outputs = differences(expected, result.outputs, accuracy, precision_rtol(settings))
    inside = [{t: v for t, v in given.items() if t not in expected[0]} for given in result.outputs]
    context, unmapped = _in_context(inside, record)
    if not why and not context:
        why = "the engine shows no tensor of the model" if unmapped else "the engine shows no tensors"
    return Whole((), tuple(outputs), context, why, unmapped, builds=builds)


def _run_whole(target: Target, candidate: Candidate) -> tuple[TargetResult, str, int]:
    """Return what the target gave, why there is nothing of the inside, and builds."""
    show: Callable[[Candidate], TargetResult] | None = getattr(target, "run_in_context", None)
    if show is None:
        return target.run(candidate), _NO_DEBUG, 1
    result = show(candidate)
    if not result.failures:
        return result, "", 1
    why = f"with debug tensors the engine fails: {result.failures[0].message}"
    return target.run(candidate), why, 2


def _in_context(
    samples: Sequence[Mapping[str, Array]], record: Record
) -> tuple[tuple[TensorDiff, ...], tuple[str, ...]]:
    """Return tensors of the engine against recorded ones of the same name, and the names that are none."""
    found: dict[str, list[TensorDiff]] = {}
    unmapped: dict[str, None] = {}
    for sample, values in enumerate(samples):
        for name, given in values.items():
            known = Store.load(record.path(sample, name), record.elem_type(name)) if name in record else None
            if known is None or known.size != given.size:  # another layout, or half of it
                unmapped[name] = None
            else:
                diff = compare(name, known, np.asarray(given).reshape(known.shape))
                found.setdefault(name, []).append(replace(diff, sample=sample))
    worst = [max(diffs, key=error_of) for diffs in found.values()]
    return tuple(worst), tuple(unmapped)


def effect(
    candidate: Candidate, given: Sequence[Feeds], accuracy: AccuracySettings, least: float
) -> tuple[tuple[TensorDiff, ...], str]:
    """Return the model's outputs with the target's value of the candidate's output in the reference run.

    Args:
        candidate: with its rest, see `model.cutting.continuation`; the target does not run.
        given: files with what the target made of its outputs, one mapping a sample.
        accuracy: when outputs agree.
        least: see `tolerance.differences`.
    """
    references.use(accuracy)
    announce_reference()
    own = continue_rest.load(candidate, candidate.expected)
    right, actual, why = continue_rest.finish(candidate, own, continue_rest.load(candidate, given))
    return tuple(differences(right, actual, accuracy, least)), why


def histogram(tensor: str, reference: Path, target: Path, elem_type: int) -> Histogram:
    """Return the bins of the values on both sides, and of the distance between them."""
    one = Store.load(reference, elem_type).reshape(-1)
    other = Store.load(target, elem_type).reshape(-1)
    if one.size != other.size or one.dtype.kind in "OUc":
        return Histogram(tensor)
    low, high = _range(one, other)
    edges = np.linspace(low, high, _BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])
    counts = np.zeros((2, len(edges) - 1), dtype=np.int64)
    decades: Counter[int] = Counter()
    equal = lost = 0
    for a, b in _chunks(one, other):
        for side, values in enumerate((a, b)):
            counts[side] += np.histogram(values[np.isfinite(values)], edges)[0]
        lost += int(np.count_nonzero(np.isfinite(a) & ~np.isfinite(b)))
        equal += int(np.count_nonzero(a == b))
        with np.errstate(all="ignore"):
            distance = np.abs(b - a)
        off = distance[np.isfinite(distance) & (distance > 0)]
        decades.update(np.floor(np.log10(off)).astype(int).tolist())
    powers = range(max(min(decades), max(decades) - _DECADES), max(decades) + 1) if decades else ()
    return Histogram(
        tensor,
        edges=tuple(edges.tolist()),
        reference=tuple(counts[0].tolist()),
        target=tuple(counts[1].tolist()),
        error_powers=tuple(powers),
        errors=tuple(decades[p] for p in powers),
        equal=equal,
        lost=lost,
    )


def _chunks(one: Array, other: Array) -> Iterator[tuple[Array, Array]]:
    for k in range(0, one.size, _CHUNK):
        yield one[k : k + _CHUNK].astype(np.float64), other[k : k + _CHUNK].astype(np.float64)


def _range(one: Array, other: Array) -> tuple[float, float]:
    """Return the range of what is finite on both sides."""
    low, high = np.inf, -np.inf
    for side in (part[np.isfinite(part)] for pair in _chunks(one, other) for part in pair):
        if side.size:
            low, high = min(low, float(side.min())), max(high, float(side.max()))
    return (low, high) if low <= high else (0.0, 0.0)
