"""The hybrid run: what a candidate gave on the target goes through the rest of the model on the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from bisect_trt.model.candidate import DELTA, Candidate, Content, Feeds, Rest
from bisect_trt.model.load import read_without_weights
from bisect_trt.model.store import Store
from bisect_trt.outcome import Array, Values


def types_of(content: Content) -> dict[str, int]:
    """Return `TensorProto.DataType` of inputs and outputs by name."""
    graph = read_without_weights(content).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}


def load(candidate: Candidate, samples: Sequence[Feeds], types: Mapping[str, int] | None = None) -> Values:
    """Return recorded values, memory mapped when they are large; by default of what the candidate declares.

    Raises:
        ValueError: a value is of another type than the model declares, or of one of several and it declares
            none; the message names the tensor.
    """
    known = types_of(candidate.content) if types is None else types

    def value(name: str, path: Path) -> Array:
        try:
            return Store.load(path, known[name])
        except ValueError as error:  # it names the file
            raise ValueError(str(error).replace(path.name, name, 1)) from error

    return [{name: value(name, path) for name, path in sample.items()} for sample in samples]


def finish(candidate: Candidate, own: Values, given: Values) -> tuple[Values, Values, str]:
    """Return the expected and actual values of the model's outputs, or why they are not known.

    Args:
        candidate: with its rest.
        own: recorded reference values of the candidate's outputs, one mapping a sample.
        given: what the target gave for them.
    """
    rest = candidate.rest
    assert rest is not None
    types = types_of(candidate.content) | (types_of(rest.model) if rest.model else {})
    expected = load(candidate, rest.expected, types)
    direct = [{t: v for t, v in sample.items() if t in rest.outputs} for sample in given]
    if not rest.model or _equal(own, given):
        return expected, [{**want, **got} for want, got in zip(expected, direct, strict=True)], ""
    from bisect_trt.references import ort

    try:
        feeds = _feeds(candidate, rest, types, own, given)
        behind = ort.run(rest.model, candidate.folder, feeds)
    except (ort.OrtError, ValueError) as error:
        return [], [], f"the reference cannot go on from what the target gave: {error}"
    return expected, [{**one, **two} for one, two in zip(direct, behind, strict=True)], ""


def _equal(own: Values, given: Values) -> bool:
    """Return whether the target gave the recorded values, bit by bit."""
    return all(
        name in got and got[name].dtype == value.dtype and np.array_equal(got[name], value)
        for values, got in zip(own, given, strict=True)
        for name, value in values.items()
    )


def _feeds(
    candidate: Candidate, rest: Rest, types: Mapping[str, int], own: Values, given: Values
) -> list[dict[str, Array]]:
    """Return what the rest is fed with. Raises ValueError when the target did not give some output."""
    inputs = {value.name for value in onnx.load_model_from_string(rest.model).graph.input}
    found = []
    for recorded, values, got in zip(load(candidate, rest.feeds, types), own, given, strict=True):
        feeds = dict(recorded)
        for name, value in values.items():
            if name not in got:
                raise ValueError(f"the target gives no output {name}")
            made = np.asarray(got[name]).astype(value.dtype, copy=False)
            if name in rest.deltas:
                with np.errstate(invalid="ignore", over="ignore"):
                    feeds[name + DELTA] = np.where(made == value, 0, made - value).astype(value.dtype)
            elif name in inputs:
                feeds[name] = made
        found.append(feeds)
    return found
