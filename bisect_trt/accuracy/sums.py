"""Pieces of tensors, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from msgspec import Struct, field

from bisect_trt.accuracy.diff import Element
from bisect_trt.outcome import Array

CHUNK = 1 << 15  # elements that are held in float64 at once: what a core has near it, several times over
WORST = 5  # elements that are shown with their values


def wide(chunk: Array, room: Array | None = None) -> Array:
    """Return a piece in float64, in `room` where there is some, or complex128."""
    if room is None or chunk.dtype.kind == "c":
        return chunk.astype(np.complex128 if chunk.dtype.kind == "c" else np.float64)
    np.copyto(room[: chunk.size], chunk, casting="unsafe")
    return room[: chunk.size]


def rooms(array: Array, count: int) -> list[Array]:
    """Return room for so many pieces of a tensor in float64.

    Memory that is asked for and given back for each piece comes from the kernel each time, page by page.
    """
    return [np.empty(min(CHUNK, array.size)) for _ in range(count)]


def chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield the start and values of pieces of at most `CHUNK` elements, in C order."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        yield start, flat[start : start + CHUNK]


def is_same(one: Array, other: Array) -> bool:
    """Return whether two tensors of one shape hold the same numbers; NaN equals none."""
    if one.dtype != other.dtype or one.dtype.kind not in "fc" or np.dtype(one.dtype.type).isbuiltin != 1:
        return False
    pieces = zip(chunks(one), chunks(other), strict=True)
    return all(bool((a == b).all()) for (_, a), (_, b) in pieces)


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
        for k in largest(score, WORST):
            index = index_of(int(at[k]), self._shape) or ()
            one, other = (v.item() if isinstance(v, np.generic) else v for v in (reference[k], target[k]))
            numbers = isinstance(one, int | float) and isinstance(other, int | float)
            error = abs(float(other) - float(one)) if numbers else math.inf
            shown = [v if isinstance(v, int | float | str) else str(v) for v in (one, other)]
            error = error if math.isfinite(error) else math.inf
            self._found.append((-float(score[k]), int(at[k]), Element(index, shown[0], shown[1], error)))
        self._found = sorted(self._found, key=lambda item: item[:2])[:WORST]

    @property
    def least(self) -> float:
        """The score that an element which comes later has to exceed: of equal ones the earliest stay."""
        return -self._found[-1][0] if len(self._found) == WORST else -math.inf

    def elements(self) -> tuple[Element, ...]:
        """Return the elements that are furthest from agreeing, the worst first."""
        return tuple(element for _, _, element in self._found)


def largest(score: Array, most: int) -> list[int]:
    """Return where the largest scores are, `most` of them, the earliest of equal ones first.

    Only the few that count are sorted.
    """
    if score.size > most:
        least = np.partition(score, -most)[-most]
        few = np.flatnonzero(score >= least)
        return [int(k) for k in few[np.argsort(-score[few], kind="stable")[:most]]]
    return [int(k) for k in np.argsort(-score, kind="stable")]


class Limits(Struct, frozen=True):
    """When elements count as equal, and which metric decides."""

    rtol: float
    atol: float
    size: float  # RMS of the reference, see `scale`
    metric: str
    given: float = 0.0  # atol where one was asked for: a mean needs no floor for small elements
    brief: bool = False  # only what decides, the largest error and the squares are added up

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


class Sums(Struct):
    """What the pieces of a float tensor add up to.

    `squares` are sums of squares of pieces of the reference that are known, by where these begin.
    """

    squares: Mapping[int, float] = field(default_factory=dict)
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
    _rooms: list[Array] = field(default_factory=list)

    def add(self, start: int, one: Array, other: Array, limits: Limits, worst: Worst) -> None:
        """Take a piece of both tensors, in float64, that begins at element `start`."""
        self.elements += int(one.size)
        self._rooms = self._rooms or rooms(one, 3)
        distance, size, rest = (room[: one.size] for room in self._rooms)
        np.abs(np.subtract(other, one, out=None if one.dtype.kind == "c" else distance), out=distance)
        largest = float(distance.max())
        if not math.isfinite(largest):
            self._add_with_others(start, one, other, limits, worst)
            return
        # All is finite, as in most pieces: to pick elements takes long.
        self.finite += int(one.size)
        if largest == 0 and bool((one == other).all()):  # many operators round nothing
            self._add_equal(one)
            return
        if limits.brief and largest <= limits.atol and start in self.squares:  # as most that only decide
            self.max_abs = max(self.max_abs, largest)
            self.error += float(np.sum(np.square(distance, out=distance)))
            self.one += self.squares[start]
            return
        np.abs(one, out=size)
        close = _close(one, other, distance, size, limits, rest)
        bad = self._count_wrong(start, close)
        self.beyond += bad
        if bad and not limits.brief:
            score = np.subtract(distance, np.multiply(size, limits.rtol, out=rest), out=rest)
            np.copyto(score, -math.inf, where=close)
            at = np.flatnonzero(score > worst.least)  # -inf is none
            worst.add(start + at, score[at], one[at], other[at])
        self._add_finite(one, other, distance, size, limits, self.squares.get(start))

    def _add_with_others(self, start: int, one: Array, other: Array, limits: Limits, worst: Worst) -> None:
        """Take a piece that holds NaN or Inf, or whose differences are too large for a number."""
        known, finite = np.isfinite(one), np.isfinite(other)
        for side, chunk in enumerate((one, other)):
            self.nans[side] += int(np.count_nonzero(np.isnan(chunk)))
            self.infs[side] += int(np.count_nonzero(np.isinf(chunk)))
        self.lost += int(np.count_nonzero(known & ~finite))
        finite &= known
        self.finite += int(np.count_nonzero(finite))
        a, b = one[finite], other[finite]
        distance, size = np.abs(b - a), np.abs(a)
        close = _close(a, b, distance, size, limits, np.empty(a.size))
        self.beyond += int(np.count_nonzero(~close))
        agrees = (one == other) | (np.isnan(one) & np.isnan(other))
        agrees[finite] = close
        if self._count_wrong(start, agrees):
            wrong = np.flatnonzero(~agrees)
            score = np.abs(other[wrong] - one[wrong]) - limits.rtol * np.abs(one[wrong])
            worst.add(start + wrong, np.nan_to_num(score, nan=math.inf), one[wrong], other[wrong])
        if a.size:
            self._add_finite(a, b, distance, size, limits)

    def _count_wrong(self, start: int, agrees: Array) -> int:
        """Count the elements of a piece that do not agree, keep the first of all, and return how many."""
        bad = int(agrees.size - np.count_nonzero(agrees))
        self.mismatches += bad
        if bad and self.first is None:
            self.first = start + int(np.argmin(agrees))
        return bad

    def _add_equal(self, a: Array) -> None:
        """Do as `_add_finite` does, for two equal pieces, to the last bit."""
        size = np.abs(a)
        square = float(np.sum(np.square(size)))
        self.peak = max(self.peak, float(np.max(size, initial=0.0)))
        self.size += float(np.sum(size))
        self.one, self.other, self.inner = self.one + square, self.other + square, self.inner + square

    def _add_finite(
        self, a: Array, b: Array, distance: Array, size: Array, limits: Limits, square: float | None = None
    ) -> None:
        """Take a piece whose elements are all finite; `square` is the sum of squares of `size`, if known."""
        largest, rest = float(distance.max()), self._rooms[2][: a.size]
        self.max_abs = max(self.max_abs, largest)
        self.one += float(np.sum(np.square(size, out=rest))) if square is None else square
        if limits.brief:
            self.error += float(np.sum(np.square(distance, out=distance)))
            return
        self.peak = max(self.peak, float(size.max()))
        if self.max_abs > 0:
            self.max_rel = max(self.max_rel, _largest_ratio(distance, size, size, rest))
        self.distance += float(np.sum(distance))
        self.size += float(np.sum(size))
        self.error += float(np.sum(np.square(distance, out=rest)))
        if b.dtype.kind == "c":
            self.other += float(np.sum(np.square(np.abs(b))))
            self.inner += float(np.sum(np.real(np.conj(a) * b)))  # `vdot` waits for other threads
        else:
            self.other += float(np.sum(np.square(b, out=rest)))
            self.inner += float(np.sum(np.multiply(a, b, out=rest)))
        if largest > self.agrees_at * limits.size:  # else no element of this piece needs more
            size += limits.size
            self.agrees_at = max(self.agrees_at, _largest_ratio(distance, size, distance, rest))


def _close(one: Array, other: Array, distance: Array, size: Array, limits: Limits, room: Array) -> Array:
    """Say which elements agree, all of them finite."""
    bound = np.add(np.multiply(size, limits.rtol, out=room), limits.atol, out=room)
    close: Array = distance <= bound
    return close if close.all() else close | (one == other)


def _largest_ratio(error: Array, size: Array, counted: Array, room: Array) -> float:
    """Return the largest error over size of the elements where `counted` is above 0, else 0."""
    if size.min() > 0:  # of the others the error is 0, or there are none: to pick elements takes long
        return float(np.max(np.divide(error, size, out=room)))
    return float(np.max(np.divide(error, np.where(counted > 0, size, math.inf), out=room)))


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
