"""`bisect-trt`: the commands, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import copy
import difflib
import errno
import io
import json
import re
import shutil
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bisect_trt._version import __version__
from bisect_trt.cli import (
    blame,
    check,
    doctor,
    first,
    nightly,
    precision,
    profile,
    reduce,
    scan,
    simplify,
    verify,
)
from bisect_trt.cli.commands import Group
from bisect_trt.errors import INTERRUPTED, BisectError, ModelDoesNotFail, StoppedEarly, UsageError, is_full

app = typer.Typer(
    name="bisect-trt",
    cls=Group,
    help="Find the smallest part of an ONNX model that still fails on TensorRT.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_MODULES = (check, reduce, scan, precision, profile, simplify, verify, blame, doctor)
COMMANDS = tuple(module.COMMAND for module in _MODULES)
for _command in COMMANDS:
    _command.add_to(app)
app.add_typer(nightly.app, name="nightly")
CLICK_ERROR = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
"""The base of what Typer raises; some versions of it bundle a click of their own."""
NAMES = (*(command.name for command in COMMANDS), "nightly")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bisect-trt {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find the smallest part of an ONNX model that still fails on TensorRT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code; never raises, `--debug` shows tracebacks."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names need not be text of the terminal's encoding
    try:
        if not words:
            print(first.SCREEN, end="")
            return 0
        words = first.understood(words, NAMES)
        code = _knowing(words[0])(words, prog_name="bisect-trt", standalone_mode=False)
        if code == INTERRUPTED:  # Typer's answer to Ctrl-C before a command runs, which says nothing
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        print("interrupted before anything was begun", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output went away (`| head`): nothing more to say
        sys.stdout = None
        return 0
    except Exception as error:  # this is the last one to catch anything
        _show(_as_ours(error), error, words)
        return _as_ours(error).exit_code


def _knowing(word: str) -> typer.Typer:
    """Return the application with the command of this name alone: to make the options of all takes 12 ms."""
    found = copy.copy(app)
    if word in NAMES:
        found.registered_commands = [one for one in app.registered_commands if one.name == word]
        found.registered_groups = [one for one in app.registered_groups if one.name == word]
    return found


def _as_ours(error: Exception) -> BisectError:
    """Turn any exception into one of ours."""
    if isinstance(error, BisectError):
        return error
    if isinstance(error, CLICK_ERROR):
        return _misused(error)
    if isinstance(error, OSError) and is_full(error):
        scratch = tempfile.gettempdir()
        place = f"for {error.filename}" if error.filename else "on a disk"
        free = f"{scratch}, where temporary files lie, has {shutil.disk_usage(scratch).free >> 20} MB"
        return StoppedEarly(f"no space left {place}", f"make room and run the same line again; {free}")
    if isinstance(error, MemoryError) or str(error) == "can't start new thread":
        return StoppedEarly("no memory left", "give it more (ulimit -v, -u), and run the same line again")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return StoppedEarly("a file may not become as large as it has to", "raise ulimit -f")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError(f"no file can have so long a name: {str(error.filename)[:40]}...", "check the path")
    if isinstance(error, FileNotFoundError) and error.filename is None:
        if "No usable temporary directory" in str(error):  # so `tempfile` says it, with all that it tried
            return UsageError("temporary files can be written nowhere", "set TMPDIR to a folder with room")
        if not _stands_somewhere():
            return UsageError("the current folder is gone", "cd to one that is there")
    return BisectError(
        f"internal error: {type(error).__name__}: {' '.join(str(error).split())}",
        f"this is a bug of bisect-trt {__version__}: run it again with --debug and report what that shows",
    )


def _stands_somewhere() -> bool:
    """Return whether the current folder is there."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _misused(error: Exception) -> UsageError:
    """Return what Typer says of a command line, with what may have been meant."""
    text = " ".join(getattr(error, "format_message", lambda: str(error))().split())
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path if context else 'bisect-trt'} --help lists what there is"
    unknown = re.match(r"No such option: (\S+)", text)
    if unknown and context:
        flags = [flag for parameter in context.command.params for flag in parameter.opts]
        near = difflib.get_close_matches(unknown[1].lower(), flags, 1)
        text, hint = f"there is no option {unknown[1]}", f"did you mean {near[0]}?" if near else hint
    return UsageError(text, hint)


def _show(ours: BisectError, error: Exception, words: Sequence[str]) -> None:
    if "--debug" in words:
        traceback.print_exception(error, file=sys.stderr)
    if "--json" in words:
        document = {
            "type": type(ours).__name__,
            "message": ours.message,
            "hint": ours.hint,
            "exit_code": ours.exit_code,
        }
        print(json.dumps({"error": document}, indent=2))
        return
    # A model that does not fail is an answer, and no error.
    labels = ("Result      ", "Next        ") if isinstance(ours, ModelDoesNotFail) else ("error: ", "hint: ")
    for label, text in zip(labels, (ours.message, ours.hint), strict=True):
        lines = [part for line in text.splitlines() for part in _wrapped(line, _columns() - len(label))]
        for number, line in enumerate(lines):
            print(f"{' ' * len(label) if number else label}{line}", file=sys.stderr)


def _columns() -> int:
    """Return the width of the terminal; 0 for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else 0


def _wrapped(line: str, width: int) -> list[str]:
    """Wrap lines between words on a terminal; a file or a pipe has no width."""
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) if width > 0 else [line]
