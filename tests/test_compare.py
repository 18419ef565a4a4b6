"""Comparison against brute force, and where the answer is known."""

from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bisect_trt.accuracy.sums
from bisect_trt.accuracy.compare import TensorDiff, agree_by_far, compare, scale
from bisect_trt.accuracy.tolerance import differences, failing_samples
from bisect_trt.outcome import Symptom
from bisect_trt.settings import AccuracySettings

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def pairs(draw: st.DrawFn, dtype: str = "float32") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    shape = draw(SHAPES)
    elements = hnp.from_dtype(np.dtype(dtype))
    one = draw(hnp.arrays(dtype, shape, elements=elements))
    other = draw(hnp.arrays(dtype, shape, elements=elements))
    keep = draw(hnp.arrays(bool, shape))
    return one, np.where(keep, one, other).astype(dtype)


def brute(one: float, other: float, rtol: float, atol: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    if math.isinf(one) or math.isinf(other):
        return one == other
    return abs(other - one) <= atol + rtol * abs(one)


@given(pairs(), st.floats(0, 1), st.floats(0, 1))
def test_floats_agree_with_brute_force(pair: tuple[Any, Any], rtol: float, atol: float) -> None:
    one, other = pair
    diff = compare("t", one, other, rtol=rtol, atol=atol)
    flat = list(zip(one.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True))
    bad = [k for k, (a, b) in enumerate(flat) if not brute(a, b, rtol, atol)]
    lost = any(math.isfinite(a) and not math.isfinite(b) for a, b in flat)
    assert diff.ok == (not bad) and diff.mismatches == len(bad) and diff.elements == one.size
    assert diff.symptom == ((Symptom.NOT_FINITE if lost else Symptom.MISMATCH) if bad else None)
    if bad:
        assert diff.first_mismatch == np.unravel_index(bad[0], one.shape)
        assert diff.describe().startswith("t: ")
    finite = [(a, b) for a, b in flat if math.isfinite(a) and math.isfinite(b)]
    assert diff.max_abs == max((abs(b - a) for a, b in finite), default=0.0)
    assert diff.nans == (int(np.isnan(one).sum()), int(np.isnan(other).sum()))
    assert diff.infs == (int(np.isinf(one).sum()), int(np.isinf(other).sum()))
    assert json.loads(json.dumps(diff.to_json(), allow_nan=False)) == diff.to_json()


@given(pairs())
def test_exact_equality_is_symmetric(pair: tuple[Any, Any]) -> None:
    one, other = pair
    there = compare("t", one, other, rtol=0, atol=0)
    back = compare("t", other, one, rtol=0, atol=0)
    assert there.ok == back.ok and there.mismatches == back.mismatches
    assert there.ok == np.array_equal(one, other, equal_nan=True)


@given(pairs("int64"))
def test_integers_are_exact(pair: tuple[Any, Any]) -> None:
    one, other = pair
    diff = compare("t", one, other, rtol=1, atol=1e9)
    assert diff.ok == np.array_equal(one, other) and diff.mismatches == int((one != other).sum())


@given(pairs())
def test_a_tensor_agrees_with_itself(pair: tuple[Any, Any]) -> None:
    one, _ = pair
    assert compare("t", one, one.copy()).ok


def test_integers_that_double_cannot_tell_apart() -> None:
    assert compare("t", np.array([2**53]), np.array([2**53 + 1])).mismatches == 1


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 40])
def test_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rng = np.random.default_rng(size)
    one = rng.normal(size=(size,)).astype("f4")
    other = one + (rng.random(size) < 0.3) * np.float32(0.5)
    whole = compare("t", one, other)
    monkeypatch.setattr(bisect_trt.accuracy.sums, "CHUNK", 8)
    pieces = compare("t", one, other)
    assert (whole.mismatches, whole.first_mismatch, whole.max_abs) == (
        pieces.mismatches,
        pieces.first_mismatch,
        pieces.max_abs,
    )
    assert pieces.rms_error == pytest.approx(whole.rms_error) and pieces.atol == pytest.approx(whole.atol)


@pytest.mark.parametrize("dtype", ["f4", "i8"])
def test_the_first_mismatch_may_be_far_in(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(bisect_trt.accuracy.sums, "CHUNK", 8)
    one = np.zeros((4, 10), dtype)
    other = one.copy()
    other[3, 5:] = 9
    diff = compare("t", one, other)
    assert diff.first_mismatch == (3, 5) and diff.mismatches == 5 and diff.max_abs == 9


def test_metrics() -> None:
    diff = compare("t", np.array([3.0, 4.0]), np.array([3.0, 5.0]), rtol=0, atol=0.5)
    assert diff.max_abs == 1 and diff.max_rel == 0.25 and diff.first_mismatch == (1,)
    assert diff.rms_error == pytest.approx(1 / 5)
    assert diff.cosine == pytest.approx(29 / (5 * math.sqrt(34)))


def test_shape_and_type() -> None:
    shape = compare("t", np.zeros((2, 3)), np.zeros((3, 2)))
    assert not shape.ok and shape.symptom is Symptom.MISMATCH and "[2, 3] became [3, 2]" in shape.difference
    kind = compare("t", np.zeros(2, "f4"), np.zeros(2, "i4"))
    assert not kind.ok and "float32 became int32" in kind.describe()
    width = compare("t", np.ones(2, "f4"), np.ones(2, "f2"))
    assert width.ok and "float32 became float16" in width.difference


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_floats(dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    one = np.array([1.0, 2.0, -3.0]).astype(kind)
    wrong = np.array([1.0, 2.0, 3.0]).astype(kind)
    assert compare("t", one, one).ok
    diff = compare("t", one, wrong)
    assert diff.mismatches == 1 and diff.first_mismatch == (2,) and diff.max_abs == 6
    nan = np.array([1.0, float("nan"), -3.0]).astype(kind)
    assert compare("t", one, nan).symptom is Symptom.NOT_FINITE
    assert compare("t", nan, nan).ok


def test_int4_bools_and_strings() -> None:
    four = np.array([-8, 7]).astype(ml_dtypes.int4)
    assert compare("t", four, four).ok and compare("t", four, four[::-1]).mismatches == 2
    assert compare("t", np.array([True, False]), np.array([True, True])).mismatches == 1
    words = np.array(["a", "b"], dtype=object)
    assert compare("t", words, words).ok and compare("t", words, words[::-1]).mismatches == 2


def test_default_tolerance_follows_type_and_scale() -> None:
    rng = np.random.default_rng(0)
    for size in (1e-6, 1.0, 1e4):
        one = (rng.normal(size=1000) * size).astype("f4")
        assert compare("t", one, one + np.float32(size * 5e-3)).ok  # TF32
        assert not compare("t", one, one + np.float32(size * 0.05)).ok
        assert not compare("t", one, np.zeros_like(one)).ok


@pytest.mark.parametrize("fill", [np.finfo("f4").min, -1e9, -np.inf])
def test_fillers_do_not_widen_the_tolerance(fill: float) -> None:
    one = np.array([fill, fill, 0.5, 1.0], "f4")
    assert scale(one) == pytest.approx(math.sqrt(0.625))
    assert not compare("t", one, np.array([fill, fill, 1.0, 0.5], "f4")).ok


def test_large_doubles_do_not_overflow_into_agreement() -> None:
    one = np.full(4, 1e300)
    assert scale(one) == pytest.approx(1e300)
    assert not compare("t", one, one * 2).ok


def test_scalars_and_nothing() -> None:
    assert compare("t", np.float32(1), np.float32(2)) == compare("t", np.float32(1), np.float32(2))
    assert compare("t", np.array(1.0), np.array(2.0)).first_mismatch == ()
    empty = compare("t", np.zeros((0, 3)), np.zeros((0, 3)))
    assert empty == TensorDiff("t", True, rtol=empty.rtol)


def test_a_filler_is_one_in_any_byte_order() -> None:
    """`newbyteorder` gives types that equal numpy's own but say that they are none of these."""
    odd: Any = np.dtype(np.float16).newbyteorder("=")
    assert scale(np.array([1, 1, -65504]).astype(odd)) == 1.0


@pytest.mark.parametrize("metric", ["mean", "rms"])
@pytest.mark.parametrize("error", [0.9, 1.1])
def test_a_mean_error_is_held_to_rtol_and_no_more(metric: str, error: float) -> None:
    """The floor that single small elements have would double what was asked for."""
    reference = np.where(np.arange(1000) % 2, 1.0, -1.0)
    diff = compare("y", reference, reference + error * 1e-3, rtol=1e-3, metric=metric)
    assert diff.ok is (error < 1)
    assert compare("y", reference, reference + error * 1e-3, rtol=0.0, atol=2e-3, metric=metric).ok


def test_a_line_for_people_leaves_out_what_was_not_computed() -> None:
    """FP16's overflow has no cosine, integers have no RMS."""
    big = compare("y", np.full((1, 1), 4494400.0, np.float32), np.full((1, 1), np.inf, np.float32))
    assert big.describe() == "y: [0, 0] is inf, not 4494400.0; 1 of 1 elements differ; Inf 0 -> 1"
    small = compare("y", np.array([4, 7], np.uint8), np.array([255, 7], np.uint8))
    said = "y: [0] is 255, not 4; 1 of 2 elements differ; max abs 251, max rel 62.8"
    assert small.describe() == said and small.max_rel == 62.75
    words = compare("y", np.array(["a", "b"]), np.array(["a", "c"]))
    assert words.describe() == "y: [1] is c, not b; 1 of 2 elements differ"
    usual = compare("y", np.ones(4, np.float32), np.full(4, 2, np.float32)).describe()
    assert "max abs 1, max rel 1, RMS error / RMS 1, cosine 1.000000" in usual and "NaN" not in usual


@given(pairs(), st.sampled_from(["max", "quantile:0.9", "cosine", "rms"]))
def test_what_is_said_briefly_is_the_same(
    pair: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], metric: str
) -> None:
    whole, brief = (compare("t", *pair, rtol=1e-3, metric=metric, brief=short) for short in (False, True))
    assert brief.describe().startswith("t agrees" if whole.ok else "t: ")
    for name in ("ok", "symptom", "mismatches", "first_mismatch", "nans", "infs", "max_abs", "rms_error"):
        one, other = getattr(whole, name), getattr(brief, name)
        assert one == other or (one != one and other != other), name


NEAR = st.sampled_from([0.0, 1e-45, 1e-30, 1e-9, 1e-6, 1e-3, 0.3, 1.0, 30.0])


@given(pairs(), NEAR, NEAR, st.sampled_from([None, 0.0, 1e-30, 1.0]), st.sampled_from([1e-38, 1.0, 1e8]))
def test_what_agrees_by_far_agrees(
    pair: tuple[Any, Any], near: float, rtol: float, atol: float | None, size: float
) -> None:
    with np.errstate(all="ignore"):
        one, sign = pair[0] * np.float32(size), np.sign(pair[1])
        for target in (pair[1], one + sign * np.float32(near * size), one * (1 + sign * np.float32(near))):
            if agree_by_far(one, target, rtol, atol):
                assert compare("t", one, target, rtol=rtol, atol=atol).ok


def test_what_agrees_by_far_is_told_from_what_does_not() -> None:
    one = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    far, filled = one.copy(), np.append(one, np.float32(3e9))
    far[70_000] += 2e-3
    assert agree_by_far(one, one, 1e-4, 0.0) and agree_by_far(one, one * np.float32(1.0001), 1e-3, None)
    assert not agree_by_far(one, far, 1e-3, None) and agree_by_far(one, far, 1e-3, 3e-3)
    assert not agree_by_far(filled, filled + 1e3, 1e-3, None)
    for wrong in (np.nan, np.inf):
        far[70_000] = wrong
        assert not agree_by_far(one, far, 1e-3, 1.0) and not agree_by_far(far, far, 1e-3, 1.0)
    rough, plain = (compare("t", one, one * np.float32(1.0001), rtol=1e-3, rough=k) for k in (True, False))
    assert rough.ok and rough.rough and not plain.rough and "rough" not in rough.to_json()


def test_of_many_tensors_the_first_have_all_figures() -> None:
    """Those that come first, and the first with each symptom; the order is that of all figures."""
    rng = np.random.default_rng(0)
    right = {f"t{k}": rng.standard_normal(50) for k in range(30)}
    given_ = {name: right[name] + rng.standard_normal(50) * (k % 5) for k, name in enumerate(right)}
    for k in range(4):
        given_[f"t{k}"] = np.full(50, math.nan)
    whole = differences([right], [given_], AccuracySettings())
    found = differences([right], [given_], AccuracySettings(), full=3)
    assert [diff.name for diff in found] == [diff.name for diff in whole]
    full = [k for k, diff in enumerate(found) if not diff.brief]
    first = [next(k for k, d in enumerate(whole) if d.symptom is s) for s in (Symptom.MISMATCH, None)]
    assert full == [0, 1, 2, *first] and [repr(found[k]) for k in full] == [repr(whole[k]) for k in full]
    assert failing_samples([right, right], [right, given_], AccuracySettings()) == [1]
