"""`reduce`: from a model that fails to a folder that can be attached to a bug report."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bisect_trt import folder as folders
from bisect_trt.errors import ModelDoesNotFail, StoppedEarly
from bisect_trt.journal import Journal
from bisect_trt.model.cut import Cutter
from bisect_trt.oracle import Oracle
from bisect_trt.outcome import Outcome, Verdict, judge
from bisect_trt.passes import MENU
from bisect_trt.passes.drop import is_one_minimal
from bisect_trt.passes.hints import resolve
from bisect_trt.prober import Prober
from bisect_trt.problem import Problem
from bisect_trt.references.base import Record
from bisect_trt.reproducer import bundle
from bisect_trt.result import OnEvent, Reduction, Step
from bisect_trt.session import Session, describe, load_for, prepare, read_samples, record, resolved
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.verification import verify_files
from bisect_trt.workers.pool import Pool

INTERRUPTED = "interrupted"


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
    """
    began = time.monotonic()
    settings = resolved(settings)
    loaded = load_for(model, settings)
    samples = read_samples(loaded, settings)
    out = out or folders.default_folder(model)
    head = folders.header(loaded.digest, settings)
    folders.require_free(out, head, force=force)
    with (
        _terminable(),
        tempfile.TemporaryDirectory(prefix="bisect-trt-") as logs,
        Pool(settings.run.workers, log_dir=Path(logs), memory_limit=settings.run.memory_limit) as pool,
    ):
        info = describe(pool, settings)
        journal = folders.open_folder(out, head, force=force)
        session = prepare(loaded, samples, out / folders.WORK)
        oracle = Oracle(pool, settings.target, settings.run.timeout)
        run = _Run(session, settings, info, oracle, journal, pool, out, on_event)
        return run.reduce(began)


class _Run:
    """The steps of one reduction, in order."""

    def __init__(
        self,
        session: Session,
        settings: Settings,
        info: TargetInfo,
        oracle: Oracle,
        journal: Journal,
        pool: Pool,
        out: Path,
        on_event: OnEvent,
    ) -> None:
        self.session = session
        self.settings = settings
        self.info = info
        self.oracle = oracle
        self.journal = journal
        self.pool = pool
        self.out = out
        self.on_event = on_event
        self.phases: list[dict[str, Any]] = []

    def reduce(self, began: float) -> Reduction:
        """Record, confirm, search, write, verify."""
        self.tell("record", "running the reference")
        recorded = record(self.pool, self.session, self.settings)
        problem = self.confirm(recorded)
        stop_reason = self.search(problem)
        if problem.best is None:
            if stop_reason:
                raise StoppedEarly(
                    f"{stop_reason} before anything smaller than the model was found to fail",
                    "the same command goes on from here",
                )
            problem.best = replace(
                self.session.original, expected=recorded.values(self.session.graph.graph_outputs)
            )
        result = self.result(problem, recorded, stop_reason, began)
        bundle.write_model(result.best, self.out)
        if not stop_reason:
            result = self.verify(result)
        result = replace(result, counts={**result.counts, "wall_seconds": time.monotonic() - began})
        bundle.write_papers(result)
        if not stop_reason:
            shutil.rmtree(self.out / folders.WORK, ignore_errors=True)
        return result

    def tell(self, phase: str, text: str) -> None:
        """An event outside the search."""
        self.on_event(Step(phase, text, len(self.session.graph.order)))

    def confirm(self, recorded: Record) -> Problem:
        """The user's own file has to fail; what it shows first is the wanted failure."""
        self.tell("confirm", f"building the whole model on {self.info.title}")
        original = self.session.original
        if self.info.can_run:
            original = replace(original, expected=recorded.values(self.session.graph.graph_outputs))
        problem = Problem(
            graph=self.session.graph,
            cutter=Cutter(self.session.graph, self.session.store, recorded),
            prober=Prober(self.oracle, self.journal, self.settings.run.workers),
            wanted=None,
            on_event=self.on_event,
            repeats=self.settings.run.repeats,
            phase="confirm",
        )
        for outcome in problem.observations(original, max(1, self.settings.run.repeats)):
            if outcome.failures:
                first = outcome.failures[0]
                blamed = resolve(self.session.graph, first.nodes)
                problem.wanted = replace(first, nodes=tuple(blamed) or first.nodes)
                return problem
        raise self.not_failing(outcome)

    def not_failing(self, outcome: Outcome) -> ModelDoesNotFail:
        """Says what was run and seen; leaves nothing behind."""
        shutil.rmtree(self.out, ignore_errors=True)
        if outcome.unresolved:
            return ModelDoesNotFail(f"nothing can be said of this model: {outcome.unresolved}")
        runs = self.settings.run.repeats
        what = "builds" if not self.info.can_run else "builds, runs and agrees with the reference"
        hint = (
            "outputs were not compared: this target is build only here"
            if not self.info.can_run
            else "raise --repeats if the failure comes and goes"
        )
        return ModelDoesNotFail(f"the model {what} on {self.info.title} ({runs} of {runs} runs)", hint)

    def search(self, problem: Problem) -> str:
        """Run the passes; an interrupt ends them early and is told in the answer."""
        try:
            for one_pass in MENU:
                problem.phase = one_pass.__name__.replace("_", " ")
                self.timed(problem, one_pass)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            problem.prober.close()
        return ""

    def timed(self, problem: Problem, one_pass: Any) -> None:
        """Run one pass and note what it did."""
        began, probes, nodes = time.monotonic(), problem.counts.probes, problem.nodes_left
        one_pass(problem)
        self.phases.append(
            {
                "name": problem.phase,
                "probes": problem.counts.probes - probes,
                "nodes_before": nodes,
                "nodes_after": problem.nodes_left,
                "seconds": round(time.monotonic() - began, 3),
            }
        )

    def result(self, problem: Problem, recorded: Record, stop_reason: str, began: float) -> Reduction:
        """What is known before verification."""
        assert problem.best is not None and problem.wanted is not None
        notes = [*self.info.notes]
        if recorded.error:
            notes.append(f"The reference cannot run the whole model: {recorded.error}")
        shown = problem.shown_by(problem.best)
        if shown is not problem.wanted:
            notes.append(
                "In a model so small the target words this failure differently; with unrelated nodes in "
                f"front of it, it says what it says of the whole model: {problem.wanted.message}"
            )
        if problem.best.cut == "original":
            notes.append("Only the file as it is fails; any normalised or cut form of it does not.")
        return Reduction(
            model=self.session.loaded.path,
            out=self.out,
            settings=self.settings,
            target=self.info,
            reference=recorded.reference,
            wanted=shown,
            original_failure=None if shown is problem.wanted else problem.wanted,
            best=problem.best,
            original_nodes=len(self.session.graph.order),
            also_seen=tuple(problem.also_seen.values()),
            one_minimal=not stop_reason and is_one_minimal(problem),
            repeats=self.settings.run.repeats,
            finished=not stop_reason,
            stop_reason=stop_reason,
            counts=asdict(problem.counts),
            phases=tuple(self.phases),
            outputs_compared=self.info.can_run,
            notes=tuple(notes),
        )

    def verify(self, result: Reduction) -> Reduction:
        """Run the written files in fresh processes."""
        self.tell("verify", f"running {result.out.name}/repro.onnx in {result.repeats} fresh processes")
        outcomes = verify_files(result.out, self.settings, self.oracle.deadline, result.repeats)
        agreed = [o for o in outcomes if judge(o, result.wanted) is Verdict.REPRODUCES]
        return replace(result, verified=len(agreed), log=agreed[0].log if agreed else outcomes[0].log)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does: the best so far is written."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


