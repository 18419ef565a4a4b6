"""What travels between the parent and a worker, and what comes of a job."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bisect_trt.errors import BisectError
from bisect_trt.outcome import Symptom

Job = tuple[Callable[..., Any], tuple[Any, ...]]
Answer = tuple[bool, bytes, float]
"""Whether the job returned; its pickled value, or what it raised; seconds."""


@dataclass(frozen=True)
class Death:
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


@dataclass(frozen=True)
class Reply:
    """What came of a job: its value, or the death of its worker; and seconds that it took."""

    value: Any = None
    death: Death | None = None
    seconds: float = 0.0


def call(function: Callable[..., Any], args: tuple[Any, ...]) -> Answer:
    """In the worker: run the job; what it raises is data, so that it is never taken for a death."""
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
