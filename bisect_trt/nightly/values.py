"""What may stand in a configuration besides options: durations, sizes, times of day, targets."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import time
from typing import Any

from bisect_trt.errors import UsageError
from bisect_trt.options import kinds

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def duration(value: Any) -> Any:
    """Parse `"1h30m"` as seconds; numbers are seconds."""
    return _parsed(value, kinds.duration, 'not a duration: write it as "90s", "45m" or "1h30m"')


def clock_time(value: Any) -> Any:
    """Parse `"07:00"` as a time of day; TOML's own 07:00:00 stays."""
    if isinstance(value, time):
        return value
    match = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('not a time of day: write it as "07:00"')
    return time(int(match[1]), int(match[2]))


def size(value: Any) -> Any:
    """Parse `"2G"` as bytes; numbers stay. Units are powers of 1024."""
    return _parsed(value, kinds.size, 'not a size: write it as "2G", "512M" or a number of bytes')


def _parsed(value: Any, parse: Callable[[str], Any], wrong: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ValueError:
        raise ValueError(wrong) from None


def target(value: str) -> str:
    """Return a target that there is, usable here or not."""
    from bisect_trt.targets import registry

    value = kinds.TARGET.one(value)
    if value != registry.AUTO:
        try:
            registry.resolve(value)
        except UsageError as error:
            raise ValueError(f"{error.message} ({error.hint})" if error.hint else error.message) from error
    return value
