"""Pieces of tensors, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from bisect_trt.accuracy.diff import Element
from bisect_trt.outcome import Array

CHUNK = 1 << 15  # elements that are held in float64 at once: what a core has near it, several times over
WORST = 5  # elements that are shown with their values


def wide(chunk: Array) -> Array:
    """Return the it in float64, or complex128."""
    return chunk.astype(np.complex128 if chunk.dtype.kind == "c" else np.float64)


def chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield the start and values of pieces of at most `CHUNK` elements, in C order."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        yield start, flat[start : start + CHUNK]


def index_of(position: int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the index of an element that is known by its position in C order."""
    return None if position is None else tuple(int(i) for i in np.unravel_index(position, shape))


class Worst:
    """The elements with the largest scores, the earliest of equal ones."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._found: list[tuple[float, int, Element]] = []

    def add(self, at: Array, score: Array, reference: Array, target: Array) -> None:
        """Offer elements by their positions."""
        for k in _largest(score):
            index = index_of(int(at[k]), self._shape) or ()
            one, other = (v.item() if isinstance(v, np.generic) else v for v in (reference[k], target[k]))
            numbers = isinstance(one, int | float) and isinstance(other, int | float)
            error = abs(float(other) - float(one)) if numbers else math.inf
            shown = [v if isinstance(v, int | float | str) else str(v) for v in (one, other)]
            error = error if math.isfinite(error) else math.inf
            self._found.append((-float(score[k]), int(at[k]), Element(index, shown[0], shown[1], error)))
        self._found = sorted(self._found, key=lambda item: item[:2])[:WORST]

    def elements(self) -> tuple[Element, ...]:
        """Return the elements that are furthest from agreeing, the worst first."""
        return tuple(element for _, _, element in self._found)


def _largest(score: Array) -> list[int]:
    """Return where the largest scores are, the earliest of equal ones first.

    Only the few that count are sorted.
    """
    if score.size > WORST:
        least = np.partition(score, -WORST)[-WORST]
        few = np.flatnonzero(score >= least)
        return [int(k) for k in few[np.argsort(-score[few], kind="stable")[:WORST]]]
    return [int(k) for k in np.argsort(-score, kind="stable")]


@dataclass(frozen=True)
class Limits:
    """When elements count as equal, and which metric decides."""

    rtol: float
    atol: float
    size: float  # RMS of the reference, see `scale`
    metric: str
    given: float = 0.0  # atol where one was asked for: a mean needs no floor for small elements

    def accepts(self, sums: Sums) -> bool:
        """Return whether the metric is satisfied by what the finite elements add up to."""
        if sums.lost or self.metric == "max":
            return sums.mismatches == 0
        kind, _, part = self.metric.partition(":")
        if kind == "quantile":
            return sums.mismatches <= (1 - float(part)) * sums.elements
        if sums.mismatches > sums.beyond:  # NaN or Inf in one of both only
            return False
        count = max(1, sums.finite)
        if kind in ("snr", "psnr"):
            signal = sums.one if kind == "snr" else sums.peak * sums.peak * count
            return sums.error == 0 or signal >= sums.error * 10 ** (float(part) / 10)
        if kind == "cosine":
            return 1 - cosine_of(sums) <= self.rtol
        error, size = sums.distance / count, sums.size / count
        if kind == "rms":
            error, size = math.sqrt(sums.error / count), math.sqrt(sums.one / count)
        return error <= self.given + self.rtol * size


@dataclass
class Sums:
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
    peak: float = 0.0  # the largest of the reference
    nans: list[int] = field(default_factory=lambda: [0, 0])  # of the reference, of the target
    infs: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, start: int, one: Array, other: Array, limits: Limits, worst: Worst) -> None:
        """Take a piece of both tensors, in float64, that begins at element `start`."""
        known, finite = np.isfinite(one), np.isfinite(other)
        whole = bool(known.all() and finite.all())  # as most are: to pick elements takes long
        self.elements += int(one.size)
        if not whole:
            for side, chunk in enumerate((one, other)):
                self.nans[side] += int(np.count_nonzero(np.isnan(chunk)))
                self.infs[side] += int(np.count_nonzero(np.isinf(chunk)))
            self.lost += int(np.count_nonzero(known & ~finite))
            finite &= known
        self.finite += int(np.count_nonzero(finite))
        if whole and bool((one == other).all()):  # many operators round nothing
            self._add_equal(one)
            return
        a, b = (one, other) if whole else (one[finite], other[finite])
        distance, size = np.abs(b - a), np.abs(a)
        close = (distance <= limits.atol + limits.rtol * size) | (a == b)
        self.beyond += int(np.count_nonzero(~close))
        agrees = close
        if not whole:
            agrees = (one == other) | (np.isnan(one) & np.isnan(other))
            agrees[finite] = close
        bad = int(agrees.size - np.count_nonzero(agrees))
        if bad:
            self.first = start + int(np.argmin(agrees)) if self.first is None else self.first
            wrong = np.flatnonzero(~agrees)
            score = np.abs(other[wrong] - one[wrong]) - limits.rtol * np.abs(one[wrong])
            worst.add(start + wrong, np.nan_to_num(score, nan=math.inf), one[wrong], other[wrong])
        self.mismatches += bad
        if a.size:
            self._add_finite(a, b, distance, size, limits)

    def _add_equal(self, a: Array) -> None:
        """The same as `_add_finite` for two equal pieces, to the last bit."""
        size = np.abs(a)
        square = float(np.sum(np.square(size)))
        self.peak = max(self.peak, float(np.max(size, initial=0.0)))
        self.size += float(np.sum(size))
        self.one, self.other, self.inner = self.one + square, self.other + square, self.inner + square

    def _add_finite(self, a: Array, b: Array, distance: Array, size: Array, limits: Limits) -> None:
        self.max_abs = max(self.max_abs, float(distance.max()))
        self.peak = max(self.peak, float(size.max()))
        if self.max_abs > 0:
            nothing = np.zeros_like(distance)
            relative = np.divide(distance, size, out=nothing, where=size > 0)
            self.max_rel = max(self.max_rel, float(relative.max()))
            nothing = np.zeros_like(distance)
            relative = np.divide(distance, size + limits.size, out=nothing, where=distance > 0)
            self.agrees_at = max(self.agrees_at, float(relative.max()))
        self.distance += float(np.sum(distance))
        self.size += float(np.sum(size))
        self.error += float(np.sum(np.square(distance)))
        self.one += float(np.sum(np.square(size)))
        self.other += float(np.sum(np.square(np.abs(b))))
        self.inner += float(np.sum(np.real(np.conj(a) * b)))  # `vdot` waits for other threads


def ratio(error: float, size: float) -> float:
    """Return `error` over `size`, where nothing over nothing is 0."""
    if size == 0:
        return 0.0 if error == 0 else math.inf
    return error / size


def cosine_of(sums: Sums) -> float:
    """Return the cosine of the angle between both tensors; 1 if both are 0, 0 if one is."""
    if sums.one == 0 or sums.other == 0:
        return 1.0 if sums.one == sums.other else 0.0
    return max(-1.0, min(1.0, sums.inner / (math.sqrt(sums.one) * math.sqrt(sums.other))))
