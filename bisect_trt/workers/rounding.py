"""Is a mismatch more than rounding explains? Asked of a candidate that is compared at its own outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from msgspec import Struct, field
from msgspec.structs import replace
from onnx import helper

from bisect_trt.accuracy.arithmetic import Arithmetic, arithmetic_of, coarsest
from bisect_trt.accuracy.tolerance import failing_samples
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.graph import bodies
from bisect_trt.model.walk import copied
from bisect_trt.outcome import Array, Values
from bisect_trt.references.spec import parse
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.workers import continue_rest, reference

SAMPLES = 2  # failing samples that are looked at
NODES = 128  # of a candidate whose steps are looked at
STEPS = 4  # nodes that are named, those that make errors largest first
FAR = 64.0
"""Times its bound after the first few runs, and times the mean bound of its tensor, that an error has to be
before no further run is made: four runs give a bound that is too small by that in one of 10^7 cases."""
CLEARLY = 4.0
"""Times its bound that a node's own error has to be, where rounding would explain what is seen without it."""


def explain(
    settings: TargetSettings,
    candidate: Candidate,
    accuracy: AccuracySettings,
    least: float,
    expected: Values,
    given: Values,
    run: Callable[[Candidate], Values | None],
) -> dict[str, Any]:
    """Return what rounding explains of a mismatch, as plain JSON data for `Outcome.facts`.

    Besides, the steps are looked at one by one: `run` runs a candidate on the target, with all that it
    computes in between as outputs, and each node is held against what it makes of the target's own inputs. So
    nothing is called wrong where no noisy run hits what the target gave although every step is right (which
    of a thousand equal numbers is the largest), and a wrong step is not excused by what rounding alone would
    do to the outputs.

    `explained`: whether the outputs agree at the user's tolerance once each element that is within its bound
    has the reference's value. `worst` is the element that is furthest beyond its bound, else the one with the
    largest error. `steps` are the nodes through which errors grow, `beyond` those that are beyond their own
    bound. `unknown`: why nothing can be said.
    """
    from bisect_trt.references.inner_values import Unknown

    arithmetic = arithmetic_of(settings)
    coarse = coarsest(arithmetic, _types(candidate))
    found: dict[str, Any] = {"arithmetic": coarse.name, "roundoff": coarse.roundoff}
    feeds = continue_rest.load(candidate, candidate.feeds)
    failing = failing_samples(expected, given, accuracy, least)
    if not failing:
        return {**found, "unknown": "nothing failed"}
    compare = _Compare(accuracy, least, expected, given)
    answers, known = [], reference.ran(candidate)
    for k in failing[:SAMPLES]:
        look = _Look(candidate, run, compare, k, feeds[k] if feeds else {}, known[k] if known else None)
        try:
            answers.append({**look.answer(arithmetic), "sample": k})
        except Unknown as why:
            return {**found, "unknown": str(why)}
    return {**found, **next((a for a in answers if not a["explained"]), answers[0])}


def _types(candidate: Candidate) -> set[str]:
    """Return NumPy's names of the types that tensors of a candidate are declared with."""
    graph = onnx.load_model_from_string(candidate.model).graph
    kinds = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    kinds |= {tensor.data_type for tensor in graph.initializer}
    return {helper.tensor_dtype_to_np_dtype(kind).name for kind in kinds if kind}


def origin(settings: TargetSettings, candidate: Candidate) -> list[str]:
    """Say how NaN or Inf may arise in a candidate: from the values that the reference computes in it."""
    from bisect_trt.references.inner_values import Unknown, hazards

    arithmetic = arithmetic_of(settings)
    model = onnx.load_model_from_string(candidate.model)
    found: set[str] = set()
    try:
        for feeds in continue_rest.load(candidate, candidate.feeds):
            found |= hazards(model, candidate.folder, feeds, arithmetic)
    except Unknown:
        return []
    return sorted(found)


class _Compare(Struct, frozen=True):
    """Both sides of a comparison, and when they agree for the user."""

    accuracy: AccuracySettings
    least: float
    expected: Values
    given: Values

    def agree(self, outputs: Values) -> bool:
        """Return whether outputs of all samples agree with what is expected."""
        return not failing_samples(self.expected, outputs, self.accuracy, self.least)

    def one_agrees(self, sample: int, outputs: Mapping[str, Array]) -> bool:
        """Return the same of one sample; outputs that are missing count as equal."""
        kept = {name: outputs.get(name, value) for name, value in self.expected[sample].items()}
        return not failing_samples([self.expected[sample]], [kept], self.accuracy, self.least)


class _Look(Struct, dict=True):
    """One sample of a candidate that fails."""

    candidate: Candidate
    run: Callable[[Candidate], Values | None]
    compare: _Compare
    sample: int
    feeds: Mapping[str, Array]
    known: Mapping[str, Array] | None  # what the reference gave for it, if it was just asked
    _errors: dict[str, Array] = field(default_factory=dict)

    def answer(self, arithmetic: Arithmetic) -> dict[str, Any]:
        """Return what is said of it. Raises Unknown."""
        from bisect_trt.references.noise import Noise

        self.model = onnx.load_model_from_string(self.candidate.model)
        self.noise = Noise(arithmetic)
        self.noise.prepare(self.model, self.candidate.folder, self.feeds, self.known)
        self.noise.run(self._far_beyond)
        found = self._compared()
        if self._overflows():
            found |= {"explained": False, "overflows": self.noise.overflows[:STEPS]}
        elif found["explained"]:
            found |= self._wrong_all_the_same()
        else:
            found = self._compared() if self.noise.run_on() else found
            found |= {} if found["explained"] else self._step_by_step()
            if not found["explained"] and not found.get("beyond"):
                self._require_no_bodies()
        return {**found, "steps": _steps(self.noise, arithmetic.roundoff)}

    def _require_no_bodies(self) -> None:
        """Raises Unknown where what is wrong may be what the steps in a body round."""
        from bisect_trt.references.inner_values import Unknown

        inside = next((node for node in self.model.graph.node if any(bodies(node))), None)
        if inside is not None:
            raise Unknown(f"nobody can look into the body of {inside.name} ({inside.op_type})")

    def _overflows(self) -> bool:
        """Return whether overflow makes the outputs differ: a mask of -1e9 may be -Inf as well."""
        return bool(self.noise.overflows) and not self.compare.one_agrees(self.sample, self.noise.overflown())

    def _error(self, name: str) -> Array:
        """Return the error of each element of an output that both sides have in the same shape."""
        if name not in self._errors:
            sample = self.sample
            self._errors[name] = _error(self.compare.expected[sample][name], self.compare.given[sample][name])
        return self._errors[name]

    def _far_beyond(self) -> bool:
        """Return whether the outputs disagree even if `FAR` times the bounds so far were explained."""
        given, kept = self.compare.given[self.sample], dict[str, Array]()
        for name, value in self.compare.expected[self.sample].items():
            spread, actual = self.noise.spreads.get(name), given.get(name)
            if spread is None or actual is None or actual.shape != value.shape or value.dtype.kind != "f":
                return False
            bound = spread.bound
            far = FAR * np.maximum(bound, bound.mean() if bound.size else 0.0)
            kept[name] = np.where(self._error(name) <= far, value, actual)
        return not self.compare.one_agrees(self.sample, kept)

    def _compared(self) -> dict[str, Any]:
        """Compare again what is left when all that rounding explains is taken away."""
        kept: dict[str, Array] = {}
        worst: list[tuple[float, dict[str, Any]]] = []
        given = self.compare.given[self.sample]
        for name, value in self.compare.expected[self.sample].items():
            spread, actual = self.noise.spreads.get(name), given.get(name)
            if spread is None or actual is None:
                kept |= {} if actual is None else {name: actual}
            elif actual.shape != value.shape:
                kept[name] = value if spread.shapes else actual
            else:
                error, bound = self._error(name), spread.bound
                kept[name] = np.where(error <= bound, value, actual)
                worst += _worst(name, value, actual, error, bound)
        expected, accuracy = self.compare.expected[self.sample], self.compare.accuracy
        explained = not failing_samples([expected], [kept], accuracy, self.compare.least)
        runs = max((spread.runs for spread in self.noise.spreads.values()), default=0)
        worst = sorted(worst, key=lambda one: -one[0])
        return {"explained": explained, "runs": runs, "worst": worst[0][1] if worst else None}

    def _step_by_step(self) -> dict[str, Any]:
        """Return whether each node by itself is within its bound while the failure shows.

        Which nodes are not.
        """
        from bisect_trt.references.single_steps import beyond

        known = self._all_values()
        if known is None or self._is_another_model():
            return {}
        found = [s.node for s in beyond(self.model, self.candidate.folder, known, self.noise.arithmetic)]
        if not found:
            self._require_no_bodies()
        return {"beyond": found} if found else {"explained": True, "step_by_step": True}

    def _is_another_model(self) -> bool:
        """Return whether an outside reference differs from the model: single steps prove nothing then."""
        exact = {name: spread.reference for name, spread in self.noise.spreads.items()}
        outside = parse(self.compare.accuracy.reference).outside
        return outside and not self.compare.one_agrees(self.sample, exact)

    def _wrong_all_the_same(self) -> dict[str, Any]:
        """Return the nodes clearly beyond their bound that by themselves make the outputs disagree."""
        from bisect_trt.references.single_steps import beyond, with_only

        known = self._all_values()
        if known is None:
            return {}
        folder, arithmetic = self.candidate.folder, self.noise.arithmetic
        reference = {name: spread.reference for name, spread in self.noise.spreads.items()}
        found = []
        for step in beyond(self.model, folder, known, arithmetic, CLEARLY):
            alone = with_only(step, self.model, folder, self.feeds, reference)
            if alone is None or not self.compare.one_agrees(self.sample, alone):
                found.append(step.node)
        return {"beyond": found, "explained": False} if found else {}

    def _all_values(self) -> Mapping[str, Array] | None:
        """Return what the target computes in between, too; None where the failure does not show then."""
        if not 1 < len(self.model.graph.node) <= NODES:
            return None
        outputs = {value.name for value in self.model.graph.output}
        made = (t for node in self.model.graph.node for t in node.output)
        shown = copied(self.model)
        for name in (t for t in made if t in self.noise.spreads and t not in outputs):
            value = self.noise.spreads[name].reference
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            shown.graph.output.append(helper.make_tensor_value_info(name, kind, value.shape))
        got = self.run(replace(self.candidate, content=shown.SerializeToString(), expected=()))
        if got is None or self.compare.agree(got):
            return None  # what is shown is not what fails
        return {**self.feeds, **got[self.sample]}


def _error(reference: Array, target: Array) -> Array:
    """Return each element's error.

    Infinite where only one of both is a number, 1 where other values differ.
    """
    if reference.dtype.kind not in "fc":
        return np.asarray(reference != target, np.float64)
    with np.errstate(all="ignore"):
        one, other = reference.astype(np.float64), target.astype(np.float64)
        error = np.abs(one - other)
        if np.isfinite(error.max(initial=0.0)):  # as most: nothing has to be picked
            return error
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
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in values.items()}
    figures = {"error": float(error.flat[at]), "bound": float(bound.flat[at])}
    rank = float(times.flat[at]) if beyond else float(error.flat[at]) / (1 + float(error.flat[at]))
    return [(rank, {"tensor": name, "index": index, **plain, **figures})]


def _steps(look: Any, roundoff: float) -> list[dict[str, Any]]:
    """Return the nodes that make errors larger, with the relative error before and behind each."""
    relative = {name: spread.relative for name, spread in look.spreads.items()}
    found = []
    for name, (op, inputs, outputs) in look.sources.items():
        before = max((relative.get(t, 0.0) for t in inputs), default=0.0)
        behind = max((relative.get(t, 0.0) for t in outputs), default=0.0)
        before = max(before, roundoff)
        if behind > before:
            found.append({"node": name, "op": op, "before": before, "behind": behind})
    return sorted(found, key=lambda step: -step["behind"] / step["before"])[:STEPS]
