"""The rows of the table of options as keys of a configuration.

A key is the name of the setting, and its value is read as the command line reads it: a text, a number, a
list of them, or a table by name. An option which the table learns can be used here at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, create_model
from pydantic.fields import FieldInfo

from bisect_trt import options as rows
from bisect_trt.options.make import each_path, of_values
from bisect_trt.settings import Settings

OPTIONS = {row.key: row for row in rows.without("spec", "verbose_log")}
"""What can be configured: `spec` names a target, and one log file cannot take many models."""

STRICT = ConfigDict(extra="forbid", frozen=True, strict=False)


def table(title: str, /, **own: Any) -> Any:
    """Return a pydantic model with its own fields and all options, each optional."""
    entries: dict[str, Any] = {
        key: (
            Annotated[Any, BeforeValidator(_reader(row))],
            FieldInfo(default=None, validate_default=False),
        )
        for key, row in OPTIONS.items()
    }
    return create_model(title, __config__=STRICT, **(entries | own))


def _reader(row: rows.Option) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            return row.kind.of_toml(value)
        except ValueError as error:
            example = f": write it as {row.kind.example}" if row.kind.example else ""
            raise ValueError(f"{error}{example}") from error

    return read


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that were written down."""
    return {k: v for k, v in values.items() if k in OPTIONS}


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


_JSON = TypeAdapter(Settings)


def to_json(value: Settings) -> Any:
    """Return settings as plain JSON data."""
    return _JSON.dump_python(value, mode="json")
