"""`target-at:fp32`: the target itself in FP32, for models that ONNX Runtime cannot run."""

from __future__ import annotations

from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.settings import TargetSettings


def settings(target: TargetSettings) -> TargetSettings:
    """Return the settings of the target with nothing less precise than FP32.

    Raises:
        UsageError: the target is nothing but a lower precision.
    """
    if target.spec.startswith("emulate:"):
        raise UsageError(
            f"--reference target-at:fp32: {target.spec} in FP32 is ONNX Runtime", "use --reference ort"
        )
    return replace(target, tf32=False, precision="")
