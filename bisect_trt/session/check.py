"""`check`: one probe of the whole model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.inputs.formats import write_samples
from bisect_trt.model.load import LoadedModel
from bisect_trt.model.patch import NARROW
from bisect_trt.outcome import Failure, Outcome
from bisect_trt.references.base import Record
from bisect_trt.results import Check, Finding
from bisect_trt.session.around import go_round, left_out_words
from bisect_trt.session.doubts import Doubts
from bisect_trt.session.export_trial import Truth, ask, is_plain, is_self, outside
from bisect_trt.session.finite import with_other_masks
from bisect_trt.session.oracle import Oracle
from bisect_trt.session.pools import describing, target_pool
from bisect_trt.session.prepare import Session, describe, load_for, resolved
from bisect_trt.session.recording import Recording, cannot_run, record_model
from bisect_trt.session.samples import read_with_notes
from bisect_trt.session.shape_notes import shape_notes
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.raised import raised
from bisect_trt.targets.roles import flat, roles
from bisect_trt.targets.tensorrt.engine import built_words
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.text import counted, some_names


def check(
    model: Path, settings: Settings, *, warm: Pool | None = None, keep: tuple[str, ...] | None = None
) -> Check:
    """Say whether the target agrees with the reference on this model.

    Args:
        model: the file.
        settings: what to run it on.
        warm: a pool of one worker that has checked other models; by default one is made for this call.
        keep: nodes that stay in FP32, all others computing in the target's low precision; None: the target
            lowers as it does.

    Raises:
        UsageError: the model, its inputs or an option cannot be used.
        TargetUnavailable: the target cannot be used here.
    """
    settings = resolved(settings)
    loaded = load_for(model, settings)
    kept = [] if keep is None else [_kept(loaded, settings, keep)]
    samples, converted = read_with_notes(loaded, settings)
    with temporary_folder() as place:
        logs, work = place / "logs", place / "work"
        with (
            nullcontext(warm) if warm else pool_for(settings, logs) as pool,
            nullcontext(warm) if warm else target_pool(pool, settings, logs, 1) as there,
        ):
            info = describe(describing(pool, there, settings), settings)
            compares = (info.can_run or outside(settings)) and not is_self(settings)
            session, turned = with_other_masks(pool, loaded, samples, settings, work, compares)
            judged = info.can_run or outside(settings)
            doubts = Doubts(session.graph, settings.accuracy, [turned] if turned else [], compares=judged)
            known = _known(pool, session, settings, doubts, info) if compares else Known(session.original)
            known = replace(known, original=replace(known.original, keep=keep))
            oracle = Oracle(there, settings.target, settings.run.timeout, doubts.accuracy)
            outcome, left_out = _observed(pool, session, settings, oracle, known, compares)
    outcome = doubts.applied_to(outcome)
    model_notes = (*loaded.notes, *converted, *info.notes, *shape_notes(loaded, samples, settings))
    notes = (*doubts.notes, *kept, *model_notes, *known.notes, *left_out, built_words(outcome.built))
    return Check(
        model=model,
        settings=settings,
        target=info,
        reference=known.reference,
        outcome=outcome,
        nodes=len(session.graph.order),
        seconds=outcome.seconds,
        outputs_compared=info.can_run and (bool(known.original.expected) or is_self(settings)),
        notes=tuple(filter(None, notes)),
        export_differs=known.blame is not None,
        finding=_finding(outcome, settings) if outcome.failures else doubts.finding,
    )


class Known(Struct, frozen=True):
    """What is known of the whole model before the target is asked.

    Attributes:
        original: the model, with what its outputs should be where they are compared.
        reference: what says so; empty where nothing does.
        blame: how the export differs from what it was exported from, if it does.
        notes: sentences for the report.
    """

    original: Candidate
    reference: str = ""
    blame: Failure | None = None
    notes: tuple[str, ...] = ()


def _known(pool: Pool, session: Session, settings: Settings, doubts: Doubts, info: TargetInfo) -> Known:
    """Ask the reference for the whole model, and look at what it gives."""
    truth = _reference(pool, session, settings)
    doubts.look_at(pool, session, settings, truth.record)
    return Known(
        original=session.with_outputs(truth.record) if info.can_run else session.original,
        reference=truth.record.reference,
        blame=truth.failure if truth.blame else None,
        notes=(*filter(None, (truth.note,)), *cannot_run(truth.record, settings, session.graph)),
    )


def _finding(outcome: Outcome, settings: Settings) -> Finding:
    """Return what was found: a mismatch may be rounding, which `reduce` finds out of the part that fails."""
    mismatches = all(failure.is_mismatch for failure in outcome.failures) and not is_self(settings)
    return Finding.NOT_TOLD if mismatches else Finding.WRONG


def _observed(
    pool: Pool, session: Session, settings: Settings, oracle: Oracle, known: Known, compares: bool
) -> tuple[Outcome, list[str]]:
    """Return what the target does with the model, or with what is left of it, see `go_round`.

    And notes on that.
    """
    if known.blame:
        return Outcome(failures=(known.blame,)), []
    oracle.save = settings.run.save_outputs
    seen = oracle.observe(known.original)
    if not seen.built.without_gpu:
        return seen, _fails_anywhere(pool, session, settings) if seen.failures and not compares else []
    recording = Recording.when_needed(pool, session, settings, lambda text: None)
    cutter = Cutter(session.graph, session.store, recording)
    outcome, out = go_round(session.graph, lambda nodes: cutter.cut(frozenset(nodes)), oracle.observe, seen)
    return outcome, [left_out_words(session.graph, out)] if outcome.failures else []


def _fails_anywhere(pool: Pool, session: Session, settings: Settings) -> list[str]:
    """Say that ONNX Runtime cannot run the model with these inputs, either, as notes; empty when it can."""
    if not is_plain(settings):
        return []
    try:
        recorded = record_model(pool, session, settings, session.graph.graph_outputs)
    except UsageError:  # values too large to be made up: the target failed before it needed any
        return []
    said = cannot_run(recorded, settings, session.graph)
    return [f"The reference cannot run it, either: {why}" if why == recorded.error else why for why in said]


def _kept(loaded: LoadedModel, settings: Settings, keep: tuple[str, ...]) -> str:
    """Say how many nodes stay in FP32, as a sentence.

    Raises:
        UsageError: nothing is lowered here, or no node of the list is one of the model.
    """
    to = settings.target.precision or settings.target.spec.removeprefix("emulate:")
    if to not in NARROW:
        hint = "--target emulate:fp16 or bf16, or --precision fp16 for TensorRT"
        raise UsageError("--keep-fp32 is for targets that compute in a low precision", hint)
    proto = flat(loaded.proto)
    raised(proto, loaded.path.absolute().parent)
    known = roles(proto, to)
    by_name = {name: key for key, name in known.names.items()} | {key: key for key in known.names}
    found = {by_name[name] for name in keep if name in by_name}
    missing = [name for name in keep if name not in by_name]
    if missing and not found:
        raise UsageError(f"--keep-fp32: the model has none of these nodes: {some_names(missing)}")
    chosen = len(found.intersection(known.items))
    text = f"--keep-fp32: {chosen:,} of {len(known.items):,} float nodes stay in FP32"
    if without := len(found) - chosen:
        text += f", and {counted(without, 'node')} of the list would in any case"
    return text + (f"; not in this model: {some_names(missing)}." if missing else ".")


def _reference(pool: Pool, session: Session, settings: Settings) -> Truth:
    """Ask the reference for the whole model; where the export differs, both sides are saved if asked for."""
    tensors = None if outside(settings) else session.graph.graph_outputs
    recorded = record_model(pool, session, settings, tensors)
    known, save = ask(pool, session, settings, recorded), settings.run.save_outputs
    if known.framework is not None and save is not None:
        _save(session, known.framework, save / "reference.npz")
        _save(session, known.record, save / "target.npz")
    return known


def _save(session: Session, record: Record, place: Path) -> None:
    """Write outputs of one side: of the framework, or of ONNX Runtime in the place of the target."""
    names = [name for name in session.graph.graph_outputs if name in record]
    write_samples(place, session.recorded(record, names))


def pool_for(settings: Settings, logs: Path) -> Pool:
    """Make one worker as the settings want it."""
    run = settings.run
    return Pool(1, log_dir=logs, memory_limit=run.memory_limit, devices=run.devices[:1])
