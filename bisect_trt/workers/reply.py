"""What comes of a job: an answer, or its worker dies, or it is asked to end."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from msgspec import Struct

from bisect_trt.errors import BisectError
from bisect_trt.machine.process import Answer
from bisect_trt.outcome import Symptom


class Death(Struct, frozen=True):
    """How a worker ended in the middle of a job.

    Attributes:
        symptom: CRASH, HANG or OUT_OF_MEMORY.
        exitcode: negative for signals; None when we ended it or nobody knows.
        message: how, `SIGSEGV (segmentation fault)`; equal for equal causes, so without measured figures.
        log: the last 20 KB of what the process wrote on file descriptors 1 and 2 during the job.
        detail: the figures: how much memory it held, how long we waited.
    """

    symptom: Symptom
    exitcode: int | None
    message: str
    log: str = ""
    detail: str = ""


class Reply(Struct, frozen=True):
    """What came of a job: its value, or the death of its worker; and seconds that it took."""

    value: Any = None
    death: Death | None = None
    seconds: float = 0.0


def call(function: Callable[..., Any], args: tuple[Any, ...]) -> Answer:
    """Run the job, in the worker; what it raises is data, so that it is never taken for a death."""
    start = time.perf_counter()
    try:
        ok, value = True, pickle.dumps(function(*args))
    except Exception as error:
        ok, value = False, _packed(error)
    return ok, value, time.perf_counter() - start


def _packed(error: Exception) -> bytes:
    """Pickle an exception; one that cannot travel goes as a RuntimeError with its traceback."""
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, BisectError):
        error.add_note("in a worker process:\n" + text)
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)  # odd constructors fail only here
    except Exception:
        return pickle.dumps(RuntimeError(text))
    return packed


class DiedError(Exception):
    """The worker went in the middle of the job. `again`: a fresh one is worth a try."""

    def __init__(
        self, symptom: Symptom, exitcode: int | None, message: str, detail: str = "", *, again: bool = False
    ) -> None:
        super().__init__(message)
        self.death = Death(symptom, exitcode, message, detail=detail)
        self.again = again
        self.alive = False  # the job was ended and its process lives on


class StoppedError(CancelledError):
    """A job that nobody wants any more ended itself; its process lives on."""

    alive = True


class Wish(Struct, frozen=True):
    """A job was asked to end: until when it has time to do so, and whether nobody wants it any more."""

    until: float
    cancelled: bool


def late(timeout: float | None) -> DiedError:
    """Return the death of a job that took longer than it was given."""
    return DiedError(Symptom.HANG, None, "no answer before the deadline", f"no answer within {timeout:g} s")


def unless(wish: Wish | None, timeout: float | None, answer: Answer) -> Answer:
    """Return the answer; one of a job that had been asked to end is worth nothing."""
    if wish is None:
        return answer
    if wish.cancelled:
        raise StoppedError
    ended = late(timeout)
    ended.alive = True
    raise ended
