"""One run of a reduction: the model, its reference, and the failure that was confirmed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from bisect_trt.accuracy.tolerance import only_for
from bisect_trt.anonymise.secrets import Secrets, secrets_of
from bisect_trt.errors import BisectError, ModelDoesNotFail, TargetUnavailable
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.cutting.continuation import Rests
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.options import export_line, what_to_try
from bisect_trt.outcome import Failure, Outcome, Stage
from bisect_trt.reduction.at_outputs import Hybrid, output_of
from bisect_trt.reduction.passes.localise import close_by, halving, resolve
from bisect_trt.reduction.passes.neighbour import Neighbour
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.selections import Selections
from bisect_trt.references.base import Record, recorded_inputs
from bisect_trt.results import OnEvent, Step
from bisect_trt.session.export_trial import EXPORT, ask, is_self
from bisect_trt.session.prepare import Session, record, record_again, record_some
from bisect_trt.session.prober import Prober
from bisect_trt.session.recording import Recording
from bisect_trt.settings import DEFAULT_ACCURACY, Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.text import counted
from bisect_trt.workers.pool import Pool


class Run:
    """What the steps of a reduction share; see `confirm`, `searching` and `writing` for the steps."""

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
        self.prepared: Callable[[], float] = float  # seconds that a worker took to become warm
        self.script_told: str | None = None  # what `repro.py` disagreed with, once it was tried
        self.spent: dict[str, float] = {}  # besides the counts of the prober
        self.one_minimal = False
        self.reachable = True  # the target; not when its cluster was lost
        self.neighbour: Neighbour | None = None
        self.avoided: list[str] = []  # by which options of the target, as sentences
        self.samples: list[dict[str, Any]] = []
        self.phases: list[dict[str, Any]] = []
        self.notes: list[str] = []  # on the input values
        self.causes: list[str] = []  # see `passes.causes`
        self.confirmed = Outcome()  # of the user's own file
        self.export_on_trial = False  # the framework is the reference, ONNX Runtime the target

    @cached_property
    def recording(self) -> Recording:
        """The reference run, as far as it is needed."""
        graph, store, feeds = self.session.graph, self.session.store, self.session.feeds
        inputs = Record(store.folder, len(feeds), recorded_inputs(graph, store, feeds))
        return Recording(graph, inputs, self._record_some, self._record)

    @property
    def recorded(self) -> Record:
        """The whole reference run."""
        return self.recording.whole()

    @property
    def _with_outputs(self) -> Record:
        """A record that has the model's outputs."""
        outputs = self.session.graph.graph_outputs
        return self.recording.expect(outputs) if self._plain else self.recorded

    @property
    def _plain(self) -> bool:
        """Whether the reference is ONNX Runtime here, which can be run in part and again."""
        return self.settings.accuracy.reference == DEFAULT_ACCURACY.reference

    def _record_some(self, tensors: list[str]) -> Record:
        self.tell("record", f"running the reference for {counted(len(tensors), 'tensor')}")
        began = time.monotonic()
        recorded = record_some(self.pool, self.session, self.settings, tensors)
        self._spend_on_reference(began)
        return recorded

    def _record(self) -> Record:
        self.tell("record", "running the reference")
        began = time.monotonic()
        recorded = record(self.pool, self.session, self.settings)
        known = ask(self.pool, self.session, self.settings, recorded)
        recorded = known.record
        if known.blame:
            recorded = self._try_export(known.framework, known.blame)
        self.notes += [known.note] if known.note else []
        self._spend_on_reference(began)
        return recorded

    def _try_export(self, framework: Record | None, blame: str) -> Record:
        """The framework's values as the record: asked for by ONNX Runtime's CPU provider as the target."""
        if self.info.name != EXPORT or framework is None:
            shutil.rmtree(self.out, ignore_errors=True)
            told = export_line(self.session.loaded.path, self.settings)
            hint = f"to reduce that difference instead: {told}" if framework else "see what makes this output"
            raise ModelDoesNotFail(blame, hint)
        self.export_on_trial = True
        self.notes.append(blame)
        self.info = replace(self.info, title=f"the export, run by {self.info.title}")
        accuracy = replace(self.settings.accuracy, judge="local")
        papers = replace(self.settings.papers, style=self.settings.papers.style or "plain")
        self.settings = replace(self.settings, accuracy=accuracy, papers=papers)
        self.prober.compare(accuracy)
        self.prober.cache = None  # its keys know nothing of the framework
        return framework

    def _spend_on_reference(self, began: float) -> None:
        before = self.spent.get("reference_seconds", 0.0)
        self.spent["reference_seconds"] = before + time.monotonic() - began

    @cached_property
    def cutter(self) -> Cutter:
        """Cuts the model by recorded values."""
        if not self._plain:
            self.recording.whole()  # puts the export on trial, it may be
        graph, store = self.session.graph, self.session.store
        return Cutter(graph, store, self.recording, only_recorded=self.export_on_trial)

    @property
    def original(self) -> Candidate:
        """The user's own file, with the values that it has to give."""
        original = self.session.original
        if not self.info.can_run or is_self(self.settings):
            return original
        if self.settings.accuracy.judge == "outputs":
            return self.session.with_outputs(self._with_outputs)
        return replace(original, expected=self._with_outputs.values(self.session.graph.graph_outputs))

    @property
    def whole_file(self) -> Candidate:
        """`original` as what is found when nothing smaller fails: with what the reference gives for it."""
        original = self.original
        if original.expected or is_self(self.settings):
            return original
        return replace(original, expected=self._with_outputs.values(self.session.graph.graph_outputs))

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
        self.prober.compare(self.settings.accuracy)
        self.prober.oracle.confirms = self._runs_on_reference
        return Problem(
            graph=self.session.graph,
            cutter=self.cutter,
            prober=self.prober,
            wanted=wanted,
            hybrid=self.hybrid(wanted),
            rerecord=None if self.export_on_trial else self._record_again,
            on_event=self.on_event,
            scope=scope,
            repeats=self.settings.run.repeats,
            phase="confirm",
        )

    def _runs_on_reference(self) -> bool:
        """Whether nothing is known that the reference cannot run: then it has to run all that is found."""
        return not self.recording.record.error and not self.export_on_trial

    def _record_again(self, proto: onnx.ModelProto, feeds: Sequence[Feeds]) -> Record:
        return record_again(self.pool, self.session, self.settings, proto, feeds)

    def confirm(self) -> Problem:
        """The user's own file has to fail; what it shows first is the wanted failure."""
        problem = self.problem(None)
        problem.wanted = self.wanted(self.failures(problem)[0])
        problem.hybrid = self.hybrid(problem.wanted)
        self._expect(problem.wanted)
        return problem

    def _expect(self, wanted: Failure) -> None:
        """Run the reference for what the hints need, when that is all that will be needed most likely."""
        graph = self.session.graph
        nodes = close_by(graph, wanted.nodes)
        if nodes and self._plain and wanted.stage is not Stage.COMPARE:
            near = (t for name in nodes for t in (*graph.inputs_of(name), *graph.outputs_of(name)))
            self.recording.expect({t for t in near if t in graph.producer})

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
                self._forget_tactics()
        raise self.not_failing(outcome)

    def _forget_tactics(self) -> None:
        """The next run of the whole model measures anew: it may fail with other tactics only."""
        if self.timing_cache is not None and self.timing_cache != self.settings.target.timing_cache:
            self.timing_cache.unlink(missing_ok=True)

    def keep_failing_samples(self, outcome: Outcome) -> None:
        """When only some of the samples fail, all that follows is about these."""
        failing = outcome.facts.get("failing_samples", [])
        count = self.recording.samples
        if 0 < len(failing) < count:
            narrowed = self.recorded.only(failing)
            self.recording = Recording(self.session.graph, narrowed, lambda _: narrowed, lambda: narrowed)
            feeds = tuple(self.session.feeds[k] for k in failing)
            self.session = replace(self.session, feeds=feeds)
            del self.cutter  # it cut by all of them
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
        rests = Rests(self.session.graph, self.cutter, self.recorded)
        return Hybrid(rests, output, damage, only_for(self.settings.accuracy, output))

    def continued(self, candidate: Candidate) -> Candidate:
        """A candidate that is compared at the outputs of the model, where they are what counts."""
        if not self.info.can_run or self.settings.accuracy.judge != "outputs":
            return candidate
        return Rests(self.session.graph, self.cutter, self.recorded).attach(candidate)

    def wanted(self, failure: Failure) -> Failure:
        """With the names that the search knows for the nodes that the target blames."""
        blamed = resolve(self.session.graph, failure.nodes)
        return replace(failure, nodes=tuple(blamed) or failure.nodes)

    def not_failing(self, outcome: Outcome) -> BisectError:
        """Says what was run and seen; leaves nothing behind."""
        shutil.rmtree(self.out, ignore_errors=True)
        if outcome.unresolved:
            return TargetUnavailable(f"nothing can be said of this model: {outcome.unresolved}")
        runs, compared = self.settings.run.repeats, self.info.can_run
        what = "builds, runs and agrees with the reference" if compared else "builds"
        said = f"the model {what} on {self.info.title} ({runs} of {runs} runs)"
        tries = what_to_try(self.session.loaded.path, self.settings, compared)
        return ModelDoesNotFail(said if compared else f"{said}; outputs were not compared", "\n".join(tries))
