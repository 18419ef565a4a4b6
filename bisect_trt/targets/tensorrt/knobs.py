"""What TensorRT's and TensorRT-RTX's builder decides: flags, levels, tactics, memory, shapes, build routes.

Each is set by `apply`, which leaves out what a version does not have: a knob too many costs nothing.
"""

from __future__ import annotations

import json
import re
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
    """Return all that the settings leave at their default; `routes` are the build routes of this builder."""
    return tuple(_all(target, routes))


def _all(target: TargetSettings, routes: Sequence[str]) -> Iterator[Knob]:
    yield from _precision(target)
    yield from _flags(target)
    yield from _memory(target)
    if target.min_shapes or target.max_shapes:
        changes: dict[str, Any] = {"min_shapes": (), "opt_shapes": (), "max_shapes": ()}
        paste = {US: "leave out --min-shapes, --opt-shapes and --max-shapes"}
        yield Knob("profile", "with a profile of the fed sizes only", changes=changes, paste=paste)
    for route in routes:
        name = route.partition("=")[0].lstrip("-")
        paste = {PYTHON: f'config.build_route = f"{{config.build_route}} {route}".strip()'}
        yield Knob(f"build route {name}", f"with the build route {route}", (("route", route),), paste=paste)
    for level in LEVELS:
        if level != (3 if target.opt_level is None else target.opt_level):
            yield _level(level)


def _precision(target: TargetSettings) -> Iterator[Knob]:
    if target.tf32 is not False:
        paste = {
            PYTHON: "config.clear_flag(trt.BuilderFlag.TF32)",
            TRTEXEC: "--noTF32",
            POLYGRAPHY: "leave out --tf32",
            US: "--no-tf32",
        }
        yield Knob("TF32", "without TF32", changes={"tf32": False}, paste=paste)
    if target.precision:
        text = f"without --precision {target.precision}"
        paste = {US: f"leave out --precision {target.precision}", TRTEXEC: f"leave out --{target.precision}"}
        yield Knob(target.precision.upper(), text, changes={"precision": ""}, paste=paste)


def _flags(target: TargetSettings) -> Iterator[Knob]:
    paste = {
        PYTHON: "config.set_tactic_sources(0)",
        TRTEXEC: "--tacticSources=-CUDNN,-CUBLAS,-CUBLAS_LT,-EDGE_MASK_CONVOLUTIONS,-JIT_CONVOLUTIONS",
        POLYGRAPHY: "--tactic-sources",
    }
    text = "without tactics of other libraries"
    yield Knob("tactic sources", text, (("tactic_sources", "none"),), paste=paste)
    for name, text, trtexec, polygraphy in _FLAGS:
        call = f"config.set_flag(trt.BuilderFlag.{name})"
        lines = {PYTHON: call, TRTEXEC: trtexec, POLYGRAPHY: polygraphy}
        paste = {tool: line for tool, line in lines.items() if line}
        yield Knob(name, text, (("flag", name),), paste=paste)
    if target.spec == "tensorrt":
        paste = {TRTEXEC: "--stronglyTyped", POLYGRAPHY: "--strongly-typed"}
        yield Knob("strongly typed", "with a strongly typed network", (("typed", "strongly"),), paste=paste)


def _memory(target: TargetSettings) -> Iterator[Knob]:
    if target.workspace is None:
        paste = {TRTEXEC: "--memPoolSize=workspace:64M", POLYGRAPHY: "--pool-limit workspace:64M"}
        paste[US] = "--workspace 64M"
        yield Knob("workspace", "with a workspace of 64 MiB", changes={"workspace": _SMALL}, paste=paste)
    paste = {PYTHON: "config.max_aux_streams = 0", TRTEXEC: "--maxAuxStreams=0"}
    yield Knob("auxiliary streams", "without auxiliary streams", (("aux_streams", "0"),), paste=paste)


def _level(level: int) -> Knob:
    paste = {
        PYTHON: f"config.builder_optimization_level = {level}",
        TRTEXEC: f"--builderOptimizationLevel={level}",
        POLYGRAPHY: f"--builder-optimization-level {level}",
        US: f"--opt-level {level}",
    }
    text = f"at builder optimization level {level}"
    return Knob(f"level {level}", text, changes={"opt_level": level}, paste=paste, coarse=True)


def network_flags(trt: Any, target: TargetSettings) -> int:
    """Return the network flags that decisions ask for, as bits; 0 where this version has none."""
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
        config.build_route = " ".join(routes)


def routes_of(config: Any) -> list[str]:
    """Return, for each knob of the build routes that this builder names, the first value that is not its
    default.

    They are JSON: `{"tuner_options": [{"option": "-a:b", "allowed_values": "-a:b=[0|1]", "default_value":
    "0", ...}]}` (trtexec's samples/common/sampleTuning of TensorRT 11). None before 11.1, on Windows and in
    TensorRT-RTX, where the text is empty; knobs whose values are a range are left out.
    """
    try:
        data = json.loads(str(getattr(config, "all_build_routes", "") or "{}"))
    except ValueError:
        return []
    found = data.get("tuner_options") if isinstance(data, dict) else None
    options = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return [route for item in options if (route := _other_value(item))]


def _other_value(knob: dict[str, Any]) -> str:
    """Return `-a:b=1`, where 1 is the first value but the default; empty where there is none."""
    name, allowed = str(knob.get("option", "")), str(knob.get("allowed_values", ""))
    listed = re.search(r"\[([^\]]*)\]", allowed)
    values = [] if listed is None or "..." in listed[1] else [v.strip() for v in listed[1].split("|")]
    usual = str(knob.get("default_value", "")).removeprefix(f"{name}=")
    return next((f"{name}={value}" for value in values if name and value and value != usual), "")
