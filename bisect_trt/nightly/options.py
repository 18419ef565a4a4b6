"""The rows of the table of options as keys of a configuration.

A key is the name of the setting, and its value is read as the command line reads it: a text, a number, a
list of them, or a table by name. An option which the table learns can be used here at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BeforeValidator

from bisect_trt import options as rows
from bisect_trt.options.kinds import Kind
from bisect_trt.options.make import each_path, of_values
from bisect_trt.settings import Settings

OPTIONS = {row.key: row for row in rows.without("spec", "verbose_log")}
"""What can be configured: `spec` names a target, and one log file cannot take many models."""

def validator(kind: Kind) -> BeforeValidator:
    """Return what reads a value of a configuration as one of this kind."""

    def read(value: Any) -> Any:
        try:
            return kind.of_toml(value)
        except ValueError as error:
            example = f": write it as {kind.example}" if kind.example else ""
            raise ValueError(f"{error}{example}") from error

    return BeforeValidator(read)


def given(table: Any) -> dict[str, Any]:
    """Return the options that were written down in a table."""
    found: dict[str, Any] = table.model_dump(exclude_unset=True, include=set(OPTIONS))
    return found


def settings(spec: str, layers: Iterable[Mapping[str, Any]], base: Path, model: Path) -> Settings:
    """Make one model's settings: later layers win.

    Paths are relative to `base`; `{stem}` and `{folder}` in them stand for the model's file name
    without its ending and for its folder.
    """

    def placed(path: Path) -> Path:
        text = str(path).replace("{stem}", model.stem).replace("{folder}", str(model.parent))
        return base / text

    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    return of_values({key: each_path(value, placed) for key, value in merged.items()} | {"spec": spec})


def to_toml(settings: Settings, base: Path) -> dict[str, str | bool | list[str]]:
    """Return the settings that are not at their defaults as keys and values of a configuration's table.

    Their paths are put below `base`.
    """
    found: dict[str, str | bool | list[str]] = {}
    for key, row in OPTIONS.items():
        value = each_path(row.value(settings), lambda path: base / path)
        if value != row.default:
            texts = value if row.kind.switch else row.kind.texts(value)
            found[key] = texts if row.kind.many or row.kind.switch else texts[0]
    return found
