"""Tables of options in the configuration, as settings.

The accepted keys are the fields of the settings themselves, so that an option
which those learn can be used here at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, create_model
from pydantic.fields import FieldInfo

from bisect_trt.nightly.values import LIMITS, pairs, shapes
from bisect_trt.settings import Settings, Shapes

_NOT_HERE = ("spec", "verbose_log")  # `spec` names a target, one log file cannot take many models


def _annotations(cls: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        if name in _NOT_HERE:
            continue
        if hint == Shapes:
            hint = Annotated[hint, BeforeValidator(shapes)]
        elif _is_pairs(hint):
            hint = Annotated[hint, BeforeValidator(pairs)]
        for limit in LIMITS.get(name, ()):
            hint = Annotated[hint, limit]
        found[name] = hint
    return found


def _is_pairs(hint: Any) -> bool:
    """`tuple[tuple[str, X], ...]`."""
    inner = get_args(hint)[0] if get_origin(hint) is tuple else None
    return get_origin(inner) is tuple and get_args(inner)[0] is str


SECTIONS: dict[str, Any] = {
    name: hint for name, hint in get_type_hints(Settings).items() if is_dataclass(hint)
}
"""The parts of the settings; no two of them have a field of the same name (a test)."""

OPTIONS: dict[str, Any] = {k: hint for cls in SECTIONS.values() for k, hint in _annotations(cls).items()}
"""What can be configured, with its type as pydantic takes it."""

STRICT = ConfigDict(extra="forbid", frozen=True, strict=False)


def table(title: str, /, **own: Any) -> Any:
    """A pydantic model with its own fields and all options, each optional."""
    entries: dict[str, Any] = {
        key: (hint, FieldInfo(default=None, validate_default=False)) for key, hint in OPTIONS.items()
    }
    return create_model(title, __config__=STRICT, **(entries | own))


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only those options that were written down."""
    return {k: v for k, v in values.items() if k in OPTIONS}


def settings(spec: str, layers: Iterable[Mapping[str, Any]], base: Path, model: Path) -> Settings:
    """One model's settings: later layers win.

    Paths are relative to `base`; `{stem}` and `{folder}` in them stand for the model's file name
    without its ending and for its folder.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    merged = {key: _placed(value, base, model) for key, value in merged.items()} | {"spec": spec}
    parts = {
        section: cls(**{f.name: merged[f.name] for f in fields(cls) if f.name in merged})
        for section, cls in SECTIONS.items()
    }
    return Settings(**parts)


def _placed(value: Any, base: Path, model: Path) -> Any:
    if isinstance(value, Path):
        text = str(value).replace("{stem}", model.stem).replace("{folder}", str(model.parent))
        return base / text
    if isinstance(value, tuple):
        return tuple(_placed(v, base, model) for v in value)
    return value


_JSON = TypeAdapter(Settings)


def to_json(value: Settings) -> Any:
    """Settings as plain JSON data."""
    return _JSON.dump_python(value, mode="json")


def from_json(data: Any) -> Settings:
    """Inverse of `to_json`."""
    return _JSON.validate_python(data)
