"""What runs in a worker process, and the reference run as seen from the parent."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from bisect_trt.compare import TensorDiff, compare
from bisect_trt.errors import StoppedEarly
from bisect_trt.graph import Graph
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom
from bisect_trt.references.base import Record, recorded_inputs
from bisect_trt.settings import RunSettings, TargetSettings
from bisect_trt.targets.base import Target, TargetInfo, announce
from bisect_trt.workers.pool import Pool

Array = npt.NDArray[Any]
Values = Sequence[Mapping[str, Array]]

SHOWN = 8  # tensors whose metrics are kept with an outcome, the worst first
SIGNATURES = {Symptom.MISMATCH: "outputs differ", Symptom.NOT_FINITE: "outputs are not finite"}


# In the worker


@lru_cache(maxsize=4)
def opened(settings: TargetSettings) -> Target:
    """The target, kept warm for the next job."""
    from bisect_trt.targets.registry import open_target  # imports the target's library

    return open_target(settings)


def describe(settings: TargetSettings) -> TargetInfo:
    """What the target is here. Raises TargetUnavailable or UsageError as it does."""
    return opened(settings).info()


def probe(settings: TargetSettings, candidate: Candidate) -> Outcome:
    """Run a candidate on the target, and compare what comes back.

    Values to compare with are the candidate's own, else those of the reference, run on the spot. A
    reference that cannot run it leaves the outcome unresolved.
    """
    start = time.perf_counter()
    result = opened(settings).run(candidate)
    facts = dict(result.facts)
    failures, unresolved = result.failures, ""
    if result.outputs is not None and not failures:
        announce(Stage.COMPARE)
        expected, unresolved = _expected(candidate, result.outputs)
        diffs = _differences(expected, result.outputs)
        if diffs:
            facts["compared"] = len(diffs)
            facts["tensors"] = [diff.to_json() for diff in diffs[:SHOWN]]
        failures = _failures(diffs)
        unresolved = unresolved or _not_compared(expected, result.outputs)
    seconds = time.perf_counter() - start
    return Outcome(failures, seconds, "" if failures else unresolved, result.log, facts)


def record(
    model: bytes, folder: Path, feeds: Sequence[Feeds], tensors: Sequence[str] | None, budget: int | None
) -> Record:
    """See `references.recorder.record`. Raises StoppedEarly when the disk is full."""
    from bisect_trt.references import recorder

    try:
        return recorder.record(model, folder, feeds, tensors=tensors, budget=budget)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, or use --out on another disk"
            raise StoppedEarly(f"no space left for recorded tensors in {folder}", hint) from error
        raise


def _expected(candidate: Candidate, outputs: Values) -> tuple[Values, str]:
    """Reference values for each sample, or why there are none."""
    if candidate.expected and all(candidate.expected):
        return _load(candidate, candidate.expected, _types(candidate, inputs=False)), ""
    from bisect_trt.references import ort

    try:
        feeds = _load(candidate, candidate.feeds, _types(candidate, inputs=True))
        given = ort.run(candidate.model, candidate.folder, feeds)
    except ort.OrtError as error:
        return [], f"the reference cannot run it: {error}"
    return [{k: v for k, v in sample.items() if not isinstance(v, str)} for sample in given], ""


def _types(candidate: Candidate, *, inputs: bool) -> dict[str, int]:
    graph = onnx.load_model_from_string(candidate.model).graph
    return {v.name: v.type.tensor_type.elem_type for v in (graph.input if inputs else graph.output)}


def _load(candidate: Candidate, samples: Sequence[Feeds], types: Mapping[str, int]) -> Values:
    store = Store(candidate.folder)
    return [{name: store.load(path, types[name]) for name, path in sample.items()} for sample in samples]


def _differences(expected: Values, outputs: Values) -> list[TensorDiff]:
    """Every output of every sample against its reference; disagreeing ones first."""
    lost = "the target gives no such output"
    found = [
        compare(name, value, given[name])
        if name in given
        else TensorDiff(name, False, value.size, difference=lost, symptom=Symptom.MISMATCH)
        for values, given in zip(expected, outputs, strict=False)
        for name, value in values.items()
    ]
    return sorted(found, key=lambda diff: (diff.ok, -diff.mismatches / max(1, diff.elements)))


def _not_compared(expected: Values, outputs: Values) -> str:
    """Why the outcome says nothing about some output, if so."""
    if len(expected) < len(outputs):
        return "the reference has values for fewer samples than the target"
    for values, given in zip(expected, outputs, strict=False):
        for name in given:
            if name not in values:
                return f"the reference has no value for the output {name}"
    return ""


def _failures(diffs: Sequence[TensorDiff]) -> tuple[Failure, ...]:
    """One failure for each symptom; NOT_FINITE first, which says more."""
    failures = []
    for symptom in (Symptom.NOT_FINITE, Symptom.MISMATCH):
        bad = [diff for diff in diffs if diff.symptom is symptom]
        if bad:
            message = bad[0].describe()
            if len(bad) > 1:
                message += f" (and {len(bad) - 1} more tensors)"
            failures.append(Failure(Stage.COMPARE, symptom, SIGNATURES[symptom], message))
    return tuple(failures)


# In the parent


def record_in(
    pool: Pool,
    folder: Path,
    proto: onnx.ModelProto,
    feeds: Sequence[Feeds],
    run: RunSettings,
    *,
    tensors: Sequence[str] | None = None,
) -> Record:
    """Record in a worker. A reference that takes its worker with it gives a record with an error.

    There is no deadline: `run.timeout` is that of a probe. Raises StoppedEarly when the disk is full.
    """
    model = proto.SerializeToString()
    task = pool.submit(record, model, folder, tuple(feeds), tensors, run.record_budget, timeout=None)
    reply = task.result()
    if reply.death is None:
        recorded: Record = reply.value
        return recorded
    ended = f"the reference ended its process: {reply.death.message} {reply.death.detail}".strip()
    inputs = recorded_inputs(Graph(proto), Store(folder), feeds)
    return Record(folder, len(feeds), inputs, error=ended)

