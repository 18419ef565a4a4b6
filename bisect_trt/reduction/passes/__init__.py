"""The passes of a reduction, in the order in which they run."""

from bisect_trt.reduction.passes.bodies import enter_bodies
from bisect_trt.reduction.passes.drop import drop, recut
from bisect_trt.reduction.passes.flaky import steady
from bisect_trt.reduction.passes.localise import follow_hints, localise
from bisect_trt.reduction.passes.outputs import accumulate, stand_alone

MENU = (follow_hints, localise, steady, accumulate, drop, recut, stand_alone, enter_bodies)
