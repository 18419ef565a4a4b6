"""What may stand in a configuration: texts for durations, sizes and shapes, and limits of options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import time
from typing import Any

from pydantic import AfterValidator, BeforeValidator

from bisect_trt.errors import UsageError
from bisect_trt.references.spec import OUTSIDE

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd]\s*)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_METRIC = re.compile(r"max|mean|rms|cosine|quantile:0?\.\d*[1-9]\d*")


def duration(value: Any) -> Any:
    """`"1h30m"` as seconds; numbers are seconds."""
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value.strip()):
        raise ValueError('not a duration: write it as "90s", "45m" or "1h30m"')
    return sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(value))


def clock_time(value: Any) -> Any:
    """`"07:00"` as a time of day; TOML's own 07:00:00 stays."""
    if isinstance(value, time):
        return value
    match = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('not a time of day: write it as "07:00"')
    return time(int(match[1]), int(match[2]))


def size(value: Any) -> Any:
    """`"2G"` as bytes; numbers stay. Units are powers of 1024."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError('not a size: write it as "2G", "512M" or a number of bytes')
    return int(float(match[1]) * _UNITS[match[2].upper()])


def shapes(value: Any) -> Any:
    """`{x = [1, 3, 224, 224]}` as `Shapes`; `"1x3x224x224"` is taken for the dimensions too."""
    if not isinstance(value, Mapping):
        raise ValueError("write shapes as a table: {x = [1, 3, 224, 224]}")
    found = []
    for name, dims in sorted(value.items()):
        if isinstance(dims, str):
            dims = [int(d) if d.strip().isdigit() else d for d in dims.split("x")]
        if not isinstance(dims, list) or not all(type(d) is int and d >= 0 for d in dims):
            raise ValueError(f"the shape of {name!r} is no list of numbers: {{{name} = [1, 3, 224, 224]}}")
        found.append((name, tuple(dims)))
    return tuple(found)


def pairs(value: Any) -> Any:
    """A table as pairs of name and value; a plain value counts for all names."""
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    return (("", value),)


def target(value: str) -> str:
    """A target that there is, usable here or not."""
    from bisect_trt.targets import registry

    if value != registry.AUTO:
        _as_value_error(lambda: registry.resolve(value))
    return value


def _at_least(least: float, most: float = math.inf, *, above: bool = False) -> Any:
    def inside(value: Any) -> Any:
        for number in [v[-1] for v in value] if isinstance(value, tuple) else [value]:
            if number is not None and not (least <= number <= most and not (above and number == least)):
                limit = f"has to be {'more than' if above else 'at least'} {least:g}"
                raise ValueError(limit if most == math.inf else f"has to be between {least:g} and {most:g}")
        return value

    return AfterValidator(inside)


def _one_of(*known: str) -> Any:
    def inside(value: str) -> str:
        if value not in known:
            raise ValueError(f"{value!r} is none of {', '.join(filter(None, known))}")
        return value

    return AfterValidator(inside)


def _metric(value: str) -> str:
    if not _METRIC.fullmatch(value):
        raise ValueError(f"{value!r} is none of max, mean, rms, cosine, quantile:0.99")
    return value


def _reference(value: str) -> str:
    kinds = ("ort", "self", "target-at", *OUTSIDE)
    if value.partition(":")[0] not in kinds:
        raise ValueError(f"{value!r} is none of {', '.join(kinds)}")
    return value


def _style(value: str) -> str:
    from bisect_trt.reproducer import trackers

    if value:
        _as_value_error(lambda: trackers.require(value))
    return value


def _as_value_error(check: Callable[[], object]) -> None:
    try:
        check()
    except UsageError as error:
        raise ValueError(f"{error.message} ({error.hint})" if error.hint else error.message) from error


_COUNT = (_at_least(1),)
_TIME = (BeforeValidator(duration), _at_least(0, above=True))
_BYTES = (BeforeValidator(size), _at_least(1))
_ERROR = (_at_least(0),)

LIMITS: dict[str, tuple[Any, ...]] = {
    "seed": (_at_least(0),),
    "repeats": _COUNT,
    "workers": _COUNT,
    "max_probes": _COUNT,
    "opt_level": (_at_least(0, 5),),
    "timeout": _TIME,
    "budget": _TIME,
    "simplify_budget": _TIME,
    "workspace": _BYTES,
    "memory_limit": _BYTES,
    "record_budget": _BYTES,
    "rtol": _ERROR,
    "atol": _ERROR,
    "topk": _COUNT,
    "precision": (_one_of("", "fp16", "bf16"),),
    "judge": (_one_of("outputs", "local"),),
    "metric": (AfterValidator(_metric),),
    "reference": (AfterValidator(_reference),),
    "style": (AfterValidator(_style),),
}
"""What an option has to be besides its type, as pydantic takes it; the command line has the same limits."""
