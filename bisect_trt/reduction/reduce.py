"""`reduce`: from a model that fails to a folder that can be attached to a bug report.

`simplify`: the passes that make a model simple, alone, on one that is already small.
"""

from __future__ import annotations

import json
import math
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from bisect_trt._version import __version__
from bisect_trt.environment import first_version
from bisect_trt.errors import StoppedEarly
from bisect_trt.reduction.context import Run
from bisect_trt.reduction.finish import (
    finish,
    result_of,
    told_of_the_original,
    verify,
    write_models,
    write_papers,
)
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.schedule import AS_IT_IS, INTERRUPTED, SEARCH, Schedule, refine, search, unsteady
from bisect_trt.reduction.simplify.run import shown_at_last
from bisect_trt.results import OnEvent, Reduction, Step
from bisect_trt.session import folder as folders
from bisect_trt.session.cache import Cache
from bisect_trt.session.oracle import Oracle
from bisect_trt.session.pools import describing, target_pool, with_timing_cache
from bisect_trt.session.prepare import LONGEST_START, describe, load_for, prepare, read_samples, resolved
from bisect_trt.session.prober import GO_ON, NO_FARTHER, Budget, Prober
from bisect_trt.settings import Settings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool, watching


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
    """Everything that a reduction needs, until the end of the context. Raises as `reduce` does."""
    began = time.monotonic()
    settings = resolved(settings)
    loaded = load_for(model, settings)
    samples = read_samples(loaded, settings)
    out = out or folders.default_folder(Path("anonymous") if settings.run.anonymise else model)
    head = folders.header(loaded.digest, settings, samples, every=every)
    folders.require_free(out, head, force=force)
    with (
        _terminable(),
        tempfile.TemporaryDirectory(prefix="bisect-trt-") as logs,
        Pool(
            settings.run.workers,
            log_dir=Path(logs),
            memory_limit=settings.run.memory_limit,
            devices=settings.run.devices,
        ) as pool,
        target_pool(pool, settings, Path(logs), settings.run.workers) as there,
        watching(there, lambda text: on_event(Step("", "", 0, builder=text))),
    ):
        target = with_timing_cache(settings.target, out / folders.WORK)
        for _ in range(settings.run.workers - 1):  # so that none has to start when it is needed
            there.submit(jobs.describe, target, timeout=LONGEST_START)
        info = describe(describing(pool, there, settings), replace(settings, target=target))
        reference = first_version("onnxruntime", "onnxruntime-gpu")
        fingerprint = f"{info.fingerprint}|reference={reference}"
        cache = _shared_cache(settings, fingerprint)
        started = time.monotonic()
        with folders.open_folder(out, head, force=force) as journal:
            folders.require_target(journal, fingerprint)
            session = prepare(loaded, samples, out / folders.WORK)
            prober = Prober(
                Oracle(there, target, settings.run.timeout, settings.accuracy),
                journal,
                settings.run.workers,
                cache,
            )
            prober.oracle.save = settings.run.save_outputs
            prober.oracle.on_deadline = lambda seconds: journal.event("deadline", seconds=seconds)
            if journal.finished():
                prober.oracle.settle(journal.deadline)
            prober.budget = _budget(settings, began)
            try:
                run = Run(session, settings, info, prober, pool, out, on_event, began)
                run.spent["start_seconds"] = started - began
                run.prepared = there.prepared
                run.samples = samples
                run.timing_cache = target.timing_cache
                yield run
            finally:
                prober.close()


def _budget(settings: Settings, began: float) -> Budget:
    limit = settings.run.budget
    return Budget(None if limit is None else began + limit, settings.run.max_probes)


def _shared_cache(settings: Settings, on: str) -> Cache | None:
    """The cache that was asked for; none for a command of the user, which may change unseen."""
    if settings.run.cache_dir is None or settings.target.spec.startswith("command:"):
        return None
    meaning = [folders.meaning(settings.target), repr(settings.accuracy)]
    fingerprint = [__version__, on, *meaning]
    return Cache(settings.run.cache_dir, json.dumps(fingerprint, sort_keys=True))


def reduce_one(run: Run, problem: Problem, out: Path, schedule: Schedule = SEARCH) -> Reduction:
    """Search for one failure, write what is found into `out`, verify it."""
    stop_reason = search(run, problem, schedule)
    if problem.best is None:
        if stop_reason:
            won = run.prober.counts.probes or stop_reason == INTERRUPTED
            raise StoppedEarly(
                f"{stop_reason} before anything smaller than the model was found to fail",
                GO_ON if won else NO_FARTHER,
            )
        problem.best = run.whole_file
    found = problem.best
    simple, stop_reason = refine(run, problem, stop_reason)
    result = replace(result_of(run, problem, stop_reason, out), simplification=simple)
    result = told_of_the_original(run, problem, found, result)
    if simple is not None:
        result = replace(
            result,
            wanted=shown_at_last(problem),
            original_failure=problem.wanted,
            one_minimal=result.one_minimal or len(result.best.nodes) == 1,
        )
    write_models(run, result, out)
    tried = stop_reason != INTERRUPTED and run.reachable
    if tried:
        result = verify(run, result, problem.runs)
        if unsteady(run, problem, found, result):
            return reduce_one(run, problem, out, schedule)
    wall = time.monotonic() - run.began
    counts = asdict(problem.counts) | run.spent | {"wall_seconds": wall, "builder_seconds": run.prepared()}
    return write_papers(run, replace(result, counts=counts), tried=tried)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and a terminal that closes act as Ctrl-C does: the best so far is written."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    with suppress(ValueError):  # not in the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    run = settings.run
    budget = math.inf if run.simplify_budget is None else run.simplify_budget
    settings = replace(settings, run=replace(run, simplify=True, simplify_budget=budget))
    with open_run(model, settings, out=out, force=force, on_event=on_event) as opened:
        return finish(opened, [reduce_one(opened, opened.confirm(), opened.out, AS_IT_IS)])[0]
