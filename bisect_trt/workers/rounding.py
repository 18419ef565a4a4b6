"""Is a mismatch more than rounding explains? Asked of a candidate that is compared at its own outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from bisect_trt.accuracy.arithmetic import arithmetic_of
from bisect_trt.accuracy.tolerance import differences
from bisect_trt.model.candidate import Candidate
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.workers import continue_rest

Array = npt.NDArray[Any]
Values = Sequence[Mapping[str, Array]]

SAMPLES = 2  # failing samples that are looked at
NODES = 128  # of a candidate whose steps are looked at
STEPS = 4  # nodes that are named, those that make errors largest first


def explain(
    settings: TargetSettings,
    candidate: Candidate,
    accuracy: AccuracySettings,
    least: float,
    expected: Values,
    given: Values,
    run: Callable[[Candidate], Values | None],
) -> dict[str, Any]:
    """What rounding explains of a mismatch, as plain JSON data for `Outcome.facts`.

    Where none of the noisy runs hits what the target gave (which of a thousand equal numbers is the largest),
    its steps are looked at: `run` runs a candidate on the target, with all that it computes in between as
    outputs, and each node is held against what it makes of the target's own inputs.

    `explained`: whether the outputs agree at the user's tolerance once each element that is within its bound
    has the reference's value. `worst` is the element that is furthest beyond its bound, else the one with the
    largest error. `steps` are the nodes through which errors grow. `unknown`: why nothing can be said.
    """
    from bisect_trt.references import noise

    arithmetic = arithmetic_of(settings)
    found: dict[str, Any] = {"arithmetic": arithmetic.name, "roundoff": arithmetic.roundoff}
    feeds = continue_rest.load(candidate, candidate.feeds, continue_rest.types_of(candidate.content))
    failing = sorted({d.sample for d in differences(expected, given, accuracy, least) if not d.ok})
    answers = []
    for k in failing[:SAMPLES]:
        model = onnx.load_model_from_string(candidate.model)
        look = noise.Noise(arithmetic)
        try:
            look.prepare(model, candidate.folder, feeds[k] if feeds else {})
            look.run()
            answer = _compared(look, accuracy, least, expected[k], given[k])
            if look.overflows:
                answer |= {"explained": False, "overflows": look.overflows[:STEPS]}
            elif not answer["explained"]:
                look.run_on()
                answer = _compared(look, accuracy, least, expected[k], given[k])
            if not answer["explained"] and not look.overflows and len(model.graph.node) > 1:
                answer |= _step_by_step(look, candidate, run, model, accuracy, least, expected, k)
        except noise.Unknown as why:
            return {**found, "unknown": str(why)}
        answers.append({**answer, "steps": _steps(look, arithmetic.roundoff), "sample": k})
    if not answers:
        return {**found, "unknown": "nothing failed"}
    return {**found, **next((a for a in answers if not a["explained"]), answers[0])}


def origin(settings: TargetSettings, candidate: Candidate) -> list[str]:
    """How NaN or Inf may arise in a candidate: from the values that the reference computes in it."""
    from bisect_trt.references import noise

    arithmetic = arithmetic_of(settings)
    model = onnx.load_model_from_string(candidate.model)
    found: set[str] = set()
    try:
        types = continue_rest.types_of(candidate.content)
        for feeds in continue_rest.load(candidate, candidate.feeds, types):
            found |= noise.hazards(model, candidate.folder, feeds, arithmetic)
    except noise.Unknown:
        return []
    return sorted(found)


def _compared(
    look: Any,
    accuracy: AccuracySettings,
    least: float,
    expected: Mapping[str, Array],
    given: Mapping[str, Array],
) -> dict[str, Any]:
    """Compare again what is left when all that rounding explains is taken away."""
    kept: dict[str, Array] = {}
    worst: list[tuple[float, dict[str, Any]]] = []
    for name, value in expected.items():
        spread, actual = look.spreads.get(name), given.get(name)
        if spread is None or actual is None:
            kept |= {} if actual is None else {name: actual}
        elif actual.shape != value.shape:
            kept[name] = value if spread.shapes else actual
        else:
            error = _error(value, actual)
            bound = spread.bound
            kept[name] = np.where(error <= bound, value, actual)
            worst += _worst(name, value, actual, error, bound)
    explained = all(diff.ok for diff in differences([expected], [kept], accuracy, least))
    runs = max((spread.runs for spread in look.spreads.values()), default=0)
    worst = sorted(worst, key=lambda one: -one[0])
    return {"explained": explained, "runs": runs, "worst": worst[0][1] if worst else None}


def _step_by_step(
    look: Any,
    candidate: Candidate,
    run: Callable[[Candidate], Values | None],
    model: onnx.ModelProto,
    accuracy: AccuracySettings,
    least: float,
    expected: Values,
    sample: int,
) -> dict[str, Any]:
    """Whether each node by itself is within its bound while the failure shows; which nodes are not."""
    from bisect_trt.references import noise

    if len(model.graph.node) > NODES:
        return {}
    outputs = {value.name for value in model.graph.output}
    inner = [t for node in model.graph.node for t in node.output if t in look.spreads and t not in outputs]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    for name in inner:
        value = look.spreads[name].reference
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        shown.graph.output.append(helper.make_tensor_value_info(name, kind, value.shape))
    got = run(replace(candidate, content=shown.SerializeToString(), expected=()))
    if got is None or all(diff.ok for diff in differences(expected, got, accuracy, least)):
        return {}  # what is shown is not what fails
    feeds = continue_rest.load(candidate, candidate.feeds, continue_rest.types_of(candidate.content))
    known = {**(feeds[sample] if feeds else {}), **got[sample]}
    beyond = noise.beyond(model, candidate.folder, known, look.arithmetic)
    return {"beyond": beyond} if beyond else {"explained": True, "step_by_step": True}


def _error(reference: Array, target: Array) -> Array:
    """Of each element; infinite where only one of both is a number, 1 where other values differ."""
    if reference.dtype.kind not in "fc":
        return np.asarray(reference != target, np.float64)
    with np.errstate(all="ignore"):
        one, other = reference.astype(np.float64), target.astype(np.float64)
        error = np.abs(one - other)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        return np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf))


def _worst(
    name: str, reference: Array, target: Array, error: Array, bound: Array
) -> list[tuple[float, dict[str, Any]]]:
    if not error.size or not np.any(error):
        return []
    with np.errstate(all="ignore"):
        times = np.where(error > 0, error / np.maximum(bound, np.finfo(np.float64).tiny), 0.0)
        beyond = bool(np.any(times > 1))
        at = int(np.argmax(times if beyond else error))
    index = [int(k) for k in np.unravel_index(at, error.shape)]
    values = {"reference": reference.flat[at], "target": target.flat[at]}
    told = {key: value.item() if hasattr(value, "item") else value for key, value in values.items()}
    figures = {"error": float(error.flat[at]), "bound": float(bound.flat[at])}
    rank = float(times.flat[at]) if beyond else float(error.flat[at]) / (1 + float(error.flat[at]))
    return [(rank, {"tensor": name, "index": index, **told, **figures})]


def _steps(look: Any, roundoff: float) -> list[dict[str, Any]]:
    """Nodes that make errors larger, with the relative error before and behind each."""
    relative = {name: spread.relative for name, spread in look.spreads.items()}
    found = []
    for name, (op, inputs, outputs) in look.sources.items():
        before = max((relative.get(t, 0.0) for t in inputs), default=0.0)
        behind = max((relative.get(t, 0.0) for t in outputs), default=0.0)
        before = max(before, roundoff)
        if behind > before:
            found.append({"node": name, "op": op, "before": before, "behind": behind})
    return sorted(found, key=lambda step: -step["behind"] / step["before"])[:STEPS]
