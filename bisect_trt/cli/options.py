"""Options that commands share, and how their texts become settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bisect_trt.errors import UsageError
from bisect_trt.settings import (
    DEFAULT_ACCURACY,
    AccuracySettings,
    PaperSettings,
    RunSettings,
    Settings,
    Shapes,
    TargetSettings,
)

_BUILDER = "Builder"
_PROBES = "Probes"
_PAPERS = "Bug report"

Model = Annotated[Path, typer.Argument(help="ONNX model.", show_default=False)]
Target = Annotated[
    str, typer.Option("--target", help="auto, tensorrt, tensorrt-rtx, planted:SPEC; see `bisect-trt doctor`.")
]
ShapeList = list[str] | None
StaticShapes = Annotated[
    ShapeList,
    typer.Option(
        "--shapes",
        metavar="NAME:DIMS",
        help="Static shapes, such as x:1x3x224x224; repeat it or separate by commas.",
        rich_help_panel=_BUILDER,
    ),
]
MinShapes = Annotated[
    ShapeList,
    typer.Option("--min-shapes", metavar="NAME:DIMS", help="Profile: smallest.", rich_help_panel=_BUILDER),
]
OptShapes = Annotated[
    ShapeList,
    typer.Option(
        "--opt-shapes",
        metavar="NAME:DIMS",
        help="Profile: the one to optimise for (as --max-shapes).",
        rich_help_panel=_BUILDER,
    ),
]
MaxShapes = Annotated[
    ShapeList,
    typer.Option("--max-shapes", metavar="NAME:DIMS", help="Profile: largest.", rich_help_panel=_BUILDER),
]
Workspace = Annotated[
    str | None,
    typer.Option(
        "--workspace", metavar="SIZE", help="Builder workspace, such as 2G.", rich_help_panel=_BUILDER
    ),
]
OptLevel = Annotated[
    int | None,
    typer.Option("--opt-level", min=0, max=5, help="Builder optimisation level.", rich_help_panel=_BUILDER),
]
Tf32 = Annotated[
    bool | None,
    typer.Option(
        "--tf32/--no-tf32", help="Allow or forbid TF32.", show_default=False, rich_help_panel=_BUILDER
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="fp16|bf16",
        help="TensorRT computes the model's float32 arithmetic in it.",
        rich_help_panel=_BUILDER,
    ),
]
BuildOnly = Annotated[
    bool,
    typer.Option(
        "--build-only", help="Build engines and run none, as without a GPU.", rich_help_panel=_BUILDER
    ),
]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        "--timing-cache",
        metavar="FILE",
        help="Read it; builds of the whole model update it.",
        rich_help_panel=_BUILDER,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugins", metavar="LIB", help="Plugin library; repeat it.", rich_help_panel=_BUILDER),
]
VerboseLog = Annotated[
    Path | None,
    typer.Option("--verbose-log", metavar="FILE", help="The target's whole log.", rich_help_panel=_BUILDER),
]
EpLibrary = Annotated[
    list[str] | None,
    typer.Option(
        "--ep-library",
        metavar="NAME=PATH",
        help="Library of an execution provider for ort:NAME; repeat it.",
        rich_help_panel=_BUILDER,
    ),
]
FailRegex = Annotated[
    str,
    typer.Option(
        "--fail-regex",
        metavar="REGEX",
        help="What the log of command:CMD has to show for a failure to count.",
        rich_help_panel=_BUILDER,
    ),
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        "--inputs",
        metavar="FILE",
        help="Input values: .npz, .json, a folder of .npy or ONNX test data, FILE.py:FUNCTION; random ones "
        "without it.",
        rich_help_panel=_PROBES,
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of every random choice.", rich_help_panel=_PROBES)]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        min=0.001,
        help="Seconds a probe may take; 10 times the first one without it.",
        rich_help_panel=_PROBES,
    ),
]
Repeats = Annotated[
    int,
    typer.Option(
        "--repeats",
        min=1,
        help="Runs that look for the failure, that call it steady, and that prove the result.",
        rich_help_panel=_PROBES,
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Probes at the same time.", rich_help_panel=_PROBES)
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="GPU[,GPU...]",
        help="GPUs to use, such as 0,1: one worker on each.",
        rich_help_panel=_PROBES,
    ),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit", metavar="SIZE", help="What a worker may hold, such as 8G.", rich_help_panel=_PROBES
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Stop the search after 90s, 20m, 2h; the best so far is verified and written.",
        rich_help_panel=_PROBES,
    ),
]
MaxProbes = Annotated[
    int | None,
    typer.Option(
        "--max-probes", metavar="N", min=1, help="Stop the search after N probes.", rich_help_panel=_PROBES
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Keep what probes saw for other runs.",
        rich_help_panel=_PROBES,
    ),
]
Simplify = Annotated[
    bool, typer.Option("--simplify/--no-simplify", help="Make the reduced model simple, too.")
]
SimplifyBudget = Annotated[
    str | None,
    typer.Option(
        "--simplify-budget",
        metavar="TIME",
        help="Seconds in the target for that, such as 90s or 5m; as many as the search took without it.",
        rich_help_panel=_PROBES,
    ),
]
Anonymise = Annotated[
    bool,
    typer.Option(
        "--anonymise", help="Leave no name, text, weight or input value of the model in what is written."
    ),
]
Style = Annotated[
    str | None,
    typer.Option(
        "--style",
        metavar="TRACKER",
        help="Form of ISSUE.md: tensorrt, tensorrt-rtx, onnxruntime, openvino, plain; else as the target.",
        rich_help_panel=_PAPERS,
    ),
]
With = Annotated[
    str | None,
    typer.Option(
        "--with",
        metavar="TOOLS",
        help="Write the inputs for trtexec,polygraphy, too.",
        rich_help_panel=_PAPERS,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

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


def by_hand(
    plugins: Sequence[Path] | None, ep_library: Sequence[str] | None, fail_regex: str
) -> dict[str, Any]:
    """Those settings of a target that `verify` takes of nobody but the user.

    Raises:
        UsageError: a text cannot be read, a library is missing.
    """
    for library in plugins or ():
        if not library.is_file():
            raise UsageError(f"--plugins {library}: no such file", "give the path of a shared library")
    libraries = tuple(_library(text) for text in ep_library or ())
    return {"plugins": tuple(plugins or ()), "ep_libraries": libraries, "fail_regex": fail_regex}


def target_settings(
    spec: str,
    shapes: tuple[ShapeList, ShapeList, ShapeList, ShapeList],
    *,
    workspace: str | None,
    opt_level: int | None,
    tf32: bool | None,
    timing_cache: Path | None,
    plugins: Sequence[Path] | None,
    verbose_log: Path | None,
    ep_library: Sequence[str] | None = None,
    fail_regex: str = "",
    precision: str | None = None,
    build_only: bool = False,
) -> TargetSettings:
    """Texts of the command line as settings; `shapes` are static, least, best and most.

    Raises:
        UsageError: a text cannot be read, shapes contradict each other, a plugin library is missing.
    """
    options = ("--shapes", "--min-shapes", "--opt-shapes", "--max-shapes")
    static, *profile = (parse_shapes(option, texts) for option, texts in zip(options, shapes, strict=True))
    lowest, best, highest = _profile(*profile)
    both = dict(static).keys() & dict(lowest).keys()
    if both:
        raise UsageError(
            f"{min(both)!r} is in --shapes and in --min-shapes", "an input is static or has a profile"
        )
    if precision not in (None, "fp16", "bf16"):
        raise UsageError(f"--precision {precision!r} is not known", "write --precision fp16 or bf16")
    return TargetSettings(
        spec=spec,
        shapes=static,
        min_shapes=lowest,
        opt_shapes=best,
        max_shapes=highest,
        workspace=parse_size("--workspace", workspace),
        opt_level=opt_level,
        tf32=tf32,
        timing_cache=timing_cache,
        verbose_log=verbose_log,
        **by_hand(plugins, ep_library, fail_regex),
        precision=precision or "",
        build_only=build_only,
    )


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


def _library(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise UsageError(f"--ep-library {text!r} is not NAME=PATH")
    if not Path(path).is_file():
        raise UsageError(f"--ep-library {text}: no such file", "give the path of a shared library")
    return name, Path(path)


def _profile(lowest: Shapes, best: Shapes, highest: Shapes) -> tuple[Shapes, Shapes, Shapes]:
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


def papers(style: str | None, tools: str | None) -> PaperSettings:
    """What the folder holds besides what is always there. Raises UsageError for an unknown name."""
    # They load the libraries of models, which --help does without.
    from bisect_trt.reproducer import styles, tool_inputs

    if style:
        styles.require(style)
    return PaperSettings(style=style or "", inputs_for=tool_inputs.parse(tools or ""))


def settings(
    target: TargetSettings,
    *,
    inputs: Path | None,
    seed: int,
    timeout: float | None,
    memory_limit: str | None,
    repeats: int = RunSettings.repeats,
    workers: int = RunSettings.workers,
    budget: str | None = None,
    max_probes: int | None = None,
    cache_dir: Path | None = None,
    simplify: bool = True,
    simplify_budget: str | None = None,
    anonymise: bool = False,
    accuracy: AccuracySettings = DEFAULT_ACCURACY,
    input_ranges: tuple[tuple[str, float, float], ...] = (),
    save_inputs: Path | None = None,
    save_outputs: Path | None = None,
    record_budget: str | None = None,
    device: str | None = None,
) -> Settings:
    """Everything together.

    Raises:
        UsageError: `memory_limit` is no size, a budget is no duration, or options contradict each other.
    """
    if anonymise and not simplify:
        raise UsageError("--anonymise needs what --no-simplify leaves out", "leave one of them out")
    used, workers = devices(device, workers)
    run = RunSettings(
        devices=used,
        inputs=inputs,
        seed=seed,
        timeout=timeout,
        repeats=repeats,
        workers=workers,
        memory_limit=parse_size("--memory-limit", memory_limit),
        budget=parse_duration("--budget", budget),
        max_probes=max_probes,
        cache_dir=cache_dir,
        simplify=simplify,
        simplify_budget=parse_duration("--simplify-budget", simplify_budget),
        anonymise=anonymise,
        record_budget=parse_size("--record-budget", record_budget),
        input_ranges=input_ranges,
        save_inputs=save_inputs,
        save_outputs=save_outputs,
    )
    return Settings(target=target, run=run, accuracy=accuracy)
