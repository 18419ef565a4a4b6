"""Who answers the questions of a search in workers of ours: one session for all sets, or the written form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from bisect_trt.errors import StoppedEarly
from bisect_trt.mixed_precision import evaluate
from bisect_trt.mixed_precision.answer import Answer, Harm, Keep
from bisect_trt.mixed_precision.evaluate import Trial
from bisect_trt.mixed_precision.harms import harms
from bisect_trt.session.journal import Journal, read
from bisect_trt.session.oracle import LONGEST_DEADLINE
from bisect_trt.session.prober import GO_ON, Budget
from bisect_trt.workers.pool import Pool
from bisect_trt.workers.reply import Reply

ANSWERS = "answers"
"""The event of the journal that holds what came of some sets."""
HARMS = "harms"
"""The event of the journal that holds what roundings do alone."""


def job(pool: Pool, deadline: float | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """Give what a function gives in a worker. Raises StoppedEarly when its process ends."""
    return _value(pool.submit(function, *arguments, timeout=deadline or LONGEST_DEADLINE).result())


@contextmanager
def within(budget: Budget, asked: int) -> Iterator[None]:
    """Inside, workers have as long as the budget lasts: an end for that reason is told as that.

    Raises:
        BudgetSpent, StoppedEarly: a process ended, for that reason or another.
    """
    budget.require(asked)
    try:
        yield
    except StoppedEarly:
        budget.require(asked)
        raise


def _value(reply: Reply) -> Any:
    if reply.death is not None:
        raise StoppedEarly(f"an evaluation ended its process: {reply.death.message}", GO_ON)
    return reply.value


class Sessions(Struct):
    """Answers from workers of ours, kept in the journal: `evaluate.evaluate` or `evaluate.explicit`."""

    pool: Pool
    trial: Trial
    journal: Journal
    budget: Budget
    function: Callable[..., list[Answer]] = evaluate.evaluate
    asked: int = 0
    _known: dict[str, Answer] = field(default_factory=dict)
    _measured: dict[int, tuple[int, Sequence[Harm]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the answers that an earlier run got."""
        for event in read(self.journal.path)[0]:
            if event["event"] == HARMS:
                found = [(frozenset(nodes), harm) for nodes, harm in event["harms"]]
                self._measured[event["most"]] = event["runs"], found
            elif event["event"] == ANSWERS and event["by"] == self.function.__name__:
                self._known |= {key: Answer.from_json(answer) for key, answer in event["answers"].items()}

    @property
    def answered(self) -> int:
        """How many sets have an answer, those of an earlier run too: a kill changes no figure."""
        return len(self._known)

    def ask(self, keeps: Sequence[Keep]) -> list[Answer]:
        """Answers for several sets. Raises BudgetSpent, StoppedEarly."""
        keys = [label(keep) for keep in keeps]
        new = [keep for keep, key in zip(keeps, keys, strict=True) if key not in self._known]
        if new:
            with within(self.budget, self.asked):
                answers = self._spread(new)
            by_label = {label(keep): answer for keep, answer in zip(new, answers, strict=True)}
            self.asked += len(new)
            self.journal.event(
                ANSWERS, by=self.function.__name__, answers={k: asdict(a) for k, a in by_label.items()}
            )
            self._known |= by_label
        return [self._known[key] for key in keys]

    def harms(self, most: int, items: Keep, twins: Mapping[str, str]) -> tuple[int, Sequence[Harm]]:
        """See `Hints.harms`; what `items` cannot spare is left out. Raises BudgetSpent, StoppedEarly."""
        if self.function is not evaluate.evaluate:
            return 0, ()
        if most not in self._measured:
            with within(self.budget, self.asked):
                runs, found = job(self.pool, self.budget.left(), harms, self.trial, most, twins)
            self.asked += runs
            self._measured[most] = runs, found
            listed = [(sorted(nodes), harm) for nodes, harm in found]
            self.journal.event(HARMS, most=most, runs=runs, harms=listed)
        runs, found = self._measured[most]
        return runs, [(nodes, harm) for nodes, harm in found if nodes <= items]

    def _spread(self, keeps: list[Keep]) -> list[Answer]:
        """Give what comes of them, each worker asked for its part. Raises StoppedEarly."""
        parts = [part for k in range(self.pool.workers) if (part := keeps[k :: self.pool.workers])]
        deadline = self.budget.left() or LONGEST_DEADLINE
        tasks = [self.pool.submit(self.function, self.trial, part, timeout=deadline) for part in parts]
        given = [_value(task.result()) for task in tasks]
        return [given[k % len(given)][k // len(given)] for k in range(len(keeps))]


def label(keep: Keep) -> str:
    """Give a short name of a set."""
    return hashlib.sha256(json.dumps(sorted(keep)).encode()).hexdigest()[:24]
