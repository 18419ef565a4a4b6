"""What a problem keeps of its passes: what each cost and won, and what a simplification may do."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.editing.draft import Draft, Shapes
from bisect_trt.outcome import End, Ended
from bisect_trt.reduction.cause import Cause
from bisect_trt.results import Tally

LEAST_LOOKS = 10.0
"""Target seconds that looks at what is not kept have at least, where they have time of their own."""


class PassCounts(Struct, frozen=True):
    """What one pass of the search cost and won; `seconds` are those of the clock."""

    name: str
    probes: int
    nodes_before: int
    nodes_after: int
    seconds: float


class Simplifying(Struct):
    """What a simplification may do and spend, and what its passes did.

    Attributes:
        until: target seconds (`Counts.asked_seconds`) at which it ends.
        until_asked: questions (`Counts.asked`) before which no budget ends it: up to there nothing that
            is kept depends on a clock.
        confirm: the reference runs every edited candidate first; not where it cannot run the original.
        synthetic: values of the original are to be avoided by all means (`--anonymise`).
        profiled: inputs whose names the settings hold.
        seed: of random values.
        once: an edit that vanished is not tried again, although the candidate has changed since; where a
            probe is dear, as each new shape has its tactics measured.
        vanished: pass and words of the edits that were tried and not kept.
        tallies: by name of the pass, in the order in which they first ran.
        draft: the best candidate opened, with its digest.
        end: how it ended, and why before a fixed point, if so.
        budget: target seconds that it was given.
        looked: target seconds that were spent on looks at what is not to be kept.
        beside: whether looks have time of their own beside the budget; else they share it with edits.
        sizes: which sizes of a dimension fail and which work, as sentences, by what works.
        cause: what an edit has to keep of the failure, besides its words; None: nothing.
        shapes: see `Draft`.
    """

    until: float = float("inf")
    until_asked: int = 0
    confirm: bool = True
    synthetic: bool = False
    profiled: frozenset[str] = frozenset()
    seed: int = 0
    once: bool = False
    vanished: set[tuple[str, str]] = field(default_factory=set)
    tallies: dict[str, Tally] = field(default_factory=dict)
    draft: tuple[str, Draft] | None = None
    end: End = field(default_factory=End)
    budget: float = float("inf")
    looked: float = 0.0
    beside: bool = True
    sizes: dict[tuple[str, int], str] = field(default_factory=dict)
    cause: Cause | None = None
    shapes: Shapes | None = None

    def may_look(self) -> bool:
        """Whether there is time for another look at what is not kept: half of the budget is for them."""
        return self.looked <= max(LEAST_LOOKS if self.beside else 0.0, self.budget / 2)

    def look(self, seconds: float) -> None:
        """Count target seconds that went into a look at what is not to be kept."""
        self.looked += seconds
        if self.beside:
            self.until += seconds

    def tell_size(self, axis: str, works: int, sentence: str) -> None:
        """Remember that an axis fails at some sizes and works at a smaller one; the first sentence stays."""
        self.sizes.setdefault((axis, works), sentence)

    def keep_cause(self, cause: Cause | None) -> None:
        """Set what edits have to keep from here on."""
        self.cause = cause

    def hold(self, candidate: Candidate, draft: Draft) -> None:
        """Remember the draft that a candidate was made of, so that it need not be opened again."""
        self.draft = (candidate.digest, draft)

    def give_up(self, phase: str, edits: Iterable[str]) -> None:
        """Remember edits of a pass that were not kept."""
        self.vanished.update((phase, what) for what in edits)

    def forget(self) -> None:
        """Let the draft go: what it stands for is no candidate."""
        self.draft = None

    def end_early(self, how: Ended, why: str) -> None:
        """Remember why it ended before a fixed point."""
        self.end = End(how, why)

    def go_on_without_limit(self) -> None:
        """Do what is left without a budget."""
        self.until = float("inf")
