"""`on_new`: a command of the user for each new bug. No shell is ever involved."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bisect_trt.errors import UsageError
from bisect_trt.machine import limits

KEYS = ("repro", "model", "models", "target", "status", "signature", "report")
_PLACEHOLDER = re.compile(r"\{([^\W\d]\w*)\}")  # `{}` and `{0}` are the command's own
_TAIL = 2000  # characters of its output that the log gets


def words(command: str) -> list[str]:
    """Return the command as arguments, placeholders still in it.

    Raises:
        UsageError: quotes that do not match, or an unknown placeholder.
    """
    try:
        found = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"on_new: {command!r} cannot be read: {error}") from error
    for name in (name for word in found for name in _PLACEHOLDER.findall(word)):
        if name not in KEYS:
            raise UsageError(f"on_new: unknown placeholder {{{name}}}", f"known: {', '.join(KEYS)}")
    return found


def run(command: str, values: Mapping[str, str], folder: Path, timeout: float) -> str:
    """Run it in `folder` and say how it went, in one line; never raises for what the command does."""
    # In one pass: what a value contains is never looked at again.
    arguments = [_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in words(command)]
    try:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return f"on_new: {arguments[0]} cannot be started: {error.strerror}"
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        limits.kill_group(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
        return f"on_new: {arguments[0]} was killed after {timeout:.0f} s"
    except BaseException:
        limits.kill_group(process.pid)
        raise
    text = " ".join(said.decode(errors="replace").split())[-_TAIL:]
    code = process.returncode
    ended = f"exit code {code}" if code >= 0 else limits.signal_name(-code)
    return f"on_new: {arguments[0]}: {ended}{': ' if text else ''}{text}"
