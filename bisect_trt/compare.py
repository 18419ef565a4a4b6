"""Tensors against tensors, with numpy alone.

An element agrees when `|target - reference| <= atol + rtol * |reference|`. Integers, bools and strings
have to be equal; so do NaN and infinities, which agree with themselves. When a tensor of floats agrees
is a matter of the metric:

max          all elements agree
quantile:Q   the part Q of them does, 0 < Q < 1
mean, rms    the mean of |target - reference|, or its RMS, is at most atol + rtol * that of the reference
cosine       1 - cosine of the angle between both is at most rtol

Whatever the metric, what is finite in the reference has to be finite in the target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bisect_trt.diff import Element, TensorDiff
from bisect_trt.outcome import Symptom

Array = npt.NDArray[Any]

CHUNK = 1 << 20  # elements that are held in float64 at once
WORST = 5  # elements that are shown with their values
METRICS = ("max", "mean", "rms", "cosine", "quantile")
FILL = 1e9  # what is larger is taken for a filler (attention masks), not for the scale of a tensor

# Relative tolerance by type. TensorRT multiplies float32 in TF32 unless told otherwise, whose 10 bits are
# those of float16: measured on 24 MatMuls, 1.1e-3 of RMS on average and five times that for single
# elements. bfloat16 has 7 bits. A real fault is seldom smaller; who knows better gives a tolerance.
RTOL = {"float64": 1e-4, "float32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}
RTOL_NARROW = 2.5e-1  # float8 and narrower: 2 or 3 bits


def compare(
    name: str,
    reference: Array,
    target: Array,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    metric: str = "max",
) -> TensorDiff:
    """Compare two tensors of any shape and type, in pieces, so that large ones cost little memory.

    Without `rtol` it follows from the less precise type of both (`RTOL`). Without `atol` it is
    `rtol` times the RMS of the reference: a tolerance at the tensor's own scale, whatever that is.
    """
    reference, target = np.asarray(reference), np.asarray(target)
    if reference.shape != target.shape:
        words = f"shape {list(reference.shape)} became {list(target.shape)}"
        return TensorDiff(name, False, reference.size, difference=words, symptom=Symptom.MISMATCH)
    kinds = kind_of(reference.dtype), kind_of(target.dtype)
    words = "" if reference.dtype == target.dtype else f"type {reference.dtype} became {target.dtype}"
    if kinds[0] != kinds[1]:
        return TensorDiff(name, False, reference.size, difference=words, symptom=Symptom.MISMATCH)
    if kinds[0] != "float":
        return _exact(name, reference, target, kinds[0], words)
    if rtol is None:
        rtol = max(default_rtol(reference.dtype), default_rtol(target.dtype))
    size = scale(reference)
    limits = _Limits(rtol, rtol * size if atol is None else atol, size, metric)
    return _close(name, reference, target, limits, words)


def default_rtol(dtype: np.dtype[Any]) -> float:
    """The relative tolerance of a float type."""
    return RTOL.get("float64" if dtype.kind == "c" else dtype.name, RTOL_NARROW)


def scale(reference: Array) -> float:
    """RMS of what is finite and no filler; 0.0 when there is nothing."""
    limit = min(FILL, 0.9 * _largest(reference.dtype))
    for bound in (limit, math.inf):  # fillers count only where there is nothing else
        rms, count = 0.0, 0
        for _, chunk in _chunks(reference):
            size = np.abs(_wide(chunk))
            used = size[np.isfinite(size) & (size < bound)]
            if used.size == 0:
                continue
            top = float(used.max()) or 1.0  # squares of large doubles would overflow
            part = top * math.sqrt(float(np.mean(np.square(used / top))))
            old, count = count, count + used.size
            rms = math.hypot(rms * math.sqrt(old / count), part * math.sqrt(used.size / count))
        if count:
            return rms
    return 0.0


def _largest(dtype: np.dtype[Any]) -> float:
    own = np.dtype(dtype.type).isbuiltin == 1  # numpy takes float8_e5m2 for kind "f", too
    known = dtype.kind in "fc" and own
    return float(np.finfo(dtype).max) if known else math.inf


def kind_of(dtype: np.dtype[Any]) -> str:
    """`float`, `int`, `bool` or `string`; types of ml_dtypes are known by their names."""
    if dtype.kind in "OUST":
        return "string"
    if dtype.kind == "b":
        return "bool"
    if dtype.kind in "iu" or dtype.name.startswith(("int", "uint")):
        return "int"
    return "float"


def _wide(chunk: Array) -> Array:
    return chunk.astype(np.complex128 if chunk.dtype.kind == "c" else np.float64)


def _chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """Start and values of pieces of at most `CHUNK` elements, in C order."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        yield start, flat[start : start + CHUNK]


def _index(position: int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if position is None else tuple(int(i) for i in np.unravel_index(position, shape))


def _exact(name: str, reference: Array, target: Array, kind: str, words: str) -> TensorDiff:
    """Integers, bools and strings: equal or not."""
    mismatches, first, largest = 0, None, 0.0
    worst = _Worst(reference.shape)
    pieces = zip(_chunks(reference), _chunks(target), strict=True)
    for (start, one), (_, other) in pieces:
        differs = np.asarray(one != other, dtype=bool)
        found = int(np.count_nonzero(differs))
        if not found:
            continue
        mismatches += found
        if first is None:
            first = start + int(np.argmax(differs))
        distance = np.full(found, math.inf)
        if kind == "int":
            distance = np.abs(_wide(other[differs]) - _wide(one[differs]))
            largest = max(largest, float(distance.max()))
        worst.add(start + np.flatnonzero(differs), distance, one[differs], other[differs])
    return TensorDiff(
        name,
        ok=mismatches == 0,
        elements=reference.size,
        mismatches=mismatches,
        first_mismatch=_index(first, reference.shape),
        max_abs=largest,
        difference=words,
        agrees_at=math.inf if mismatches else 0.0,
        worst=worst.elements(),
        symptom=Symptom.MISMATCH if mismatches else None,
    )


class _Worst:
    """The elements with the largest scores, the earliest of equal ones."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._found: list[tuple[float, int, Element]] = []

    def add(self, at: Array, score: Array, reference: Array, target: Array) -> None:
        """Offer elements by their positions."""
        for k in np.argsort(-score, kind="stable")[:WORST].tolist():
            index = _index(int(at[k]), self._shape) or ()
            one, other = (v.item() if isinstance(v, np.generic) else v for v in (reference[k], target[k]))
            numbers = isinstance(one, int | float) and isinstance(other, int | float)
            error = abs(float(other) - float(one)) if numbers else math.inf
            shown = [v if isinstance(v, int | float | str) else str(v) for v in (one, other)]
            error = error if math.isfinite(error) else math.inf
            self._found.append((-float(score[k]), int(at[k]), Element(index, shown[0], shown[1], error)))
        self._found = sorted(self._found, key=lambda item: item[:2])[:WORST]

    def elements(self) -> tuple[Element, ...]:
        """The worst first."""
        return tuple(element for _, _, element in self._found)


@dataclass(frozen=True)
class _Limits:
    rtol: float
    atol: float
    size: float  # RMS of the reference, see `scale`
    metric: str

    def accepts(self, sums: _Sums) -> bool:
        """Whether the metric is satisfied by what the finite elements add up to."""
        if sums.lost or self.metric == "max":
            return sums.mismatches == 0
        kind, _, part = self.metric.partition(":")
        if kind == "quantile":
            return sums.mismatches <= (1 - float(part)) * sums.elements
        if sums.mismatches > sums.beyond:  # NaN or Inf in one of both only
            return False
        count = max(1, sums.finite)
        if kind == "cosine":
            return 1 - _cosine(sums) <= self.rtol
        error, size = sums.distance / count, sums.size / count
        if kind == "rms":
            error, size = math.sqrt(sums.error / count), math.sqrt(sums.one / count)
        return error <= self.atol + self.rtol * size


@dataclass
class _Sums:
    """What the pieces of a float tensor add up to."""

    elements: int = 0
    finite: int = 0  # in both
    mismatches: int = 0
    beyond: int = 0  # those of them that are finite in both
    first: int | None = None
    lost: int = 0  # elements that are finite in the reference only
    max_abs: float = 0.0
    max_rel: float = 0.0
    agrees_at: float = 0.0
    distance: float = 0.0  # sums
    size: float = 0.0
    error: float = 0.0  # sums of squares, and the inner product
    one: float = 0.0
    other: float = 0.0
    inner: float = 0.0

    def add(self, start: int, one: Array, other: Array, limits: _Limits, worst: _Worst) -> None:
        finite = np.isfinite(one) & np.isfinite(other)
        agrees = (one == other) | (np.isnan(one) & np.isnan(other))
        self.elements += int(one.size)
        self.finite += int(np.count_nonzero(finite))
        self.lost += int(np.count_nonzero(np.isfinite(one) & ~np.isfinite(other)))
        a, b = one[finite], other[finite]
        distance, size = np.abs(b - a), np.abs(a)
        close = distance <= limits.atol + limits.rtol * size
        self.beyond += int(np.count_nonzero(~close & ~agrees[finite]))
        agrees[finite] |= close
        bad = int(agrees.size - np.count_nonzero(agrees))
        if bad:
            self.first = start + int(np.argmin(agrees)) if self.first is None else self.first
            wrong = np.flatnonzero(~agrees)
            score = np.abs(other[wrong] - one[wrong]) - limits.rtol * np.abs(one[wrong])
            worst.add(start + wrong, np.nan_to_num(score, nan=math.inf), one[wrong], other[wrong])
        self.mismatches += bad
        if a.size:
            self._add_finite(a, b, distance, size, limits)

    def _add_finite(self, a: Array, b: Array, distance: Array, size: Array, limits: _Limits) -> None:
        self.max_abs = max(self.max_abs, float(distance.max()))
        nonzero = size > 0
        self.max_rel = max(self.max_rel, float(np.max(distance[nonzero] / size[nonzero], initial=0.0)))
        off = distance > 0
        share = distance[off] / (size[off] + limits.size)
        self.agrees_at = max(self.agrees_at, float(np.max(share, initial=0.0)))
        self.distance += float(np.sum(distance))
        self.size += float(np.sum(size))
        self.error += float(np.sum(np.square(distance)))
        self.one += float(np.sum(np.square(size)))
        self.other += float(np.sum(np.square(np.abs(b))))
        self.inner += float(np.real(np.vdot(a, b)))


def _close(name: str, reference: Array, target: Array, limits: _Limits, words: str) -> TensorDiff:
    """Floats: close or not."""
    sums, worst = _Sums(), _Worst(reference.shape)
    nans, infs = [0, 0], [0, 0]
    with np.errstate(all="ignore"):
        for (start, one), (_, other) in zip(_chunks(reference), _chunks(target), strict=True):
            pair = _wide(one), _wide(other)
            for side, chunk in enumerate(pair):
                nans[side] += int(np.count_nonzero(np.isnan(chunk)))
                infs[side] += int(np.count_nonzero(np.isinf(chunk)))
            sums.add(start, *pair, limits, worst)
    symptom = Symptom.NOT_FINITE if sums.lost else Symptom.MISMATCH
    ok = limits.accepts(sums)
    return TensorDiff(
        name,
        ok=ok,
        elements=reference.size,
        mismatches=sums.mismatches,
        first_mismatch=_index(sums.first, reference.shape),
        max_abs=sums.max_abs,
        max_rel=sums.max_rel,
        rms_error=_ratio(math.sqrt(sums.error), math.sqrt(sums.one)),
        cosine=_cosine(sums),
        nans=(nans[0], nans[1]),
        infs=(infs[0], infs[1]),
        rtol=limits.rtol,
        atol=limits.atol,
        difference=words,
        agrees_at=math.inf if sums.mismatches > sums.beyond else sums.agrees_at,
        metric=limits.metric,
        worst=worst.elements(),
        symptom=None if ok else symptom,
    )


def _ratio(error: float, size: float) -> float:
    if size == 0:
        return 0.0 if error == 0 else math.inf
    return error / size


def _cosine(sums: _Sums) -> float:
    if sums.one == 0 or sums.other == 0:
        return 1.0 if sums.one == sums.other else 0.0
    return max(-1.0, min(1.0, sums.inner / (math.sqrt(sums.one) * math.sqrt(sums.other))))
