"""The one noun of the search: what is wanted, what is best, what was tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import chain, tee

from msgspec import Struct, field
from msgspec.structs import replace
from onnx import ModelProto

from bisect_trt.errors import ClusterLost
from bisect_trt.model.candidate import Candidate, Feeds, Form
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph, Selection
from bisect_trt.model.variants import padded
from bisect_trt.outcome import End, Ended, Failure, Outcome, Stage, Verdict, judge
from bisect_trt.reduction.at_outputs import Hybrid
from bisect_trt.reduction.state import PassCounts, Simplifying
from bisect_trt.references.base import Record
from bisect_trt.results import OnEvent, Step
from bisect_trt.session.prober import BudgetSpent, Counts, Prober, Question
from bisect_trt.writing.text import counted


class Problem(Struct):
    """Passes propose to it; it alone decides what is kept, and nobody else writes its fields.

    `wanted` is None only until the whole model was confirmed to fail. `scope` is what is searched: all
    nodes, unless some were set aside (`reduce --all`). `repeats` is how often a failure is looked at to
    call it steady. A flaky one shows in a part `rate` of all runs, and a probe is then repeated up to
    `runs` times until it reproduces.
    """

    graph: Graph
    cutter: Cutter
    prober: Prober
    wanted: Failure | None
    on_event: OnEvent
    scope: tuple[str, ...] = ()
    repeats: int = 1
    runs: int = 1
    rate: float = 1.0
    phase: str = ""
    best: Candidate | None = None
    also_seen: dict[tuple[str, str, str], Failure] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    rewordings: dict[str, Failure] = field(default_factory=dict)
    _guesses: Callable[[], Iterable[Candidate]] = tuple
    simplifying: Simplifying = field(default_factory=Simplifying)
    passes: list[PassCounts] = field(default_factory=list)
    hybrid: Hybrid | None = None  # how accuracy is judged at the model's outputs; None: it is not
    # Reference run of another model; None: nothing is true but what was recorded, so edits cannot be judged.
    rerecord: Callable[[ModelProto, Sequence[Feeds]], Record] | None = None
    inside: bool = False  # `graph` is no longer the user's: a body was put in the place of its node
    _edited: bool = False  # candidates are edits: see `edited`

    def __post_init__(self) -> None:
        self.scope = self.scope or self.graph.order
        self.prober.judge = self.judge

    @property
    def failure(self) -> Failure:
        """The wanted failure, once there is one."""
        assert self.wanted is not None
        return self.wanted

    @property
    def smallest(self) -> Candidate:
        """The best candidate, once there is one."""
        assert self.best is not None
        return self.best

    @property
    def counts(self) -> Counts:
        """Return what was spent by this call."""
        return self.prober.counts

    @property
    def workers(self) -> int:
        """Probes that may run at the same time."""
        return self.prober.workers

    @property
    def nodes_left(self) -> int:
        """Nodes of the best candidate, or of all that is searched while nothing smaller is known to fail."""
        return len(self.best.nodes) if self.best else len(self.scope)

    def begin(self, phase: str) -> None:
        """Begin a phase: all events that follow belong to it."""
        self.phase = phase

    @contextmanager
    def counting(self, name: str) -> Iterator[None]:
        """Begin a pass, and note at its end what it cost and won."""
        self.begin(name)
        began, probes, nodes = time.monotonic(), self.counts.probes, self.nodes_left
        yield
        seconds = round(time.monotonic() - began, 3)
        self.passes.append(PassCounts(name, self.counts.probes - probes, nodes, self.nodes_left, seconds))

    def confirmed(self, wanted: Failure, hybrid: Hybrid | None, cutter: Cutter) -> None:
        """The user's file showed its failure: it is the wanted one from here on, in cuts of this cutter."""
        self.wanted, self.hybrid, self.cutter = wanted, hybrid, cutter

    def compare_at(self, hybrid: Hybrid | None) -> None:
        """Judge failures of stage compare in this way from here on; what is known stays."""
        self.hybrid = hybrid

    def keep(self, candidate: Candidate | None, seen: Outcome | None = None) -> None:
        """Take this for the best, whatever its size; None: nothing smaller than the model is known to fail.

        `seen` is what the target did with it, where it was asked in another form.
        """
        self.best = candidate
        if candidate is not None and seen is not None:
            self.outcomes[candidate.digest] = seen

    def opened(self, graph: Graph, cutter: Cutter, whole: Candidate, blamed: Sequence[str]) -> None:
        """Go on in another graph, of which `whole` fails: a body stands in the place of its node.

        It counts as smaller, however many nodes the body had. `blamed` are the nodes that the target names.
        """
        self.graph, self.cutter, self.scope, self.inside = graph, cutter, graph.order, True
        self.wanted = replace(self.failure, nodes=tuple(blamed))
        self.keep(whole)

    def simplify_by(self, rules: Simplifying) -> None:
        """Set what the simplification that begins may do."""
        self.simplifying = rules

    def ask_no_reasons(self) -> None:
        """Judge by whether a candidate fails, not by why, unless a simplification has to keep the cause."""
        if self.simplifying.cause is None:
            self.prober.oracle.explain = False

    @contextmanager
    def edited(self) -> Iterator[None]:
        """While it lasts, candidates are edits of the best one.

        The failure has to stay what it is in the words in which the target tells it of the best candidate,
        and is judged at the candidate's own outputs. Other failures that edits have are their own, and are
        not kept; that an edit is kept is told by whoever makes it, see `tell`.
        """
        before = (self.wanted, self.hybrid, dict(self.also_seen))
        self.wanted, self.hybrid = self.shown_by(self.best) if self.best else self.wanted, None
        self._edited = True
        try:
            yield
        finally:
            self._edited = False
            self.wanted, self.hybrid, self.also_seen = before

    def cut(self, nodes: Iterable[str], style: Form = Form.DEFAULT) -> Candidate:
        """Return a candidate of these nodes."""
        selection: Selection = frozenset(nodes)
        candidate = self.cutter.cut(selection, style)
        return candidate if self.hybrid is None or self.inside else self.hybrid.rests.attach(candidate)

    def attempt(self, candidate: Candidate) -> bool:
        """Probe; keep the candidate when it reproduces and is smaller than the best so far."""
        reproduces = self.verdict(candidate) is Verdict.REPRODUCES
        if reproduces and (self.best is None or candidate.size < self.best.size):
            self.best = candidate
            count = len(candidate.nodes)
            verb = "fails" if count == 1 else "fail"
            self.tell(f"{counted(count, 'node')} still {verb}", accepted=not self._edited)
        return reproduces

    def attempt_first(self, candidates: Iterable[Candidate]) -> int | None:
        """Return the index of the first candidate, in order, that reproduces; free workers look ahead."""
        (left,) = tee(candidates, 1)
        with self.looking_ahead(lambda: copy(left)):
            return next((k for k, candidate in enumerate(left) if self.attempt(candidate)), None)

    @contextmanager
    def looking_ahead(self, guesses: Callable[[], Iterable[Candidate]]) -> Iterator[None]:
        """While a probe runs, free workers begin with what `guesses` gives, in its order."""
        before = self._guesses
        self._guesses = guesses
        try:
            yield
        finally:
            self._guesses = before

    def peek(self, candidate: Candidate) -> Verdict | None:
        """Return the verdict, or what one run lets expect; None when nothing is known yet."""
        outcome = self.prober.peek(candidate)
        return self.verdicts.get(candidate.digest) or (self.judge(outcome) if outcome else None)

    def verdict(self, candidate: Candidate) -> Verdict:
        """Judge a candidate; every question is asked of the target only once."""
        digest = candidate.digest
        if digest in self.verdicts:
            self.counts.cached += 1
            return self.verdicts[digest]
        verdict = Verdict.VANISHES
        for outcome in self.observations(candidate, self.runs):
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
        count = len(candidate.nodes)
        self.tell(f"{counted(count, 'node')}: {verdict.value}")
        return verdict

    def refuse(self, candidate: Candidate) -> None:
        """It fails by recorded values only, and not by itself: it is no answer, whoever asks."""
        self.verdicts[candidate.digest] = Verdict.VANISHES

    def judge_anew(self) -> None:
        """Forget every verdict, as something else is asked of a candidate now; what was seen stays."""
        self.verdicts.clear()
        self.best = None

    def repeat_probes(self, runs: int, rate: float) -> None:
        """Let a probe vanish only after `runs` runs now; verdicts that rest on fewer are forgotten."""
        self.runs, self.rate = runs, rate
        self.verdicts = {k: v for k, v in self.verdicts.items() if v is Verdict.REPRODUCES}
        self.tell(f"flaky: shows in about {rate:.0%} of the runs, so each probe has up to {runs}")

    def shown_by(self, candidate: Candidate) -> Failure:
        """Return the wanted failure as the target words it for this candidate."""
        if self.hybrid is not None:
            return self.hybrid.words(self.failure)
        return self.rewordings.get(candidate.digest, self.failure)

    def _reworded(self, candidate: Candidate, outcome: Outcome) -> bool:
        """Return whether an outcome is the wanted failure in other words, because the model is small.

        Seen: TensorRT has sanity checks that fire in small networks only. When it blames the same
        node at the same stage, and shows the wanted failure again as soon as unrelated nodes stand
        before these, then it is the wanted one.
        """
        wanted = self.wanted
        if wanted is None or not wanted.nodes or wanted.stage not in (Stage.PARSE, Stage.BUILD):
            return False
        alike = [f for f in outcome.failures if f.stage is wanted.stage and f.symptom is wanted.symptom]
        here = next((f for f in alike if f.nodes[:1] == wanted.nodes[:1]), None)
        if here is None or self.judge(self.observe(padded(candidate))) is not Verdict.REPRODUCES:
            return False
        self.rewordings[candidate.digest] = here
        return True

    def observations(self, candidate: Candidate, runs: int, *, rarely: bool = False) -> Iterator[Outcome]:
        """Yield what the target does with a candidate, `runs` times; `rarely`: hardly more than once."""
        for run in range(runs):

            def ahead(run: int = run) -> Iterator[Question]:
                later = [(candidate, k) for k in range(run + 1, runs)]
                others = ((guess, 0) for guess in self._guesses())
                return chain(others, later) if rarely else chain(later, others)

            self.prober.ahead = ahead
            yield self.prober.observe(candidate, run)

    def observe(self, candidate: Candidate) -> Outcome:
        """Return what the target does with a candidate; what was seen before is not asked again."""
        return next(self.observations(candidate, 1))

    def judge(self, outcome: Outcome) -> Verdict:
        """Return the verdict of an outcome on the wanted failure; on any failure before there is one."""
        if self.wanted is None:
            return Verdict.REPRODUCES if outcome.failures else Verdict.VANISHES
        cause = self.simplifying.cause
        if cause is not None and judge(outcome, self.wanted) is Verdict.REPRODUCES:
            return Verdict.REPRODUCES if cause.stays(outcome) else Verdict.VANISHES
        if self.hybrid is not None:
            return self.hybrid.judge(outcome, self.wanted)
        return judge(outcome, self.wanted)

    def tell(self, text: str, *, accepted: bool = False) -> None:
        """Report a step in words; `accepted`: something became smaller."""
        c = self.counts
        spent = (c.probes, c.cached, c.unresolved, c.target_seconds)
        self.on_event(Step(self.phase, text, self.nodes_left, *spent, accepted))


def end_of(prober: Prober, steps: Callable[[], None]) -> End:
    """Run steps that ask the target, and say how they ended; whatever probe still runs is given up."""
    try:
        steps()
    except KeyboardInterrupt:
        return End(Ended.INTERRUPTED, "interrupted")
    except BudgetSpent as over:
        return End(Ended.OUT_OF_BUDGET, over.message)
    except ClusterLost as lost:
        return End(Ended.CLUSTER_LOST, lost.message)
    finally:
        prober.close()
    return End()
