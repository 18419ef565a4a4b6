"""The passes of a reduction, in the order in which they run."""

from bisect_trt.passes.drop import drop
from bisect_trt.passes.hints import follow_hints
from bisect_trt.passes.localise import localise
from bisect_trt.passes.recut import recut
from bisect_trt.passes.steady import steady

MENU = (follow_hints, localise, steady, drop, recut)

__all__ = ["MENU", "drop", "follow_hints", "localise", "recut", "steady"]
