"""Settings as the words that give them: for lines that users paste."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

from msgspec.structs import replace

from bisect_trt.options.kinds import shape_text as shape_text
from bisect_trt.options.make import each_path, of_values
from bisect_trt.options.table import ROWS
from bisect_trt.settings import Settings, TargetSettings

SAFE_SPEC = re.compile(r"(auto|tensorrt|tensorrt-rtx|(planted|emulate):.+|ort:[\w.-]+)", re.DOTALL)
"""Targets that start no program and load no library that a stranger could name."""

_PATHS = ("outputs", "python", "torchscript")  # references that are named by a path


def line(*arguments: str | Path) -> str:
    """Return a line for a POSIX shell."""
    return shlex.join(str(a) for a in arguments)


def reduce_line(model: Path, settings: Settings, out: Path | None = None) -> str:
    """Return `bisect-trt reduce ...` with the same options."""
    where = ["--out", str(out)] if out else []
    return line("bisect-trt", "reduce", _file(model), *where, *arguments(settings))


def _file(model: Path) -> str:
    """Return a path that looks like an option is made to look like a path."""
    return f"./{model}" if str(model).startswith("-") else str(model)


def export_line(model: Path, settings: Settings) -> str:
    """Return the line that reduces the difference between ONNX Runtime and an outside reference."""
    return reduce_line(model, replace(settings, target=TargetSettings("ort:CPU", settings.target.shapes)))


def arguments(settings: Settings) -> list[str]:
    """Return the words for every setting that is not at its default.

    A command makes the same settings of them.
    """
    run = settings.run
    endless = run.simplify_budget is not None and not math.isfinite(run.simplify_budget)
    settings = replace(
        settings,
        run=replace(
            run,
            simplify_budget=None if endless else run.simplify_budget,
            workers=1 if run.workers == len(run.devices) else run.workers,
        ),
    )
    return [word for row in ROWS for word in row.words(row.value(settings))]


def target_arguments(target: TargetSettings) -> list[str]:
    """Return the words that say which target, and how its builder is configured."""
    return arguments(Settings(target=target))


def what_to_try(model: Path, settings: Settings, compared: bool) -> list[str]:
    """Return what may show a failure where none was seen: lines to paste, each with what it is for."""
    target, run = settings.target, settings.run
    builder = target.spec.partition(":")[0] in ("auto", "tensorrt", "tensorrt-rtx")
    tries = []
    if builder:
        emulated = replace(
            settings,
            target=TargetSettings("emulate:fp16", target.shapes),
            run=replace(run, save_inputs=None, save_outputs=None),
        )
        line_ = line("bisect-trt", "check", _file(model), *arguments(emulated))
        tries.append(f"{line_} (what FP16 would do, no GPU needed)")
    if not compared:
        tries.append("the same on a machine with a GPU, where outputs are compared")
    if run.inputs is None:
        tries.append("--inputs FILE with values of yours: random ones were used")
    if compared and not builder and not settings.accuracy.rtol:
        tries.append("--rtol VALUE: outputs may differ less than the default tolerance")
    if builder:
        tries.append("reduce --repeats N if the failure comes and goes")
    return tries


def verify_line(place: str | Path, settings: Settings) -> str:
    """Return `bisect-trt verify ...` with what a report may not ask for by itself."""
    libraries = [word for path in settings.accuracy.custom_ops for word in ("--custom-ops", str(path))]
    return line("bisect-trt", "verify", place, *by_hand(settings.target), *libraries)


def nameless(settings: Settings) -> Settings:
    """Return the same without folders of this machine: for texts that others read."""
    values = {row.key: each_path(row.value(settings), lambda path: Path(path.name)) for row in ROWS}
    kind, _, place = settings.accuracy.reference.partition(":")
    if kind in _PATHS:
        values["reference"] = f"{kind}:{place.rpartition('/')[2]}"
    clean = of_values(values)
    return replace(clean, target=replace(clean.target, with_tactics=settings.target.with_tactics))


def by_hand(target: TargetSettings) -> list[str]:
    """Return the words that start programs or load libraries: of strangers' reports they are not followed."""
    asked = {row.key: getattr(target, row.key) for row in ROWS if row.by_hand}
    safe = SAFE_SPEC.fullmatch(target.spec) is not None
    return target_arguments(TargetSettings(spec=TargetSettings().spec if safe else target.spec, **asked))
