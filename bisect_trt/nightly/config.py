"""The configuration of a night: TOML, checked before anything starts."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from datetime import datetime, time
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from bisect_trt.errors import UsageError
from bisect_trt.nightly import options
from bisect_trt.options import kinds
from bisect_trt.settings import Settings
from bisect_trt.targets import registry

MOST = 100_000  # nights that may be kept: SQLite takes no larger numbers than 64 bits


def clock_time(value: Any) -> Any:
    """Parse `"07:00"` as a time of day; TOML's own 07:00:00 stays."""
    if isinstance(value, time):
        return value
    try:
        return datetime.strptime(value.strip(), "%H:%M").time()
    except (ValueError, AttributeError):
        raise ValueError('not a time of day: write it as "07:00"') from None


def target(value: str) -> str:
    """Return a target that there is, usable here or not."""
    value = kinds.TARGET.one(value)
    if value != registry.AUTO:
        try:
            registry.resolve(value)
        except UsageError as error:
            raise ValueError(f"{error.message} ({error.hint})" if error.hint else error.message) from error
    return value


Seconds = Annotated[float, options.validator(kinds.TIME)]
Size = Annotated[int, options.validator(kinds.SIZE)]
TimeOfDay = Annotated[time, BeforeValidator(clock_time)]


class Table(BaseModel):
    """Unknown keys are errors everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Models(Table):
    """Which files: globs relative to the configuration's folder."""

    include: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...] = ()


class Budget(Table):
    """Seconds; `until` is local time. None is no limit."""

    total: Seconds | None = None
    until: TimeOfDay | None = None
    check: Seconds = 900.0
    per_model: Seconds = 3600.0


class Retention(Table):
    """What is kept on disk."""

    nights: int = Field(default=30, ge=1, le=MOST)
    max_size: Size | None = None
    history: int = Field(default=400, ge=2, le=MOST)
    log_size: Size = 5 * 1024**2


_FIELDS: dict[str, Any] = {
    key: (Annotated[Any, options.validator(row.kind)], None) for key, row in options.OPTIONS.items()
}
_Options: Any = create_model("_Options", __base__=Table, **_FIELDS)


class Defaults(_Options):  # type: ignore[misc]
    """Options for every model."""


class TargetTable(_Options):  # type: ignore[misc]
    """A target and its options."""

    spec: Annotated[str, AfterValidator(target)] = "auto"
    name: str = ""


class ModelTable(_Options):  # type: ignore[misc]
    """Options for the models that `match`."""

    match: str


class Config(Table):
    """Everything that a night needs; `base` is the folder that relative paths start from."""

    models: Models
    out: Path = Path("runs")
    workers: int = Field(default=1, ge=1, le=512)
    confirm: int = Field(default=3, ge=1, le=100)
    resume_within: Seconds = 20 * 3600.0
    on_new: Annotated[str, AfterValidator(str.strip)] = ""
    on_new_timeout: Seconds = 600.0
    blame: bool = False
    blame_timeout: Seconds = 600.0
    allow_missing: bool = False
    junit_skip_known: bool = False
    one_of_each: bool = False
    budget: Budget = Budget()
    retention: Retention = Retention()
    defaults: Defaults = Defaults()
    target: tuple[TargetTable, ...] = Field(default=(TargetTable(),), min_length=1)
    model: tuple[ModelTable, ...] = ()
    base: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _names_differ(self) -> Config:
        names = [target_name(t) for t in self.target]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise ValueError(f"two targets are called {min(twice)!r}: give each [[target]] its own name")
        return self


def target_name(entry: TargetTable) -> str:
    """Return what the history calls a target: its `name`, else its `spec`."""
    return entry.name or entry.spec


def load(path: Path) -> Config:
    """Read and check a configuration.

    Raises:
        UsageError: not readable, not TOML, an unknown key (with the nearest known one), a wrong value.
    """
    if path.suffix == ".onnx":
        raise UsageError(
            f"{path} is a model, not a configuration", "give its folder: every model in it is checked"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", "write one with: bisect-trt nightly --init"
        ) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    return parse(data, path)


def parse(data: dict[str, Any], path: Path) -> Config:
    """Check TOML data that was read from `path`. Raises as `load`."""
    if "base" in data:
        raise _unknown(path, ("base",), "base")
    try:
        return Config.model_validate(data | {"base": path.resolve().parent})
    except ValidationError as error:
        raise _usage_error(path, error) from error


def for_folder(folder: Path, given: Settings = Settings()) -> Config:  # noqa: B008 (frozen)
    """Return the configuration that `nightly models/` means: every ONNX file in it, on one target.

    Folders of reproducers, as `reduce` calls them, hold no models of the user's. Paths in the settings are
    relative to the current folder.

    Raises:
        UsageError: no such folder, or no such target.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is neither a configuration file nor a folder of models")
    try:
        target(given.target.spec)
    except ValueError as error:
        raise UsageError(f"--target: {error}") from error
    data = {
        "models": {"include": ["**/*.onnx"], "exclude": ["*-repro/*"]},
        "target": [{"spec": given.target.spec}],
        "defaults": options.to_toml(given, Path.cwd()),
    }
    config = parse(data, folder / "models")
    return config.model_copy(update={"out": Path("runs").absolute()})


def with_options(
    config: Config, *, out: Path | None = None, until: str | None = None, workers: int | None = None
) -> Config:
    """Return the configuration with options of the command line; `out` is relative to the current folder.

    A folder of models without a configuration writes to `runs/` in the current folder.

    Raises:
        UsageError: `until` is no time of day.
    """
    given = {"out": out and out.absolute(), "workers": workers}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if until is not None:
        try:
            moment = clock_time(until)
        except ValueError as error:
            raise UsageError(f"--until {until!r}: {error}") from error
        changes["budget"] = config.budget.model_copy(update={"until": moment})
    return config.model_copy(update=changes)


def template(folder: Path | None = None, given: Settings = Settings()) -> str:  # noqa: B008 (frozen)
    """Return the commented configuration that `--init` writes; for a folder of models with these settings."""
    text = (
        resources.files("bisect_trt.nightly").joinpath("templates/nightly.toml").read_text(encoding="utf-8")
    )
    if folder is not None:
        include = json.dumps((folder / "**/*.onnx").as_posix(), ensure_ascii=False)
        text = text.replace('"models/**/*.onnx"', include, 1)
    spec = json.dumps(given.target.spec, ensure_ascii=False)
    text = text.replace('name = "auto"\nspec = "auto"', f"name = {spec}\nspec = {spec}", 1)
    for key, value in options.to_toml(given, Path()).items():
        line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
        there = re.search(rf"^{key} = .*$", text, re.MULTILINE)
        old, new = (there[0], line) if there else ("[defaults]\n", f"[defaults]\n{line}\n")
        text = text.replace(old, new, 1)
    return text


_SAID = {
    "tuple": 'write it as a list: ["..."]',
    "model": "write it as a table: [name]",
    "too": "it is empty",
    "int": "not a whole number",
    "bool": "neither true nor false",
    "string": 'not a text: write it in quotes, "..."',
    "path": 'not a path: write it in quotes, "..."',
}
"""Pydantic's errors, by the first word of their types, in the words of people who write TOML."""


def _usage_error(path: Path, error: ValidationError) -> UsageError:
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    where = _named(first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(path, where, str(where[-1]))
    name = _where(where) or "the configuration"
    if first["type"] == "missing":
        return UsageError(f"{path}: {name} is missing", "bisect-trt nightly --init writes a complete example")
    theirs = first["msg"].removeprefix("Value error, ").replace("Input", "it")
    said = _SAID.get(first["type"].partition("_")[0], theirs)
    if first["type"] == "tuple_type" and where[-1] in ("target", "model"):
        said = f"write it as [[{where[-1]}]], in two brackets"
    others = {_named(e["loc"]) for e in found}
    more = sum(other != where[: len(other)] for other in others)
    hint = f"and {more} more like this" if more else ""
    return UsageError(f"{path}: {name}: {said}", hint)


def _named(where: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the place of a key, without places inside of its value."""
    deepest = max((k for k, part in enumerate(where) if isinstance(part, str)), default=-1)
    return where[: deepest + 1]


def _unknown(path: Path, where: tuple[Any, ...], key: str) -> UsageError:
    known = _keys_beside(where)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return UsageError(f"{path}: unknown key {_where(where)}", hint)


def _keys_beside(where: tuple[Any, ...]) -> list[str]:
    """Return the keys that the table which holds this one knows."""
    kind: Any = Config
    if len(where) > 1:
        kind = Config.model_fields[str(where[0])].annotation
        kind = next(iter(get_args(kind)), kind)  # of a tuple
    return [name for name in kind.model_fields if name != "base"]


def _where(parts: tuple[Any, ...]) -> str:
    """Write `('target', 0, 'spec')` as `target[1].spec`: people count tables from one."""
    text = ""
    for part in parts:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
