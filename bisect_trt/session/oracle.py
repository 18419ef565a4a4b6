"""Runs candidates on the target in isolated workers; deaths of a worker become failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Failure, Outcome, Stage
from bisect_trt.settings import DEFAULT_ACCURACY, AccuracySettings, TargetSettings
from bisect_trt.targets.base import last_stage, readable, was_in_reference
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Death, Pool, Reply, Task

SHORTEST_DEADLINE = 10.0
SHORTEST_WHERE_SLOW = 60.0  # TensorRT loads a kind of kernel in up to 13 s when it is first needed
LONGEST_DEADLINE = 600.0


class Oracle:
    """Observes candidates on one target.

    The deadline of a probe is `timeout` seconds; without one, ten times what the first probe took,
    between 10 s (on TensorRT 60 s) and 10 min (the first probe itself has 10 min), which `on_deadline` is
    told. `accuracy` says when outputs agree.
    """

    def __init__(
        self,
        pool: Pool,
        target: TargetSettings,
        timeout: float | None = None,
        accuracy: AccuracySettings = DEFAULT_ACCURACY,
    ) -> None:
        self._pool = pool
        self.accuracy = accuracy
        self.explain = False  # whether mismatches are held against what rounding explains
        self.save: Path | None = None  # folder for the outputs of both sides, of the whole model
        self.target = target
        self.deadline = timeout or LONGEST_DEADLINE
        self.on_deadline: Callable[[float], None] = lambda seconds: None
        self._adapt = timeout is None
        # Whether cuts that fail have to run on the reference.
        self.confirms: Callable[[], bool] = lambda: False

    def settle(self, deadline: float | None = None) -> None:
        """Take over the deadline of a first probe that was done before, or the longest; a timeout stays."""
        if self._adapt:
            self._adapt = False
            self.deadline = deadline or self.deadline

    def submit(self, candidate: Candidate, target: TargetSettings | None = None) -> Task:
        """Start a probe, on the same target with other settings where these are given; see `outcome`."""
        save = self.save if candidate.form is Form.ORIGINAL else None
        arguments = (target or self.target, candidate, self.accuracy, save, self.confirms(), self.explain)
        return self._pool.submit(jobs.probe, *arguments, timeout=self.deadline)

    def outcome(self, task: Task, *, guessed: bool = False) -> Outcome:
        """Wait for a probe. A worker that died gives a failure, never an exception.

        A probe that was begun on a guess says nothing about deadlines: these must not depend on luck.
        """
        reply = task.result()
        if self._adapt and not guessed:
            self._adapt = False
            least = SHORTEST_DEADLINE if jobs.warm_job(self.target) is None else SHORTEST_WHERE_SLOW
            self.deadline = min(max(least, 10 * reply.seconds), LONGEST_DEADLINE)
            self.on_deadline(self.deadline)
        return outcome_of(reply)

    def observe(self, candidate: Candidate) -> Outcome:
        """Probe and wait."""
        return self.outcome(self.submit(candidate))


def outcome_of(reply: Reply) -> Outcome:
    """Return the job's own outcome, or the worker's death as a failure."""
    if reply.death is None:
        outcome: Outcome = reply.value
        return outcome
    log = readable(reply.death.log)
    if was_in_reference(reply.death.log):
        ended = f"the reference ended its process: {reply.death.message}"
        return Outcome(unresolved=ended, seconds=reply.seconds, log=log)
    return Outcome(failures=(_from_death(reply.death),), seconds=reply.seconds, log=log)


def _from_death(death: Death) -> Failure:
    """Return the failure of a death, at the stage announced last; its signature has no numbers."""
    stage = last_stage(death.log) or Stage.BUILD
    return Failure(stage, death.symptom, f"{death.symptom.value}: {death.message}", death.message)
