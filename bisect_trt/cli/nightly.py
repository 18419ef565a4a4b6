"""`bisect-trt nightly`."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bisect_trt.errors import UsageError

_RUN = "run"


class _Group(TyperGroup):
    """`nightly CONFIG.toml` is short for `nightly run CONFIG.toml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name in where it was left out."""
        if not args or args[0] not in (*self.commands, "--help", "-h"):
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    help="Check many models unattended, reduce what fails, and remember. See `nightly run --help`.",
    rich_markup_mode=None,
)


@app.command(_RUN)
def run(
    config: Annotated[
        Path | None,
        typer.Argument(help="Configuration (TOML), or a folder of models.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="History, reports and reproducers (runs/).", show_default=False
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="HH:MM", help="Be done by this time of day.", show_default=False),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            help="Run on a Ray cluster: auto or ray://HOST:10001.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[bool, typer.Option("--init", help="Write a commented nightly.toml and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Check all models, reduce what fails, write the report. `nightly CONFIG` is short for this.

    Exit code: 0 nothing new, 1 new failures, 2 bad usage or configuration, 3 not one model could
    be run, 6 the time was over (or a signal came) before everything was done, 70 a bug of bisect-trt.
    """
    from bisect_trt.nightly import config as configs

    if init:
        return _write_template(config or Path("nightly.toml"), configs.template())
    if config is None:
        raise UsageError("no configuration is given", "write one with: bisect-trt nightly --init")
    settings = configs.for_folder(config) if config.is_dir() else configs.load(config)
    settings = configs.with_options(settings, out=out, until=until)
    from bisect_trt.nightly.service import nightly

    if cluster is None:
        return nightly(settings, _tell)
    from bisect_trt.nightly.ray import OnRay

    runner = OnRay(cluster, tuple(target.spec for target in settings.target))
    settings = settings.model_copy(update={"workers": runner.slots})
    return nightly(settings, _tell, make_runner=lambda folder, logs: runner)


@app.command("status")
def status(
    out: Annotated[Path, typer.Argument(help="The output folder of the nights.", show_default=False)],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """What is happening now, or how the last night ended; writes nothing."""
    from bisect_trt.nightly.status import lines

    for line in lines(out):
        print(line)
    return 0


def _write_template(path: Path, text: str) -> int:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already and is not overwritten", "give another name") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    print(f"{path} written; edit it, then: bisect-trt nightly {path}")
    return 0


def _tell(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)
