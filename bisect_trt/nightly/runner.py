"""What a night asks of the rest of the tool, one model at a time. Tests bring their own runner."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from bisect_trt.outcome import Failure
from bisect_trt.settings import Settings


class Cause(StrEnum):
    """Why a job gave no answer."""

    USAGE = "usage"  # the model or an option cannot be used
    TARGET = "target"  # the target cannot be used here
    DISK = "disk full"
    DEADLINE = "deadline"
    MEMORY = "memory"
    DIED = "died"
    CANCELLED = "cancelled"
    STEADY = "does not fail"  # `reduce` could not see the failure
    BUG = "bug"


class Trouble(Struct, frozen=True, tag=True):
    """A job that gave no answer, and a sentence that says why."""

    cause: Cause
    reason: str
    seconds: float = 0.0


class Checked(Struct, frozen=True, tag=True):
    """What `check` or `verify` saw.

    `version` is the target's title, `digest` that of the model file, `seconds` what the job took in
    all and `target_seconds` what of it was spent inside target and reference; `unresolved` says why
    nothing can be said, if so. `shows` is for `verify`: whether the reproducer still shows what it was
    made for.
    """

    failures: tuple[Failure, ...] = ()
    unresolved: str = ""
    nodes: int = 0
    version: str = ""
    digest: str = ""
    seconds: float = 0.0
    shows: bool = False
    target_seconds: float = 0.0


class Reduced(Struct, frozen=True, tag=True):
    """What `reduce` left in its folder; `shape` is that of the reduced graph (`same_bugs.describe`).

    `failure` is that of the whole model, which a small one may show in other words. `flaky`
    says that it did not show in every run.
    """

    failure: Failure
    nodes: int
    shape: str
    verified: int
    repeats: int
    finished: bool
    flaky: bool = False
    seconds: float = 0.0
    stop_reason: str = ""


Answer = Checked | Reduced | Trouble
ENDED = Trouble(Cause.CANCELLED, "the night was ended")


class Job(Struct, frozen=True):
    """What a runner is asked.

    Attributes:
        kind: `check` runs the whole model on the target, `verify` a stored reproducer from its own files, and
            `reduce` makes one, going on with what is there.
        slug: names the job; no two with the same name run at the same time.
        limit: seconds; a reduction is asked to save its best then.
        repro: folder of the reproducer that is run or made.
        fresh: of `check`: not in a process that has seen other models.
        again: of `reduce`: what is there is done anew.
    """

    kind: Literal["check", "verify", "reduce"]
    slug: str
    model: Path
    settings: Settings
    limit: float
    repro: Path = Path()
    fresh: bool = True
    again: bool = False


class Runner(Protocol):
    """Where jobs are run."""

    def run(self, job: Job) -> Answer:
        """Do a job, isolated; back when its limit is over, whatever happens."""

    def cancel(self) -> None:
        """End all that runs, from any thread; calls return soon, and those from now on at once."""

    def folder(self, slug: str) -> Path | None:
        """Return where the job of this name leaves its progress, while it runs."""

    def close(self) -> None:
        """Leave nothing of it running."""
