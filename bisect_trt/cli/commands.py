"""Commands made of rows of the table of options: Typer reads a signature that is put together here."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from typer.core import TyperCommand, TyperGroup

from bisect_trt import options
from bisect_trt.cli import first
from bisect_trt.errors import StoppedEarly
from bisect_trt.options import Option
from bisect_trt.options import kinds as k
from bisect_trt.options.table import MACHINE, PANELS

OUT = Option("out", "--out", k.FOLDER, "Where to write; MODEL-repro here without it.")
FORCE = Option("force", "--force", k.SWITCH, "Replace what an earlier run left in the folder.")
JSON = Option("as_json", "--json", k.SWITCH, "One JSON document on standard output, and nothing else.")
DEBUG = Option("debug", "--debug", k.SWITCH, "Show the traceback of an error.", MACHINE)

Argument = tuple[str, str]
"""What stands for the argument in `--help`, and what is said of it."""
MODEL: Argument = ("MODEL", "ONNX model.")


def print_json(data: Any) -> None:
    """Print what `--json` asks for."""
    print(json.dumps(data, indent=2))


def only_given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what was not given: it has the default of the function that is called."""
    return {name: value for name, value in asked.items() if value is not None}


AGAIN = "nothing was kept: the same command begins again"
"""Of a command without a folder that was interrupted."""


class Command(Struct, frozen=True):
    """A command: its function, and the rows of the options that it takes.

    Attributes:
        run: does it and gives the exit code; called with the argument (if there is one), the settings
            (if rows of the table are taken), and by name what each option of its own was given. Its
            docstring is the command's help.
        options: rows of the table, and rows of its own, in the order of `--help`; `--debug` is added.
        argument: the argument, or None.
        needed: the argument cannot be left out.
    """

    name: str
    run: Callable[..., int]
    options: tuple[Option, ...] = ()
    argument: Argument | None = MODEL
    needed: bool = True

    def add_to(self, app: typer.Typer) -> None:
        """Make it a command of the application."""

        def body(**words: Any) -> int:
            from bisect_trt.machine.limits import terminable  # psutil, which `--help` does not need

            try:
                with terminable():
                    return self._called(words)
            except KeyboardInterrupt as error:  # versions of Typer disagree on what becomes of it
                goes_on = any(row.key == OUT.key for row in self.options)
                hint = "the same command goes on from where it was, if it had begun" if goes_on else AGAIN
                raise StoppedEarly("interrupted", hint) from error

        body.__doc__ = self.run.__doc__
        body.__signature__ = inspect.Signature(list(self._parameters()))  # type: ignore[attr-defined]
        app.command(self.name, cls=Panelled)(body)

    def _called(self, given: dict[str, Any]) -> int:
        words: list[Any] = []
        if self.argument:
            words.append(None if given["argument"] is None else Path(given["argument"]))
        if any(row.section for row in self.options):
            words.append(options.settings({row.key: given[row.key] for row in self.options if row.section}))
        if self.argument is MODEL:
            words = [*first.opened(*words)]
        if any(row.section == "target" for row in self.options):
            from bisect_trt.machine import server
            from bisect_trt.targets.registry import code_of

            server.from_here(code_of(words[-1].target.spec))
        own = {row.key: row.read(given[row.key]) for row in self.options if not row.section}
        return self.run(*words, **own)

    def _parameters(self) -> Iterator[inspect.Parameter]:
        if self.argument:
            name, text = self.argument
            info = typer.Argument(help=text, metavar=name if self.needed else f"[{name}]", show_default=False)
            kind: Any = Annotated[Path if self.needed else Path | None, info]
            yield _parameter("argument", kind, inspect.Parameter.empty if self.needed else None)
        for row in (*self.options, DEBUG):
            yield _parameter(row.key, *_as_typer_has_it(row))


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


@cache  # most rows are those of several commands
def _as_typer_has_it(row: Option) -> tuple[Any, Any]:
    """Return the type and default of an option: texts, which the row reads itself.

    Paths, which a shell completes.
    """
    files = row.kind.one is Path and not row.kind.parts
    kind: Any = bool if row.kind.switch else Path if files else str
    default = row.default
    if not row.kind.switch:
        kind = list[kind] if row.kind.many else kind
        default = None if default in (None, "", ()) else row.kind.texts(default)[0]
    kind = kind if row.kind.switch and default is not None else kind | None
    info = typer.Option(
        row.flag,
        metavar=row.kind.metavar or None,
        help=row.help,
        rich_help_panel=row.panel,
        show_default=default not in (None, False),
    )
    return Annotated[kind, info], default


class Group(TyperGroup):
    """Commands under one name."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own options."""
        return _as_texts(super().get_params(ctx))


def _as_texts(parameters: list[Any]) -> list[Any]:
    """Have parameters handed on as the texts that were given, which the rows of the table read themselves.

    Typer would import pydantic and make a validator of it for each of 45 options first, which takes 0.1 s.
    """
    for parameter in parameters:
        parameter.process_value = partial(_as_it_stands, parameter)
    return parameters


def _as_it_stands(parameter: Any, ctx: Any, value: Any) -> Any:
    """Return the text, texts or bool that was given. Raises what Typer does where one is missing."""
    if value is None and parameter.required:
        return type(parameter).process_value(parameter, ctx, value)
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


class Panelled(TyperCommand):
    """A command whose `--help` groups its options, in plain text."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters, that of `--help` as well."""
        return _as_texts(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then each panel."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{name: [] for name in PANELS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if parameter.param_type_name == "argument" else PANELS[0]
                groups[getattr(parameter, "rich_help_panel", None) or plain].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
