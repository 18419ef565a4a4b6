"""`reduce`: from a model that fails to a folder that can be attached to a bug report."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import bisect_trt
from bisect_trt import folder as folders
from bisect_trt import papers
from bisect_trt.anonymise import (
    anonymous,
    require_clean,
    require_clean_archives,
    require_synthetic,
    scrub_journal,
    scrub_papers,
    secrets_of,
)
from bisect_trt.audit import Secrets
from bisect_trt.cache import Cache
from bisect_trt.errors import ModelDoesNotFail, StoppedEarly
from bisect_trt.hybrid import Hybrid, facts, output_of
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cut import Cutter
from bisect_trt.model.figures import figures
from bisect_trt.model.rest import Rests
from bisect_trt.oracle import Oracle
from bisect_trt.origin import origins
from bisect_trt.outcome import Failure, Outcome, Stage, Verdict, judge
from bisect_trt.passes import MENU
from bisect_trt.passes.causes import causes
from bisect_trt.passes.drop import is_one_minimal
from bisect_trt.passes.hints import resolve
from bisect_trt.passes.localise import halving
from bisect_trt.passes.neighbour import Neighbour, nearest_passing
from bisect_trt.passes.selections import Selections
from bisect_trt.passes.simplify.step import shown_at_last, simplify_best
from bisect_trt.passes.steady import distrust
from bisect_trt.prober import Budget, BudgetSpent, Prober
from bisect_trt.problem import Problem
from bisect_trt.references.base import Record
from bisect_trt.reproducer import bundle
from bisect_trt.result import OnEvent, Reduction, Simplification, Step
from bisect_trt.session import (
    LONGEST_START,
    Session,
    describe,
    load_for,
    prepare,
    read_samples,
    record,
    record_again,
    resolved,
)
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.truth import ask, is_self
from bisect_trt.verification import verify_files
from bisect_trt.workarounds import workarounds
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool
from bisect_trt.workers.watching import watching

INTERRUPTED = "interrupted"
FRESH = 12  # processes in which a flaky failure may show again
TENSORRT = ("tensorrt", "tensorrt-rtx")
BUILT = ("network_types", "cast", "engine")  # facts of an outcome that tell what TensorRT made of it


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
        return run.finish([run.reduce(run.confirm(), run.out)])[0]


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
    head = folders.header(loaded.digest, settings, every=every)
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
        watching(pool, lambda text: on_event(Step("", "", 0, builder=text))),
    ):
        target = with_timing_cache(settings.target, out / folders.WORK)
        for _ in range(settings.run.workers - 1):  # so that none has to start when it is needed
            pool.submit(jobs.describe, target, timeout=LONGEST_START)
        info = describe(pool, replace(settings, target=target))
        cache = _shared_cache(settings, info)
        started = time.monotonic()
        with folders.open_folder(out, head, force=force) as journal:
            session = prepare(loaded, samples, out / folders.WORK)
            prober = Prober(
                Oracle(pool, target, settings.run.timeout, settings.accuracy),
                journal,
                settings.run.workers,
                cache,
            )
            prober.oracle.save = settings.run.save_outputs
            prober.budget = _budget(settings, began)
            try:
                run = Run(session, settings, info, prober, pool, out, on_event, began)
                run.spent["start_seconds"] = started - began
                run.samples = samples
                run.timing_cache = target.timing_cache
                yield run
            finally:
                prober.close()


def with_timing_cache(target: TargetSettings, work: Path) -> TargetSettings:
    """TensorRT chooses the same tactics in all probes of a run: one timing cache, the user's or our own.

    TensorRT-RTX has none.
    """
    if target.spec != "tensorrt" or target.timing_cache is not None:
        return target
    return replace(target, timing_cache=work.absolute() / bundle.TIMING)


def _budget(settings: Settings, began: float) -> Budget:
    limit = settings.run.budget
    return Budget(None if limit is None else began + limit, settings.run.max_probes)


def _shared_cache(settings: Settings, info: TargetInfo) -> Cache | None:
    """The cache that was asked for; none for a command of the user, which may change unseen."""
    if settings.run.cache_dir is None or settings.target.spec.startswith("command:"):
        return None
    meaning = [folders.meaning(settings.target), repr(settings.accuracy)]
    fingerprint = [bisect_trt.__version__, info.fingerprint, *meaning]
    return Cache(settings.run.cache_dir, json.dumps(fingerprint, sort_keys=True))


class Run:
    """The steps of one run, in order: confirm, reduce (once, or for each failure), finish."""

    def __init__(
        self,
        session: Session,
        settings: Settings,
        info: TargetInfo,
        prober: Prober,
        pool: Pool,
        out: Path,
        on_event: OnEvent,
        began: float,
    ) -> None:
        """Use `open_run`. `began` is the moment of `time.monotonic` at which the run began."""
        self.session = session
        self.settings = settings
        self.info = info
        self.prober = prober
        self.pool = pool
        self.out = out
        self.on_event = on_event
        self.began = began
        self.timing_cache: Path | None = None  # of TensorRT: the user's, or our own
        self.spent: dict[str, float] = {}  # besides the counts of the prober
        self.one_minimal = False
        self.neighbour: Neighbour | None = None
        self.samples: list[dict[str, Any]] = []
        self.menu: Sequence[Callable[[Problem], None]] = MENU
        self.phases: list[dict[str, Any]] = []
        self.notes: list[str] = []  # on the input values
        self.confirmed = Outcome()  # of the user's own file

    @cached_property
    def recorded(self) -> Record:
        """The reference run."""
        self.tell("record", "running the reference")
        began = time.monotonic()
        recorded = record(self.pool, self.session, self.settings)
        known = ask(self.pool, self.session, self.settings, recorded)
        if known.blame:
            shutil.rmtree(self.out, ignore_errors=True)
            raise ModelDoesNotFail(known.blame, "look at the export, not at the target")
        recorded = known.record
        self.notes += [known.note] if known.note else []
        self.spent["reference_seconds"] = time.monotonic() - began
        return recorded

    @cached_property
    def cutter(self) -> Cutter:
        """Cuts the model by recorded values."""
        return Cutter(self.session.graph, self.session.store, self.recorded)

    @property
    def original(self) -> Candidate:
        """The user's own file, with the values that it has to give."""
        original = self.session.original
        if not self.info.can_run or is_self(self.settings):
            return original
        if self.settings.accuracy.judge == "outputs":
            return self.session.with_outputs(self.recorded)
        return replace(original, expected=self.recorded.values(self.session.graph.graph_outputs))

    def reduce(self, problem: Problem, out: Path) -> Reduction:
        """Search for one failure, write what is found into `out`, verify it."""
        stop_reason = self.search(problem)
        if problem.best is None:
            if stop_reason:
                raise StoppedEarly(
                    f"{stop_reason} before anything smaller than the model was found to fail",
                    "the same command goes on from here",
                )
            problem.best = replace(self.original, cut="original")
        found = problem.best
        self.notes += [] if stop_reason else self.causes(problem)
        simplified = self.simplified(problem, stop_reason)
        self.neighbour = None if stop_reason else self.passing(problem)
        result = replace(self.result(problem, stop_reason, out), simplification=simplified)
        result = self.told_of_the_original(problem, found, result)
        if simplified is not None:
            result = replace(
                result,
                wanted=shown_at_last(problem),
                original_failure=problem.wanted,
                one_minimal=result.one_minimal or len(result.best.nodes) == 1,
            )
        self.write_models(result, out)
        if stop_reason != INTERRUPTED:
            result = self.verify(result, problem.runs)
            if self.unsteady(problem, found, result):
                return self.reduce(problem, out)
        wall = time.monotonic() - self.began
        counts = asdict(problem.counts) | self.spent | {"wall_seconds": wall}
        return self.write_papers(replace(result, counts=counts), tried=stop_reason != INTERRUPTED)

    def simplified(self, problem: Problem, stop_reason: str) -> Simplification | None:
        """Make the best candidate simple, unless the search did not end or an error accumulates.

        Raises:
            StoppedEarly: with `anonymise`, the search did not end.
            Leak: with `anonymise`, values of the original are needed.
        """
        if stop_reason and self.settings.run.anonymise:
            raise StoppedEarly(f"{stop_reason}: nothing was anonymised", "the same command goes on from here")
        simplified = None
        # simple values would add up to less
        if not stop_reason and not (problem.hybrid and problem.hybrid.accumulated):
            simplified = simplify_best(problem, self.pool, self.settings, self.recorded)
        if self.settings.run.anonymise:
            require_synthetic(problem, simplified)
        return simplified

    def write_models(self, result: Reduction, out: Path) -> None:
        """What is not text."""
        bundle.write_model(result.best, out)
        target = self.settings.target
        if target.precision and self.info.name in TENSORRT:
            bundle.write_narrow(out, target.precision)
        if self.timing_cache is not None and not self.settings.run.anonymise:
            bundle.write_timing_cache(self.timing_cache, out)
        if self.neighbour is not None:
            bundle.write_passing(self.neighbour.candidate, out)

    def write_papers(self, result: Reduction, *, tried: bool) -> Reduction:
        """What is text, and the zip; an anonymous one is made when all is done and was audited."""
        journal = self.prober.journal.path
        if not self.settings.run.anonymise:
            return zipped(papers.write(result, journal, tried=tried))
        papers.write(anonymous(result, self.secrets), journal, tried=tried)
        scrub_papers(result.out, self.secrets)
        return result

    def finish(self, results: Sequence[Reduction]) -> list[Reduction]:
        """Nothing more is to be done, unless a result is unfinished: what only the search needs goes.

        Raises:
            Leak: with `anonymise`, something of the original is left.
            StoppedEarly: with `anonymise`, the search did not end, so the folder cannot be shared.
        """
        done = all(result.finished for result in results)
        if done:
            self.prober.journal.event(folders.DONE)
            shutil.rmtree(self.out / folders.WORK, ignore_errors=True)
        if not self.settings.run.anonymise:
            return list(results)
        if not done:
            raise StoppedEarly(
                f"{results[-1].stop_reason}: {self.out.name} still holds the original and was not zipped",
                "the same command goes on from here",
            )
        self.prober.journal.close()
        scrub_journal(self.out / folders.JOURNAL)
        require_clean([self.out], self.secrets)
        found = [zipped(anonymous(result, self.secrets)) for result in results]
        require_clean_archives([r.archive for r in found if r.archive], self.secrets)
        return found

    @cached_property
    def secrets(self) -> Secrets:
        """What `--anonymise` must not leave."""
        return secrets_of(self.session.loaded, self.samples, self.settings)

    def tell(self, phase: str, text: str) -> None:
        """An event outside the search."""
        self.on_event(Step(phase, text, len(self.session.graph.order)))

    def problem(self, wanted: Failure | None, scope: tuple[str, ...] = ()) -> Problem:
        """A search for one failure."""
        self.phases = []
        return Problem(
            graph=self.session.graph,
            cutter=self.cutter,
            prober=self.prober,
            wanted=wanted,
            hybrid=self.hybrid(wanted),
            rerecord=lambda proto, feeds: record_again(self.pool, self.session, self.settings, proto, feeds),
            on_event=self.on_event,
            scope=scope,
            repeats=self.settings.run.repeats,
            phase="confirm",
        )

    def confirm(self) -> Problem:
        """The user's own file has to fail; what it shows first is the wanted failure."""
        problem = self.problem(None)
        problem.wanted = self.wanted(self.failures(problem)[0])
        problem.hybrid = self.hybrid(problem.wanted)
        return problem

    def failures(self, problem: Problem) -> tuple[Failure, ...]:
        """What the user's own file shows. Raises ModelDoesNotFail when that is nothing."""
        self.tell("confirm", f"building the whole model on {self.info.title}")
        halves = Selections(problem)
        with problem.looking_ahead(lambda: halves.guesses(halving(problem))):
            for outcome in problem.observations(self.original, self.settings.run.repeats, rarely=True):
                if outcome.failures:
                    self.keep_failing_samples(outcome)
                    problem.cutter = self.cutter
                    self.confirmed = outcome
                    return outcome.failures
        raise self.not_failing(outcome)

    def keep_failing_samples(self, outcome: Outcome) -> None:
        """When only some of the samples fail, all that follows is about these."""
        failing = outcome.facts.get("failing_samples", [])
        count = self.recorded.samples
        if 0 < len(failing) < count:
            self.recorded = self.recorded.only(failing)
            feeds = tuple(self.session.feeds[k] for k in failing)
            self.session = replace(self.session, feeds=feeds)
            self.cutter = Cutter(self.session.graph, self.session.store, self.recorded)
            which = ", ".join(map(str, failing[:8])) + (", ..." if len(failing) > 8 else "")
            told = f"Of {count} samples {len(failing)} fail (from 0: {which}); only these were used."
            self.notes.append(told)

    def hybrid(self, wanted: Failure | None) -> Hybrid | None:
        """How accuracy is judged at the model's outputs; None: it is another failure, or judged locally."""
        at_outputs = self.settings.accuracy.judge == "outputs"
        if wanted is None or wanted.stage is not Stage.COMPARE or not at_outputs:
            return None
        output = output_of(wanted, self.confirmed)
        damage = self.confirmed.facts.get("damage", {}).get(output, 0.0)
        return Hybrid(Rests(self.session.graph, self.cutter, self.recorded), output, damage)

    def continued(self, candidate: Candidate) -> Candidate:
        """A candidate that is compared at the outputs of the model, where they are what counts."""
        if not self.info.can_run or self.settings.accuracy.judge != "outputs":
            return candidate
        return Rests(self.session.graph, self.cutter, self.recorded).attach(candidate)

    def wanted(self, failure: Failure) -> Failure:
        """With the names that the search knows for the nodes that the target blames."""
        blamed = resolve(self.session.graph, failure.nodes)
        return replace(failure, nodes=tuple(blamed) or failure.nodes)

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
        """Run the passes; an interrupt or the budget ends them early and is told in the answer."""
        self.one_minimal = False
        try:
            for one_pass in self.menu:
                problem.phase = one_pass.__name__.replace("_", " ")
                self.timed(problem, one_pass)
            self.one_minimal = self.menu is MENU and is_one_minimal(problem)
            spent = problem.counts
            self.spent |= {"search_probes": spent.probes, "search_nodes_built": spent.nodes_built}
        except KeyboardInterrupt:
            return INTERRUPTED
        except BudgetSpent as over:
            return over.message
        finally:
            self.prober.close()
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

    def result(self, problem: Problem, stop_reason: str, out: Path) -> Reduction:
        """What is known before verification."""
        assert problem.best is not None and problem.wanted is not None
        notes = [*self.info.notes, *self.notes]
        if self.recorded.error:
            notes.append(
                f"The reference cannot run the whole model: {self.recorded.error}\nTensors that it could not "
                "make have inferred shapes and seeded values here, and nothing was compared with a reference."
            )
        shown = problem.shown_by(problem.best)
        alone = self.settings.accuracy
        if problem.hybrid is not None:
            alone = problem.hybrid.written(alone, problem.best)
            notes += problem.hybrid.notes()
        if shown is not problem.wanted and problem.hybrid is None:
            notes.append(
                "In a model so small the target words this failure differently; with unrelated nodes in "
                f"front of it, it says what it says of the whole model: {problem.wanted.message}"
            )
        if problem.runs > 1:
            notes.append(
                f"The failure comes and goes: it showed in about {problem.rate:.0%} of all runs, so a "
                f"probe counted as passing only after {problem.runs} runs without it."
            )
        if self.neighbour is not None:
            notes.append(f"{bundle.PASSING} passes: it is {bundle.MODEL} {self.neighbour.difference}.")
        elif not stop_reason:
            notes.append("No neighbour of this model is known that passes, so there is no passing.onnx.")
        if problem.best.cut == "original":
            notes.append("Only the file as it is fails; any normalised or cut form of it does not.")
        return Reduction(
            model=self.session.loaded.path,
            out=out,
            settings=self.settings,
            target=self.info,
            reference=self.recorded.reference,
            wanted=shown,
            original_failure=None if shown is problem.wanted else problem.wanted,
            best=problem.best,
            original_nodes=len(self.session.graph.order),
            also_seen=tuple(problem.also_seen.values()),
            one_minimal=self.one_minimal,
            repeats=self.settings.run.repeats,
            finished=not stop_reason,
            stop_reason=stop_reason,
            phases=tuple(self.phases),
            outputs_compared=self.info.can_run,
            notes=tuple(notes),
            alone=alone,
            accuracy=facts(self.settings.accuracy, problem.hybrid, self.confirmed),
        )

    def told_of_the_original(self, problem: Problem, found: Candidate, result: Reduction) -> Reduction:
        """With what a report says of the user's own model; next to nothing with `--anonymise`."""
        graph, kept, secret = self.session.graph, set(result.nodes), self.settings.run.anonymise
        return replace(
            result,
            original=figures(self.session.loaded.proto, names=not secret),
            places=tuple(k for k, name in enumerate(graph.order) if name in kept),
            origins=() if secret else origins(graph.node(name) for name in graph.order if name in kept),
            workarounds=() if secret else workarounds(problem, found, self.neighbour),
        )

    def causes(self, problem: Problem) -> list[str]:
        """What a failure hangs on that no node is to blame for, as far as the budget allows to ask."""
        problem.phase = "causes"
        try:
            return causes(problem)
        except (KeyboardInterrupt, BudgetSpent):
            return []
        finally:
            self.prober.close()

    def passing(self, problem: Problem) -> Neighbour | None:
        """A neighbour that passes, unless the budget or a person ends the look for it."""
        problem.phase = "neighbour"
        try:
            return nearest_passing(problem)
        except (KeyboardInterrupt, BudgetSpent):
            return None
        finally:
            self.prober.close()

    def unsteady(self, problem: Problem, found: Candidate, result: Reduction) -> bool:
        """Whether fresh runs differ although the failure was taken for a steady one; measures it then.

        One node cannot get smaller, and a search that was ended stays so.
        """
        flaky = 0 < result.verified < result.repeats and problem.runs == 1
        if not flaky or len(result.best.nodes) == 1 or not result.finished:
            return False
        problem.best = found  # as it was cut, before it was simplified
        distrust(problem)
        return problem.runs > 1

    def verify(self, result: Reduction, runs: int) -> Reduction:
        """Run the written files in fresh processes; a flaky failure has a few to show at all."""
        self.tell("verify", f"running {result.out.name}/repro.onnx in {result.repeats} fresh processes")
        began = time.monotonic()
        target = self.settings.target
        if (result.out / bundle.TIMING).exists():
            target = replace(target, timing_cache=result.out / bundle.TIMING)
        settings = replace(self.settings, accuracy=result.alone, target=target)
        outcomes: list[Outcome] = []
        agreed: list[Outcome] = []
        flaky, workers = runs > 1, self.settings.run.workers
        most = min(runs, FRESH) if flaky else result.repeats
        while len(outcomes) < most and not (flaky and agreed):
            wanted = min(workers, most - len(outcomes))
            outcomes += verify_files(result.out, settings, self.prober.oracle.deadline, wanted)
            agreed = [o for o in outcomes if judge(o, result.wanted) is Verdict.REPRODUCES]
        self.spent["verify_seconds"] = time.monotonic() - began
        shown = agreed[0] if agreed else outcomes[0]
        built = {key: shown.facts[key] for key in BUILT if key in shown.facts}
        return replace(result, verified=len(agreed), repeats=len(outcomes), log=shown.log, built=built)


def zipped(result: Reduction) -> Reduction:
    """With the zip that is to be attached; a note where it is too big for that."""
    archive = bundle.zip_it(result.out)
    told = bundle.too_big(archive)
    return replace(result, archive=archive, notes=(*result.notes, *([told] if told else [])))


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


