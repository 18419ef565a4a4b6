"""Which tolerance holds for which tensor, and the comparison of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from bisect_trt.accuracy.boxes import in_order
from bisect_trt.accuracy.compare import RTOL, RTOL_NARROW, compare, default_rtol, kind_of, scale
from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.outcome import Array, Failure, Stage, Symptom, Values
from bisect_trt.settings import AccuracySettings, TargetSettings

PRECISIONS = {"fp16": RTOL["float16"], "bf16": RTOL["bfloat16"], "tf32": RTOL["float32"]}
PRECISIONS |= {"fp8": RTOL_NARROW, "int8": RTOL["bfloat16"]}
BOXES = "boxes"
ALONE = "outputs differ"
LOST = "outputs are not finite"
OTHER_KIND = "outputs differ in shape or type"


def precision_rtol(target: TargetSettings) -> float:
    """Return the least default tolerance of a target whose precision is not that of its tensors."""
    name, _, argument = target.spec.partition(":")
    emulated = argument if name == "emulate" else ""
    return PRECISIONS.get((target.precision or emulated).lower(), 0.0)


def differences(
    expected: Values,
    given: Values,
    accuracy: AccuracySettings,
    least: float = 0.0,
    full: int | None = None,
    rough: bool = False,
) -> list[TensorDiff]:
    """Compare every tensor of every sample with its reference; disagreeing ones come first, the worst first.

    `least` is the smallest default of rtol, see `precision_rtol`. A tensor that the target does not give
    is a difference, as are another shape and another kind of type. Where there are more tensors than `full`
    only the first so many, and the first with each symptom, get all figures: see `compare`, `brief`; with
    `rough` the others that agree by far get none.
    """

    brief = full is not None and len(expected) * len(expected[0] if expected else ()) > full
    found = _compared(expected, given, accuracy, least, brief, rough and brief)
    if brief:
        first = {diff.symptom: k for k, diff in reversed([*enumerate(found)])}
        for k in {*range(min(full or 0, len(found))), *first.values()}:
            name, sample = found[k].name, found[k].sample
            full_diff = _difference(name, expected[sample][name], given[sample].get(name), accuracy, least)
            found[k] = replace(full_diff, sample=sample)
    return found


def failing_samples(
    expected: Values, given: Values, accuracy: AccuracySettings, least: float = 0.0
) -> list[int]:
    """Return the samples in which a tensor differs, see `differences`."""
    return sorted({d.sample for d in _compared(expected, given, accuracy, least, True, True) if not d.ok})


def _compared(
    expected: Values, given: Values, accuracy: AccuracySettings, least: float, brief: bool, rough: bool
) -> list[TensorDiff]:
    found = [
        replace(_difference(name, value, got.get(name), accuracy, least, brief, rough), sample=sample)
        for sample, (values, got) in enumerate(zip(expected, given, strict=False))
        for name, value in values.items()
        if name not in accuracy.ignore
    ]
    return sorted(found, key=lambda diff: (diff.ok, diff.symptom is not Symptom.NOT_FINITE, -diff.damage))


def _difference(
    name: str,
    value: Array,
    given: Array | None,
    accuracy: AccuracySettings,
    least: float,
    brief: bool = False,
    rough: bool = False,
) -> TensorDiff:
    if given is None:
        words = "the target gives no such output"
        return TensorDiff(name, False, value.size, difference=words, symptom=Symptom.MISMATCH)
    ranks = dict(accuracy.topk).get(name)
    if ranks is not None and value.shape == given.shape:
        return best_agree(name, value, given, ranks)
    rtol, atol = _given(name, accuracy.rtol), _given(name, accuracy.atol)
    if rtol is None and least and value.dtype.kind == "f":
        rtol = max(least, RTOL.get(value.dtype.name, RTOL_NARROW))
    if atol is not None and rtol is None:
        rtol = 0.0  # who gives an absolute tolerance means that one
    if accuracy.metric != BOXES:
        metric = accuracy.metric
        return compare(name, value, given, rtol=rtol, atol=atol, metric=metric, brief=brief, rough=rough)
    if value.shape == given.shape and kind_of(value.dtype) in ("float", "int"):
        near = max(default_rtol(value.dtype), least) if rtol is None else rtol
        exact = kind_of(value.dtype) == "int"
        far = (near * scale(value) if atol is None else atol) if not exact else 0.0
        given = in_order(value, given, 0.0 if exact else near, far)
    return compare(name, value, given, rtol=rtol, atol=atol, brief=brief)


def _given(name: str, values: tuple[tuple[str, float], ...]) -> float | None:
    known = dict(values)
    return known.get(name, known.get(""))


def best_agree(name: str, reference: Array, target: Array, count: int) -> TensorDiff:
    """Say whether the `count` best along the last axis are the same, in any order.

    Scores (floats): the target's best elements have to be among the reference's best; of elements that are
    equal in the reference any may be taken. Integers are indices already: the first `count` are compared.
    """
    rows = reference.reshape(-1, reference.shape[-1] if reference.ndim else 1)
    others = target.reshape(rows.shape)
    count = min(count, rows.shape[1])
    if reference.dtype.kind in "iu":
        first, second = np.sort(rows[:, :count], axis=1), np.sort(others[:, :count], axis=1)
        wrong = first != second
    else:
        with np.errstate(invalid="ignore"):
            least = np.sort(rows.astype(np.float64), axis=1)[:, rows.shape[1] - count, None]
            best = np.argsort(-others.astype(np.float64), axis=1, kind="stable")[:, :count]
        wrong = ~(np.take_along_axis(rows.astype(np.float64), best, axis=1) >= least)
        wrong |= ~np.isfinite(np.take_along_axis(others.astype(np.float64), best, axis=1))
    bad = int(np.count_nonzero(wrong))
    return TensorDiff(
        name,
        ok=bad == 0,
        elements=int(wrong.size),
        mismatches=bad,
        first_mismatch=tuple(int(i) for i in np.argwhere(wrong)[0]) if bad else None,
        difference=f"of the {count} best along the last axis",
        metric=f"top {count}",
        symptom=Symptom.MISMATCH if bad else None,
    )


def failures(diffs: Sequence[TensorDiff], *, by_name: bool) -> tuple[Failure, ...]:
    """Return what does not agree, as failures of stage compare.

    With `by_name` one for each tensor, whose signature names it: the outputs of the whole model are the
    same whatever part of it ran on the target. Else one for each symptom.
    """
    found: dict[str, list[TensorDiff]] = {}
    for diff in diffs:
        if diff.symptom is not None:
            lost = diff.symptom is Symptom.NOT_FINITE
            words = f"output {diff.name} {'is not finite' if lost else 'differs'}"
            if not by_name:
                words = LOST if lost else ALONE if diff.mismatches else OTHER_KIND
            found.setdefault(words, []).append(diff)
    return tuple(_failure(signature, bad) for signature, bad in found.items())


def _failure(signature: str, bad: Sequence[TensorDiff]) -> Failure:
    message = bad[0].describe()
    others = len({diff.name for diff in bad}) - 1
    if others:
        message += f" (and {others} more tensor{'s' if others > 1 else ''})"
    assert bad[0].symptom is not None
    return Failure(Stage.COMPARE, bad[0].symptom, signature, message)


def only_for(accuracy: AccuracySettings, output: str) -> AccuracySettings:
    """Return the user's tolerance of one output, to compare a part of the model by itself with it.

    Names of outputs mean nothing there: a part has outputs of its own. Which of several scores are the best
    can only be asked of the output itself, so `topk` does not count. "" has no tolerance of its own.
    """

    def value(given: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
        found = _given(output, given)
        return () if found is None else (("", found),)

    rtol, atol = value(accuracy.rtol), value(accuracy.atol)
    return replace(accuracy, judge="local", rtol=rtol, atol=atol, ignore=(), topk=())
