"""What runs in a worker process, and the reference run as seen from the parent.

Keeps what a target gives, so that a report can show where it differs from the reference.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import psutil

from bisect_trt.accuracy.boxes import sorted_along
from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences, only_for, precision_rtol
from bisect_trt.accuracy.tolerance import failures as compare_failures
from bisect_trt.errors import StoppedEarly, UsageError
from bisect_trt.model.candidate import Candidate, Feeds, Form
from bisect_trt.model.graph import Graph
from bisect_trt.model.inputs import formats
from bisect_trt.model.load import read_without_weights
from bisect_trt.model.operators import unordered_outputs
from bisect_trt.model.store import Store
from bisect_trt.outcome import Built, Failure, Measured, Outcome, Stage, Symptom
from bisect_trt.references import self_check, target_at
from bisect_trt.references.base import Record, recorded_inputs, recorded_values
from bisect_trt.references.spec import SELF
from bisect_trt.settings import DEFAULT_ACCURACY, AccuracySettings, TargetSettings
from bisect_trt.targets import gpu
from bisect_trt.targets.base import Target, TargetInfo, announce, announce_reference
from bisect_trt.workers import continue_rest
from bisect_trt.workers.network_outputs import wrong_outputs
from bisect_trt.workers.reply import Job

Array = npt.NDArray[Any]
Values = Sequence[Mapping[str, Array]]

MEASURED = 20
"""Runs that are measured together."""

SHOWN_TENSORS = 8  # tensors whose metrics are kept with an outcome, the worst first


# In the worker


def opened(settings: TargetSettings) -> Target:
    """The target, kept warm for the next job; a process that a CUDA error has spoiled ends here."""
    gpu.leave_if_spoiled()
    return _opened(settings)


@lru_cache(maxsize=4)
def _opened(settings: TargetSettings) -> Target:
    from bisect_trt.targets.registry import open_target  # imports the target's library

    return open_target(settings)


def warm_up(settings: TargetSettings) -> float:
    """Make what all probes of this process share; seconds that it took. Raises TargetUnavailable."""
    target = opened(settings)
    return float(target.warm_up()) if hasattr(target, "warm_up") else 0.0


def warm_job(settings: TargetSettings) -> Job | None:
    """What a worker does before its first probe, where that takes long: a builder of TensorRT takes 10 s."""
    return (warm_up, (settings,)) if settings.spec == "tensorrt" else None


_ON_THE_CARD, _ON_THE_HOST = 2 << 30, 4 << 30  # bytes of a process with a builder of TensorRT, rounded up


def room(size: int) -> int:
    """How many processes with a builder this machine has room for now, each with a model of `size` bytes."""
    free = psutil.virtual_memory().available // (_ON_THE_HOST + 4 * size)
    cores = (os.cpu_count() or 1) // 2
    return int(min(gpu.free_bytes() // (_ON_THE_CARD + 4 * size), free, cores))


def describe(settings: TargetSettings) -> TargetInfo:
    """What the target is here. Raises TargetUnavailable or UsageError as it does."""
    return opened(settings).info()


def inside(settings: TargetSettings) -> list[str]:
    """Decisions that the target names itself on this machine; most name none."""
    target = opened(settings)
    return list(target.inside()) if hasattr(target, "inside") else []


def probe(
    settings: TargetSettings,
    candidate: Candidate,
    accuracy: AccuracySettings = DEFAULT_ACCURACY,
    save: Path | None = None,
    confirm: bool = False,
    explain: bool = False,
) -> Outcome:
    """Run a candidate on the target, and compare what comes back: its outputs, or those of the model.

    Values to compare with are the candidate's own, else those of the reference, run on the spot. A
    reference that cannot run it leaves the outcome unresolved. It is asked first about an edited
    candidate: the target must not be blamed for refusing a model that means nothing. With `confirm` it is
    asked about a cut that fails, too: its inputs may contradict what it declares. A candidate that the
    target has no way to take is unresolved. With `explain` a mismatch is held against what rounding explains
    (`rounding.explain`). Outputs of both sides are written into the folder `save`. The
    seconds of the outcome are those of the target alone, without those of a builder that had to be made
    first.

    Raises:
        UsageError: the target has no way to take the user's own file.
    """
    _use_reference(accuracy)
    try:
        outcome = _probe(settings, candidate, accuracy, save, explain)
    except UsageError as error:
        if candidate.form is Form.ORIGINAL:
            raise
        return Outcome(unresolved=f"the target has no way to take it: {error.message}")
    if outcome.failures and confirm and not candidate.edited and candidate.form.is_cut:
        announce_reference()
        if refused := reference_error(candidate, accuracy):
            return replace(outcome, failures=(), unresolved=refused)
    return outcome


def _probe(
    settings: TargetSettings,
    candidate: Candidate,
    accuracy: AccuracySettings,
    save: Path | None,
    explain: bool,
) -> Outcome:
    known: Values = []
    if candidate.edited:
        announce_reference()
        known, unresolved = _reference_values(candidate)
        if unresolved:
            return Outcome(unresolved=unresolved)
    start = time.perf_counter()
    result = opened(settings).run(candidate)
    facts, measured = dict(result.facts), Measured()
    seconds = time.perf_counter() - start - facts.get("builder_seconds", 0.0)
    failures, unresolved = result.failures, result.unresolved
    network = facts.pop("network_outputs", None)
    if network is not None and not failures and not unresolved and accuracy.reference != SELF:
        narrowed = bool(settings.precision)
        failures = wrong_outputs(
            candidate, network, known, lambda: _reference_values(candidate)[0], types=not narrowed
        )
    if result.outputs is not None and not failures and not unresolved:
        announce(Stage.COMPARE)
        expected, unresolved = (known, "") if known or accuracy.reference == SELF else _expected(candidate)
        unresolved = unresolved or _not_compared(expected, result.outputs)
        if save is not None:
            formats.write_samples(save / "target.npz", result.outputs)
            formats.write_samples(save / "reference.npz", expected)
        least = precision_rtol(settings)
        axes = _unordered(candidate, accuracy)
        if accuracy.reference == SELF:
            unresolved = ""
            diffs = _by_itself(settings, candidate, result.outputs, accuracy, least)
        elif candidate.rest is None or unresolved:
            expected, given = _in_one_order(axes, expected, result.outputs)
            diffs = differences(expected, given, accuracy, least)
            if explain:
                measured = _explained(settings, candidate, accuracy, expected, given, diffs)
        else:
            measured = Measured(own=_own(*_in_one_order(axes, expected, result.outputs), accuracy, least))
            wanted, actual, unresolved = continue_rest.finish(candidate, expected, result.outputs)
            diffs = differences(*_in_one_order(axes, wanted, actual), accuracy, least)
        failures = compare_failures(diffs, by_name=candidate.rest is not None)
        measured = _metrics(diffs, measured)
    built = Built.from_json(facts)
    return Outcome(failures, seconds, "" if failures else unresolved, result.log, measured, built)


def run_seconds(settings: TargetSettings, candidate: Candidate) -> float | None:
    """Seconds of one run of a candidate on its first sample, without the build; None where it is not run.

    Many runs after one build, less one run after one build; the least of some.
    """
    target, found = opened(settings), math.inf
    many = MEASURED
    once, more = (replace(candidate, feeds=candidate.feeds[:1] * n) for n in (1, 1 + many))
    for _ in range(3):
        began = time.perf_counter()
        if not target.run(once).outputs:
            return None
        middle = time.perf_counter()
        target.run(more)
        found = min(found, (time.perf_counter() - middle - (middle - began)) / many)
    return max(found, 1e-9)


def record(
    model: bytes,
    folder: Path,
    feeds: Sequence[Feeds],
    tensors: Sequence[str] | None,
    budget: int | None,
    accuracy: AccuracySettings = DEFAULT_ACCURACY,
    stem: str = "r",
) -> Record:
    """See `references.recorder.record`. Raises StoppedEarly when the disk is full."""
    from bisect_trt.references import recorder

    _use_reference(accuracy)
    try:
        return recorder.record(model, folder, feeds, tensors=tensors, budget=budget, stem=stem)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, or use --out on another disk"
            raise StoppedEarly(f"no space left for recorded tensors in {folder}", hint) from error
        raise


def _use_reference(accuracy: AccuracySettings) -> None:
    """Set up ONNX Runtime as the reference of this process; nothing is imported for the usual one."""
    plain = DEFAULT_ACCURACY
    given = (accuracy.reference_provider, accuracy.custom_ops)
    if given != (plain.reference_provider, plain.custom_ops) or "bisect_trt.references.ort" in sys.modules:
        from bisect_trt.references import ort

        ort.use(*given)


def _explained(
    settings: TargetSettings,
    candidate: Candidate,
    accuracy: AccuracySettings,
    expected: Values,
    given: Values,
    diffs: Sequence[TensorDiff],
) -> Measured:
    """What can be told of a disagreement besides its metrics: is it rounding, where does a NaN come from."""
    from bisect_trt.workers import rounding

    symptom = diffs[0].symptom if diffs else None
    if symptom is Symptom.NOT_FINITE:
        return Measured(origin=tuple(rounding.origin(settings, candidate)))
    if symptom is not Symptom.MISMATCH:
        return Measured()
    least = precision_rtol(settings)

    def run(other: Candidate) -> Values | None:
        return opened(settings).run(other).outputs

    return Measured(rounding=rounding.explain(settings, candidate, accuracy, least, expected, given, run))


def _unordered(candidate: Candidate, accuracy: AccuracySettings) -> Mapping[str, int]:
    """Outputs whose order along an axis means nothing; none are looked for where nothing is expected."""
    if accuracy.reference == SELF:
        return {}
    return unordered_outputs(read_without_weights(candidate.content))


def _in_one_order(axes: Mapping[str, int], expected: Values, given: Values) -> tuple[Values, Values]:
    """Outputs of TopK with sorted=0 have no order: both sides in the same one, so that they are sets."""
    if not axes:
        return expected, given
    return [sorted_along(one, axes) for one in expected], [sorted_along(one, axes) for one in given]


def _own(
    expected: Values, given: Values, accuracy: AccuracySettings, least: float
) -> dict[str, list[dict[str, Any]]]:
    """The candidate's own outputs at the tolerance of each output of the model; "" is that of most."""
    names = {"", *(name for name, _ in (*accuracy.rtol, *accuracy.atol))}
    found = {name: differences(expected, given, only_for(accuracy, name), least) for name in sorted(names)}
    return {name: [diff.to_json() for diff in diffs[:SHOWN_TENSORS]] for name, diffs in found.items()}


def _by_itself(
    settings: TargetSettings, candidate: Candidate, first: Values, accuracy: AccuracySettings, least: float
) -> list[TensorDiff]:
    """What is wrong with the target's outputs when there is nothing to compare them with."""
    again = opened(settings).run(candidate)
    feeds = continue_rest.load(candidate, candidate.feeds, continue_rest.types_of(candidate.content))
    found = self_check.inspect(feeds, first, again.outputs or first, accuracy, least)
    if not found or all(diff.difference == self_check.UNSTEADY for diff in found):
        return found
    # What a plain run on the CPU does as well is the meaning of the model: Acos of 2, the rows of an EyeLike.
    usual, _ = _reference_values(candidate)
    meant = {
        (d.name, d.sample, d.difference)
        for d in (self_check.inspect(feeds, usual, usual, accuracy, least) if usual else ())
    }
    return [diff for diff in found if (diff.name, diff.sample, diff.difference) not in meant]


def reworded(settings: TargetSettings, candidate: Candidate, file: Path, wanted: Failure) -> Failure | None:
    """The wanted failure as the target tells it in other words when it reads the model from its file.

    TensorRT-RTX 1.7.1 does so of a NonMaxSuppression whose output has a dynamic length. None: in the same
    words, or the target has no such way, or it fails otherwise.
    """
    target = opened(settings)
    if not hasattr(target, "run_file") or settings.precision:
        return None
    place = (wanted.stage, wanted.symptom, wanted.nodes)
    shown = [f for f in target.run_file(candidate, file).failures if (f.stage, f.symptom, f.nodes) == place]
    return shown[0] if shown and not any(failure.same_as(wanted) for failure in shown) else None


def record_on_target(
    settings: TargetSettings, model: bytes, folder: Path, feeds: Sequence[Feeds]
) -> Record:
    """Run a model on the target, every output of it, and keep what it gives."""
    target = opened(target_at.settings(settings))
    graph, store = Graph(onnx.load_model_from_string(model)), Store(folder)
    inputs = recorded_inputs(graph, store, feeds)
    title = f"{target.info().title} in FP32"
    result = target.run(Candidate(model, folder, graph.order, tuple(feeds)))
    if result.failures or not result.outputs:
        why = result.failures[0].message if result.failures else result.unresolved or "it gives no outputs"
        return Record(folder, len(feeds), inputs, error=why, reference=title)
    made = {
        name: recorded_values(store, name, [sample[name] for sample in result.outputs])
        for name in result.outputs[0]
    }
    return Record(folder, len(feeds), {**inputs, **made}, reference=title)


def reference_values(candidate: Candidate) -> Values:
    """What the reference gives for a candidate; nothing at all when it cannot run it."""
    return _reference_values(candidate)[0]


def _expected(candidate: Candidate) -> tuple[Values, str]:
    """Reference values for each sample, or why there are none."""
    if candidate.expected and all(candidate.expected):
        types = continue_rest.types_of(candidate.content)
        try:
            return continue_rest.load(candidate, candidate.expected, types), ""
        except ValueError as error:
            return [], f"the model does not declare what flows in it: {error}"
    return _reference_values(candidate)


def reference_error(candidate: Candidate, accuracy: AccuracySettings) -> str:
    """Why the reference cannot run a candidate; empty when it can, whatever kind of values come out."""
    _use_reference(accuracy)
    return _reference_values(candidate)[1]


def _reference_values(candidate: Candidate) -> tuple[Values, str]:
    from bisect_trt.references import ort

    try:
        feeds = continue_rest.load(candidate, candidate.feeds, continue_rest.types_of(candidate.content))
        given = ort.run(candidate.model, candidate.folder, feeds)
    except ort.OrtError as error:
        return [], f"the reference cannot run it: {error}"
    except ValueError as error:  # what flows is of another type than the model declares
        return [], f"the model does not declare what flows in it: {error}"
    return [{k: v for k, v in sample.items() if not isinstance(v, str)} for sample in given], ""


def shapes(candidate: Candidate, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes that tensors have in a run of the reference, where they are the same in all samples."""
    model = onnx.load_model_from_string(candidate.model)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    given, unresolved = _reference_values(replace(candidate, content=model.SerializeToString()))
    if unresolved:
        return {}
    found = {name: {sample[name].shape for sample in given if name in sample} for name in names}
    return {name: some.pop() for name, some in found.items() if len(some) == 1}


def _metrics(diffs: Sequence[TensorDiff], known: Measured) -> Measured:
    """What is known so far, with what these differences tell."""
    if not diffs:
        return known
    damage: dict[str, float] = {}
    errors: dict[str, float] = {}
    for diff in diffs:
        error = diff.rms_error if math.isfinite(diff.rms_error) else sys.float_info.max
        errors[diff.name] = max(error, errors.get(diff.name, 0.0))
        if not diff.ok:
            damage[diff.name] = max(diff.damage, damage.get(diff.name, 0.0))
    return replace(
        known,
        compared=len(diffs),
        tensors=tuple(diff.to_json() for diff in diffs[:SHOWN_TENSORS]),
        errors=dict(sorted(errors.items())),
        damage=dict(sorted(damage.items())),
        failing_samples=tuple(sorted({diff.sample for diff in diffs if not diff.ok})),
    )


def _not_compared(expected: Values, outputs: Values) -> str:
    """Why the outcome says nothing about some output, if so."""
    if len(expected) < len(outputs):
        return "the reference has values for fewer samples than the target"
    for values, given in zip(expected, outputs, strict=False):
        for name in given:
            if name not in values:
                return f"the reference has no value for the output {name}"
    return ""


def outputs(settings: TargetSettings, candidate: Candidate, folder: Path) -> dict[str, Path]:
    """Run in a worker: write outputs of the first sample as `.npy` files; empty when there are none."""
    given = opened(settings).run(candidate).outputs
    store = Store(folder)
    return {name: store.put(name, value) for name, value in given[0].items()} if given else {}
