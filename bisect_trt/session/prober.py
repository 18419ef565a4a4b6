"""Asks the target: what is known already, what runs now, what may still be spent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, wait

from msgspec import Struct, field

from bisect_trt.errors import BisectError, StoppedEarly
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Outcome, Verdict
from bisect_trt.session.cache import Cache
from bisect_trt.session.journal import Journal
from bisect_trt.session.oracle import Oracle
from bisect_trt.settings import AccuracySettings, RunSettings, TargetSettings
from bisect_trt.workers.pool import Task

SHOWN_NODES = 64  # names of nodes in a line of the journal
TWICE = 2  # deaths of the whole tool in one probe, after which it is not tried again
GO_ON = "the same command goes on from here"
NO_FARTHER = "no probe ended in that time, so the same command gets no farther: give it more"
TOOK_DOWN = "took the tool down twice"

Question = tuple[Candidate, int]
"""A candidate, and the number of its run, from 0."""


class BudgetSpent(StoppedEarly):
    """`--budget` or `--max-probes` is used up."""


class Counts(Struct):
    """What was spent by this call.

    Attributes:
        probes: questions that the target was asked, on behalf of the search.
        cached: questions that were answered from the journal, or asked before.
        shared: questions that were answered from the cache that runs share.
        unresolved: candidates of which nothing can be said.
        ahead: probes that were begun on a guess; those that were asked for later are in `probes` too.
        nodes_built: nodes of all candidates that the target saw for `probes`.
        target_seconds: spent inside the target for these.
        asked: different questions, those that an earlier call asked too: what is decided by a count has
            to be decided alike when a run goes on.
        asked_seconds: spent inside the target for these.
    """

    probes: int = 0
    cached: int = 0
    shared: int = 0
    unresolved: int = 0
    ahead: int = 0
    nodes_built: int = 0
    target_seconds: float = 0.0
    asked: int = 0
    asked_seconds: float = 0.0


class Budget(Struct):
    """When to stop: `deadline` of `time.monotonic`, and the number of probes."""

    deadline: float | None = None
    max_probes: int | None = None

    @classmethod
    def of(cls, run: RunSettings, began: float) -> Budget:
        """Return what the settings of a run allow that began at this moment of `time.monotonic`."""
        return cls(None if run.budget is None else began + run.budget, run.max_probes)

    def left(self) -> float | None:
        """Return seconds; None: as many as it takes."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def require(self, probes: int) -> None:
        """Raises BudgetSpent when no further probe may begin after so many."""
        if self.max_probes is not None and probes >= self.max_probes:
            raise BudgetSpent(f"--max-probes {self.max_probes} reached", GO_ON)
        if self.left() == 0.0:
            raise BudgetSpent("--budget used up", GO_ON if probes else NO_FARTHER)


class Prober(Struct):
    """Asks each question once; while it waits, free workers begin with what `ahead` offers."""

    oracle: Oracle
    journal: Journal
    workers: int = 1
    cache: Cache | None = None
    budget: Budget = field(default_factory=Budget)
    counts: Counts = field(default_factory=Counts)
    ahead: Callable[[], Iterable[Question]] = tuple
    judge: Callable[[Outcome], Verdict] = lambda outcome: Verdict.UNRESOLVED
    _running: dict[str, tuple[Task, Candidate]] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)  # by this call
    _guessed: set[str] = field(default_factory=set)  # finished, but nobody has asked yet
    _comparison: str = ""  # how outputs are compared, where that is not as the settings of the run say

    def compare(self, accuracy: AccuracySettings, *, by_itself: bool = False, explain: bool = True) -> None:
        """Set how outputs are compared from now on; `by_itself`: as a part asks for, not as the user did.

        What is seen then is an answer to another question, and not for other runs. With `explain` it holds
        what rounding explains of a mismatch.
        """
        self.oracle.accuracy, self.oracle.explain = accuracy, by_itself and explain
        self._comparison = hashlib.sha256(repr(accuracy).encode()).hexdigest()[:8] if by_itself else ""

    def peek(self, candidate: Candidate) -> Outcome | None:
        """Return what is known without asking the target."""
        return self.journal.outcome(self._key(candidate, 0))

    def observe(self, candidate: Candidate, run: int = 0, target: TargetSettings | None = None) -> Outcome:
        """Return what the target does with a candidate; `target` replaces the settings of the search.

        Raises:
            BudgetSpent: it is not known and may not be asked any more.
            DiskFull: the journal cannot be written.
        """
        key = self._key(candidate, run, target)
        # The keys of the cache know the settings of the run only.
        cache = None if self._comparison or target else self.cache
        outcome = self.journal.outcome(key) or self._taken_down(key)
        outcome = outcome or self._shared(cache, key, candidate, run)
        if outcome is not None and key not in self._guessed:
            self.counts.cached += 1
            return self._counted(key, outcome)
        if outcome is None:
            self.budget.require(self.counts.probes)
            if key not in self._running:
                self._start(key, candidate, target)
            outcome = self._wait_for(key)
            if cache is not None:
                cache.put(candidate, run, outcome)
        self._guessed.discard(key)
        self.counts.probes += 1
        self.counts.nodes_built += len(candidate.nodes)
        self.counts.target_seconds += outcome.seconds
        return self._counted(key, outcome)

    def close(self) -> None:
        """Give up what runs: it did not take the tool down, and may be asked again."""
        for task, _ in self._running.values():
            task.cancel()
        self._running.clear()
        self.journal.give_up_all()

    def _counted(self, key: str, outcome: Outcome) -> Outcome:
        if key not in self._asked:
            self._asked.add(key)
            self.counts.asked += 1
            self.counts.asked_seconds += outcome.seconds
        return outcome

    def _taken_down(self, key: str) -> Outcome | None:
        """Return the outcome of a probe that is not tried again.

        Even when a crash is wanted: nobody knows whether the probe or a person ended the tool.
        """
        if self.journal.deaths(key) < TWICE or key in self._running:
            return None
        return self._end(key, Outcome(unresolved=TOOK_DOWN))

    def _shared(self, cache: Cache | None, key: str, candidate: Candidate, run: int) -> Outcome | None:
        outputs_too = candidate.form is Form.ORIGINAL and self.oracle.save is not None
        found = cache.get(candidate, run) if cache and key not in self._running and not outputs_too else None
        if found is None:
            return None
        self.counts.shared += 1
        self.oracle.settle()
        return self._end(key, found)

    def _start(self, key: str, candidate: Candidate, target: TargetSettings | None = None) -> None:
        shown = list(candidate.nodes[:SHOWN_NODES])
        self.journal.begin(key, count=len(candidate.nodes), nodes=shown, cut=candidate.form)
        self._running[key] = (self.oracle.submit(candidate, target), candidate)

    def _end(self, key: str, outcome: Outcome) -> Outcome:
        self.journal.end(key, outcome, self.judge(outcome))
        return outcome

    def _wait_for(self, key: str) -> Outcome:
        """Wait for one probe; write down whatever ends meanwhile, and keep all workers busy."""
        while True:
            self._look_ahead()
            running = {task.future: k for k, (task, _) in self._running.items()}
            done, _ = wait(running, timeout=self.budget.left(), return_when=FIRST_COMPLETED)
            if not done:
                raise BudgetSpent("--budget used up", GO_ON if self.counts.probes else NO_FARTHER)
            for future in done:
                ended = running[future]
                task, _ = self._running.pop(ended)
                try:
                    outcome = self.oracle.outcome(task, guessed=ended != key)
                except BisectError:  # the target refuses what is asked of it
                    self.journal.give_up(ended)
                    raise
                self._end(ended, outcome)
                if ended == key:
                    return outcome
                self._guessed.add(ended)

    def _look_ahead(self) -> None:
        if len(self._running) >= self.workers:
            return
        for candidate, run in self.ahead():
            key = self._key(candidate, run)
            if key in self._running or self.journal.outcome(key) or self.journal.deaths(key):
                continue  # what may be dangerous is not tried on a guess
            self._start(key, candidate)
            self.counts.ahead += 1
            if len(self._running) >= self.workers:
                return

    def _key(self, candidate: Candidate, run: int, target: TargetSettings | None = None) -> str:
        key = candidate.digest if run == 0 else f"{candidate.digest}#{run}"
        if target is not None:
            key += f"@{hashlib.sha256(repr(target).encode()).hexdigest()[:8]}"
        return f"{key}~{self._comparison}" if self._comparison else key
