"""Find the smallest part of an ONNX model that still fails on TensorRT.

`reduce` (with `reduce_all` for `--all`), `check`, `scan`, `precision`, `simplify`, `verify` and `blame` do
what the commands of these names do. The first argument is a path, options are keywords or a `Settings`;
results say in a few lines what they are. Importing this package loads neither tensorrt nor onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bisect_trt._version import __version__

_HOMES = {
    "bisect_trt.api": (
        *("blame", "check", "precision", "profile", "reduce", "reduce_all", "scan", "simplify", "verify"),
    ),
    "bisect_trt.blaming.blame": ("Blame",),
    "bisect_trt.mixed_precision.result": ("Precision",),
    "bisect_trt.profiling.result": ("Profile",),
    "bisect_trt.settings": (
        "AccuracySettings",
        "ReportSettings",
        "RunSettings",
        "Settings",
        "TargetSettings",
    ),
    "bisect_trt.results": ("Check", "Reduction", "Simplification", "Step"),
    "bisect_trt.scanning.result": ("Scan",),
    "bisect_trt.reproducer.verify": ("Verification",),
    "bisect_trt.outcome": ("Ended", "Failure", "Outcome", "Stage", "Symptom"),
    "bisect_trt.errors": (
        "BisectError",
        "FlakyFailure",
        "Leak",
        "ModelDoesNotFail",
        "StoppedEarly",
        "TargetUnavailable",
        "UsageError",
    ),
}
"""What is offered, by the module that has it: loaded when it is first asked for."""

_WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccuracySettings",
    "BisectError",
    "Blame",
    "Check",
    "Ended",
    "Failure",
    "FlakyFailure",
    "Leak",
    "ModelDoesNotFail",
    "Outcome",
    "Precision",
    "Profile",
    "Reduction",
    "ReportSettings",
    "RunSettings",
    "Scan",
    "Settings",
    "Simplification",
    "Stage",
    "Step",
    "StoppedEarly",
    "Symptom",
    "TargetSettings",
    "TargetUnavailable",
    "UsageError",
    "Verification",
    "__version__",
    "blame",
    "check",
    "precision",
    "profile",
    "reduce",
    "reduce_all",
    "scan",
    "simplify",
    "verify",
]

if TYPE_CHECKING:
    from bisect_trt.api import blame, check, precision, profile, reduce, reduce_all, scan, simplify, verify
    from bisect_trt.blaming.blame import Blame
    from bisect_trt.errors import (
        BisectError,
        FlakyFailure,
        Leak,
        ModelDoesNotFail,
        StoppedEarly,
        TargetUnavailable,
        UsageError,
    )
    from bisect_trt.mixed_precision.result import Precision
    from bisect_trt.outcome import Ended, Failure, Outcome, Stage, Symptom
    from bisect_trt.profiling.result import Profile
    from bisect_trt.reproducer.verify import Verification
    from bisect_trt.results import Check, Reduction, Simplification, Step
    from bisect_trt.scanning.result import Scan
    from bisect_trt.settings import (
        AccuracySettings,
        ReportSettings,
        RunSettings,
        Settings,
        TargetSettings,
    )


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bisect_trt' has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
