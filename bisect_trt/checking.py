"""`check`: one probe of the whole model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bisect_trt.oracle import Oracle
from bisect_trt.outcome import Failure, Outcome
from bisect_trt.result import Check
from bisect_trt.session import cannot_run, describe, load_for, prepare, read_samples, record, resolved
from bisect_trt.settings import Settings
from bisect_trt.targets.trt_engine import built_words
from bisect_trt.truth import ask, is_self, outside
from bisect_trt.workers.pool import Pool


def check(model: Path, settings: Settings) -> Check:
    """Does the target agree with the reference on this model?

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
        run = settings.run
        with Pool(
            1, log_dir=folder / "logs", memory_limit=run.memory_limit, devices=run.devices[:1]
        ) as pool:
            info = describe(pool, settings)
            original, reference, notes = session.original, "", list(info.notes)
            blame: Failure | None = None
            if (info.can_run or outside(settings)) and not is_self(settings):
                recorded = record(pool, session, settings, outputs_only=not outside(settings))
                known = ask(pool, session, settings, recorded)
                recorded, notes = known.record, notes + ([known.note] if known.note else [])
                blame = known.failure if known.blame else None
                reference = recorded.reference
                original = session.with_outputs(recorded) if info.can_run else original
                notes += cannot_run(recorded, settings)
            oracle = Oracle(pool, settings.target, settings.run.timeout, settings.accuracy)
            oracle.save = settings.run.save_outputs
            outcome = Outcome(failures=(blame,)) if blame else oracle.observe(original)
            notes += [built] if (built := built_words(outcome.facts)) else []
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
