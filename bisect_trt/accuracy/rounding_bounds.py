"""What rounding explains: how large the errors of one operator may be in a given arithmetic.

A sum of n products is off by at most lambda * sqrt(n) * u * |A||B| with a probability that does not depend on
n: Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41(5),
2019, theorem 2.4. The worst case, n * u * |A||B| (Higham 2002, section 3.5), says nothing in TF32 or FP16.
What is no sum is rounded once, or made of steps each of which is. Through what follows an error goes as a
perturbation does: `references.noise` runs the model with errors of this size put in at every step (a running
error analysis, by Parker's Monte Carlo arithmetic), so that cancellation, thresholds and large exponents show
by themselves.

tests/test_rounding.py holds these bounds against runs in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bisect_trt.accuracy.arithmetic import FP16, FP32, Arithmetic
from bisect_trt.accuracy.operators import BOUNDED, EXACT, INNER_SUMS, ONCE, PLACED, SUMS, products
from bisect_trt.outcome import Array

LAMBDA = 2.0
"""Errors that are put in at every step are so many times the roundoff; what comes out: `SPREAD`, `FACTOR`."""

FACTOR = 2.0
"""An error counts as explained up to so many times what the noise does: target and reference both round."""

SPREAD = 2.0
"""Times the RMS over all runs, where that is more than the largest deviation seen: a run may be lucky."""

FLUSHED = 2.0**-126
"""Numbers that many targets take for 0."""

FUNCTION = 8.0
"""Roundoffs that an implementation of exp, tanh, erf and the like is granted."""


def unit_of(arithmetic: Arithmetic, dtype: np.dtype[Any]) -> float:
    """Return the unit roundoff of a tensor of a type of the model; the target's own where that is wider."""
    own = {"float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype.name, 2.0**-24)
    return own if dtype.name == "float64" and not arithmetic.narrow else max(own, arithmetic.unit)


def rounding(arithmetic: Arithmetic, value: Array, unit: float) -> Array:
    """Return what rounding to the format of a tensor, or to a unit roundoff, does to each value."""
    value = np.asarray(value, np.float64)
    finite = np.abs(value)[np.isfinite(value)]
    scale = float(np.max(finite, initial=0.0))
    with np.errstate(all="ignore"):
        if arithmetic.step and not unit:
            step = 2 * arithmetic.step * scale or 1.0
            kept = np.round(value / step) * step
        elif arithmetic is FP16:
            kept = value.astype(np.float16).astype(np.float64)
        else:
            kept = _leading(value, unit)
        error: Array = np.where(np.isfinite(kept), kept - value, 0.0)
    return error


def stored(arithmetic: Arithmetic, value: Array) -> Array:
    """Return the error with which a tensor arrives on the target: zero where it fits into its type."""
    value = np.asarray(value, np.float64)
    if not arithmetic.narrow:
        return np.zeros_like(value)
    error = np.minimum(_rounded_once(arithmetic, value), np.maximum(FP32.largest - np.abs(value), 0.0))
    exact = (rounding(arithmetic, value, arithmetic.unit) == 0) & ~(np.abs(value) > arithmetic.largest)
    return error if arithmetic.step else np.where(exact, 0.0, error)


def computed(
    arithmetic: Arithmetic,
    op: str,
    output: Array,
    *,
    magnitude: Array | None = None,
    terms: int = 1,
    reach: int = 1,
    whole: bool = False,
) -> Array:
    """Return the error of each element that an operator makes, given exact inputs; `LAMBDA` times a rounding.

    Args:
        arithmetic: of the target.
        op: ONNX operator.
        output: its value on the reference.
        magnitude: |A||B|, for sums.
        terms: length of its sums.
        reach: largest coordinate, for `PLACED` ones.
        whole: all that goes in is made of integers, and so is what comes out: exact while it fits.
    """
    value = np.asarray(output, np.float64)
    unit, own = (unit_of(one, np.asarray(output).dtype) for one in (arithmetic, FP32))
    inner = FP32.unit if arithmetic.step else max(arithmetic.sums, own) if arithmetic.narrow else own
    size = np.abs(value) if magnitude is None else np.abs(np.asarray(magnitude, np.float64))
    exact = op in EXACT
    if whole and op in SUMS:
        exact = bool(np.max(size, initial=0.0) < 1 / max(inner, unit))
    elif whole and op in ONCE:
        exact = bool(np.max(np.abs(value), initial=0.0) < 1 / max(unit, FP32.unit))
    if arithmetic.step > 0:  # what comes out is rounded to a grid, however exact it is
        error = _rounded_once(arithmetic, value)
    else:
        error = LAMBDA * unit * np.abs(value) + (arithmetic.tiny if arithmetic.narrow else 0.0)
    if exact:
        return error if arithmetic.step > 0 else np.zeros_like(value)
    if op in SUMS:
        return error + LAMBDA * inner * size * (math.sqrt(terms) + (reach if op in PLACED else 0))
    if op in ONCE:
        return error
    bound = np.minimum(1.0, np.max(np.abs(value), initial=0.0)) if op in BOUNDED else 0.0
    return error + FUNCTION * inner * (np.abs(value) + bound)


def entering(arithmetic: Arithmetic, op: str, slot: int, value: Array, terms: int) -> Array | None:
    """Return the error of an operator's inputs: rounded there, or by inner steps; None if there is none."""
    size = np.abs(np.asarray(value, np.float64))
    if arithmetic.products and slot < products(op):
        return LAMBDA * arithmetic.products * size
    if op in EXACT or op in ONCE or op in SUMS or (op == "Pow" and slot == 1):
        return None
    inner = FP32.unit if arithmetic.step else arithmetic.sums
    inner = 2.0**-53 if np.asarray(value).dtype == np.float64 and not arithmetic.narrow else inner
    return LAMBDA * inner * (math.sqrt(terms) if op in INNER_SUMS else 1.0) * size


def _rounded_once(arithmetic: Arithmetic, value: Array) -> Array:
    """Return twice the largest error of a rounding to the format of a tensor."""
    size = np.abs(value)
    finite = size[np.isfinite(size)]
    shared = arithmetic.step * float(np.max(finite, initial=0.0))
    tiny = arithmetic.tiny if arithmetic.step == 0 else 0.0
    error: Array = LAMBDA * (arithmetic.unit * size + shared + tiny)
    return error


def _leading(value: Array, unit: float) -> Array:
    """Return values with as many leading bits as a unit roundoff of `unit` leaves."""
    fraction, exponent = np.frexp(value)
    scale = 0.5 / unit
    rounded: Array = np.ldexp(np.round(fraction * scale * 2) / (scale * 2), exponent)
    return rounded
