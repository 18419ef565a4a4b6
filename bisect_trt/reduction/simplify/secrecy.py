"""`--anonymise`: which values of the original a simplified model still holds, and why they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import numpy_helper

from bisect_trt.anonymise.audit import shown
from bisect_trt.anonymise.audit_values import is_secret
from bisect_trt.anonymise.secrets import SMALL
from bisect_trt.errors import Leak
from bisect_trt.model.editing.attributes import (
    is_plain,
    option_inputs,
    takes_texts,
    texts_of,
    values_of,
)
from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.editing.simplicity import Odd, level
from bisect_trt.model.seeded_values import Recipe, parse
from bisect_trt.model.walk import inner_nodes, scopes
from bisect_trt.outcome import Array, Ended
from bisect_trt.reduction.problem import Problem
from bisect_trt.results import Simplification

_SYNTHETIC = {Odd.ZEROS, Odd.ONES, Odd.SHORT, Odd.RAMP, Odd.SEEDED}
"""Values that tell nothing but statistics."""

_UNSHARED = (
    "no reproducer was written; send the figures told here, or run it again without --anonymise if the "
    "values may be shared"
)
_HALF = 65504.0  # largest float16


def require_synthetic(problem: Problem, simplified: Simplification | None, folder: str) -> None:
    """Require that all values are simple or made by a recipe; integers of at most 64 elements are sizes.

    Raises:
        Leak: some are not: which, and why.
    """
    state, hint = problem.simplifying, f"{_UNSHARED}; {folder} holds the original: do not share that"
    if simplified is None or state.draft is None:
        why = state.end.why or "only the file as it is fails, or its error accumulates"
        raise Leak(f"--anonymise: the model cannot be simplified: {why}", hint)
    draft = state.draft[1]
    reasons = [*_real_weights(draft), *_real_inputs(draft), *_real_attributes(draft)]
    if reasons and state.end.how not in (Ended.DONE, Ended.SPENT):
        why = f"the simplification ended early ({state.end.why}) before other values were found for "
        more = f"give it more time with --simplify-budget; {folder} holds the original: do not share that"
        raise Leak(f"--anonymise: {why}{'; '.join(reasons)}", more)
    if reasons:
        raise Leak("--anonymise: the failure needs values of the original: " + "; ".join(reasons), hint)


def _real_weights(draft: Draft) -> Iterator[str]:
    options = {name for node in inner_nodes(draft.graph) for name in option_inputs(node)}
    for name, array in draft.weights.items():
        if not (name in options and array.size <= SMALL):
            yield from _reasons(f"weight {draft.called(name)}", array, draft.recipes.get(name))
    for scope in scopes(draft.graph):
        for tensor in scope.initializer:
            yield from _reasons(f"constant {draft.called(tensor.name)}", numpy_helper.to_array(tensor), None)


def _real_inputs(draft: Draft) -> Iterator[str]:
    for k, sample in enumerate(draft.samples):
        for name, array in sample.items():
            yield from _reasons(f"input {draft.called(name)}", array, draft.fed.get((k, name)))


def _real_attributes(draft: Draft) -> Iterator[str]:
    """Yield tensors, long lists, and texts that are no words of ONNX."""
    for node in inner_nodes(draft.graph):
        for attribute in node.attribute:
            what = f"attribute {attribute.name} of {node.op_type}"
            values = values_of(attribute)
            if values is not None:
                yield from _reasons(what, values, parse(attribute.doc_string))
            if takes_texts(node) and (texts := [t for t in texts_of(attribute) if not is_plain(t)]):
                yield f"{what} ({shown(texts[0])}): without this text it was not reproduced"


def _reasons(what: str, array: Array, recipe: Recipe | None) -> list[str]:
    """Say why a value is one of the original, if it is."""
    if array.dtype.kind in "OUS":
        odd = [str(t) for t in array.flat if not is_plain(str(t))]
        return [f"{what} (texts, {shown(odd[0])} for one): with others it was not reproduced"] if odd else []
    if not is_secret(array) or level(array, recipe)[1] in _SYNTHETIC:
        return []
    shape = "x".join(map(str, array.shape)) or "scalar"
    tried = "zeros, ones, one value, and random values of its mean and deviation, range and distribution"
    return [f"{what} ({array.dtype.name} {shape}{_figures(array)}): it was not reproduced with {tried}"]


def _figures(array: Array) -> str:
    """Return the statistics that can be told instead of the values, and what stands out in them."""
    with np.errstate(all="ignore"):
        wide = np.asarray(array, dtype=np.float64)
        finite = wide[np.isfinite(wide)]
    if not finite.size:
        return ", nothing in it is finite"
    text = f", mean {finite.mean():.3g}, deviation {finite.std():.3g}"
    text += f", {finite.min():.3g} to {finite.max():.3g}"
    if finite.size < wide.size:
        text += f", {wide.size - finite.size} elements are not finite"
    if np.abs(finite).max() > _HALF:
        above = np.count_nonzero(np.abs(finite) > _HALF)
        text += f", {above} elements are above {_HALF:.0f}, the largest float16"
    return text
