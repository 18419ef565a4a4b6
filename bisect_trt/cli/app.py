"""`bisect-trt`: the commands, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from bisect_trt._version import __version__
from bisect_trt.cli import blame, check, doctor, nightly, reduce, scan, simplify, verify
from bisect_trt.errors import BisectError, StoppedEarly, UsageError

app = typer.Typer(
    name="bisect-trt",
    help="Find the smallest part of an ONNX model that still fails on TensorRT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


for _module in (check, reduce, scan, simplify, verify, blame, doctor):
    _module.COMMAND.add_to(app)
app.add_typer(nightly.app, name="nightly")


def _version(wanted: bool) -> None:
    if wanted:
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
    try:
        code = app(words, prog_name="bisect-trt", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return _closed_pipe()
    except Exception as error:  # this is the last one to catch anything
        _show(_as_ours(error), error, words)
        return _as_ours(error).exit_code


def _as_ours(error: Exception) -> BisectError:
    """Any exception as one of ours."""
    if isinstance(error, BisectError):
        return error
    if isinstance(
        error, typer.BadParameter.__mro__[2]
    ):  # click's ClickException; Typer may bundle its own click
        told = getattr(error, "format_message", lambda: str(error))()
        return UsageError(
            " ".join(told.split()), "bisect-trt --help lists commands, COMMAND --help its options"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"for {error.filename}" if error.filename else "on a disk"
        return StoppedEarly(f"no space left {place}", "make room and run the same line again")
    return BisectError(
        f"internal error: {type(error).__name__}: {' '.join(str(error).split())}",
        f"this is a bug of bisect-trt {__version__}: run it again with --debug and report what that shows",
    )


def _show(ours: BisectError, error: Exception, words: Sequence[str]) -> None:
    if "--debug" in words:
        traceback.print_exception(error, file=sys.stderr)
    if "--json" in words:
        told = {
            "type": type(ours).__name__,
            "message": ours.message,
            "hint": ours.hint,
            "exit_code": ours.exit_code,
        }
        print(json.dumps({"error": told}, indent=2))
        return
    print(f"error: {ours.message}", file=sys.stderr)
    if ours.hint:
        print(f"hint: {ours.hint}", file=sys.stderr)


def _closed_pipe() -> int:
    """Whoever read our output went away (`| head`): nothing more to say, and nothing wrong."""
    sys.stdout = None
    return 0
