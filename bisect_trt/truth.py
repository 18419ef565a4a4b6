"""References other than ONNX Runtime: does the export agree with the framework that it comes from?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from bisect_trt.diff import TensorDiff
from bisect_trt.errors import UsageError
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.references.base import Record, recorded_values
from bisect_trt.references.spec import SELF, parse
from bisect_trt.session import Session
from bisect_trt.settings import Settings
from bisect_trt.tolerance import differences
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

Array = npt.NDArray[Any]
Values = Sequence[Mapping[str, Array]]

BLAME = "the export differs from the framework; TensorRT is not to blame"


@dataclass(frozen=True)
class Truth:
    """The outside reference beside ONNX Runtime.

    Attributes:
        record: with outputs of the outside reference where ONNX Runtime could not make them.
        note: a sentence on how both agree; empty without an outside reference.
        blame: what to say when they do not.
        diffs: of ONNX Runtime against the outside reference, the worst first.
    """

    record: Record
    note: str = ""
    blame: str = ""
    diffs: tuple[TensorDiff, ...] = ()

    @property
    def failure(self) -> Failure:
        """The disagreement as a failure, for `check`."""
        return Failure(Stage.COMPARE, Symptom.MISMATCH, "the export differs", self.blame)


def ask(pool: Pool, session: Session, settings: Settings, recorded: Record) -> Truth:
    """Compare ONNX Runtime to the outside reference, if one was named.

    A reference that gives interior tensors too, under their names in the model, shows where the export
    begins to differ: the first of them that does is named.

    Raises:
        UsageError: the reference fails, or gives no output of the model.
        TargetUnavailable: it needs a library that is not installed.
    """
    reference = parse(settings.accuracy.reference)
    if not reference.outside:
        return Truth(recorded)
    graph, store = session.graph, session.store
    samples = [
        {name: store.load(path, graph.elem_type(name) or 0) for name, path in sample.items()}
        for sample in session.feeds
    ]
    inputs, outputs = graph.graph_inputs, graph.graph_outputs
    arguments = (reference, session.loaded.path.absolute(), samples, inputs, outputs)
    reply = pool.submit(jobs.outside, *arguments, timeout=None).result()
    if reply.death is not None:
        raise UsageError(f"--reference {settings.accuracy.reference} ends its process: {reply.death.message}")
    values: list[dict[str, Array]] = reply.value
    if not any(name in values[0] for name in outputs):
        there = ", ".join(values[0]) or "nothing"
        raise UsageError(
            f"--reference {settings.accuracy.reference} gives {there}, which is no output of the model",
            f"its outputs are: {', '.join(outputs)}",
        )
    return _compared(session, settings, recorded, values)


def _compared(session: Session, settings: Settings, recorded: Record, values: Values) -> Truth:
    graph, store = session.graph, session.store
    known = [name for name in values[0] if name in recorded and name not in graph.graph_inputs]
    ort = [
        {name: store.load(recorded.path(k, name), recorded.elem_type(name)) for name in known}
        for k in range(recorded.samples)
    ]
    given = [{name: sample[name] for name in known} for sample in values]
    diffs = differences(given, ort, settings.accuracy)
    missing = [t for t in graph.graph_outputs if t not in recorded and all(t in v for v in values)]
    added = {t: recorded_values(store, t, [v[t] for v in values]) for t in missing}
    name = f"--reference {settings.accuracy.reference}"
    record = replace(recorded, tensors={**recorded.tensors, **added}) if added else recorded
    if added:
        record = replace(record, reference=name)
    bad = [diff for diff in diffs if not diff.ok and diff.name in graph.graph_outputs]
    if bad:
        words = f"{BLAME}: ONNX Runtime and {name} disagree: {bad[0].describe()}"
        return Truth(record, blame=words + _first(session, diffs), diffs=tuple(diffs))
    largest = max((diff.rms_error for diff in diffs), default=0.0)
    note = f"ONNX Runtime agrees with {name} (largest RMS error over RMS: {largest:.3g})." if diffs else ""
    return Truth(record, note, diffs=tuple(diffs))


def _first(session: Session, diffs: Sequence[TensorDiff]) -> str:
    """The first interior tensor that differs, when the reference gave any."""
    order = {t: k for k, node in enumerate(session.graph.order) for t in session.graph.outputs_of(node)}
    inner = [d for d in diffs if d.name in order and d.name not in session.graph.graph_outputs]
    wrong = sorted((d for d in inner if not d.ok), key=lambda d: order[d.name])
    if not wrong:
        return ""
    node = session.graph.node(session.graph.producer[wrong[0].name])
    return f". The first tensor that differs is {wrong[0].name}, made by {node.name} ({node.op_type})"


def outside(settings: Settings) -> bool:
    """Whether the reference gives outputs of the whole model only."""
    return parse(settings.accuracy.reference).outside


def is_self(settings: Settings) -> bool:
    """Whether there is nothing to compare with."""
    return settings.accuracy.reference == SELF
