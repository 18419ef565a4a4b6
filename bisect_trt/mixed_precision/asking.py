"""Who answers the questions of a search: one session for all sets, the written form, or the target itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bisect_trt.errors import StoppedEarly
from bisect_trt.mixed_precision import evaluate
from bisect_trt.mixed_precision.answer import Answer, Keep
from bisect_trt.mixed_precision.evaluate import Trial
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Outcome, Stage
from bisect_trt.reduction.passes.flaky import HITS, MOST_RUNS, runs_needed
from bisect_trt.session.journal import Journal, read
from bisect_trt.session.oracle import LONGEST_DEADLINE
from bisect_trt.session.prober import GO_ON, Budget, Prober
from bisect_trt.workers.pool import Pool
from bisect_trt.workers.reply import Reply

ANSWERS = "answers"
"""The event of the journal that holds what came of some sets."""


def job(pool: Pool, deadline: float | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """Give what a function gives in a worker. Raises StoppedEarly when its process ends."""
    return _value(pool.submit(function, *arguments, timeout=deadline or LONGEST_DEADLINE).result())


def _value(reply: Reply) -> Any:
    if reply.death is not None:
        raise StoppedEarly(f"an evaluation ended its process: {reply.death.message}", GO_ON)
    return reply.value


@dataclass
class Sessions:
    """Answers from workers of ours, kept in the journal: `evaluate.evaluate` or `evaluate.explicit`."""

    pool: Pool
    trial: Trial
    journal: Journal
    budget: Budget
    function: Callable[..., list[Answer]] = evaluate.evaluate
    asked: int = 0
    _known: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what an earlier run was told."""
        for event in read(self.journal.path)[0]:
            if event["event"] == ANSWERS and event["by"] == self.function.__name__:
                self._known |= {key: Answer.from_json(told) for key, told in event["answers"].items()}

    @property
    def answered(self) -> int:
        """How many sets have an answer, those of an earlier run too: a kill changes no figure."""
        return len(self._known)

    def ask(self, keeps: Sequence[Keep]) -> list[Answer]:
        """Answers for several sets. Raises BudgetSpent, StoppedEarly."""
        keys = [_key(keep) for keep in keeps]
        new = [keep for keep, key in zip(keeps, keys, strict=True) if key not in self._known]
        if new:
            self.budget.require(self.asked)
            answers = self._spread(new)
            told = {_key(keep): answer for keep, answer in zip(new, answers, strict=True)}
            self.asked += len(new)
            self.journal.event(
                ANSWERS, by=self.function.__name__, answers={k: asdict(a) for k, a in told.items()}
            )
            self._known |= told
        return [self._known[key] for key in keys]

    def _spread(self, keeps: list[Keep]) -> list[Answer]:
        """Give what comes of them, each worker asked for its part. Raises StoppedEarly."""
        parts = [part for k in range(self.pool.workers) if (part := keeps[k :: self.pool.workers])]
        deadline = self.budget.left() or LONGEST_DEADLINE
        tasks = [self.pool.submit(self.function, self.trial, part, timeout=deadline) for part in parts]
        given = [_value(task.result()) for task in tasks]
        return [given[k % len(given)][k // len(given)] for k in range(len(keeps))]


def _key(keep: Keep) -> str:
    return hashlib.sha256(json.dumps(sorted(keep)).encode()).hexdigest()[:24]


@dataclass
class OnTarget:
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
        outcome = self.seen.get(keep)
        return outcome.built.run_seconds if outcome else 0.0

    def refusal(self, keep: Keep) -> str:
        """Say why there was nothing to compare with these in FP32; empty where outputs were compared."""
        failures = self.seen[keep].failures if keep in self.seen else ()
        return next((f.message for f in failures if f.stage is not Stage.COMPARE), "")

    def _one(self, keep: Keep) -> Answer:
        failed = any(self._fails(keep, run) for run in range(self.runs))
        measured = self.seen[keep].measured
        if failed:
            damage = max(measured.damage.values(), default=float("inf"))
            return Answer(False, 1 + damage, dict(measured.errors))
        return Answer(True, min(1.0, max(measured.errors.values(), default=0.0)), dict(measured.errors))

    def _fails(self, keep: Keep, run: int) -> bool:
        outcome = self.seen[keep] = self.prober.observe(self.candidate(keep), run)
        return bool(outcome.failures or outcome.unresolved)
