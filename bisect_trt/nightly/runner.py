"""What a night asks of the rest of the tool, one model at a time. Tests bring their own runner."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

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


@dataclass(frozen=True)
class Trouble:
    """A job that gave no answer, and a sentence that says why."""

    cause: Cause
    reason: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Checked:
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


@dataclass(frozen=True)
class Reduced:
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
    one_minimal: bool = False
    flaky: bool = False
    seconds: float = 0.0
    stop_reason: str = field(default="")


class Runner(Protocol):
    """Each call isolates what it runs and is back when `limit` seconds are over, whatever happens."""

    def check(
        self, slug: str, model: Path, settings: Settings, limit: float, *, fresh: bool = True
    ) -> Checked | Trouble:
        """Run the whole model on the target; without `fresh` in a process that others have passed in."""
        ...

    def verify(self, slug: str, repro: Path, settings: Settings, limit: float) -> Checked | Trouble:
        """Run a stored reproducer on the target, from its own files."""
        ...

    def reduce(
        self, slug: str, model: Path, settings: Settings, out: Path, limit: float, *, again: bool
    ) -> Reduced | Trouble:
        """Reduce into `out`, going on with what is there; `again` does a finished one anew."""
        ...

    def cancel(self) -> None:
        """End all that runs, from any thread; calls return soon."""
        ...

    def folder(self, slug: str) -> Path | None:
        """Return where the job of this name leaves its progress, while it runs."""
        ...

    def close(self) -> None:
        """Leave nothing of it running."""
        ...
