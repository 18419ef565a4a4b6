"""Texts of the command line as values: shapes, sizes, durations, GPUs, libraries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bisect_trt.errors import UsageError
from bisect_trt.settings import Shapes

_SHAPE = re.compile(r"\s*(?P<name>[^\s,].*?):(?P<dims>\d+(?:x\d+)*)(?:\s*,\s*|\s+|$)")
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(
    rf"(?:(?P<h>{_NUMBER})h)?\s*(?:(?P<m>{_NUMBER})m)?\s*(?:(?P<s>{_NUMBER})s?)?", re.IGNORECASE
)
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_shapes(option: str, texts: Sequence[str] | None) -> Shapes:
    """`["x:1x3", "y:2,z:4x4"]` as shapes sorted by name. Names may hold colons and blanks.

    Raises:
        UsageError: a text is not a list of NAME:DIMS, or one name has two shapes.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        at = 0
        while at < len(text) or not text:
            match = _SHAPE.match(text, at)
            if match is None:
                raise UsageError(
                    f"{option} {text!r}: {text[at:].strip()!r} is not NAME:DIMS",
                    f"write it as {option} x:1x3x224x224, several separated by commas",
                )
            name, dims = match["name"], tuple(int(d) for d in match["dims"].split("x"))
            if found.setdefault(name, dims) != dims:
                raise UsageError(f"{option}: {name!r} is given two shapes", "give every input once")
            at = match.end()
    return tuple(sorted(found.items()))


def parse_size(option: str, text: str | None) -> int | None:
    """`2G`, `512MiB`, `1.5g` or plain bytes as bytes; units are powers of 1024.

    Raises:
        UsageError: it is no such text, or zero.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match["number"]) * 1024 ** " KMGT".index(match["unit"].upper() or " ")) if match else 0
    if size < 1:
        raise UsageError(
            f"{option} {text!r} is not a size", f"write it as {option} 2G, 512M or a number of bytes"
        )
    return size


def parse_duration(option: str, text: str | None) -> float | None:
    """`90s`, `20m`, `1.5h`, `1h30m` or plain seconds as seconds.

    Raises:
        UsageError: it is no such text, or zero.
    """
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    parts = match.groupdict(default="0") if match and text.strip() else {}
    seconds = sum(float(parts.get(unit, 0)) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1)))
    if seconds <= 0:
        raise UsageError(f"{option} {text!r} is not a duration", f"write it as {option} 90s, 20m or 2h")
    return seconds


def devices(text: str | None, workers: int) -> tuple[tuple[str, ...], int]:
    """`0,1` as GPUs, and the number of workers: one on each, so that no two builds share one.

    Raises:
        UsageError: a name is missing or given twice, or there are to be more workers than GPUs.
    """
    if text is None:
        return (), workers
    found = tuple(part.strip() for part in text.split(","))
    if "" in found or len(set(found)) < len(found):
        raise UsageError(f"--device {text!r} is no list of GPUs", "write it as --device 0 or --device 0,1")
    if workers > len(found):
        raise UsageError(
            f"--workers {workers} with {len(found)} GPUs in --device",
            "one build runs on each: leave --workers out",
        )
    return found, len(found)


def library(text: str) -> tuple[str, Path]:
    """`NAME=PATH` in its parts. Raises UsageError when it is none, or there is no such file."""
    name, _, path = text.partition("=")
    if not name or not path:
        raise UsageError(f"--ep-library {text!r} is not NAME=PATH")
    if not Path(path).is_file():
        raise UsageError(f"--ep-library {text}: no such file", "give the path of a shared library")
    return name, Path(path)


def profile(lowest: Shapes, best: Shapes, highest: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    """Least, best and most dimensions; the best are the most when they are not given.

    Raises:
        UsageError: one of them is missing for an input, or they are not in that order.
    """
    best = best or highest
    low, mid, high = dict(lowest), dict(best), dict(highest)
    for name in sorted(low.keys() | mid.keys() | high.keys()):
        if not (name in low and name in mid and name in high):
            raise UsageError(
                f"the profile of {name!r} is incomplete",
                "give it in --min-shapes and --max-shapes, and in --opt-shapes when that is used",
            )
        ranks = {len(low[name]), len(mid[name]), len(high[name])}
        ordered = all(a <= b <= c for a, b, c in zip(low[name], mid[name], high[name], strict=False))
        if len(ranks) > 1 or not ordered:
            raise UsageError(
                f"the profile of {name!r} is not min <= opt <= max in every dimension",
                "all three need the same number of dimensions",
            )
    return lowest, best, highest
