"""Which decisions of the builder a failure depends on: few builds, and only what was seen is reported.

Two questions, both answered by `list_search.minimise` on the knobs of a target: the fewest decisions that
make the failure go when they are taken otherwise, and the fewest that keep it when all the others are. The
first costs one build with all knobs, then about log2(K) for one of K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Outcome, Verdict
from bisect_trt.reduction.list_search import asked_once, minimise, turned
from bisect_trt.session.prober import Prober
from bisect_trt.targets.knobs import Knob, switched

Observe = Callable[[Sequence[Knob]], Verdict]
"""What becomes of the failure when these decisions are taken otherwise."""


class Decided(Struct, frozen=True):
    """What was found.

    Attributes:
        helps: the fewest decisions that, taken otherwise, make the failure go; empty when none do.
        keeps: the fewest that keep it, when all others are taken otherwise; empty when that is not known.
        also: coarse ones that help, too, each alone.
        knobs: how many there were.
        builds: how many were needed to find what helps.
        more: and how many for the rest.
    """

    helps: tuple[Knob, ...] = ()
    keeps: tuple[Knob, ...] = ()
    also: tuple[Knob, ...] = ()
    knobs: int = 0
    builds: int = 0
    more: int = 0


def decide(knobs: Sequence[Knob], observe: Observe, *, thorough: bool = True) -> Decided:
    """Find the decisions that a failure depends on, given that it shows with all of them as by default.

    When all fine knobs together do not make it go, each coarse one is tried; when they end in another
    failure, each fine one alone, too, as one of them may be the reason. Unless `thorough`, neither that is
    done, nor is it asked what keeps the failure.
    """
    asked = _Memory(observe)
    fine = [knob for knob in knobs if not knob.coarse]
    coarse = [knob for knob in knobs if knob.coarse]
    every = asked.of(fine)
    helps: list[Knob] = []
    if every is Verdict.VANISHES:
        helps = minimise(fine, asked_once(lambda knobs: turned(asked.of(knobs))))
    elif every is Verdict.UNRESOLVED and thorough:
        helps = next(([knob] for knob in fine if asked.of([knob]) is Verdict.VANISHES), [])
    builds = asked.count
    keeps = _keeping(fine, helps, asked) if thorough and every is Verdict.VANISHES else []
    also = next(([knob] for knob in coarse if asked.of([knob]) is Verdict.VANISHES), [])
    if not helps:
        helps, also, builds = also, [], asked.count
    return Decided(tuple(helps), tuple(keeps), tuple(also), len(knobs), builds, asked.count - builds)


def _keeping(fine: list[Knob], helps: list[Knob], asked: _Memory) -> list[Knob]:
    """Return the fewest decisions that must stay at their defaults for the failure to show."""
    kept = asked_once(lambda keep: asked.of([knob for knob in fine if knob not in keep]))
    if kept(helps) is Verdict.REPRODUCES:
        return minimise(helps, kept)
    return minimise(fine, kept)


class _Memory:
    """Asks each set of knobs once."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._known: dict[frozenset[Knob], Verdict] = {}
        self.count = 0

    def of(self, knobs: Sequence[Knob]) -> Verdict:
        key = frozenset(knobs)
        if not key:
            return Verdict.REPRODUCES
        if key not in self._known:
            self.count += 1
            self._known[key] = self._observe(knobs)
        return self._known[key]


class Trial(Struct, frozen=True):
    """Observes one candidate with decisions taken otherwise; journaled, and within the budget.

    `runs` are needed before the failure counts as gone.
    """

    prober: Prober
    candidate: Candidate
    judge: Callable[[Outcome], Verdict]
    runs: int = 1

    def __call__(self, knobs: Sequence[Knob]) -> Verdict:
        """Return the verdict on the failure; UNRESOLVED for decisions that the target refuses.

        Raises:
            BudgetSpent: nothing more may be asked.
        """
        target = switched(self.prober.oracle.target, knobs)
        verdict = Verdict.VANISHES
        for run in range(self.runs):
            try:
                outcome = self.prober.observe(self.candidate, run, target=target)
            except (UsageError, TargetUnavailable):
                return Verdict.UNRESOLVED
            verdict = self.judge(outcome)
            if verdict is not Verdict.VANISHES:
                break
        return verdict
