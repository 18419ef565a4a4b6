"""One run of a reduction: the model, its reference, and the failure that was confirmed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.accuracy.tolerance import only_for
from bisect_trt.anonymise.secrets import Secrets, secrets_of
from bisect_trt.errors import BisectError, ModelDoesNotFail, TargetUnavailable
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.continuation import Rests
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.randomness import random_nodes, words
from bisect_trt.options import what_to_try
from bisect_trt.outcome import Failure, Outcome, Stage
from bisect_trt.reduction.at_outputs import Hybrid, output_of
from bisect_trt.reduction.passes.localise import close_by, halving, resolve
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.selections import Selections
from bisect_trt.results import OnEvent, Step
from bisect_trt.session.around import go_round, left_out_words
from bisect_trt.session.doubts import NO_NUMBERS, held_words, without_numbers
from bisect_trt.session.export_trial import ExportTrial, is_plain, is_self
from bisect_trt.session.finite import Lost, all_lost, described, lost_in
from bisect_trt.session.prepare import Session
from bisect_trt.session.prober import Prober
from bisect_trt.session.recording import Recording, record_derived
from bisect_trt.workers.pool import Pool


class Opened(Struct, frozen=True):
    """What a run works with as long as it is open.

    Attributes:
        pool: workers on this machine, which run the reference.
        there: workers that run the target, the same ones or others.
        out: folder that is written.
        on_event: hears of every step.
        began: moment of `time.monotonic` at which the run began.
        answered: moment at which the target had said what it is.
    """

    pool: Pool
    there: Pool
    out: Path
    on_event: OnEvent
    began: float
    answered: float


class Run:
    """What the steps of a reduction share: one model on one target, its reference, and what was confirmed."""

    def __init__(
        self, opened: Opened, session: Session, trial: ExportTrial, recording: Recording, prober: Prober
    ) -> None:
        """Use `open_run`.

        Args:
            opened: workers, folder and clock.
            session: the model and its input values.
            trial: the settings, the target, and whether the export itself is on trial.
            recording: the reference run, as far as it is needed.
            prober: asks the target.
        """
        self.pool, self.out, self.on_event = opened.pool, opened.out, opened.on_event
        self._opened = opened
        self.session = session
        self.settings = trial.settings
        self.info = trial.info
        self.export_on_trial = trial.on_trial
        self.recording = recording
        self.prober = prober
        self._given = session
        self.doubts = self._doubts(given=False)  # for the first lines: why something is not compared
        self.notes = list(trial.notes)
        self.confirmed = Outcome()  # of the user's own file, or of what is left of it
        self.scope: tuple[str, ...] = ()  # nodes that are looked at; none: all of them
        self.cutter = self._cutter()

    def _doubts(self, *, given: bool) -> list[str]:
        graph = self.session.graph
        return [*words(graph, given=given), *(held_words(graph) if self.info.can_run else [])]

    def _cutter(self) -> Cutter:
        """Cuts the model by recorded values."""
        graph, store = self.session.graph, self.session.store
        return Cutter(graph, store, self.recording, only_recorded=self.export_on_trial)

    def take_random_values(self) -> None:
        """Take the recorded values of random nodes as given, where the model has any.

        Unless the user's own file fails in another way than by its outputs: that is looked for as it is.
        """
        settings, outputs = self.settings, self.session.graph.graph_outputs
        if not (self.info.can_run and is_plain(settings) and random_nodes(self.session.graph)):
            return
        blind = replace(settings.accuracy, ignore=tuple(outputs), judge="local")
        self.prober.compare(blind)
        failures = self.prober.observe(replace(self.session.original, expected=())).failures
        self.prober.compare(settings.accuracy)
        recorded = self.recording.whole()
        if failures or recorded.error:
            return
        self.doubts = self._doubts(given=True)
        self.session = self.session.pinned(recorded)
        self.recording = Recording.of(self.session.graph, recorded)
        self.cutter = self._cutter()

    @property
    def original(self) -> Candidate:
        """The user's own file, with the values that it has to give."""
        original = self.session.original
        if not self.info.can_run or is_self(self.settings):
            return original
        if self.settings.accuracy.judge == "outputs":
            return self.session.with_outputs(self.recording.outputs())
        return replace(original, expected=self.recording.outputs().values(self.session.graph.graph_outputs))

    @property
    def whole_file(self) -> Candidate:
        """`original` as what is found when nothing smaller fails: with what the reference gives for it."""
        original = self.original
        if original.expected or is_self(self.settings):
            return original
        return replace(original, expected=self.recording.outputs().values(self.session.graph.graph_outputs))

    @cached_property
    def secrets(self) -> Secrets:
        """What `--anonymise` must not leave."""
        return secrets_of(self._given.loaded, self._given.values(), self.settings)

    def spent(self) -> dict[str, float]:
        """Return seconds by what they were spent on, besides the probes."""
        return {
            "start_seconds": self._opened.answered - self._opened.began,
            "reference_seconds": self.recording.seconds,
            "wall_seconds": time.monotonic() - self._opened.began,
            "builder_seconds": self.builder_seconds,
        }

    @property
    def builder_seconds(self) -> float:
        """Seconds that a worker of the target took to become warm."""
        return self._opened.there.prepared()

    def note(self, sentences: Iterable[str]) -> None:
        """Add to what the report has to say; an empty sentence says nothing."""
        self.notes += filter(None, sentences)

    def tell(self, phase: str, text: str) -> None:
        """Report an event outside the search."""
        self.on_event(Step(phase, text, len(self.session.graph.order)))

    def problem(self, wanted: Failure | None, scope: tuple[str, ...] = ()) -> Problem:
        """Return a search for one failure."""
        self.prober.compare(self.settings.accuracy)
        # A reference that is known to run the model has to run each reduced one as well.
        self.prober.oracle.confirms = lambda: not self.recording.record.error and not self.export_on_trial
        anew = partial(record_derived, self.pool, self.session, self.settings)
        return Problem(
            graph=self.session.graph,
            cutter=self.cutter,
            prober=self.prober,
            wanted=wanted,
            hybrid=self.hybrid(wanted),
            rerecord=None if self.export_on_trial else anew,
            on_event=self.on_event,
            scope=scope,
            repeats=self.settings.run.repeats,
            phase="confirm",
        )

    def confirm(self) -> Problem:
        """The user's own file has to fail; what it shows first is the wanted failure."""
        problem = self.problem(None)
        wanted = self.wanted(self.failures(problem)[0])
        if self.scope:
            problem = self.problem(None, self.scope)
        if wanted.stage is Stage.COMPARE and not is_self(self.settings):
            self._tell_what_is_lost()
        problem.confirmed(wanted, self.hybrid(wanted), self.cutter)
        self.session.make_values(self.pool)  # of a target that only builds nobody needed them yet
        self._expect(wanted)
        return problem

    def _expect(self, wanted: Failure) -> None:
        """Run the reference for what the hints need, when that is all that will be needed most likely."""
        graph = self.session.graph
        nodes = close_by(graph, wanted.nodes)
        if nodes and is_plain(self.settings) and wanted.stage is not Stage.COMPARE:
            near = (t for name in nodes for t in (*graph.inputs_of(name), *graph.outputs_of(name)))
            self.recording.expect({t for t in near if t in graph.producer})

    def failures(self, problem: Problem) -> tuple[Failure, ...]:
        """Return what the user's own file shows.

        Raises:
            ModelDoesNotFail: that is nothing; the folder is gone then.
        """
        self.tell("confirm", f"building the whole model on {self.info.title}")
        halves = Selections(problem)
        with problem.looking_ahead(lambda: halves.guesses(halving(problem))):
            for outcome in problem.observations(self.original, self.settings.run.repeats, rarely=True):
                if outcome.failures and not self._says_nothing(outcome):
                    self.keep_failing_samples(outcome)
                    self.confirmed = outcome
                    return outcome.failures
                self._forget_tactics()
        outcome = self._round(problem, outcome)
        if outcome.failures:
            return outcome.failures
        error = self._not_failing(outcome)
        shutil.rmtree(self.out, ignore_errors=True)
        raise error

    def _says_nothing(self, outcome: Outcome) -> bool:
        """Return whether outputs differ only since the reference has no finite number in any of them."""
        if is_self(self.settings) or not all(failure.is_mismatch for failure in outcome.failures):
            return False
        outputs = self.session.graph.graph_outputs
        return bool(all_lost(lost_in(self.recording.outputs(), outputs), outputs))

    def _round(self, problem: Problem, outcome: Outcome) -> Outcome:
        """Return what the model shows without the nodes of which nothing can be said as no GPU is here."""
        graph = self.session.graph
        found, out = go_round(graph, problem.cut, problem.observe, outcome)
        if found.failures:
            self.scope = tuple(name for name in graph.order if name not in out)
            self.notes.append(left_out_words(graph, out))
            self.confirmed = found
        return found

    def confirm_by(self, outcome: Outcome) -> None:
        """Make all that follows about what this shows."""
        self.confirmed = outcome

    @property
    def timing_cache(self) -> Path | None:
        """The timing cache of TensorRT, the user's or our own."""
        return self.prober.oracle.target.timing_cache

    @property
    def own_timing_cache(self) -> Path | None:
        """The timing cache of TensorRT, where it is our own and not the user's."""
        return self.timing_cache if self.timing_cache != self.settings.target.timing_cache else None

    def _forget_tactics(self) -> None:
        """The next run of the whole model measures anew: it may fail with other tactics only."""
        if self.own_timing_cache is not None:
            self.own_timing_cache.unlink(missing_ok=True)

    def keep_failing_samples(self, outcome: Outcome) -> None:
        """Go on with the failing samples alone, where only some of them fail."""
        failing = outcome.measured.failing_samples
        count = self.recording.samples
        if 0 < len(failing) < count:
            self.recording = self.recording.narrowed(failing)
            feeds = tuple(self.session.feeds[k] for k in failing)
            self.session = replace(self.session, feeds=feeds)
            self.cutter = self._cutter()  # the old one cut by all of them
            which = ", ".join(map(str, failing[:8])) + (", ..." if len(failing) > 8 else "")
            sentence = f"Of {count} samples {len(failing)} fail (from 0: {which}); only these were used."
            self.notes.append(sentence)

    def hybrid(self, wanted: Failure | None) -> Hybrid | None:
        """How accuracy is judged at the model's outputs; None: it is another failure, or judged locally."""
        at_outputs = self.settings.accuracy.judge == "outputs"
        if wanted is None or wanted.stage is not Stage.COMPARE or not at_outputs:
            return None
        output = output_of(wanted, self.confirmed)
        damage = self.confirmed.measured.damage.get(output, 0.0)
        rests = Rests(self.session.graph, self.cutter, self.recording.whole())
        return Hybrid(rests, output, damage, only_for(self.settings.accuracy, output))

    def continued(self, candidate: Candidate) -> Candidate:
        """Return a candidate that is compared at the outputs of the model, where they are what counts."""
        if not self.info.can_run or self.settings.accuracy.judge != "outputs":
            return candidate
        return Rests(self.session.graph, self.cutter, self.recording.whole()).attach(candidate)

    def wanted(self, failure: Failure) -> Failure:
        """Return a failure with the names that the search knows for the nodes that the target blames."""
        blamed = resolve(self.session.graph, failure.nodes)
        return replace(failure, nodes=tuple(blamed) or failure.nodes)

    def _tell_what_is_lost(self) -> Lost:
        """Note what of the reference's outputs is NaN or Inf, and where that begins."""
        lost = lost_in(self.recording.outputs(), self.session.graph.graph_outputs)
        if lost.count:
            self.doubts.insert(0, described(self.pool, self.session, self.settings, lost))
        return lost

    def _not_failing(self, outcome: Outcome) -> BisectError:
        """Return what was run and seen."""
        compares = self.info.can_run and not is_self(self.settings) and not outcome.unresolved
        outputs = self.session.graph.graph_outputs
        if compares and (why := all_lost(self._tell_what_is_lost(), outputs)):
            return TargetUnavailable(f"nothing can be said of this model: {why}", self.doubts[0])
        if outcome.unresolved:
            return TargetUnavailable(f"nothing can be said of this model: {outcome.unresolved}")
        if self.info.can_run and without_numbers(self.session.graph).keys() >= set(outputs):
            return TargetUnavailable(f"nothing can be said of this model: {NO_NUMBERS}", self.doubts[-1])
        runs, compared = self.settings.run.repeats, self.info.can_run
        what = "builds, runs and agrees with the reference" if compared else "builds"
        said = f"the model {what} on {self.info.title} ({runs} of {runs} runs)"
        said = ". ".join((said, *(doubt.removesuffix(".") for doubt in self.doubts)))
        tries = what_to_try(self.session.loaded.path, self.settings, compared)
        return ModelDoesNotFail(said if compared else f"{said}; outputs were not compared", "\n".join(tries))
