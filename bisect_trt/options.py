"""Settings as the arguments that give them: for lines that users paste."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings

SAFE_SPEC = re.compile(r"(auto|tensorrt|tensorrt-rtx|(planted|emulate):.+|ort:[\w.-]+)", re.DOTALL)
"""Targets that start no program and load no library that a stranger could name."""

_PATHS = ("outputs", "python", "torchscript")  # references that are named by a path


def line(*arguments: str | Path) -> str:
    """A line for a POSIX shell."""
    return shlex.join(str(a) for a in arguments)


def reduce_line(model: Path, settings: Settings, out: Path | None = None) -> str:
    """`bisect-trt reduce ...` with the same options."""
    where = ["--out", str(out)] if out else []
    return line("bisect-trt", "reduce", *_file(model), *where, *arguments(settings))


def export_line(model: Path, settings: Settings) -> str:
    """The line that reduces the difference between ONNX Runtime and an outside reference."""
    return reduce_line(model, replace(settings, target=TargetSettings("ort:CPU", settings.target.shapes)))


def arguments(settings: Settings) -> list[str]:
    """Every setting that is not at its default; `cli.options` gives the same settings back."""
    papers = _valued("--style", settings.papers.style or None)
    papers += _valued("--with", ",".join(settings.papers.inputs_for) or None)
    accuracy = accuracy_arguments(settings.accuracy)
    return [*target_arguments(settings.target), *accuracy, *_run_arguments(settings.run), *papers]


def target_arguments(target: TargetSettings) -> list[str]:
    """The options that say which target, and how its builder is configured."""
    plain = TargetSettings()
    found = _valued("--target", target.spec if target.spec != plain.spec else None)
    for option, shapes in (
        ("--shapes", target.shapes),
        ("--min-shapes", target.min_shapes),
        ("--opt-shapes", target.opt_shapes),
        ("--max-shapes", target.max_shapes),
    ):
        for name, dims in shapes:
            found += _valued(option, f"{name}:{shape_text(dims)}")
    found += _valued("--workspace", target.workspace)
    found += _valued("--opt-level", target.opt_level)
    if target.tf32 is not None:
        found.append("--tf32" if target.tf32 else "--no-tf32")
    found += _valued("--precision", target.precision)
    found += ["--build-only"] if target.build_only else []
    found += _valued("--timing-cache", target.timing_cache)
    for library in target.plugins:
        found += _valued("--plugins", library)
    for name, path in target.ep_libraries:
        found += _valued("--ep-library", f"{name}={path}")
    found += _valued("--fail-regex", target.fail_regex)
    return found + _valued("--verbose-log", target.verbose_log)


def verify_line(place: str | Path, settings: Settings) -> str:
    """`bisect-trt verify ...` with what a report may not ask for by itself."""
    libraries = [word for path in settings.accuracy.custom_ops for word in _valued("--custom-ops", path)]
    return line("bisect-trt", "verify", place, *by_hand(settings.target), *libraries)


def nameless(settings: Settings) -> Settings:
    """The same without folders of this machine: for texts that others read."""
    target, run, accuracy = settings.target, settings.run, settings.accuracy
    kind, _, place = accuracy.reference.partition(":")
    return replace(
        settings,
        target=replace(
            target,
            timing_cache=_name(target.timing_cache),
            verbose_log=_name(target.verbose_log),
            plugins=tuple(Path(path.name) for path in target.plugins),
            ep_libraries=tuple((name, Path(path.name)) for name, path in target.ep_libraries),
        ),
        run=replace(run, inputs=_name(run.inputs), cache_dir=_name(run.cache_dir)),
        accuracy=replace(
            accuracy,
            custom_ops=tuple(Path(path.name) for path in accuracy.custom_ops),
            reference=f"{kind}:{place.rpartition('/')[2]}" if kind in _PATHS else accuracy.reference,
        ),
    )


def _name(path: Path | None) -> Path | None:
    return Path(path.name) if path else None


def by_hand(target: TargetSettings) -> list[str]:
    """The options that start programs or load libraries: of strangers' reports they are not followed."""
    plain = TargetSettings()
    safe = SAFE_SPEC.fullmatch(target.spec) is not None
    return target_arguments(
        replace(
            plain,
            spec=plain.spec if safe else target.spec,
            plugins=target.plugins,
            ep_libraries=target.ep_libraries,
            fail_regex=target.fail_regex,
        )
    )


def accuracy_arguments(accuracy: AccuracySettings) -> list[str]:
    """The options that say what is compared with what, and when it agrees."""
    plain = AccuracySettings()
    found: list[str] = []
    for option, value, default in (
        ("--reference", accuracy.reference, plain.reference),
        ("--reference-provider", accuracy.reference_provider, plain.reference_provider),
        ("--metric", accuracy.metric, plain.metric),
        ("--judge", accuracy.judge, plain.judge),
    ):
        found += _valued(option, value if value != default else None)
    for option, values in (("--rtol", accuracy.rtol), ("--atol", accuracy.atol), ("--topk", accuracy.topk)):
        for name, number in values:
            found += _valued(option, f"{name}:{number:g}" if name else f"{number:g}")
    for name in accuracy.ignore:
        found += _valued("--ignore", name)
    for library in accuracy.custom_ops:
        found += _valued("--custom-ops", library)
    return found


def shape_text(shape: Iterable[int]) -> str:
    """Dimensions as users write them: `1x3x224x224`."""
    return "x".join(str(d) for d in shape)


def _run_arguments(run: RunSettings) -> list[str]:
    plain = RunSettings()
    found = _valued("--inputs", run.inputs)
    for option, value, default in (
        ("--seed", run.seed, plain.seed),
        ("--timeout", run.timeout, plain.timeout),
        ("--repeats", run.repeats, plain.repeats),
        ("--workers", run.workers, max(plain.workers, len(run.devices))),
        ("--device", ",".join(run.devices), ""),
        ("--cluster", run.cluster, plain.cluster),
        ("--memory-limit", run.memory_limit, plain.memory_limit),
        ("--budget", run.budget, plain.budget),
        ("--max-probes", run.max_probes, plain.max_probes),
        ("--cache-dir", run.cache_dir, plain.cache_dir),
        ("--simplify-budget", _finite(run.simplify_budget), plain.simplify_budget),
    ):
        if value != default:
            found += _valued(option, value)
    for name, low, high in run.input_ranges:
        found += _valued("--input-range", f"{name}:{low:g}..{high:g}")
    found += _valued("--record-budget", run.record_budget)
    found += [] if run.simplify else ["--no-simplify"]
    return found + (["--anonymise"] if run.anonymise else [])


def _finite(seconds: float | None) -> float | None:
    """A limit that is one."""
    return seconds if seconds is not None and math.isfinite(seconds) else None


def _valued(option: str, value: object) -> list[str]:
    text = "" if value is None else str(value)
    return [f"{option}={text}"] if text.startswith("-") else [option, text] if text else []


def _file(path: Path) -> list[str]:
    """A path as an argument; one that looks like an option is made to look like a path."""
    return [f"./{path}" if str(path).startswith("-") else str(path)]
