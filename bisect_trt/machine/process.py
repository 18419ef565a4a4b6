"""One process that does jobs, one after the other, and the connection to it.

Nothing here waits for a process that says nothing: a message is read as far as it has come, so that one which
is left half written keeps nobody from looking at the clock.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from enum import Enum
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

from bisect_trt.machine import limits

Job = tuple[Callable[..., Any], tuple[Any, ...]]
Answer = tuple[bool, bytes, float]
"""Whether the job returned; its pickled value, or what it raised; seconds."""
Call = Callable[[Callable[..., Any], tuple[Any, ...]], Answer]
"""Runs a job, in the process; what it raises is part of the answer."""

_AT_ONCE = 1 << 20  # bytes that are read at once
_ENDING = 5.0  # seconds that a process which was killed has to be gone
_HEAD = struct.Struct("!8sQ")  # in front of each message: a mark, and the bytes that follow
_MARK = b"\x00answer\n"


class Told(Enum):
    """What a process tells before it has an answer."""

    READY = "it may be given a job"
    TAKEN = "it does the job"


class EndedError(Exception):
    """The connection to the process has come to its end."""


class BrokenError(Exception):
    """What comes from the process is no message: somebody else writes on its connection."""


class WorkerProcess:
    """A process and the connection to it. One thread may talk to it; any may end it."""

    def __init__(
        self, context: BaseContext, call: Call, begin: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """Start it; it calls `begin` with the arguments before its first job, and `call` for each.

        Raises:
            EndedError: it cannot be started.
        """
        self._pipe, theirs = context.Pipe()
        self._come = bytearray()  # of a message that is not complete yet
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, call, begin, arguments), daemon=False
        )
        try:
            self._process.start()
        except (OSError, EOFError) as error:
            raise EndedError from error
        finally:
            theirs.close()
        self.pid = int(self._process.pid)
        self.ready = False  # it has told so

    def give(self, job: Job) -> None:
        """Hand a job over.

        Raises:
            EndedError: there is nobody any more to take it.
            Exception: it cannot be pickled.
        """
        packed = pickle.dumps(job)
        try:
            self._pipe.send_bytes(packed)
        except OSError as error:
            raise EndedError from error

    def hear(self, seconds: float) -> Told | Answer | None:
        """Give what it tells within so many seconds; None: nothing, or not all of it yet.

        Raises:
            EndedError, BrokenError: there is nothing more to hear.
        """
        if not self._complete():
            try:
                came = os.read(self._pipe.fileno(), _AT_ONCE) if self._pipe.poll(seconds) else None
            except OSError as error:
                raise EndedError from error
            if came == b"":
                raise EndedError
            self._come += came or b""
        size = self._complete()
        if not size:
            return None
        message = bytes(self._come[_HEAD.size : size])
        del self._come[:size]
        told: Told | Answer = pickle.loads(message)  # from a process of ours; never content of a model
        self.ready = self.ready or told is Told.READY
        return told

    def _complete(self) -> int:
        """Bytes of the first message with what is in front of it; 0 while it is not all there."""
        if len(self._come) < _HEAD.size:
            return 0
        mark, size = _HEAD.unpack_from(self._come)
        if mark != _MARK:
            raise BrokenError
        whole = _HEAD.size + int(size)
        return whole if len(self._come) >= whole else 0

    def exit_code(self, seconds: float = 0.0) -> int | None:
        """Say how it ended, if it does within so many seconds; None: it lives."""
        if seconds:
            self._process.join(seconds)
        code: int | None = self._process.exitcode
        return code

    def end(self) -> None:
        """Kill it and all that it started in its group."""
        limits.kill_group(self.pid)
        self._process.join(_ENDING)


def _serve(pipe: Connection, call: Call, begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Serve the tool, until the tool hangs up."""
    begin(*arguments)
    _tell(pipe, Told.READY)
    while True:
        try:
            packed = pipe.recv_bytes()
        except EOFError:
            return
        job = opened(packed)  # may import for seconds, which no deadline counts
        _tell(pipe, Told.TAKEN)
        _tell(pipe, call(*job))


def _tell(pipe: Connection, told: Told | Answer) -> None:
    message = pickle.dumps(told)
    left = memoryview(_HEAD.pack(_MARK, len(message)) + message)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def opened(packed: bytes) -> Job:
    """Give a pickled job, in the worker; one that cannot be read is a job that raises why."""
    try:
        job: Job = pickle.loads(packed)
    except Exception as error:
        return _raise, (error,)
    return job


def _raise(error: Exception) -> None:
    raise error
