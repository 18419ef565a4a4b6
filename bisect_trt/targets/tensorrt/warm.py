"""The module of a flavour, and what a process keeps of it between builds: one builder and one runtime.

A builder of TensorRT 8.6 loads its library of kernels: 10 s, 2.9 GB of the host's memory and 0.75 GB of the
card's (H200). While one is alive in the process the next costs nothing; without one, 8 s again.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from bisect_trt.errors import TargetUnavailable
from bisect_trt.machine.environment import INSTALL
from bisect_trt.targets.tensorrt import api

TITLES: Mapping[str, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


class Kept(Struct):
    """What is kept of one module; `seconds` is how long the builder took to make."""

    module: Any
    builder: Any
    seconds: float
    runtime: Any = None


_kept: dict[str, Kept] = {}


def kept(trt: Any, logger: Any) -> Kept:
    """Return the builder of this process in its first state, made if there is none yet.

    Raises:
        TypeError, RuntimeError: TensorRT makes none here, which pybind11 tells in one of these ways.
    """
    known = _kept.get(trt.__name__)
    if known is not None and known.module is trt:
        builder = known.builder
        builder.reset()
        return known
    began = time.perf_counter()
    made = trt.Builder(logger)
    _kept[trt.__name__] = Kept(trt, made, time.perf_counter() - began)
    return _kept[trt.__name__]


def is_there(trt: Any) -> bool:
    """Return whether this process has a builder of the module already."""
    known = _kept.get(trt.__name__)
    return known is not None and known.module is trt


def runtime(trt: Any, logger: Any) -> Any:
    """Return the runtime of this process; it lives as long as the builder, which is made if need be."""
    known = _kept[trt.__name__] if is_there(trt) else kept(trt, logger)
    if known.runtime is None:
        known.runtime = trt.Runtime(logger)
    return known.runtime


def import_tensorrt(flavour: str) -> Any:
    """Return the module of a flavour.

    Raises:
        TargetUnavailable: it is missing or does not load.
    """
    try:
        module = importlib.import_module(flavour.replace("-", "_"))
        module.Builder, module.OnnxParser  # noqa: B018 - a stub without libraries may still import
        old = flavour == "tensorrt" and api.release(module) < api.FLOOR
    except Exception as e:  # a missing libcudart raises OSError, PyPI's stub whatever it likes
        why = " ".join(str(e).split())[:300]
        raise TargetUnavailable(
            f"{TITLES[flavour]} cannot be used: {why}", f"install it with: {INSTALL[flavour]}"
        ) from e
    if old:
        oldest = ".".join(map(str, api.FLOOR))
        raise TargetUnavailable(
            f"TensorRT {module.__version__} is too old: {oldest} is the oldest that works",
            f"install it with: {INSTALL[flavour]}",
        )
    return module
