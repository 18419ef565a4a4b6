"""From our settings to TensorRT's builder configuration."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.store import keep_promise, shape_of
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.tensorrt import api, knobs, tactics, timing
from bisect_trt.targets.tensorrt.defaults import digest
from bisect_trt.targets.tensorrt.log import Log

Dims = tuple[int, ...]
Range = tuple[Dims, Dims, Dims]
"""Minimum, optimum, maximum: of the dimensions, or of the values of a shape tensor."""


def load_plugins(trt: Any, logger: Any, libraries: Sequence[Path]) -> None:
    """Register TensorRT's own plugins and those of the user's libraries.

    Raises:
        UsageError: a library is missing or cannot be loaded.
    """
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    for library in libraries:
        try:
            loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError as e:
            raise UsageError(
                f"--plugins {library}: cannot be loaded ({e})", "Name a built plugin library."
            ) from e
        # Old libraries register themselves while loading, new ones export a table for the registry.
        if any(hasattr(loaded, table) for table in ("getCreators", "getPluginCreators")):
            trt.get_plugin_registry().load_library(str(library))


def make_config(
    trt: Any, builder: Any, network: Any, settings: TargetSettings, candidate: Candidate, log: Log
) -> Any:
    """Return the builder configuration for a parsed network.

    Raises:
        UsageError: an option that this TensorRT cannot follow, shapes that do not fit an input.
    """
    config = builder.create_builder_config()
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.opt_level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise UsageError(
                f"--opt-level: TensorRT {trt.__version__} has no optimisation levels", "Leave it out."
            )
        config.builder_optimization_level = settings.opt_level
        if config.builder_optimization_level != settings.opt_level:  # it clamps without a word
            highest = config.builder_optimization_level
            raise UsageError(f"--opt-level {settings.opt_level}: no such level", f"The highest is {highest}.")
    if settings.tf32 is not None:
        change = config.set_flag if settings.tf32 else config.clear_flag
        change(trt.BuilderFlag.TF32)
    flag = api.precision_flag(trt, settings.precision)
    if flag is not None:
        config.set_flag(flag)
    knobs.apply(trt, config, settings)
    # Only what the engine tells of itself depends on it; names of layers and tactics are for the report.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _take_tactics(trt, config, settings, log, strange=candidate.form is Form.WRITTEN)
    profile = _make_profile(builder, network, settings, candidate)
    if profile is not None:
        config.add_optimization_profile(profile)
    return config


def _take_tactics(trt: Any, config: Any, settings: TargetSettings, log: Log, *, strange: bool) -> None:
    """Set what the builder chooses among; a release without an algorithm selector chooses by itself."""
    if settings.without_tactics:
        tactics.choose(trt, config, without=settings.without_tactics)
    elif settings.with_tactics and tactics.lets_choose(trt):
        tactics.choose(trt, config, among=settings.with_tactics)
    elif settings.timing_cache is not None:
        timing.use(trt, config, settings.timing_cache, log, strange=strange)


def _make_profile(builder: Any, network: Any, settings: TargetSettings, candidate: Candidate) -> Any:
    """Make one optimisation profile; None when no input is dynamic or a shape tensor."""
    profile = None
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        declared = tuple(tensor.shape)
        is_shape = tensor.is_shape_tensor
        if not is_shape and all(dim >= 0 for dim in declared):
            continue
        profile = profile or builder.create_optimization_profile()
        fed = [s[tensor.name] for s in candidate.feeds if tensor.name in s]
        if is_shape:
            profile.set_shape_input(tensor.name, *_value_range(declared, fed))
        else:
            profile.set_shape(tensor.name, *_shape_range(tensor.name, declared, settings, fed))
    return profile


def _shape_range(name: str, declared: Dims, settings: TargetSettings, fed: Sequence[Path]) -> Range:
    """Take shapes from the settings, else from the samples, else 1 for each dynamic dimension."""
    static = dict(settings.shapes).get(name)
    given = [
        dict(shapes).get(name) or static
        for shapes in (settings.min_shapes, settings.opt_shapes, settings.max_shapes)
    ]
    low, best, high = given
    if any(given):
        best = best or high or low
        low, high = low or best, high or best
    elif fed:
        shapes = np.array([shape_of(path) for path in fed])
        low, high = tuple(shapes.min(axis=0).tolist()), tuple(shapes.max(axis=0).tolist())
        best = tuple(shapes[0].tolist())
    else:
        low = best = high = tuple(dim if dim >= 0 else 1 for dim in declared)
    assert low is not None and best is not None and high is not None
    _require_profile(name, declared, (low, best, high))
    return low, best, high


def _require_profile(name: str, declared: Dims, shapes: Range) -> None:
    """Raise UsageError for shapes that do not fit the input, or are not in ascending order."""
    for shape in shapes:
        fits = len(shape) == len(declared)
        if not fits or any(d not in (-1, s) for d, s in zip(declared, shape, strict=True)):
            raise UsageError(
                f"shape {_show(shape)} does not fit input {name}, which is {_show(declared)}",
                "Give one size for each dimension; only -1 may vary.",
            )
    if not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
        low, best, high = map(_show, shapes)
        raise UsageError(
            f"shapes of input {name}: minimum {low}, optimum {best}, maximum {high}"
            " are not in ascending order",
            "Correct --min-shapes, --opt-shapes or --max-shapes.",
        )


def _value_range(declared: Dims, fed: Sequence[Path]) -> Range:
    """Return the values of a shape tensor over the samples; ones when there are none."""
    if not fed:
        ones = (1,) * (declared[0] if declared else 1)
        return ones, ones, ones
    for path in fed:
        keep_promise(path)
    values = np.stack([np.load(path, mmap_mode="r").reshape(-1) for path in fed]).astype(np.int64)
    low, high = tuple(values.min(axis=0).tolist()), tuple(values.max(axis=0).tolist())
    return low, tuple(values[0].tolist()), high


def _show(shape: Dims) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def digests(
    trt: Any, logger: Any, settings: TargetSettings, candidate: Candidate, log: Log
) -> Callable[[bytes], str]:
    """Return what builds a form of the candidate with a builder of its own, for a digest of the engine."""

    def engine(model: bytes) -> str:
        builder = trt.Builder(logger)
        network = builder.create_network(api.network_flags(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model, str(candidate.folder / "probe.onnx")):
            return ""
        plan = builder.build_serialized_network(
            network, make_config(trt, builder, network, settings, candidate, log)
        )
        return "" if plan is None else digest(plan)

    return engine
