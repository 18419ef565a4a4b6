"""`check`: one probe of the whole model."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

from bisect_trt.model.inputs.formats import write_samples
from bisect_trt.outcome import Failure, Outcome
from bisect_trt.references.base import Record
from bisect_trt.results import Check
from bisect_trt.session.export_trial import Truth, ask, is_self, outside
from bisect_trt.session.oracle import Oracle
from bisect_trt.session.pools import describing, target_pool
from bisect_trt.session.prepare import Session, describe, load_for, prepare, read_samples, resolved
from bisect_trt.session.recording import cannot_run, record
from bisect_trt.settings import Settings
from bisect_trt.targets.tensorrt.engine import built_words
from bisect_trt.workers.pool import Pool


def check(model: Path, settings: Settings, *, warm: Pool | None = None) -> Check:
    """Does the target agree with the reference on this model?

    Args:
        model: the file.
        settings: what to run it on.
        warm: a pool of one worker that has checked other models; by default one is made for this call.

    Raises:
        UsageError: the model, its inputs or an option cannot be used.
        TargetUnavailable: the target cannot be used here.
    """
    settings = resolved(settings)
    loaded = load_for(model, settings)
    samples = read_samples(loaded, settings)
    with tempfile.TemporaryDirectory(prefix="bisect-trt-") as place:
        folder = Path(place)
        session = prepare(loaded, samples, folder / "work")
        logs = folder / "logs"
        with (
            nullcontext(warm) if warm else pool_for(settings, logs) as pool,
            nullcontext(warm) if warm else target_pool(pool, settings, logs, 1) as there,
        ):
            info = describe(describing(pool, there, settings), settings)
            original, reference, notes = session.original, "", [*loaded.notes, *info.notes]
            blame: Failure | None = None
            if (info.can_run or outside(settings)) and not is_self(settings):
                known = _reference(pool, session, settings)
                notes += [known.note] if known.note else []
                notes += cannot_run(known.record, settings, session.graph)
                blame = known.failure if known.blame else None
                reference = known.record.reference
                original = session.with_outputs(known.record) if info.can_run else original
            oracle = Oracle(there, settings.target, settings.run.timeout, settings.accuracy)
            oracle.save = settings.run.save_outputs
            outcome = Outcome(failures=(blame,)) if blame else oracle.observe(original)
            notes += [built] if (built := built_words(outcome.built)) else []
    return Check(
        model=model,
        settings=settings,
        target=info,
        reference=reference,
        outcome=outcome,
        nodes=len(session.graph.order),
        seconds=outcome.seconds,
        outputs_compared=info.can_run and (bool(original.expected) or is_self(settings)),
        notes=tuple(notes),
        export_differs=blame is not None,
    )


def _reference(pool: Pool, session: Session, settings: Settings) -> Truth:
    """What it gives for the whole model; when the export differs, both sides are saved where asked for."""
    recorded = record(pool, session, settings, outputs_only=not outside(settings))
    known, save = ask(pool, session, settings, recorded), settings.run.save_outputs
    if known.framework is not None and save is not None:
        _save(session, known.framework, save / "reference.npz")
        _save(session, known.record, save / "target.npz")
    return known


def _save(session: Session, record: Record, place: Path) -> None:
    """Outputs of one side: of the framework, or of ONNX Runtime in the place of the target."""
    names = [name for name in session.graph.graph_outputs if name in record]
    samples = [
        {name: session.store.load(record.path(k, name), record.elem_type(name)) for name in names}
        for k in range(record.samples)
    ]
    write_samples(place, samples)


def pool_for(settings: Settings, logs: Path) -> Pool:
    """One worker as the settings want it."""
    run = settings.run
    return Pool(1, log_dir=logs, memory_limit=run.memory_limit, devices=run.devices[:1])
