"""The target itself answers the questions of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.mixed_precision.answer import Answer, Keep
from bisect_trt.mixed_precision.clock import Clock
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Outcome, Stage
from bisect_trt.reduction.passes.flaky import HITS, MOST_RUNS, runs_needed
from bisect_trt.session.prober import Prober
from bisect_trt.settings import Settings


class OnTarget(Struct):
    """Answers from the target: a question is a build, or a run of the model with casts.

    Attributes:
        runs: of a set, all of which have to pass.
        rate: of the runs in which a failure shows that comes and goes; 0 where it does not.
    """

    prober: Prober
    original: Candidate
    names: dict[str, str]
    runs: int = 1
    rate: float = 0.0
    clock: Clock | None = None
    seen: dict[Keep, Outcome] = field(default_factory=dict)

    def ask(self, keeps: Sequence[Keep]) -> list[Answer]:
        """Answers for several sets. Raises BudgetSpent."""
        return [self._one(keep) for keep in keeps]

    def look(self, keep: Keep, times: int) -> None:
        """Run a set so often; where its failure comes and goes, each set has to pass more often from now on.

        Raises:
            BudgetSpent, FlakyFailure.
        """
        shown = [self._fails(keep, run) for run in range(times)]
        if all(shown) or not any(shown):
            return
        hits, run = sum(shown), times
        while hits < HITS and run < MOST_RUNS:
            hits, run = hits + self._fails(keep, run), run + 1
        self.runs, self.rate = runs_needed(hits, run, "the whole model in the low precision")

    def candidate(self, keep: Keep) -> Candidate:
        """Give the user's model with these in FP32."""
        return replace(self.original, keep=tuple(sorted(self.names[key] for key in keep)))

    def seconds(self, keep: Keep) -> float:
        """Give what one run took with these in FP32; 0 where that was not measured."""
        if self.clock and self.clock.measured:
            return self.clock.seconds(keep)
        outcome = self.seen.get(keep)
        return outcome.built.run_seconds if outcome else 0.0

    def builds(self, settings: Settings) -> Callable[[], int] | None:
        """Count the sets that were asked for; nothing where that takes no build, or the user sets the end."""
        if settings.target.spec.startswith("ort:") or settings.run.budget or settings.run.max_probes:
            return None
        return lambda: len(self.seen)

    def notes(self, low: str) -> tuple[str, ...]:
        """Give notes on a failure in the precision `low` that comes and goes, and on what was measured."""
        flaky = ""
        if self.rate:
            shows = f"The failure in {low} comes and goes: it shows in about {self.rate:.0%} of the runs"
            flaky = f"{shows}. A set passes when {self.runs} runs of it do."
        return flaky, self.clock.note if self.clock else ""

    def refusal(self, keep: Keep) -> str:
        """Say why there was nothing to compare with these in FP32; empty where outputs were compared."""
        failures = self.seen[keep].failures if keep in self.seen else ()
        return next((f.message for f in failures if f.stage is not Stage.COMPARE), "")

    def _one(self, keep: Keep) -> Answer:
        failed = any(self._fails(keep, run) for run in range(self.runs))
        measured = self.seen[keep].measured
        off = max(map(_tolerances, measured.tensors), default=math.inf if failed else 0.0)
        off = max(off, 1.0 + 1e-9) if failed else min(off, 1.0)
        return Answer(not failed, off, dict(measured.errors))

    def _fails(self, keep: Keep, run: int) -> bool:
        outcome = self.seen[keep] = self.prober.observe(self.candidate(keep), run)
        return bool(outcome.failures or outcome.unresolved)


def _tolerances(diff: Mapping[str, Any]) -> float:
    """How many times its tolerance a tensor is off, from its metrics; infinite where none is enough."""
    rtol, least = float(diff["rtol"]), float(diff["agrees_at"])
    if diff["metric"] == "max" and diff["worst"] and math.isfinite(least):
        worst = diff["worst"][0]
        limit = float(diff["atol"]) + rtol * abs(float(worst["reference"]))
        return float(worst["error"]) / max(limit, 1e-300)
    return least / rtol if rtol else float(diff["mismatches"])
