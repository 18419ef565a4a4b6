"""References other than ONNX Runtime: does the export agree with the framework that it comes from?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace
from onnx import helper

from bisect_trt.accuracy.compare import kind_of
from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences
from bisect_trt.errors import ModelDoesNotFail, TargetUnavailable, UsageError
from bisect_trt.model.cutting.constants import is_shape_like
from bisect_trt.model.store import Store
from bisect_trt.options import export_line
from bisect_trt.outcome import Array, Failure, Stage, Symptom, Values
from bisect_trt.references.base import Record, Tensor, recorded_values
from bisect_trt.references.spec import SELF, parse
from bisect_trt.session.prepare import Session
from bisect_trt.session.twice import steady
from bisect_trt.settings import DEFAULT_ACCURACY, Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.workers import user_values
from bisect_trt.workers.pool import Pool

EXPORT = "ort:CPUExecutionProvider"
"""The target on which the export itself is on trial, when the framework is the reference."""
BLAME = "the export differs from the framework; TensorRT is not to blame"
OUTPUTS_ONLY = (
    "gives outputs of the model only. With tensors inside it, under their names in the ONNX file, reduce "
    "finds the nodes that differ."
)


class Truth(Struct, frozen=True):
    """The outside reference beside ONNX Runtime.

    Attributes:
        record: with outputs of the outside reference where ONNX Runtime could not make them.
        note: a sentence on how both agree, or on what is not known; empty without an outside reference.
        blame: what to say when they do not.
        diffs: of ONNX Runtime against the outside reference, the worst first.
        framework: what is known to be true then: values of the outside reference, see `_vouched_for`. None
            when ONNX Runtime agrees, or where an output differs in its kind of type.
    """

    record: Record
    note: str = ""
    blame: str = ""
    diffs: tuple[TensorDiff, ...] = ()
    framework: Record | None = None

    @property
    def failure(self) -> Failure:
        """The disagreement as a failure, for `check`."""
        return Failure(Stage.COMPARE, Symptom.MISMATCH, "the export differs", self.blame)


class ExportTrial(Struct, frozen=True):
    """What a reduction runs by, once its reference was asked for the whole model.

    Attributes:
        settings: of the run; when the export is on trial, parts of the model are compared by themselves.
        info: the target, named as what is on trial.
        record: values to cut the model by. None: ONNX Runtime is the reference, and is run when it is needed.
        notes: sentences for the report.
        on_trial: the framework is the reference and ONNX Runtime the target.
    """

    settings: Settings
    info: TargetInfo
    record: Record | None = None
    notes: tuple[str, ...] = ()
    on_trial: bool = False


def try_export(
    settings: Settings, info: TargetInfo, session: Session, pool: Pool, recorded: Record
) -> ExportTrial:
    """Compare ONNX Runtime's run of the model with an outside reference, before anything is searched.

    Where both agree, or there is no outside reference, the run goes on as it was asked for. Where they
    disagree, the export is to blame: with ONNX Runtime's CPU provider as the target its nodes are searched.

    Raises:
        ModelDoesNotFail: they disagree, and another target was asked for.
        UsageError, TargetUnavailable: see `ask`.
    """
    known = ask(pool, session, settings, recorded)
    noted = (known.note,) if known.note else ()
    if not known.blame:
        return ExportTrial(settings, info, known.record, noted)
    if info.name != EXPORT or known.framework is None:
        line = export_line(session.loaded.path, settings)
        found = known.framework is not None
        hint = f"to reduce that difference instead: {line}" if found else "see what makes this output"
        raise ModelDoesNotFail(known.blame, hint)
    accuracy = replace(settings.accuracy, judge="local")
    report = replace(settings.report, style=settings.report.style or "plain")
    export = replace(info, title=f"the export, run by {info.title}")
    settings = replace(settings, accuracy=accuracy, report=report)
    return ExportTrial(settings, export, known.framework, (known.blame, *noted), on_trial=True)


def is_plain(settings: Settings) -> bool:
    """Return whether the reference is ONNX Runtime here, which can be run in part and again."""
    return settings.accuracy.reference == DEFAULT_ACCURACY.reference


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
    inputs, outputs = session.graph.graph_inputs, session.graph.graph_outputs
    arguments = (reference, session.loaded.path.absolute(), session.values(), inputs, outputs)
    reply = pool.submit(user_values.outside_twice, *arguments, timeout=None).result()
    if reply.death is not None:
        why = f"--reference {settings.accuracy.reference} ends its process: {reply.death.message}"
        raise TargetUnavailable(f"nothing can be said: {why}", "run it by itself to see why")
    values: list[dict[str, Array]] = reply.value[0]
    if not any(name in values[0] for name in outputs):
        there = ", ".join(values[0]) or "nothing"
        raise UsageError(
            f"--reference {settings.accuracy.reference} gives {there}, which is no output of the model",
            f"its outputs are: {', '.join(outputs)}",
        )
    values, random = steady(values, reply.value[1], settings, outputs)
    known = _compared(session, settings, recorded, values)
    return replace(known, note=f"{random} {known.note}".strip()) if random else known


def _compared(session: Session, settings: Settings, recorded: Record, values: Values) -> Truth:
    """Compare ONNX Runtime's tensors with the outside reference's of the same names."""
    graph = session.graph
    always = [name for name in values[0] if all(name in sample for sample in values)]
    known = [name for name in always if name in recorded and name not in graph.graph_inputs]
    given = [{name: sample[name] for name in known} for sample in values]
    diffs = differences(given, session.recorded(recorded, known), settings.accuracy)
    name = f"--reference {settings.accuracy.reference}"
    record = _with_more(session, recorded, values, always, name)
    if any(not diff.ok and diff.name in graph.graph_outputs for diff in diffs):
        return _export_differs(session, record, values, diffs, name)
    largest = max((diff.rms_error for diff in diffs), default=0.0)
    note = f"ONNX Runtime agrees with {name} (largest RMS error over RMS: {largest:.3g})." if diffs else ""
    left_out = [t for t in graph.graph_outputs if t not in always]
    note += f" It does not give {', '.join(left_out)}." if left_out else ""
    return Truth(record, note, diffs=tuple(diffs))


def _with_more(
    session: Session, recorded: Record, values: Values, names: Sequence[str], reference: str
) -> Record:
    """Return the record with those tensors that only the outside reference could make."""
    graph = session.graph
    made = {*graph.graph_outputs, *graph.producer}
    types = {t: graph.elem_type(t) for t in names if t in made and t not in recorded}
    if not types:
        return recorded
    added = {
        t: recorded_values(session.store, t, [_as_declared(kind, sample[t]) for sample in values])
        for t, kind in types.items()
    }
    return replace(recorded, tensors={**recorded.tensors, **added}, reference=reference)


def _as_declared(elem_type: int | None, array: Array) -> Array:
    """Return floats in the width that the model declares: frameworks are free to give another one."""
    dtype = helper.tensor_dtype_to_np_dtype(elem_type) if elem_type else array.dtype
    return array.astype(dtype) if kind_of(dtype) == kind_of(array.dtype) else array


def _export_differs(
    session: Session, record: Record, values: Values, diffs: Sequence[TensorDiff], name: str
) -> Truth:
    """Return what is said when ONNX Runtime and the outside reference disagree on an output."""
    graph = session.graph
    worst = next(diff for diff in diffs if not diff.ok and diff.name in graph.graph_outputs)
    blame = f"{BLAME}: ONNX Runtime and {name} disagree: {worst.describe()}" + _first(session, diffs)
    inner = any(t in graph.producer and t not in graph.graph_outputs for t in values[0])
    note = "" if inner else f"{name} {OUTPUTS_ONLY}"
    framework = replace(_vouched_for(session, record, values), reference=name)
    known = framework if worst.name in framework else None
    return Truth(record, note, blame, tuple(diffs), known)


def _vouched_for(session: Session, recorded: Record, values: Values) -> Record:
    """Return what is true when the export is on trial, to cut it by.

    Outputs of the framework, and those of its interior tensors that have ONNX Runtime's shape and kind of
    type; of ONNX Runtime only inputs, constants, and shapes, which frameworks do not compute as tensors.
    """
    graph, store = session.graph, session.store
    kept = {
        t: known
        for t, known in recorded.tensors.items()
        if t in graph.graph_inputs or t in graph.constants or is_shape_like(known.elem_type, known.shapes[0])
    }
    for name in values[0]:
        known = recorded.tensors.get(name)
        if known is None or name in graph.graph_inputs or not all(name in sample for sample in values):
            continue
        arrays = [sample[name] for sample in values]
        fits = [array.shape for array in arrays] == list(known.shapes)
        dtype = helper.tensor_dtype_to_np_dtype(known.elem_type)
        if all(kind_of(array.dtype) == kind_of(dtype) for array in arrays) and (
            fits or name in graph.graph_outputs
        ):
            files = tuple(_kept_file(store, name, array.astype(dtype)) for array in arrays)
            kept[name] = Tensor(known.elem_type, tuple(array.shape for array in arrays), files)
    return replace(recorded, tensors=kept, missing={}, error="")


def _kept_file(store: Store, name: str, array: Array) -> str:
    """Return a value in the store; the same one in a run that is resumed."""
    content = hashlib.sha256(array.tobytes()).hexdigest()
    return store.put_once(f"{name} {array.shape} {content}", array).name


def _first(session: Session, diffs: Sequence[TensorDiff]) -> str:
    """Return the first interior tensor that differs, when the reference gave any."""
    order = {t: k for k, node in enumerate(session.graph.order) for t in session.graph.outputs_of(node)}
    wrong = [diff.name for diff in diffs if not diff.ok and diff.name in order]
    inner = [name for name in wrong if name not in session.graph.graph_outputs]
    if not inner:
        return ""
    first = min(inner, key=order.__getitem__)
    node = session.graph.node(session.graph.producer[first])
    return f". The first tensor that differs is {first}, made by {node.name} ({node.op_type})"


def outside(settings: Settings) -> bool:
    """Return whether the reference gives outputs of the whole model only."""
    return parse(settings.accuracy.reference).outside


def is_self(settings: Settings) -> bool:
    """Return whether there is nothing to compare with."""
    return settings.accuracy.reference == SELF
