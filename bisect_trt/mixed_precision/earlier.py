"""Lists of nodes that somebody has: what an earlier run kept, or a list made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bisect_trt.errors import UsageError
from bisect_trt.writing.text import counted, some_names


def kept_by(place: Path) -> tuple[str, ...]:
    """Names of the nodes that an earlier run kept in FP32, from its `precision.json`.

    Raises:
        UsageError: the file cannot be read, or is none that a run of `precision` wrote.
    """
    names = _kept(_text(place))
    if names is None:
        raise UsageError(f"{place} is no precision.json: it has no list `keep` of names")
    return names


def listed(place: Path) -> tuple[str, ...]:
    """Names of nodes from a `precision.json`, or from a text that has one a line.

    Raises:
        UsageError: the file cannot be read, has no names, or is JSON without a list `keep`.
    """
    text = _text(place)
    if place.suffix == ".json" or text.lstrip().startswith("{"):
        return kept_by(place)
    names = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not names:
        raise UsageError(f"{place} has no names of nodes", "write one a line, or give a precision.json")
    return names


def unknown(start: Sequence[str], names: Mapping[str, str]) -> str:
    """Give a note on names of an earlier run that a model has not, whose nodes are called `names` by key."""
    missing = [name for name in start if name not in names and name not in names.values()]
    if not missing:
        return ""
    return f"Of {counted(len(start), 'node')} to start from this model has not: {some_names(missing)}."


def _text(place: Path) -> str:
    try:
        return place.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or "it is no text"
        raise UsageError(f"{place} cannot be read: {why}") from error


def _kept(text: str) -> tuple[str, ...] | None:
    try:
        document: Any = json.loads(text)
    except ValueError:
        return None
    names = document.get("keep") if isinstance(document, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
