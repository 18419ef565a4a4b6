"""How a job ends other than by an answer: its worker dies, or it is asked to end."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass

from bisect_trt.outcome import Symptom
from bisect_trt.workers.reply import Answer, Death


class NotStartedError(Exception):
    """The worker went before it took the job."""


class DiedError(Exception):
    """The worker went in the middle of the job. `again`: a fresh one is worth a try."""

    def __init__(
        self, symptom: Symptom, exitcode: int | None, message: str, detail: str = "", *, again: bool = False
    ) -> None:
        super().__init__(message)
        self.death = Death(symptom, exitcode, message, detail=detail)
        self.again = again
        self.alive = False  # the job was ended and its process lives on


class PoolError(Exception):
    """pebble gave up on the connection to the worker."""


class StoppedError(CancelledError):
    """A job that nobody wants any more ended itself; its process lives on."""


@dataclass(frozen=True)
class Wish:
    """A job was asked to end: until when it has time to do so, and whether nobody wants it any more."""

    until: float
    cancelled: bool


def late(timeout: float | None) -> DiedError:
    """The job took longer than it was given."""
    return DiedError(Symptom.HANG, None, "no answer before the deadline", f"no answer within {timeout:g} s")


def unless(wish: Wish | None, timeout: float | None, answer: Answer) -> Answer:
    """The answer; one of a job that had been asked to end is worth nothing."""
    if wish is None:
        return answer
    if wish.cancelled:
        raise StoppedError
    ended = late(timeout)
    ended.alive = True
    raise ended
