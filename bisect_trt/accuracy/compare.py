"""Tensors against tensors, with numpy alone.

An element agrees when `|target - reference| <= atol + rtol * |reference|`. Integers, bools and strings
have to be equal; so do NaN and infinities, which agree with themselves. When a tensor of floats agrees
is a matter of the metric:

max          all elements agree
quantile:Q   the part Q of them does, 0 < Q < 1
mean, rms    the mean of |target - reference|, or its RMS, is at most rtol * that of the reference, plus atol
             where one is given
cosine       1 - cosine of the angle between both is at most rtol
snr:D        the signal is at least D dB above the difference: 10 log10 of the sum of squares of the reference
             over that of the difference
psnr:D       the same with the largest element of the reference for every one of it, as for pictures
boxes        rows agree as a set, in any order, element by element (`accuracy.boxes`)

Whatever the metric, what is finite in the reference has to be finite in the target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec.structs import replace

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.sums import (
    Limits,
    Sums,
    Worst,
    chunks,
    cosine_of,
    index_of,
    is_same,
    ratio,
    rooms,
    wide,
)
from bisect_trt.outcome import Array, Symptom

_BY_FAR = 0.99  # of a tolerance: float32, added up in pairs, gives sums of squares to six digits
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
    brief: bool = False,
    rough: bool = False,
) -> TensorDiff:
    """Compare two tensors of any shape and type, in pieces, so that large ones cost little memory.

    Without `rtol` it follows from the less precise type of both (`RTOL`). Without `atol` it is
    `rtol` times the RMS of the reference: a tolerance at the tensor's own scale, whatever that is. With
    `brief` the diff of floats says only whether they agree, how many elements do not and the first of them,
    and how large the errors are (`max_abs`, `rms_error`): a third of the time. With `rough`, which is brief,
    too, it says no more of those that agree by far: a third of that time.
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
    brief = (brief or rough) and metric.partition(":")[0] in ("max", "quantile")  # others need more sums
    if brief:
        found = TensorDiff(name, True, reference.size, rtol=rtol, atol=atol or 0.0, metric=metric, brief=True)
        if rough and agree_by_far(reference, target, rtol, atol):
            return replace(found, rough=True)
        if is_same(reference, target):
            infs = int(np.count_nonzero(np.isinf(reference)))
            return replace(found, finite=reference.size - infs, infs=(infs, infs))
    size, squares = _scale(reference)
    limits = Limits(rtol, rtol * size if atol is None else atol, size, metric, atol or 0.0, brief)
    return _close(name, reference, target, limits, words, squares)


def agree_by_far(reference: Array, target: Array, rtol: float, atol: float | None) -> bool:
    """Return whether two tensors of float32 agree by so much that it can be told in float32.

    False says nothing: other types, fillers, NaN and Inf are left to `compare`.
    """
    if reference.dtype != np.float32 or target.dtype != np.float32 or not reference.size:
        return False
    with np.errstate(all="ignore"):
        pieces = zip(chunks(reference), chunks(target), strict=True)
        furthest = max((_size(other - one) for (_, one), (_, other) in pieces), key=_nan_first)
        if furthest == 0:
            return True
        if atol is None:
            squares = sum(float(np.sum(np.square(one))) for _, one in chunks(reference))
            atol = rtol * math.sqrt(squares / reference.size) if squares < FILL * FILL else 0.0
    return 0 < furthest <= _BY_FAR * atol


def _size(piece: Array) -> float:
    """Return the largest magnitude in a piece; NaN where there is one."""
    return max(float(piece.max()), -float(piece.min()))


def _nan_first(size: float) -> float:
    return math.inf if math.isnan(size) else size


def default_rtol(dtype: np.dtype[Any]) -> float:
    """Return the relative tolerance of a float type."""
    return RTOL.get("float64" if dtype.kind == "c" else dtype.name, RTOL_NARROW)


def scale(reference: Array) -> float:
    """Return the RMS of what is finite and no filler; 0.0 when there is nothing."""
    return _scale(reference)[0]


def _scale(reference: Array) -> tuple[float, dict[int, float]]:
    """Return it with the sums of squares of those pieces that count as a whole, by where they begin."""
    limit, [room] = min(FILL, 0.9 * _largest(reference.dtype)), rooms(reference, 1)
    for bound in (limit, math.inf):  # fillers count only where there is nothing else
        rms, count, squares = 0.0, 0, dict[int, float]()
        for start, chunk in chunks(reference):
            size = np.abs(wide(chunk, room), out=room[: chunk.size])
            top = float(size.max())
            used = size if top < bound else size[np.isfinite(size) & (size < bound)]
            if used.size == 0:
                continue
            top = top if used is size else float(used.max())
            top = top if top > 1e150 or 0 < top < 1e-150 else 1.0  # or their squares would be none
            used = used if top == 1.0 else used / top
            square = float(np.sum(np.square(used, out=used)))
            if used.size == chunk.size and top == 1.0:
                squares[start] = square
            part = top * math.sqrt(square / used.size)
            old, count = count, count + used.size
            rms = math.hypot(rms * math.sqrt(old / count), part * math.sqrt(used.size / count))
        if count:
            return rms, squares
    return 0.0, {}


def _largest(dtype: np.dtype[Any]) -> float:
    own = np.dtype(dtype.type).isbuiltin == 1  # numpy takes float8_e5m2 for kind "f", too
    known = dtype.kind in "fc" and own
    return float(np.finfo(dtype).max) if known else math.inf


def kind_of(dtype: np.dtype[Any]) -> str:
    """Return `float`, `int`, `bool` or `string`; types of ml_dtypes are known by their names."""
    if dtype.kind in "OUST":
        return "string"
    if dtype.kind == "b":
        return "bool"
    if dtype.kind in "iu" or dtype.name.startswith(("int", "uint")):
        return "int"
    return "float"


def _exact(name: str, reference: Array, target: Array, kind: str, words: str) -> TensorDiff:
    """Compare integers, bools and strings: equal or not."""
    mismatches, first, largest, relative = 0, None, 0.0, 0.0
    worst = Worst(reference.shape)
    for (start, one), (_, other) in zip(chunks(reference), chunks(target), strict=True):
        differs = np.asarray(one != other, dtype=bool)
        found = int(np.count_nonzero(differs))
        if not found:
            continue
        mismatches += found
        if first is None:
            first = start + int(np.argmax(differs))
        distance = np.full(found, math.inf)
        if kind == "int":
            sizes = np.abs(wide(one[differs]))
            distance = np.abs(wide(other[differs]) - wide(one[differs]))
            largest = max(largest, float(distance.max()))
            relative = max(relative, float(np.max(distance[sizes > 0] / sizes[sizes > 0], initial=0.0)))
        worst.add(start + np.flatnonzero(differs), distance, one[differs], other[differs])
    return TensorDiff(
        name,
        ok=mismatches == 0,
        elements=reference.size,
        mismatches=mismatches,
        first_mismatch=index_of(first, reference.shape),
        max_abs=largest,
        max_rel=relative,
        difference=words,
        agrees_at=math.inf if mismatches else 0.0,
        worst=worst.elements(),
        symptom=Symptom.MISMATCH if mismatches else None,
    )


def _close(
    name: str, reference: Array, target: Array, limits: Limits, words: str, squares: Mapping[int, float]
) -> TensorDiff:
    """Compare floats: close or not."""
    sums, worst, room = Sums(squares), Worst(reference.shape), rooms(reference, 2)
    with np.errstate(all="ignore"):
        for (start, one), (_, other) in zip(chunks(reference), chunks(target), strict=True):
            sums.add(start, wide(one, room[0]), wide(other, room[1]), limits, worst)
    symptom = Symptom.NOT_FINITE if sums.lost else Symptom.MISMATCH
    ok = limits.accepts(sums)
    return TensorDiff(
        name,
        ok=ok,
        elements=reference.size,
        mismatches=sums.mismatches,
        first_mismatch=index_of(sums.first, reference.shape),
        max_abs=sums.max_abs,
        max_rel=sums.max_rel,
        rms_error=ratio(math.sqrt(sums.error), math.sqrt(sums.one)),
        cosine=1.0 if limits.brief else cosine_of(sums),
        nans=(sums.nans[0], sums.nans[1]),
        infs=(sums.infs[0], sums.infs[1]),
        rtol=limits.rtol,
        atol=limits.atol,
        difference=words,
        agrees_at=math.inf if sums.mismatches > sums.beyond else sums.agrees_at,
        metric=limits.metric,
        finite=sums.finite,
        worst=worst.elements(),
        symptom=None if ok else symptom,
        brief=limits.brief,
    )
