"""What an answer makes of a row: plain functions, no clock, no process."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from bisect_trt._version import __version__
from bisect_trt.nightly import verdicts
from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.plan import Item
from bisect_trt.nightly.retention import REPRODUCERS
from bisect_trt.nightly.runner import Answer, Cause, Checked, Reduced, Trouble
from bisect_trt.nightly.verdicts import Key, Past, Result, Status
from bisect_trt.outcome import Failure
from bisect_trt.settings import Settings

STALE = "stale"  # a stored reproducer does not show the failure any more
_SURPRISES = (Status.NEW, Status.CHANGED, Status.FIXED, Status.FLAKY)
_PROBE_SHARE = 0.8  # of a check's time that one probe may take, so that a hang is seen as one
_BUDGET_SHARE = 0.85
_PROBE_DEFAULT = 600.0  # seconds, as `oracle` has it for a first run

PastOf = Callable[[Row], Sequence[Past]]


def with_probe_deadline(settings: Settings, limit: float) -> Settings:
    """Give probes a deadline before that of the job, so that a target which hangs is found by its own."""
    timeout = min(settings.run.timeout or _PROBE_DEFAULT, limit * _PROBE_SHARE)
    return replace(settings, run=replace(settings.run, timeout=timeout))


def with_budget(settings: Settings, limit: float) -> Settings:
    """Give a reduction a budget that ends before its time is over: then its best is verified as well."""
    budget = min(settings.run.budget or limit, limit * _BUDGET_SHARE)
    return replace(settings, run=replace(settings.run, budget=budget))


def checked(row: Row, answer: Answer, past_of: PastOf, confirm: int, *, missed: bool = False) -> Row:
    """Go on after the first check: it is settled, or a surprise that has to be confirmed.

    `missed` says that a model which cannot be read is news: it could be, or was not known, the night before.
    """
    row = replace(row, check_seconds=answer.seconds)
    if isinstance(answer, Trouble):
        news = missed and answer.cause is Cause.USAGE
        return replace(row, phase="done", begun=0, reason=answer.reason, news=news)
    assert isinstance(answer, Checked)
    row = replace(row, digest=answer.digest, version=answer.version, nodes=answer.nodes)
    row = _judged(_with_run(row, answer, past_of), past_of)
    if row.result is Result.UNKNOWN:
        return replace(row, phase="done", reason=answer.unresolved)
    return _next(row, confirm)


def confirmed(row: Row, answer: Answer, past_of: PastOf, confirm: int) -> Row:
    """Go on after another check of a surprise; one that gives no answer ends the asking."""
    if isinstance(answer, Trouble):
        row = replace(row, phase="confirmed" if row.result is not Result.PASS else "done", begun=0)
        return replace(row, reason=f"seen {len(row.runs)} times, not {confirm}: {answer.reason}")
    assert isinstance(answer, Checked)
    return _next(_judged(_with_run(row, answer, past_of), past_of), confirm)


def verified(row: Row, answer: Answer) -> Row:
    """Go on after a run of the stored reproducer: it is kept, or to be reduced again."""
    row = replace(row, begun=0)
    if isinstance(answer, Checked) and answer.shows:
        return replace(row, phase="done", reduction="kept", reason="")
    return replace(row, repro="", repro_nodes=0, shape="", reduction=STALE)


def reduced(row: Row, answer: Answer, folder: str, out: Path, past_of: PastOf) -> Row:
    """Keep, after a reduction, its reproducer, or why there is none."""
    row = replace(row, phase="done", begun=0, reduction="failed")
    if isinstance(answer, Trouble):
        return _not_reduced(row, answer, folder, out, past_of)
    assert isinstance(answer, Reduced)
    if answer.failure.key != row.key:
        row = _failing(row, answer.failure)
    if answer.flaky:
        row = _judged(replace(row, runs=(*row.runs, (Result.PASS, None))), past_of)
    whole = answer.finished and answer.verified > 0
    reason = (
        "" if answer.finished else f"reduction stopped early: {answer.stop_reason or 'its time was over'}"
    )
    if answer.finished and answer.verified < answer.repeats:
        reason = f"the reproducer showed the failure {answer.verified} times of {answer.repeats}"
    return replace(
        row,
        reduction="done" if whole else "partial",
        repro=folder,
        repro_nodes=answer.nodes,
        shape=answer.shape,
        reason=reason,
    )


def given_up(row: Row, reason: str) -> Row:
    """Return a row whose next job is not begun any more."""
    return replace(row, phase="done", begun=0, reason=reason, reduction=row.reduction.replace(STALE, ""))


def repro_folder(item: Item, row: Row) -> str:
    """Return where a reproducer lies below the output folder; the same failure gives the same place."""
    parts = (item.name, item.target, item.digest, row.digest, row.version, *(row.key or ()), __version__)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
    return f"{REPRODUCERS}/{item.slug}-{digest}/{item.path.stem[:80]}-repro"


def _not_reduced(row: Row, answer: Trouble, folder: str, out: Path, past_of: PastOf) -> Row:
    if answer.cause is Cause.STEADY:
        row = _judged(replace(row, runs=(*row.runs, (Result.PASS, None))), past_of)
    if answer.cause is Cause.DISK:  # give the others room
        shutil.rmtree((out / folder).parent, ignore_errors=True)
    return replace(row, reason=f"not reduced: {answer.reason}")


def _with_run(row: Row, answer: Checked, past_of: PastOf) -> Row:
    failure = _known_failure(answer.failures, row, past_of)
    result = Result.FAIL if failure else Result.UNKNOWN if answer.unresolved else Result.PASS
    row = replace(row, begun=0, runs=(*row.runs, (result, failure.key if failure else None)))
    return _failing(row, failure) if failure and row.key is None else row


def _known_failure(failures: Sequence[Failure], row: Row, past_of: PastOf) -> Failure | None:
    """Choose among several failures the one that is known: from this night, or else from the one before."""
    known: list[Key | None] = [row.key] if row.key else [p.key for p in past_of(row)[:1]]
    same = (f for f in failures if f.key in known)
    return next(same, failures[0] if failures else None)


def _failing(row: Row, failure: Failure) -> Row:
    stage, symptom, signature = failure.key
    row = replace(row, stage=stage, symptom=symptom, signature=signature)
    return replace(row, message=failure.message, op=failure.op)


def _judged(row: Row, past_of: PastOf) -> Row:
    past = past_of(row)
    result, key = verdicts.combine(row.runs)
    status = verdicts.status(result, key, past)
    return replace(row, result=result, status=status, news=verdicts.is_news(status, past), reason="")


def _next(row: Row, confirm: int) -> Row:
    open_question = row.result is not Result.MIXED and row.status in _SURPRISES and len(row.runs) < confirm
    if open_question:
        return replace(row, phase="checked")
    return replace(row, phase="done" if row.result is Result.PASS else "confirmed")
