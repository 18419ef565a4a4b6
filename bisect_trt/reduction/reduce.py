"""`reduce`: from a model that fails to a folder that can be attached to a bug report.

`simplify`: the passes that make a model simple, alone, on one that is already small.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec.structs import asdict, replace

from bisect_trt.anonymise.scrub import require_untelling
from bisect_trt.errors import ModelDoesNotFail, StoppedEarly
from bisect_trt.machine.environment import first_version
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.load import LoadedModel
from bisect_trt.outcome import End, Ended
from bisect_trt.reduction.context import Opened, Run
from bisect_trt.reduction.finish import (
    FreshRuns,
    finish,
    getting_ready,
    result_of,
    verify,
    with_the_original,
    write_models,
    write_texts,
)
from bisect_trt.reduction.menu import AS_IT_IS, SEARCH, Schedule
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.schedule import Found, explain, refine, search, unsimplified, unsteady
from bisect_trt.reduction.simplify.run import shown_at_last
from bisect_trt.reproducer.archive import remove_zip
from bisect_trt.reproducer.trial import Ready
from bisect_trt.results import OnEvent, Reduction, Step
from bisect_trt.session import folder as folders
from bisect_trt.session.cache import shared
from bisect_trt.session.export_trial import ExportTrial, is_plain, try_export
from bisect_trt.session.finite import with_other_masks
from bisect_trt.session.journal import Journal
from bisect_trt.session.oracle import Oracle
from bisect_trt.session.pools import describing, pools, with_timing_cache
from bisect_trt.session.prepare import LONGEST_START, Session, describe, load_for, resolved
from bisect_trt.session.prober import GO_ON, NO_FARTHER, Budget, Prober
from bisect_trt.session.recording import Recording
from bisect_trt.session.samples import read_with_notes
from bisect_trt.session.shape_notes import shape_notes
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool


def reduce(
    model: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    force: bool = False,
    on_event: OnEvent = lambda step: None,
) -> Reduction:
    """Reduce a failing model to its smallest failing part and write the reproducer folder.

    Raises:
        UsageError: model, inputs, options or folder cannot be used; nothing was written.
        TargetUnavailable: the target cannot be used here; nothing was written.
        ModelDoesNotFail: target and reference agree on the whole model.
        StoppedEarly: stopped before anything smaller than the model was found.
        Leak: with `anonymise`, something of the original is needed, or is left; nothing was zipped.
    """
    with open_run(model, settings, out=out, force=force, on_event=on_event) as run:
        return finish(run, [reduce_one(run, run.confirm(), run.out)])[0]


@contextmanager
def open_run(
    model: Path, settings: Settings, *, out: Path | None, force: bool, on_event: OnEvent, every: bool = False
) -> Iterator[Run]:
    """Open everything that a reduction needs, until the end of the context. Raises as `reduce` does."""
    began = time.monotonic()
    settings = resolved(settings)
    loaded = load_for(model, settings)
    samples, converted = read_with_notes(loaded, settings)
    head = folders.header(loaded.digest, settings, samples, every=every)
    out = _free_folder(out, head, loaded, settings, force=force)
    work = out / folders.WORK

    def tell(text: str) -> None:
        on_event(Step("", "", 0, builder=text))

    with pools(settings, tell) as (pool, there):
        target = with_timing_cache(settings.target, work)
        info = _described(pool, there, replace(settings, target=target))
        fingerprint = f"{info.fingerprint}|reference={first_version('onnxruntime', 'onnxruntime-gpu')}"
        opened = Opened(pool, there, out, on_event, began, answered=time.monotonic())
        with folders.open_folder(out, head, force=force) as journal:
            folders.require_target(journal, fingerprint)
            compares = info.can_run and is_plain(settings)
            session, turned = with_other_masks(pool, loaded, samples, settings, work, compares)
            trial, recording = _reference(opened, settings, info, session)
            oracle = _oracle(there, target, trial.settings, journal)
            # The keys of a cache know nothing of the framework.
            cache = None if trial.on_trial else shared(settings, fingerprint)
            prober = Prober(oracle, journal, settings.run.workers, cache, Budget.of(settings.run, began))
            with closing(prober):
                run = Run(opened, session, trial, recording, prober)
                run.note((turned, *converted, *shape_notes(loaded, samples, settings)))
                run.take_random_values()
                yield run


def _free_folder(
    out: Path | None, head: dict[str, str], loaded: LoadedModel, settings: Settings, *, force: bool
) -> Path:
    """Return the folder that is asked for, or the usual one, once it is known that it may be written."""
    anonymous = settings.run.anonymise
    if out is None:
        out = folders.anonymous_folder(head) if anonymous else folders.default_folder(loaded.path)
    if anonymous:
        require_untelling(out, loaded, settings)
    folders.require_free(out, head, force=force)
    if force:
        remove_zip(out)
    return out


def _described(pool: Pool, there: Pool, settings: Settings) -> TargetInfo:
    """Open the target in all workers, so that none has to start when it is needed."""
    for _ in range(settings.run.workers - 1):
        there.submit(jobs.describe, settings.target, timeout=LONGEST_START)
    return describe(describing(pool, there, settings), settings)


def _oracle(there: Pool, target: TargetSettings, settings: Settings, journal: Journal) -> Oracle:
    """Return the target; its deadline is written down, and that of a run that is resumed holds."""
    oracle = Oracle(there, target, settings.run.timeout, settings.accuracy)
    oracle.save = settings.run.save_outputs
    oracle.on_deadline = lambda seconds: journal.event("deadline", seconds=seconds)
    if journal.finished():
        oracle.settle(journal.deadline)
    return oracle


def _reference(
    opened: Opened, settings: Settings, info: TargetInfo, session: Session
) -> tuple[ExportTrial, Recording]:
    """The reference run: ONNX Runtime's as far as it is needed, any other as a whole and compared with it.

    Raises:
        ModelDoesNotFail: the export is to blame, not the target; the folder is gone then.
        UsageError, TargetUnavailable: the reference fails, or needs what is not installed.
    """

    def tell(text: str) -> None:
        opened.on_event(Step("record", text, len(session.graph.order)))

    recording = Recording.when_needed(opened.pool, session, settings, tell)
    if is_plain(settings):
        return ExportTrial(settings, info), recording
    try:
        trial = try_export(settings, info, session, opened.pool, recording.whole())
    except ModelDoesNotFail:
        shutil.rmtree(opened.out, ignore_errors=True)
        raise
    return trial, recording.replaced(trial.record)


def reduce_one(run: Run, problem: Problem, out: Path, schedule: Schedule = SEARCH) -> Reduction:
    """Search for one failure, write what is found into `out`, verify it."""
    while True:
        found = search(problem, schedule)
        if problem.best is None:
            _require_something(found.end, run.prober)
            problem.keep(run.whole_file)
        cut = problem.smallest
        with getting_ready(run, problem) as ready:
            refined = refine(run, problem, found)
            result, fresh = _verified(run, problem, cut, refined, out, ready)
        if fresh is not None and (plain := unsimplified(run, problem, refined, result)):
            result, fresh = _verified(run, problem, cut, plain, out, Ready())
        if fresh is None or not unsteady(run, problem, cut, result):
            break
    spent = asdict(problem.counts) | run.spent() | {**found.search, **result.counts}
    return write_texts(run, replace(result, counts=spent), fresh)


def _verified(
    run: Run, problem: Problem, cut: Candidate, found: Found, out: Path, ready: Ready
) -> tuple[Reduction, FreshRuns | None]:
    """Write the models, run them in fresh processes unless the search was broken off, explain the failure.

    Where a process takes long to start, the fresh ones run beside the questions that explain it: these change
    nothing of the files.
    """
    beside = jobs.warm_job(run.settings.target) is not None and not run.settings.run.cluster
    found = found if beside else explain(problem, found)
    result = _result(run, problem, cut, found, out)
    write_models(run, result, found.neighbour, found.kept)
    runs = problem.runs if found.kept.nothing else 1  # with tactics of its own it comes and goes no more
    if found.end.how in (Ended.INTERRUPTED, Ended.CLUSTER_LOST):
        return result, None
    if not beside:
        fresh = verify(run, result, runs, ready)
        return fresh.shown_in(result), fresh
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(verify, run, result, runs, ready)
        result = _result(run, problem, cut, explain(problem, found), out)
        fresh = running.result()
    return fresh.shown_in(result), fresh


def _require_something(end: End, prober: Prober) -> None:
    """Raises StoppedEarly when the search ended before it found anything."""
    if end.is_early:
        won = prober.counts.probes or end.how is Ended.INTERRUPTED
        text = f"{end.why} before anything smaller than the model was found to fail"
        raise StoppedEarly(text, GO_ON if won else NO_FARTHER)


def _result(run: Run, problem: Problem, cut: Candidate, found: Found, out: Path) -> Reduction:
    """Return all that is known before the written files are run; `cut` is not simplified yet."""
    result = with_the_original(run, problem, cut, found, result_of(run, problem, found, out))
    if found.simple is None:
        return result
    return replace(
        result,
        wanted=shown_at_last(problem),
        original_failure=problem.wanted,
        one_minimal=result.one_minimal or len(result.best.nodes) == 1,
    )


def simplify(
    model: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    force: bool = False,
    on_event: OnEvent = lambda step: None,
) -> Reduction:
    """Make a failing model simple without looking for fewer nodes first, and write the reproducer folder.

    It goes on until nothing changes any more, unless the settings have a budget.

    Raises:
        As `reduction.reduce` does.
    """
    given = settings.run
    budget = math.inf if given.simplify_budget is None else given.simplify_budget
    settings = replace(settings, run=replace(given, simplify=True, simplify_budget=budget))
    with open_run(model, settings, out=out, force=force, on_event=on_event) as run:
        return finish(run, [reduce_one(run, run.confirm(), run.out, AS_IT_IS)])[0]
