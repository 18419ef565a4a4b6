"""`bisect-trt nightly`."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from bisect_trt import options
from bisect_trt.cli.commands import Command, Group
from bisect_trt.errors import UsageError, cannot_write
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.options.table import MACHINE
from bisect_trt.settings import Settings

_RUN = "run"


class _Group(Group):
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

OUT = Option("out", "--out", k.FOLDER, "History, reports and reproducers (runs/).")
UNTIL = Option("until", "--until", k.text("HH:MM"), "Be done by this time of day.")
CLUSTER = Option(
    "cluster", "--cluster", k.text("ADDRESS"), "Run on a Ray cluster: auto or ray://HOST:10001.", MACHINE
)
WORKERS = Option("workers", "--workers", k.count(1), "Models at the same time.", MACHINE)
OPTIONS = options.without("cluster", "workers", "verbose_log", "save_inputs", "save_outputs")
INIT = Option("init", "--init", k.SWITCH, "Write a commented nightly.toml, of the options given, and stop.")


def run(config: Path | None, given: Settings, *, cluster: str | None, init: bool, **asked: Any) -> int:
    """Check all models, reduce what fails, write the report. `nightly CONFIG` is short for this.

    Of a folder every model in it is checked, with the options given; a configuration has its own.

    Exit code: 0 nothing new, 1 new failures, 2 bad usage or configuration, 3 not one model could
    be run, 6 the time was over (or a signal came) before everything was done, 70 a bug of bisect-trt.
    """
    from bisect_trt.nightly import config as configs

    if init:
        folder = config if config is not None and config.is_dir() else None
        place = Path("nightly.toml") if config is None or folder else config
        return _write_template(place, configs.template(folder, given))
    if config is None:
        hint = "bisect-trt nightly FOLDER checks all models in it; --init writes a configuration"
        raise UsageError("neither a folder of models nor a configuration is given", hint)
    if not config.is_dir() and (words := options.arguments(given)):
        hint = f"put it into {config}; bisect-trt nightly FOLDER takes options"
        raise UsageError(f"{words[0]} is for a folder of models, a configuration has its own options", hint)
    settings = configs.for_folder(config, given) if config.is_dir() else configs.load(config)
    settings = configs.with_options(settings, **asked)
    from bisect_trt.nightly.service import nightly

    if cluster is None:
        return nightly(settings, _tell)
    from bisect_trt.nightly.ray import OnRay

    runner = OnRay(cluster, tuple(target.spec for target in settings.target))
    settings = settings.model_copy(update={"workers": runner.slots})
    return nightly(settings, _tell, make_runner=lambda folder, logs: runner)


def status(out: Path) -> int:
    """Show what is happening now, or how the last night ended; writes nothing."""
    from bisect_trt.nightly.status import lines

    for line in lines(out):
        print(line)
    return 0


Command(
    _RUN,
    run,
    (OUT, UNTIL, INIT, *OPTIONS, WORKERS, CLUSTER),
    argument=("CONFIG", "Configuration (TOML), or a folder of models."),
    needed=False,
).add_to(app)
Command("status", status, argument=("OUT", "The output folder of the nights.")).add_to(app)


def _write_template(path: Path, text: str) -> int:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already and is not overwritten", "give another name") from None
    except OSError as error:
        raise cannot_write(path, error) from error
    print(f"{path} written; edit it, then: bisect-trt nightly {path}")
    return 0


def _tell(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)
