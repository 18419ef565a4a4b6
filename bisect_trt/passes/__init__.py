"""The passes of a reduction, in the order in which they run."""

from bisect_trt.passes.accumulate import accumulate
from bisect_trt.passes.bodies import enter_bodies
from bisect_trt.passes.drop import drop
from bisect_trt.passes.hints import follow_hints
from bisect_trt.passes.localise import localise
from bisect_trt.passes.recut import recut
from bisect_trt.passes.stand_alone import stand_alone
from bisect_trt.passes.steady import steady

MENU = (follow_hints, localise, steady, accumulate, drop, recut, stand_alone, enter_bodies)

__all__ = [
    "MENU",
    "accumulate",
    "drop",
    "enter_bodies",
    "follow_hints",
    "localise",
    "recut",
    "stand_alone",
    "steady",
]
