"""Options that commands share, and how their texts become settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bisect_trt.cli.texts import devices, library, parse_duration, parse_shapes, parse_size, profile
from bisect_trt.errors import UsageError
from bisect_trt.settings import (
    DEFAULT_ACCURACY,
    AccuracySettings,
    PaperSettings,
    RunSettings,
    Settings,
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
Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Run the probes on a Ray cluster: auto or ray://HOST:10001.",
        show_default=False,
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

def by_hand(
    plugins: Sequence[Path] | None, ep_library: Sequence[str] | None, fail_regex: str
) -> dict[str, Any]:
    """Those settings of a target that `verify` takes of nobody but the user.

    Raises:
        UsageError: a text cannot be read, a library is missing.
    """
    for file in plugins or ():
        if not file.is_file():
            raise UsageError(f"--plugins {file}: no such file", "give the path of a shared library")
    libraries = tuple(map(library, ep_library or ()))
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
    static, *dynamic = (parse_shapes(option, texts) for option, texts in zip(options, shapes, strict=True))
    lowest, best, highest = profile(*dynamic)
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


def papers(style: str | None, tools: str | None) -> PaperSettings:
    """What the folder holds besides what is always there. Raises UsageError for an unknown name."""
    # They load the libraries of models, which --help does without.
    from bisect_trt.reproducer import command_lines, trackers

    if style:
        trackers.require(style)
    return PaperSettings(style=style or "", inputs_for=command_lines.parse(tools or ""))


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
    cluster: str = "",
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
        cluster=cluster,
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
