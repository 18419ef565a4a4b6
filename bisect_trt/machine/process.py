"""One process that does jobs, one after the other, and the connection to it.

Nothing here waits for a process that says nothing: a message is read as far as it has come, so that one which
is left half written keeps nobody from looking at the clock.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import time
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
START_DEADLINE = 120.0  # seconds that a process may take to start on a busy machine
_ENDING = 5.0  # seconds that a process which was killed has to be gone
_HEAD = struct.Struct("!8sQ")  # in front of each message: a mark, and the bytes that follow
_MARK = b"\x00answer\n"


class Notice(Enum):
    """What a process says before it has an answer."""

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
        self._news = select.poll()  # `Connection.poll` makes a selector each time it is asked
        self._news.register(self._pipe, select.POLLIN)
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
        self.ready = False  # it has said so

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

    def hear(self, seconds: float) -> Notice | Answer | None:
        """Return its next message; None if no complete message arrives within that many seconds.

        Raises:
            EndedError, BrokenError: there is nothing more to hear.
        """
        if not self._complete():
            try:
                came = os.read(self._pipe.fileno(), _AT_ONCE) if self._news.poll(1000 * seconds) else None
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
        news: Notice | Answer = pickle.loads(message)  # from a process of ours; never content of a model
        self.ready = self.ready or news is Notice.READY
        return news

    def do(self, job: Job, seconds: float) -> Answer:
        """Have it do a job, as soon as it is ready, and wait for the answer so many seconds.

        Raises:
            TimeoutError: it was not ready within `START_DEADLINE`, or did not answer in time.
            EndedError, BrokenError: there is nothing more to hear.
            Exception: the job cannot be pickled.
        """
        until = time.monotonic() + START_DEADLINE
        while not self.ready:
            self._wait(until)
        self.give(job)
        until = time.monotonic() + seconds
        while not isinstance(answer := self._wait(until), tuple):
            pass
        return answer

    def _wait(self, until: float) -> Notice | Answer | None:
        """Return what the process says next, or nothing if that is not complete. Raises TimeoutError."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return self.hear(left)

    def _complete(self) -> int:
        """Return the bytes of the first message with what is in front of it; 0 while it is not all there."""
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
    _tell(pipe, Notice.READY)
    while True:
        try:
            packed = pipe.recv_bytes()
        except EOFError:
            return
        job = opened(packed)  # may import for seconds, which no deadline counts
        _tell(pipe, Notice.TAKEN)
        _tell(pipe, call(*job))


def _tell(pipe: Connection, news: Notice | Answer) -> None:
    message = pickle.dumps(news)
    left = memoryview(_HEAD.pack(_MARK, len(message)) + message)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def opened(packed: bytes) -> Job:
    """Return a pickled job, in the worker; one that cannot be read is a job that raises why."""
    try:
        job: Job = pickle.loads(packed)
    except Exception as error:
        return _raise, (error,)
    return job


def _raise(error: Exception) -> None:
    raise error
