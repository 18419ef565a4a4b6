"""Every error that the user can meet, each with its own exit code.

    BisectError                70  our own bug
    +-- UsageError              2  bad option, unreadable or invalid model, bad inputs
    +-- TargetUnavailable       3  the target cannot be used here
    +-- ModelDoesNotFail        4  nothing to reduce
    +-- FlakyFailure            5  too flaky for --repeats
    +-- StoppedEarly            6  budget or Ctrl-C; the best so far is saved
    +-- Leak                    7  --anonymise: something of the original would be shared

Exit code 0 means done and 1 means that a disagreement was found (`check`) or is still there
(`verify`). A *failure of the model* is never an exception but a value, see `outcome.Failure`.
"""

from __future__ import annotations

import errno
from pathlib import Path

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended before anything was begun, as shells have it."""


class BisectError(Exception):
    """Base of all our errors. `message` says what and where, `hint` what to do next."""

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BisectError):
    """The user's input cannot be used: option, model file, inputs, output folder."""

    exit_code = 2


class TargetUnavailable(BisectError):
    """The target (or a reference, or an optional library) cannot be used on this machine."""

    exit_code = 3


class ModelDoesNotFail(BisectError):
    """The target and the reference agree on the whole model: there is nothing to reduce."""

    exit_code = 4


class FlakyFailure(BisectError):
    """The failure shows too seldom for the number of repeats that was allowed."""

    exit_code = 5


class StoppedEarly(BisectError):
    """A budget ran out or a signal came; what was found so far is on disk."""

    exit_code = 6


class ClusterLost(StoppedEarly):
    """The cluster does not answer any more: nothing can be tried, not even what was found."""


class Leak(BisectError):
    """What would be shared holds something of the original although it must not; nothing was zipped."""

    exit_code = 7


def is_full(error: OSError) -> bool:
    """Return whether a write failed because the disk is full or the user's quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def cannot_write(place: Path, error: OSError, hint: str = "") -> BisectError:
    """Return what to raise where a file or folder that the user named was not written.

    A full disk is no wrong use: the same command is right when there is room.
    """
    if is_full(error):
        return StoppedEarly(f"no space left for {place}", "make room and run the same line again")
    return UsageError(f"cannot write {place}: {error.strerror or error}", hint)
