"""Options as a script gives them: keywords under the names of their fields, with values of Python."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.settings import (
    AccuracySettings,
    ReportSettings,
    RunSettings,
    Settings,
    Shapes,
    TargetSettings,
)

AnyPath = str | os.PathLike[str]

_PARTS: dict[str, Any] = {
    "target": TargetSettings,
    "run": RunSettings,
    "accuracy": AccuracySettings,
    "report": ReportSettings,
}
_FIELDS: dict[str, set[str]] = {part: set(kind.__struct_fields__) for part, kind in _PARTS.items()}
_OTHER_WORDS = {"target": "spec"}
"""Keywords that read better than the field that they stand for."""


def chosen_settings(settings: Settings | None, options: Mapping[str, Any]) -> Settings:
    """Put options, by the names of their fields, into settings.

    Raises:
        UsageError: there is no such option, or a value is of another type.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise UsageError(f"settings is a bisect_trt.Settings, not {_kind(settings)}")
    chosen = settings or Settings()
    for word, value in options.items():
        name = _OTHER_WORDS.get(word, word)
        part = next((part for part, known in _FIELDS.items() if name in known), None)
        if part is None:
            raise UsageError(f"there is no option {word}", _close(word))
        held = getattr(chosen, part)
        chosen = replace(chosen, **{part: replace(held, **{name: _fitting(word, held, name, value)})})
    return chosen


def _close(word: str) -> str:
    known = [*_OTHER_WORDS, *(name for names in _FIELDS.values() for name in names)]
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else "docs/api.md has all of them"


def _fitting(word: str, held: Any, name: str, value: Any) -> Any:
    """Return a value in the type of its field: text as a path, lists and mappings as tuples."""
    kind = type(held).__annotations__[name]
    if value is None and "None" in kind:
        return None
    if kind.startswith(("tuple", "Shapes")):
        return _tuple(word, kind, value)
    if kind.startswith("Path"):
        return path_of(word, value)
    kinds = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}[kind.split(" ")[0]]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UsageError(f"{word} is {kind.split(' ')[0]}, not {_kind(value)}")
    return value


def _tuple(word: str, kind: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, Mapping):
        pairs = sorted(value.items())
        return tuple((key, tuple(one) if isinstance(one, list | tuple) else one) for key, one in pairs)
    if isinstance(value, int | float) and kind.startswith("tuple[tuple[str, "):
        return (("", value),)  # one tolerance for all outputs
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise UsageError(f"{word} is a list or a mapping, not {_kind(value)}")
    return tuple(
        path_of(word, one) if "Path" in kind and not isinstance(one, tuple) else one for one in value
    )


def path_of(word: str, value: Any) -> Path:
    """Return the path that an argument is. Raises UsageError."""
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{word} is the path of a file, not {_kind(value)}")
    return Path(value)


def out_of(value: Any, word: str = "out") -> Path | None:
    """Return the folder `out`, or another path that may be left out: None stays None. Raises UsageError."""
    return None if value is None else path_of(word, value)


def names_of(word: str, value: Any) -> tuple[str, ...]:
    """Return a list of names. Raises UsageError for anything else, a single text too."""
    fits = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not fits or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{word} is a list of names, not {_kind(value)}")
    return tuple(value)


def names_or_file(word: str, value: Any, read: Callable[[Path], tuple[str, ...]]) -> tuple[str, ...]:
    """Return a list of names, or what `read` finds in the file that is given instead. Raises UsageError."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return names_of(word, value)
    return read(path_of(word, value))


def shapes_of(word: str, value: Any) -> Shapes:
    """Return the shapes of inputs, given as pairs or as a mapping by name. Raises UsageError."""
    return _tuple(word, "Shapes", value)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
