"""The commands as functions, as a script or a notebook calls them.

A model is the path of an ONNX file. What a command takes as an option is a keyword here, under the name of
its field in the settings (`target`, `inputs`, `repeats`, `rtol`, ...), or part of a `Settings`. Nothing here
needs `if __name__ == "__main__"`: no process that starts imports the script.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisect_trt.errors import UsageError
from bisect_trt.settings import (
    AccuracySettings,
    ReportSettings,
    RunSettings,
    Settings,
    TargetSettings,
)

if TYPE_CHECKING:
    from bisect_trt.reproducer.verify import Verification
    from bisect_trt.results import Check, OnEvent, Reduction
    from bisect_trt.scanning.result import Scan

AnyPath = str | os.PathLike[str]

_PARTS: dict[str, Any] = {
    "target": TargetSettings,
    "run": RunSettings,
    "accuracy": AccuracySettings,
    "report": ReportSettings,
}
_FIELDS: dict[str, set[str]] = {part: {field.name for field in fields(kind)} for part, kind in _PARTS.items()}
_OTHER_WORDS = {"target": "spec"}
"""Keywords that read better than the field that they stand for."""


def _quiet(event: object) -> None:
    """Hear of a step and do nothing."""


def reduce(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Reduction:
    """Find the smallest part of a model that still fails in the same way, and write the reproducer folder.

    >>> found = reduce("models/resize_antialias.onnx", target="tensorrt-rtx", repeats=1)
    >>> found.original_nodes, len(found.nodes), found.one_minimal
    (26, 1, True)
    >>> (found.out / "ISSUE.md").is_file()
    True

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        out: the folder; by default `MODEL-repro` in the current one.
        force: replace what an earlier run wrote there.
        on_event: hears of every step.
        **options: fields of the settings, as `target="emulate:fp16"` or `repeats=5`.

    Raises:
        UsageError: model, options or folder cannot be used; nothing was written.
        TargetUnavailable: the target cannot be used here; nothing was written.
        ModelDoesNotFail: target and reference agree on the whole model.
        StoppedEarly: stopped before anything smaller than the model was found.
        Leak: with `anonymise`, something of the original is needed, or is left.
    """
    from bisect_trt.reduction import reduce as room

    chosen = chosen_settings(settings, options)
    return room.reduce(_path("model", model), chosen, out=_out(out), force=force, on_event=on_event)


def reduce_all(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> tuple[Reduction, ...]:
    """Reduce each different failure of a model, into `out/1-SLUG`, `out/2-SLUG`, ...

    Takes and raises what `reduce` does.
    """
    from bisect_trt.reduction import reduce_all as room

    chosen = chosen_settings(settings, options)
    return room.reduce_all(_path("model", model), chosen, out=_out(out), force=force, on_event=on_event)


def simplify(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Reduction:
    """Make a small failing model simple, without a search for fewer nodes first.

    Takes and raises what `reduce` does.
    """
    from bisect_trt.reduction import reduce as room

    chosen = chosen_settings(settings, options)
    return room.simplify(_path("model", model), chosen, out=_out(out), force=force, on_event=on_event)


def check(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    keep: Sequence[str] | None = None,
    **options: Any,
) -> Check:
    """Say whether the target agrees with the reference on a model, and if not, how it fails.

    >>> check("models/ok.onnx", target="emulate:fp16").outcome.failures
    ()
    >>> check("models/ok.onnx", target="emulate:fp16", rtol=1e-7, atol=0.0).outcome.failures[0].symptom
    <Symptom.MISMATCH: 'mismatch'>

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        keep: nodes that stay in FP32, all others computing in the target's low precision.
        **options: fields of the settings, as `target="emulate:fp16"`.

    Raises:
        UsageError: the model, its inputs or an option cannot be used.
        TargetUnavailable: the target cannot be used here.
    """
    from bisect_trt.session import check as room

    kept = None if keep is None else tuple(keep)
    return room.check(_path("model", model), chosen_settings(settings, options), keep=kept)


def scan(
    model: AnyPath,
    settings: Settings | None = None,
    *,
    out: AnyPath | None = None,
    force: bool = False,
    tensors: Sequence[str] = (),
    save_tensors: AnyPath | None = None,
    on_event: OnEvent = _quiet,
    **options: Any,
) -> Scan:
    """Measure the own error of every tensor and its effect on the model's outputs; writes `scan.html`.

    Args:
        model: an ONNX file.
        settings: how; the defaults are those of the command line.
        out: the folder; by default `MODEL-scan` in the current one.
        force: replace what an earlier run wrote there.
        tensors: names or patterns of those that are looked at; by default all.
        save_tensors: folder that gets the values of both sides.
        on_event: hears of every step.
        **options: fields of the settings, as `target="emulate:fp16"`.

    Raises:
        UsageError, TargetUnavailable, StoppedEarly: see `reduce`.
    """
    from bisect_trt.scanning import scan as room

    chosen, saved = chosen_settings(settings, options), _out(save_tensors)
    path = _path("model", model)
    return room.scan(
        path, chosen, out=_out(out), force=force, tensors=tensors, save_tensors=saved, on_event=on_event
    )


def verify(
    path: AnyPath,
    *,
    target: str | None = None,
    repeats: int = RunSettings.repeats,
    timeout: float | None = None,
    memory_limit: int | None = None,
    custom_ops: Sequence[AnyPath] = (),
    given: TargetSettings = TargetSettings(),  # noqa: B008 (frozen)
    on_result: Callable[[Verification], None] = _quiet,
) -> list[Verification]:
    """Run a reproducer, or each one in a folder of them, again: on this machine, with what is installed.

    Args:
        path: folder or zip that `reduce` wrote, or a folder of them.
        target: another target than the one that it was found on.
        repeats: fresh processes for each.
        timeout: seconds for each.
        memory_limit: bytes for each.
        custom_ops: libraries for the reference.
        given: settings of the target that the report may not give.
        on_result: hears of each.

    Raises:
        UsageError: there is no reproducer.
    """
    from bisect_trt.reproducer import verify as room

    return room.verify(
        _path("path", path),
        target=target,
        given=given,
        repeats=repeats,
        timeout=timeout,
        memory_limit=memory_limit,
        custom_ops=[_path("custom_ops", one) for one in custom_ops],
        on_result=on_result,
    )


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
    """A value in the type of its field: text as a path, lists and mappings as tuples."""
    kind = next(str(field.type) for field in fields(held) if field.name == name)
    if value is None and "None" in kind:
        return None
    if kind.startswith(("tuple", "Shapes")):
        return _tuple(word, kind, value)
    if kind.startswith("Path"):
        return _path(word, value)
    wanted = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}[kind.split(" ")[0]]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
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
    return tuple(_path(word, one) if "Path" in kind and not isinstance(one, tuple) else one for one in value)


def _path(word: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{word} is the path of a file, not {_kind(value)}")
    return Path(value)


def _out(value: Any) -> Path | None:
    return None if value is None else _path("out", value)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
