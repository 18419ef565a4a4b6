"""Weights and input values: the simplest that still fail.

Texts that are values: none, else `s0`, `s1`, ... for those that differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from bisect_trt.model.cutting.constants import SHAPE_SLOTS
from bisect_trt.model.editing.attributes import replace_texts
from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.editing.simplicity import Odd, level
from bisect_trt.model.seeded_values import Recipe, is_uniform, ramp, resembling, three_digits
from bisect_trt.outcome import Array, Verdict
from bisect_trt.reduction import list_search
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.propose import Edit, attempt, attempt_each, best_draft, divisors
from bisect_trt.writing.text import counted

Value = tuple[str, Array, Recipe | None]
"""What it is called, the values, and how they can be made."""

_PLAIN = ("zeros", "ones")
QUANTILES = 17

SPARSE_LIMIT = 1 << 14
"""Elements of an array of which delta debugging looks for the ones that matter."""

_PADDED_GENERATOR = 256  # bytes of a constant that is worth a node of its own


def simple_weights(problem: Problem) -> None:
    """Try zeros and ones on all weights, then on each also one value, random of the same kind, rounded."""
    kept = divisors(best_draft(problem))
    attempt(problem, (partial(all_weights, kind, kept) for kind in _PLAIN))
    attempt_each(problem, _ladders(problem))


def simple_inputs(problem: Problem) -> None:
    """Try zeros and ones on all inputs, then on each also a ramp, random values of the same kind, rounded."""
    kept = divisors(best_draft(problem))
    attempt(problem, (partial(all_inputs, kind, kept) for kind in _PLAIN))
    for name in [i.name for i in best_draft(problem).graph.input]:
        for sample in range(len(best_draft(problem).samples)):
            _climb(problem, name, sample)


def sparse_values(problem: Problem) -> None:
    """Find which elements matter: delta debugging on the values that no simple ones could replace."""
    for k, sample in enumerate(best_draft(problem).samples):
        for name in sample:
            _sparse(problem, name, k)


def generators(problem: Problem) -> None:
    """Have big constants made by a ConstantOfShape, and small ones stored."""
    names = list(best_draft(problem).weights)
    attempt_each(problem, (partial(_toggle_generator, name) for name in names))


def is_shape(draft: Draft, name: str) -> bool:
    """Return whether a weight is read as sizes, axes or the like: its values are those of dimensions."""
    array = draft.weights[name]
    if array.dtype.kind not in "iu" or array.ndim > 1:
        return False
    return any(k in SHAPE_SLOTS.get(node.op_type, ()) for node, k in draft.readers(name))


def ladder(
    array: Array | None, made: Recipe | None, seed: int, synthetic: bool, *, weight: bool = True
) -> Iterator[Value]:
    """Yield the replacements of values, `made` by a recipe or not, from the simplest to the least simple.

    There are none of texts, of nothing, and of zeros.
    """
    if array is None or array.size == 0 or array.dtype.kind in "OU" or level(array, made)[1] is Odd.ZEROS:
        return
    shape, dtype = array.shape, array.dtype
    yield "zeros", _full(shape, 0, dtype), None
    yield "ones", _full(shape, 1, dtype), None
    recipe = resembling(array, seed) if dtype.kind != "b" else None
    if recipe is not None:
        yield "one value", _full(shape, recipe.mean, dtype), None
    if not weight:
        yield "a ramp", ramp(shape, dtype), None
    if recipe is not None:
        ranged = _range_recipe(array, seed)
        if weight:
            yield "random", recipe.make(shape, dtype), recipe
        yield "random of the same range", ranged.make(shape, dtype), ranged
        alike = _alike(array, seed)
        yield "random of the same distribution", alike.make(shape, dtype), alike
    if not synthetic:
        yield "rounded", _rounded(array), None


def _full(shape: Sequence[int], value: float, dtype: np.dtype[Any]) -> Array:
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.array(value).astype(dtype), tuple(shape))


def _range_recipe(array: Array, seed: int) -> Recipe:
    """Return numbers that reach as far as the original's: 3.46 deviations from the mean are the ends."""
    wide = np.asarray(array, dtype=np.float64)
    low, high = float(wide.min()), float(wide.max())
    return Recipe(seed, three_digits((low + high) / 2), three_digits((high - low) / (2 * math.sqrt(12))))


def _alike(array: Array, seed: int) -> Recipe:
    """Return numbers whose quantiles are the original's, to three digits."""
    wide = np.asarray(array, dtype=np.float64).reshape(-1)
    count = min(QUANTILES, 2 + wide.size // 4)  # of few values, quantiles are the values
    points = tuple(three_digits(float(q)) for q in np.quantile(wide, np.linspace(0, 1, count)))
    return Recipe(seed, three_digits(float(wide.mean())), three_digits(float(wide.std())), points)


def _rounded(array: Array) -> Array:
    """Return floats that a float16 holds, or two digits where it holds none."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(all="ignore"):
        wide = np.asarray(array)
        half = wide.astype(np.float16).astype(wide.dtype)
        lost = ~np.isfinite(half) & np.isfinite(wide) | (half == 0) & (wide != 0)
        if lost.any():
            half = np.where(lost, np.array([float(f"{v:.1e}") for v in wide.flat]).reshape(wide.shape), half)
    return half.astype(array.dtype)


def _simple(array: Array, kind: str) -> Array:
    return _full(array.shape, 0 if kind == "zeros" else 1, array.dtype)


def all_weights(kind: str, but: Collection[str], draft: Draft) -> str:
    """Make all weights zeros or ones that are less simple, but for those that hold sizes and for `but`."""
    least = Odd.ZEROS if kind == "zeros" else Odd.ONES
    plain = (n for n in draft.weights if n not in but and not is_shape(draft, n))
    changed = [n for n in plain if level(draft.weights[n], None)[1] > least]
    for name in changed:
        draft.set_weight(name, _simple(draft.weights[name], kind))
    return f"{counted(len(changed), 'weight')}: {kind}" if changed else ""


def all_inputs(kind: str, but: Collection[str], draft: Draft) -> str:
    """Make all input values zeros or ones that are neither yet, but for those of `but`."""
    every = [(k, name, array) for k, sample in enumerate(draft.samples) for name, array in sample.items()]
    plain = (one for one in every if one[1] not in but and one[2].dtype.kind not in "OU")
    changed = [(k, name, array) for k, name, array in plain if level(array, None)[1] > Odd.ONES]
    for k, name, array in changed:
        draft.set_input(k, name, _simple(array, kind))
    return f"{counted(len(changed), 'input')}: {kind}" if changed else ""


def _ladders(problem: Problem) -> Iterator[Edit]:
    """Offer for each weight one edit after the other, simplest first, until it is zeros."""
    seed = problem.simplifying.seed
    for number, name in enumerate(list(best_draft(problem).weights)):
        for step in range(9):
            draft = best_draft(problem)
            array, made = draft.weights.get(name), draft.recipes.get(name)
            values = ladder(array, made, seed + number, problem.simplifying.synthetic)
            value = next(islice(values, step, None), None)
            if value is None or is_shape(draft, name):
                break
            yield partial(_weight_edit, name, value)


def _weight_edit(name: str, value: Value, draft: Draft) -> str:
    text, array, recipe = value
    draft.set_weight(name, array, recipe)
    return f"{name}: {text}"


def _climb(problem: Problem, name: str, sample: int) -> None:
    """Find the simplest value of one input that still fails."""
    draft, state = best_draft(problem), problem.simplifying
    array, made = draft.samples[sample].get(name), draft.fed.get((sample, name))
    values = ladder(array, made, state.seed, state.synthetic, weight=False)
    attempt(problem, (partial(_input_edit, name, sample, value) for value in values))


def _input_edit(name: str, sample: int, value: Value, draft: Draft) -> str:
    text, array, recipe = value
    draft.set_input(sample, name, array, recipe)
    return f"{name}: {text}"


def _sparse(problem: Problem, name: str, sample: int) -> None:
    draft = best_draft(problem)
    array = draft.samples[sample].get(name)
    if (sample, name) in draft.fed or problem.simplifying.synthetic:
        return  # some elements of a secret are a secret, too
    if array is None or array.dtype.kind in "OUb" or not 1 < array.size <= SPARSE_LIMIT or is_uniform(array):
        return
    used = np.flatnonzero(np.asarray(array).reshape(-1) != 0).tolist()

    def with_only(places: Sequence[int]) -> Verdict:
        kept = np.zeros(array.shape, array.dtype)
        kept.flat[list(places)] = array.flat[list(places)]
        what = f"only {len(places)} elements"
        found = attempt(problem, [partial(_input_edit, name, sample, (what, kept, None))])
        return Verdict.REPRODUCES if found else Verdict.VANISHES

    if len(used) > 1:
        list_search.minimise(used, list_search.asked_once(with_only))


def _toggle_generator(name: str, draft: Draft) -> str:
    array = draft.weights[name]
    if name in draft.generated:
        draft.generated.discard(name)
        return f"{name} is stored" if array.nbytes <= _PADDED_GENERATOR else ""
    if array.nbytes <= _PADDED_GENERATOR or array.dtype.kind in "OU" or not is_uniform(array):
        return ""
    draft.generated.add(name)
    return f"{name} is generated"


def simple_texts(problem: Problem) -> None:
    """Make texts of tensors, inputs and attributes empty, else `s0`, `s1`, ...; equal ones stay equal."""
    attempt(problem, (partial(all_texts, numbered) for numbered in (False, True)))


def all_texts(numbered: bool, draft: Draft) -> str:
    """Make all texts empty, or `s0`, `s1`, ... at once, so that those that are equal stay equal."""
    new: dict[str, str] = {}

    def give(text: str) -> str:
        return new.setdefault(text, f"s{len(new)}") if numbered else ""

    changed = replace_texts(draft.graph, give)
    for k, sample in enumerate(draft.samples):
        for name, array in list(sample.items()):
            if array.dtype.kind in "OU" and array.size:
                made = np.array([give(str(item)) for item in array.flat], object).reshape(array.shape)
                changed += int((made != array).sum())
                draft.set_input(k, name, made)
    return f"{counted(changed, 'text')}: {'s0, s1, ...' if numbered else 'empty'}" if changed else ""
