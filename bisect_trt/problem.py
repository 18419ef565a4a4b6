"""The one noun of the search: what is wanted, what is best, what was tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bisect_trt.graph import Graph, Selection
from bisect_trt.journal import Journal
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cut import Cutter, CutStyle
from bisect_trt.model.pad import padded
from bisect_trt.oracle import Oracle
from bisect_trt.outcome import Failure, Outcome, Stage, Verdict, judge
from bisect_trt.result import OnEvent, Step
from bisect_trt.workers.pool import Task


SHOWN = 64  # names of nodes in a line of the journal


@dataclass
class Counts:
    """What was spent; `nodes_built` sums the nodes of all candidates that the target saw."""

    probes: int = 0
    cached: int = 0
    unresolved: int = 0
    nodes_built: int = 0
    target_seconds: float = 0.0


@dataclass
class Problem:
    """Passes propose to it; it alone decides what is kept.

    `wanted` is None only until the whole model was confirmed to fail. `repeats` is how
    often a failure is looked at to call it steady. A flaky one shows in a part `rate` of all runs, and a
    probe is then repeated up to `runs` times until it reproduces.
    """

    graph: Graph
    cutter: Cutter
    oracle: Oracle
    journal: Journal
    wanted: Failure | None
    on_event: OnEvent
    workers: int = 1
    repeats: int = 1
    runs: int = 1
    rate: float = 1.0
    phase: str = ""
    best: Candidate | None = None
    also_seen: dict[tuple[str, str, str], Failure] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    rewordings: dict[str, Failure] = field(default_factory=dict)
    _pending: dict[str, Task] = field(default_factory=dict)

    @property
    def nodes_left(self) -> int:
        """Nodes of the best candidate, or of the model while nothing smaller is known to fail."""
        return len(self.best.nodes) if self.best else len(self.graph.order)

    def cut(self, nodes: Iterable[str], style: CutStyle = CutStyle.DEFAULT) -> Candidate:
        """A candidate of these nodes."""
        selection: Selection = frozenset(nodes)
        return self.cutter.cut(selection, style)

    def attempt(self, candidate: Candidate) -> bool:
        """Probe; keep the candidate when it reproduces and is smaller than the best so far."""
        reproduces = self.verdict(candidate) is Verdict.REPRODUCES
        if reproduces and (self.best is None or candidate.size < self.best.size):
            self.best = candidate
            self._tell(f"{len(candidate.nodes)} nodes still fail", accepted=True)
        return reproduces

    def attempt_first(self, candidates: Iterable[Candidate]) -> int | None:
        """Index of the first candidate, in order, that reproduces; workers look ahead."""
        offered = list(candidates)
        for k, candidate in enumerate(offered):
            self.prefetch(offered[k : k + self.workers])
            if self.attempt(candidate):
                return k
        return None

    def prefetch(self, candidates: Iterable[Candidate]) -> None:
        """Start probes that may be asked for next, as far as workers are free."""
        if self.workers < 2:
            return
        for candidate in candidates:
            if len(self._pending) >= self.workers:
                return
            key = self._key(candidate, 0)
            if key not in self._pending and not self._known(key):
                self._start(key, candidate)

    def verdict(self, candidate: Candidate) -> Verdict:
        """Judge a candidate; every question is asked of the target only once."""
        digest = candidate.digest
        if digest in self.verdicts:
            self.counts.cached += 1
            return self.verdicts[digest]
        verdict = Verdict.VANISHES
        for run in range(self.runs):
            outcome = self.observe(candidate, run)
            seen = self.judge(outcome)
            if seen is Verdict.UNRESOLVED and self._reworded(candidate, outcome):
                seen = Verdict.REPRODUCES
            if seen is Verdict.UNRESOLVED:
                verdict = seen
                for failure in outcome.failures:
                    self.also_seen.setdefault(failure.key, failure)
            if seen is Verdict.REPRODUCES:
                verdict = seen
                self.outcomes[digest] = outcome
                break
        self.counts.unresolved += verdict is Verdict.UNRESOLVED
        self.verdicts[digest] = verdict
        self._tell(f"{len(candidate.nodes)} nodes: {verdict.value}")
        return verdict

    def repeat_probes(self, runs: int, rate: float) -> None:
        """From now on a probe needs `runs` runs to vanish; verdicts that rest on fewer are forgotten."""
        self.runs, self.rate = runs, rate
        self.verdicts = {k: v for k, v in self.verdicts.items() if v is Verdict.REPRODUCES}
        self._tell(f"flaky: shows in about {rate:.0%} of the runs, so each probe has up to {runs}")

    def close(self) -> None:
        """Forget probes that nobody asked for."""
        for task in self._pending.values():
            task.cancel()
        self._pending.clear()

    def shown_by(self, candidate: Candidate) -> Failure:
        """The wanted failure in the words in which the target tells it of this candidate."""
        assert self.wanted is not None
        return self.rewordings.get(candidate.digest, self.wanted)

    def _reworded(self, candidate: Candidate, outcome: Outcome) -> bool:
        """Whether the target only tells the wanted failure in other words, as the model is small.

        Seen: TensorRT has sanity checks that fire in small networks only. When it blames the same
        node at the same stage, and tells the wanted failure again as soon as unrelated nodes stand
        before these, then it is the wanted one.
        """
        wanted = self.wanted
        if wanted is None or not wanted.nodes or wanted.stage not in (Stage.PARSE, Stage.BUILD):
            return False
        for failure in outcome.failures:
            same_place = failure.stage is wanted.stage and failure.symptom is wanted.symptom
            if same_place and failure.nodes[:1] == wanted.nodes[:1]:
                if self.judge(self.observe(padded(candidate))) is not Verdict.REPRODUCES:
                    return False
                self.rewordings[candidate.digest] = failure
                return True
        return False

    def _key(self, candidate: Candidate, run: int) -> str:
        return candidate.digest if run == 0 else f"{candidate.digest}#{run}"

    def _known(self, key: str) -> bool:
        return key in self.verdicts or self.journal.outcome(key) is not None

    def _start(self, key: str, candidate: Candidate) -> None:
        shown = list(candidate.nodes[:SHOWN])
        self.journal.begin(key, count=len(candidate.nodes), nodes=shown, cut=candidate.cut)
        self._pending[key] = self.oracle.submit(candidate)

    def observe(self, candidate: Candidate, run: int = 0) -> Outcome:
        """What the target does with a candidate; known outcomes come from the journal."""
        key = self._key(candidate, run)
        stored = self.journal.outcome(key)
        if stored is not None:
            self.counts.cached += 1
            return stored
        if key not in self._pending:
            self._start(key, candidate)
        outcome = self.oracle.outcome(self._pending[key])
        del self._pending[key]
        self.counts.probes += 1
        self.counts.nodes_built += len(candidate.nodes)
        self.counts.target_seconds += outcome.seconds
        self.journal.end(key, outcome, self.judge(outcome))
        return outcome

    def judge(self, outcome: Outcome) -> Verdict:
        """Whether an outcome shows the wanted failure; before there is one, whether it shows any."""
        if self.wanted is None:
            return Verdict.REPRODUCES if outcome.failures else Verdict.VANISHES
        return judge(outcome, self.wanted)

    def _tell(self, text: str, *, accepted: bool = False) -> None:
        c = self.counts
        spent = (c.probes, c.cached, c.unresolved, c.target_seconds)
        self.on_event(Step(self.phase, text, self.nodes_left, *spent, accepted))

