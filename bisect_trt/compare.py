"""Tensors against tensors, with numpy alone.

An element agrees when `|target - reference| <= atol + rtol * |reference|`. Integers, bools and strings
have to be equal; so do NaN and infinities, which agree with themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bisect_trt.outcome import Symptom

Array = npt.NDArray[Any]

CHUNK = 1 << 20  # elements that are held in float64 at once
FILL = 1e9  # what is larger is taken for a filler (attention masks), not for the scale of a tensor

# Relative tolerance by type. TensorRT multiplies float32 in TF32 unless told otherwise, whose 10 bits are
# those of float16: measured on 24 MatMuls, 1.1e-3 of RMS on average and five times that for single
# elements. bfloat16 has 7 bits. A real fault is seldom smaller; who knows better gives a tolerance.
RTOL = {"float64": 1e-4, "float32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}
RTOL_NARROW = 2.5e-1  # float8 and narrower: 2 or 3 bits


@dataclass(frozen=True)
class TensorDiff:
    """How the target's tensor differs from the reference's.

    Attributes:
        name: of the tensor.
        ok: whether all elements agree, and shape and kind of type do.
        elements: of the reference.
        mismatches: elements that do not agree.
        first_mismatch: index of the first one, in C order.
        max_abs: largest absolute difference where both are finite.
        max_rel: largest difference over |reference|, where both are finite and that is not 0.
        rms_error: RMS of the difference over RMS of the reference, where both are finite.
        cosine: of the angle between both, where both are finite; 1.0 if both are 0.
        nans, infs: (reference, target).
        rtol, atol: that were used.
        difference: of shape or type, in words.
        symptom: NOT_FINITE when the target is not finite somewhere where the reference is, MISMATCH
            for anything else; None when ok.
    """

    name: str
    ok: bool
    elements: int = 0
    mismatches: int = 0
    first_mismatch: tuple[int, ...] | None = None
    max_abs: float = 0.0
    max_rel: float = 0.0
    rms_error: float = 0.0
    cosine: float = 1.0
    nans: tuple[int, int] = (0, 0)
    infs: tuple[int, int] = (0, 0)
    rtol: float = 0.0
    atol: float = 0.0
    difference: str = ""
    symptom: Symptom | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data, the same after a round trip; infinite and undefined figures as strings."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        odd = {k: str(v) for k, v in plain.items() if isinstance(v, float) and not math.isfinite(v)}
        return {**plain, **odd, "symptom": self.symptom.value if self.symptom else None}

    def describe(self) -> str:
        """One line for people."""
        if self.ok:
            return f"{self.name} agrees (largest difference {self.max_abs:.3g})"
        if self.mismatches == 0:
            return f"{self.name}: {self.difference}"
        at = list(self.first_mismatch or ())
        text = f"{self.name}: {self.mismatches} of {self.elements} elements differ, the first at {at}"
        text += f"; max abs {self.max_abs:.3g}, max rel {self.max_rel:.3g}"
        text += f", RMS error / RMS {self.rms_error:.3g}, cosine {self.cosine:.6f}"
        if any(self.nans) or any(self.infs):
            text += f"; NaN {self.nans[0]} -> {self.nans[1]}, Inf {self.infs[0]} -> {self.infs[1]}"
        return f"{text}; {self.difference}" if self.difference else text


def compare(
    name: str, reference: Array, target: Array, *, rtol: float | None = None, atol: float | None = None
) -> TensorDiff:
    """Compare two tensors of any shape and type, in pieces, so that large ones cost little memory.

    Without `rtol` it follows from the less precise type of both (`RTOL`). Without `atol` it is
    `rtol` times the RMS of the reference: a tolerance at the tensor's own scale, whatever that is.
    """
    reference, target = np.asarray(reference), np.asarray(target)
    if reference.shape != target.shape:
        words = f"shape {list(reference.shape)} became {list(target.shape)}"
        return TensorDiff(name, False, reference.size, difference=words, symptom=Symptom.MISMATCH)
    kinds = _kind(reference.dtype), _kind(target.dtype)
    words = "" if reference.dtype == target.dtype else f"type {reference.dtype} became {target.dtype}"
    if kinds[0] != kinds[1]:
        return TensorDiff(name, False, reference.size, difference=words, symptom=Symptom.MISMATCH)
    if kinds[0] != "float":
        return _exact(name, reference, target, kinds[0], words)
    if rtol is None:
        rtol = max(default_rtol(reference.dtype), default_rtol(target.dtype))
    if atol is None:
        atol = rtol * scale(reference)
    return _close(name, reference, target, rtol, atol, words)


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
    known = dtype.kind in "fc" and dtype.isbuiltin == 1  # numpy takes float8_e5m2 for kind "f", too
    return float(np.finfo(dtype).max) if known else math.inf


def _kind(dtype: np.dtype[Any]) -> str:
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
    pieces = zip(_chunks(reference), _chunks(target), strict=True)
    for (start, one), (_, other) in pieces:
        differs = np.asarray(one != other, dtype=bool)
        found = int(np.count_nonzero(differs))
        if not found:
            continue
        mismatches += found
        if first is None:
            first = start + int(np.argmax(differs))
        if kind == "int":
            distance = np.abs(_wide(other[differs]) - _wide(one[differs]))
            largest = max(largest, float(distance.max()))
    return TensorDiff(
        name,
        ok=mismatches == 0,
        elements=reference.size,
        mismatches=mismatches,
        first_mismatch=_index(first, reference.shape),
        max_abs=largest,
        difference=words,
        symptom=Symptom.MISMATCH if mismatches else None,
    )


@dataclass
class _Sums:
    """What the pieces of a float tensor add up to."""

    mismatches: int = 0
    first: int | None = None
    lost: int = 0  # elements that are finite in the reference only
    max_abs: float = 0.0
    max_rel: float = 0.0
    error: float = 0.0  # sums of squares, and the inner product
    one: float = 0.0
    other: float = 0.0
    inner: float = 0.0

    def add(self, start: int, one: Array, other: Array, rtol: float, atol: float) -> None:
        finite = np.isfinite(one) & np.isfinite(other)
        agrees = (one == other) | (np.isnan(one) & np.isnan(other))
        self.lost += int(np.count_nonzero(np.isfinite(one) & ~np.isfinite(other)))
        a, b = one[finite], other[finite]
        distance, size = np.abs(b - a), np.abs(a)
        agrees[finite] |= distance <= atol + rtol * size
        bad = int(agrees.size - np.count_nonzero(agrees))
        if bad and self.first is None:
            self.first = start + int(np.argmin(agrees))
        self.mismatches += bad
        if a.size:
            self.max_abs = max(self.max_abs, float(distance.max()))
            nonzero = size > 0
            self.max_rel = max(self.max_rel, float(np.max(distance[nonzero] / size[nonzero], initial=0.0)))
            self.error += float(np.sum(np.square(distance)))
            self.one += float(np.sum(np.square(size)))
            self.other += float(np.sum(np.square(np.abs(b))))
            self.inner += float(np.real(np.vdot(a, b)))


def _close(name: str, reference: Array, target: Array, rtol: float, atol: float, words: str) -> TensorDiff:
    """Floats: close or not."""
    sums = _Sums()
    nans, infs = [0, 0], [0, 0]
    with np.errstate(all="ignore"):
        for (start, one), (_, other) in zip(_chunks(reference), _chunks(target), strict=True):
            pair = _wide(one), _wide(other)
            for side, chunk in enumerate(pair):
                nans[side] += int(np.count_nonzero(np.isnan(chunk)))
                infs[side] += int(np.count_nonzero(np.isinf(chunk)))
            sums.add(start, *pair, rtol, atol)
    symptom = Symptom.NOT_FINITE if sums.lost else Symptom.MISMATCH
    return TensorDiff(
        name,
        ok=sums.mismatches == 0,
        elements=reference.size,
        mismatches=sums.mismatches,
        first_mismatch=_index(sums.first, reference.shape),
        max_abs=sums.max_abs,
        max_rel=sums.max_rel,
        rms_error=_ratio(math.sqrt(sums.error), math.sqrt(sums.one)),
        cosine=_cosine(sums),
        nans=(nans[0], nans[1]),
        infs=(infs[0], infs[1]),
        rtol=rtol,
        atol=atol,
        difference=words,
        symptom=symptom if sums.mismatches else None,
    )


def _ratio(error: float, size: float) -> float:
    if size == 0:
        return 0.0 if error == 0 else math.inf
    return error / size


def _cosine(sums: _Sums) -> float:
    if sums.one == 0 or sums.other == 0:
        return 1.0 if sums.one == sums.other else 0.0
    return max(-1.0, min(1.0, sums.inner / (math.sqrt(sums.one) * math.sqrt(sums.other))))
