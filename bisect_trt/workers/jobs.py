"""What a worker does with a target; the fork server imports this module, and with it what all jobs need."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import onnx
import psutil
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.machine.process import Job
from bisect_trt.model.candidate import Candidate, Feeds, Form
from bisect_trt.model.graph import Graph
from bisect_trt.model.store import Store
from bisect_trt.outcome import Built, Failure, Measured, Outcome, Stage, Values
from bisect_trt.references import target_at
from bisect_trt.references.base import Record, recorded_inputs, recorded_values
from bisect_trt.references.spec import SELF
from bisect_trt.settings import DEFAULT_ACCURACY, AccuracySettings, TargetSettings
from bisect_trt.targets import gpu
from bisect_trt.targets.base import Target, TargetInfo, announce, announce_reference
from bisect_trt.workers import reference
from bisect_trt.workers.comparing import Comparison
from bisect_trt.workers.network_outputs import wrong_outputs

MEASURED = 20
"""Runs that are measured together."""

# In the worker


def opened(settings: TargetSettings) -> Target:
    """Return the target, kept warm for the next job; a process that a CUDA error has spoiled ends here."""
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
    """Return the job that warms up a worker, if that is slow: a TensorRT builder takes about 10 s."""
    return (warm_up, (settings,)) if settings.spec == "tensorrt" else None


_ON_THE_CARD, _ON_THE_HOST = 2 << 30, 4 << 30  # bytes of a process with a builder of TensorRT, rounded up


def room(size: int) -> int:
    """Say for how many processes with a builder, each with a model of `size` bytes, there is room now."""
    free = psutil.virtual_memory().available // (_ON_THE_HOST + 4 * size)
    cores = (os.cpu_count() or 1) // 2
    return int(min(gpu.free_bytes() // (_ON_THE_CARD + 4 * size), free, cores))


def describe(settings: TargetSettings) -> TargetInfo:
    """Return what the target is here. Raises TargetUnavailable or UsageError as it does."""
    return opened(settings).info()


def inside(settings: TargetSettings) -> list[str]:
    """Return decisions that the target names itself on this machine; most name none."""
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
    reference.use(accuracy)
    try:
        outcome = _probe(settings, candidate, accuracy, save, explain)
    except UsageError as error:
        if candidate.form is Form.ORIGINAL:
            raise
        return Outcome(unresolved=f"the target has no way to take it: {error.message}")
    if outcome.failures and confirm and not candidate.edited and candidate.form.is_cut:
        announce_reference()
        if refused := reference.error(candidate, accuracy):
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
        known, unresolved = reference.values(candidate)
        if unresolved:
            return Outcome(unresolved=unresolved)
    start = time.perf_counter()
    result = opened(settings).run(candidate)
    facts, measured = dict(result.facts), Measured()
    seconds = time.perf_counter() - start - facts.get("builder_seconds", 0.0)
    network = facts.pop("network_outputs", None)
    failures, unresolved = result.failures, result.unresolved
    if network is not None and not failures and not unresolved and accuracy.reference != SELF:
        failures = wrong_outputs(
            candidate, network, known, lambda: reference.values(candidate)[0], types=not settings.precision
        )
    if result.outputs is not None and not failures and not unresolved:
        announce(Stage.COMPARE)
        comparison = Comparison(
            settings, candidate, accuracy, lambda other: opened(settings).run(other).outputs, explain
        )
        failures, unresolved, measured = comparison.compare(result.outputs, known, save)
    built = Built.from_json(facts)
    return Outcome(failures, seconds, "" if failures else unresolved, result.log, measured, built)


def run_seconds(settings: TargetSettings, candidate: Candidate) -> float | None:
    """Return the seconds of one run on the first sample, without the build; None if it is not run.

    Many runs after one build, less one run after one build; the least of some.
    """
    target, found = opened(settings), math.inf
    once, more = (replace(candidate, feeds=candidate.feeds[:1] * n) for n in (1, 1 + MEASURED))
    for _ in range(3):
        began = time.perf_counter()
        if not target.run(once).outputs:
            return None
        middle = time.perf_counter()
        target.run(more)
        found = min(found, (time.perf_counter() - middle - (middle - began)) / MEASURED)
    return max(found, 1e-9)


def reworded(settings: TargetSettings, candidate: Candidate, file: Path, wanted: Failure) -> Failure | None:
    """Return the wanted failure as the target words it when it reads the model from its file.

    TensorRT-RTX 1.7.1 does so of a NonMaxSuppression whose output has a dynamic length. None: in the same
    words, or the target has no such way, or it fails otherwise.
    """
    target = opened(settings)
    if not hasattr(target, "run_file") or settings.precision:
        return None
    place = (wanted.stage, wanted.symptom, wanted.nodes)
    shown = [f for f in target.run_file(candidate, file).failures if (f.stage, f.symptom, f.nodes) == place]
    return shown[0] if shown and not any(failure.same_as(wanted) for failure in shown) else None


def record_on_target(settings: TargetSettings, model: bytes, folder: Path, feeds: Sequence[Feeds]) -> Record:
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
