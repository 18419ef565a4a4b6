"""What a process keeps of TensorRT between builds: one builder and one runtime for each module.

A builder of TensorRT 8.6 loads its library of kernels: 10 s, 2.9 GB of the host's memory and 0.75 GB of the
card's (H200). While one is alive in the process the next costs nothing; without one, 8 s again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Kept:
    """What is kept of one module; `seconds` is how long the builder took to make."""

    module: Any
    builder: Any
    seconds: float
    runtime: Any = None


_kept: dict[str, Kept] = {}


def kept(trt: Any, logger: Any) -> Kept:
    """The builder of this process in its first state, made if there is none yet.

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
    """Whether this process has a builder of the module already."""
    known = _kept.get(trt.__name__)
    return known is not None and known.module is trt


def runtime(trt: Any, logger: Any) -> Any:
    """The runtime of this process; it lives as long as the builder, which is made if there is none yet."""
    known = _kept[trt.__name__] if is_there(trt) else kept(trt, logger)
    if known.runtime is None:
        known.runtime = trt.Runtime(logger)
    return known.runtime
