"""What TensorRT's and TensorRT-RTX's builder decides: flags, levels, tactics, memory, shapes, build routes.

Each is set by `apply`, which leaves out what a version does not have: a knob too many costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bisect_trt.settings import TargetSettings
from bisect_trt.targets.knobs import POLYGRAPHY, PYTHON, TRTEXEC, US, Knob

LEVELS = (2, 1, 0, 4, 5)  # the nearest to the usual 3 first
_SMALL = 64 << 20

# Flags of the builder that are off: name, what it means, trtexec, Polygraphy.
_FLAGS = (
    ("SPARSE_WEIGHTS", "with sparse weights allowed", "--sparsity=enable", "--sparse-weights"),
    ("VERSION_COMPATIBLE", "with a version compatible engine", "--versionCompatible", "--version-compatible"),
    ("DISABLE_TIMING_CACHE", "without a timing cache", "--noBuilderCache", ""),
    ("REFIT", "with weights that can be refitted", "--refit", "--refittable"),
    ("STRIP_PLAN", "with weights stripped from the engine", "--stripWeights", "--strip-plan"),
    ("OBEY_PRECISION_CONSTRAINTS", "with the types of layers obeyed", "--precisionConstraints=obey", ""),
    ("DIRECT_IO", "without reformats at inputs and outputs", "--directIO", "--direct-io"),
)


def knobs(target: TargetSettings, routes: Sequence[str] = ()) -> tuple[Knob, ...]:
    """Give all that the settings leave at their default; `routes` are the build routes of this builder."""
    return tuple(_all(target, routes))


def _all(target: TargetSettings, routes: Sequence[str]) -> Iterator[Knob]:
    if target.tf32 is not False:
        paste = {
            PYTHON: "config.clear_flag(trt.BuilderFlag.TF32)",
            TRTEXEC: "--noTF32",
            POLYGRAPHY: "leave out --tf32",
            US: "--no-tf32",
        }
        yield Knob("TF32", "without TF32", changes={"tf32": False}, paste=paste)
    if target.precision:
        paste = {US: f"leave out --precision {target.precision}", TRTEXEC: f"leave out --{target.precision}"}
        yield Knob(
            target.precision.upper(),
            f"without --precision {target.precision}",
            changes={"precision": ""},
            paste=paste,
        )
    yield Knob(
        "tactic sources",
        "without tactics of other libraries",
        (("tactic_sources", "none"),),
        paste={
            PYTHON: "config.set_tactic_sources(0)",
            TRTEXEC: "--tacticSources=-CUDNN,-CUBLAS,-CUBLAS_LT,-EDGE_MASK_CONVOLUTIONS,-JIT_CONVOLUTIONS",
            POLYGRAPHY: "--tactic-sources",
        },
    )
    for name, told, trtexec, polygraphy in _FLAGS:
        call = f"config.set_flag(trt.BuilderFlag.{name})"
        lines = {PYTHON: call, TRTEXEC: trtexec, POLYGRAPHY: polygraphy}
        paste = {tool: line for tool, line in lines.items() if line}
        yield Knob(name, told, (("flag", name),), paste=paste)
    if target.spec == "tensorrt":
        paste = {TRTEXEC: "--stronglyTyped", POLYGRAPHY: "--strongly-typed"}
        yield Knob("strongly typed", "with a strongly typed network", (("typed", "strongly"),), paste=paste)
    if target.workspace is None:
        paste = {TRTEXEC: "--memPoolSize=workspace:64M", POLYGRAPHY: "--pool-limit workspace:64M"}
        paste[US] = "--workspace 64M"
        yield Knob("workspace", "with a workspace of 64 MiB", changes={"workspace": _SMALL}, paste=paste)
    paste = {PYTHON: "config.max_aux_streams = 0", TRTEXEC: "--maxAuxStreams=0"}
    yield Knob("auxiliary streams", "without auxiliary streams", (("aux_streams", "0"),), paste=paste)
    if target.min_shapes or target.max_shapes:
        changes: dict[str, Any] = {"min_shapes": (), "opt_shapes": (), "max_shapes": ()}
        paste = {US: "leave out --min-shapes, --opt-shapes and --max-shapes"}
        yield Knob("profile", "with a profile of the fed sizes only", changes=changes, paste=paste)
    for route in routes:
        name = route.partition("=")[0]
        paste = {PYTHON: f"config.build_route = {route!r}"}
        yield Knob(f"build route {name}", f"with the build route {route}", (("route", route),), paste=paste)
    for level in LEVELS:
        if level != (3 if target.opt_level is None else target.opt_level):
            paste = {
                PYTHON: f"config.builder_optimization_level = {level}",
                TRTEXEC: f"--builderOptimizationLevel={level}",
                POLYGRAPHY: f"--builder-optimization-level {level}",
                US: f"--opt-level {level}",
            }
            told = f"at builder optimization level {level}"
            yield Knob(f"level {level}", told, changes={"opt_level": level}, paste=paste, coarse=True)


def network_flags(trt: Any, target: TargetSettings) -> int:
    """Flags of the network that decisions ask for, as bits; 0 where this version has none of them."""
    kinds = trt.NetworkDefinitionCreationFlag
    strongly = getattr(kinds, "STRONGLY_TYPED", None)
    return 1 << int(strongly) if strongly is not None and ("typed", "strongly") in target.decisions else 0


def apply(trt: Any, config: Any, target: TargetSettings) -> None:
    """Configure the builder by the decisions; what this version has not is left alone."""
    routes = []
    for key, value in target.decisions:
        if key == "tactic_sources" and hasattr(config, "set_tactic_sources"):
            config.set_tactic_sources(0)
        elif key == "flag":
            flag = getattr(trt.BuilderFlag, value, None)
            if flag is not None:
                config.set_flag(flag)
        elif key == "aux_streams" and hasattr(config, "max_aux_streams"):
            config.max_aux_streams = int(value)
        elif key == "route":
            routes.append(value)
    if routes and hasattr(config, "build_route"):
        config.build_route = ";".join(routes)


def routes_of(config: Any) -> list[str]:
    """The build routes that this builder has, other than its usual ones; none before 11.1 and in RTX."""
    told = str(getattr(config, "all_build_routes", "") or "")
    return [part.strip() for part in told.replace("\n", ";").split(";") if part.strip()]
