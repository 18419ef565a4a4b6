"""Settings made of what a command line gives, and what options ask of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.options.table import ROWS, SECTIONS
from bisect_trt.settings import Settings, Shapes


def settings(given: Mapping[str, Any]) -> Settings:
    """Return the settings of a command line's values, by field name; fields not given keep their defaults.

    Raises:
        UsageError: a text cannot be read, a library is missing, or options contradict each other.
    """
    found = of_values({row.key: row.read(given[row.key]) for row in ROWS if row.key in given})
    return _consistent(found)


def of_values(values: Mapping[str, Any]) -> Settings:
    """Return settings that have these values, by the names of the fields; the others have their defaults."""
    parts = {
        name: replace(plain, **{f: values[f] for f in plain.__struct_fields__ if f in values})
        for name, plain in SECTIONS.items()
    }
    return Settings(**parts)


def _consistent(settings: Settings) -> Settings:
    """Return the same with what follows from other options. Raises UsageError."""
    target, run, accuracy = settings.target, settings.run, settings.accuracy
    for flag, path in (
        *(("--plugins", path) for path in target.plugins),
        *(("--ep-library", path) for _, path in target.ep_libraries),
        *(("--custom-ops", path) for path in accuracy.custom_ops),
    ):
        if not path.is_file():
            raise UsageError(f"{flag} {path}: no such file", "give the path of a shared library")
    lowest, best, highest = _profile(target.min_shapes, target.opt_shapes, target.max_shapes)
    both = dict(target.shapes).keys() & dict(lowest).keys()
    if both:
        said = f"{min(both)!r} is in --shapes and in --min-shapes"
        raise UsageError(said, "an input is static or has a profile")
    if run.anonymise and not run.simplify:
        raise UsageError("--anonymise needs what --no-simplify leaves out", "leave one of them out")
    if run.devices and run.workers > len(run.devices):
        said = f"--workers {run.workers} with {len(run.devices)} GPUs in --device"
        raise UsageError(said, "one build runs on each: leave --workers out")
    return replace(
        settings,
        target=replace(target, min_shapes=lowest, opt_shapes=best, max_shapes=highest),
        run=replace(run, workers=len(run.devices) or run.workers),
    )


def _profile(lowest: Shapes, best: Shapes, highest: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    """Return least, best and most dimensions; the best are the most when they are not given.

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


def each_path(value: Any, change: Callable[[Path], Path]) -> Any:
    """Return a value with the paths in it changed, in tuples too."""
    if isinstance(value, Path):
        return change(value)
    return tuple(each_path(each, change) for each in value) if isinstance(value, tuple) else value
