"""Find the smallest part of an ONNX model that still fails on TensorRT.

`reduce` (with `reduce_all` for `--all`), `check`, `scan`, `precision`, `simplify` and `verify` do what the
commands of these names do. Importing this package loads neither tensorrt nor onnxruntime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bisect_trt._version import __version__

__all__ = [
    "__version__",
    "blame",
    "check",
    "precision",
    "reduce",
    "reduce_all",
    "scan",
    "simplify",
    "verify",
]

if TYPE_CHECKING:
    from bisect_trt.blaming.blame import blame
    from bisect_trt.mixed_precision.run import precision
    from bisect_trt.reduction.reduce import reduce, simplify
    from bisect_trt.reduction.reduce_all import reduce_all
    from bisect_trt.reproducer.verify import verify
    from bisect_trt.scanning.scan import scan
    from bisect_trt.session.check import check


def __getattr__(name: str) -> Any:
    if name == "reduce":
        from bisect_trt.reduction.reduce import reduce

        return reduce
    if name == "reduce_all":
        from bisect_trt.reduction.reduce_all import reduce_all

        return reduce_all
    if name == "check":
        from bisect_trt.session.check import check

        return check
    if name == "precision":
        from bisect_trt.mixed_precision.run import precision

        return precision
    if name == "scan":
        from bisect_trt.scanning.scan import scan

        return scan
    if name == "simplify":
        from bisect_trt.reduction.reduce import simplify

        return simplify
    if name == "blame":
        from bisect_trt.blaming.blame import blame

        return blame
    if name == "verify":
        from bisect_trt.reproducer.verify import verify

        return verify
    raise AttributeError(f"module 'bisect_trt' has no attribute {name!r}")
