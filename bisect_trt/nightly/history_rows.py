"""What the history keeps: nights, and one row for every night, model and target."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from bisect_trt.nightly.verdicts import Key, Result, Status


class Night(Struct, frozen=True):
    """One night; `used` are the seconds worked so far, `ended_early` says why not everything was done."""

    id: int
    started: datetime
    finished: datetime | None = None
    used: float = 0.0
    exit_code: int | None = None
    ended_early: str = ""
    phase: str = ""


class Row(Struct, frozen=True):
    """One model on one target in one night.

    Attributes:
        settings: digest of the settings; a row of other settings is done again.
        digest: of the model file; empty while unknown.
        version: the target's title, `TensorRT-RTX 1.7.1.116`.
        phase: how far it is: planned, checked, confirmed, done.
        runs: the checks so far, `[[result, key or None], ...]`.
        reason: why it was not run, or why it was not reduced.
        check_seconds: of the first check; seconds: of everything, reduction included.
        repro: folder of the reproducer relative to the output folder.
        reduction: "", done, partial, kept (an older one was verified), failed.
        begun: how often a job for it was begun in the present phase.
    """

    night: int
    model: str
    target: str
    settings: str
    digest: str = ""
    version: str = ""
    phase: str = "planned"
    runs: tuple[tuple[Result, Key | None], ...] = ()
    result: Result = Result.UNKNOWN
    stage: str = ""
    symptom: str = ""
    signature: str = ""
    message: str = ""
    op: str = ""
    status: Status = Status.NOT_RUN
    news: bool = False
    reason: str = "not reached"
    check_seconds: float = 0.0
    seconds: float = 0.0
    nodes: int = 0
    repro: str = ""
    repro_nodes: int = 0
    shape: str = ""
    reduction: str = ""
    begun: int = 0

    @property
    def key(self) -> Key | None:
        """The failure's identity, if there is one."""
        return (self.stage, self.symptom, self.signature) if self.stage else None

    @property
    def turn(self) -> tuple[float, str, str]:
        """Return what puts rows in order: those that are checked quickly come first."""
        return self.check_seconds, self.model, self.target

    @property
    def name(self) -> tuple[str, str]:
        """Return the name of the model and of the target."""
        return self.model, self.target
