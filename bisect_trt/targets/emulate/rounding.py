"""Rounding a float32 tensor to a narrower format by nodes that ONNX Runtime cannot take away.

ONNX Runtime removes the casts of a *converted* float16 model between operators without a float16
kernel. It keeps a Cast and a Cast back that stand in a float32 graph: that is how FP16 and BF16 are
rounded. TF32 and FP8 (and BF16 before opset 13) have no such Cast: there, with u the distance of
neighbouring values around x,

    (|x| + 1.5 * 2**52 * u) - 1.5 * 2**52 * u

in float64 is |x| rounded to a multiple of u, to nearest, ties to even, as every IEEE addition rounds.
u is 2**(floor(log2(|x|)) - bits), and the distance of subnormals below the smallest normal number.

INT8 and FP8 scale each tensor so that its largest magnitude becomes 127 or 448, see `Format`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import TensorProto, helper

_MAGIC = 1.5 * 2.0**52  # added to a float64 and taken away, it leaves whole numbers: they have 52 bits
# A little less than the largest float32: 127 * (_MAX / 127) must not overflow for want of a bit.
_MAX = float(np.finfo(np.float32).max) * (1 - 2.0**-20)
_TINY = float(np.finfo(np.float32).tiny)


class Format(Struct, frozen=True):
    """A number format as tensor cores see it.

    Attributes:
        cast: type of ONNX that rounds to it, from opset `since` on; None when there is none.
        bits: of the significand, without the leading one.
        smallest: exponent of the smallest normal number.
        largest: magnitude that the largest value of a tensor is scaled to; None: no scaling. Beyond it
            values saturate, as NVIDIA's conversions to FP8 (`cvt.rn.satfinite.e4m3x2.f32`) and INT8
            (`cvt.rni.sat`) do; TensorRT knows both with a scale only. FP16, BF16 and TF32 overflow to Inf.
        whole: whether values are integers.
    """

    cast: int | None = None
    since: int = 1
    bits: int = 0
    smallest: int = -126
    largest: float | None = None
    whole: bool = False


TYPED = "typed"
"""Every tensor in the type that the model itself gives it: no format, what is narrow is rounded."""

FORMATS = {
    TYPED: Format(),
    "fp16": Format(cast=TensorProto.FLOAT16, bits=10, smallest=-14),
    "bf16": Format(cast=TensorProto.BFLOAT16, since=13, bits=7),
    "tf32": Format(bits=10),
    "fp8": Format(bits=3, smallest=-6, largest=448.0),
    "int8": Format(largest=127.0, whole=True),
}
OLDEST = {TYPED: 7, "fp16": 7, "bf16": 8, "tf32": 8, "fp8": 9, "int8": 9}
"""The first opset for which a format's nodes exist; ONNX Runtime's own first is 7."""


class Rounder:
    """Makes nodes. The constants that they share become initializers of `graph`, seen by its bodies."""

    def __init__(self, format: Format, opset: int, graph: onnx.GraphProto, prefix: str) -> None:
        """Begin the names of new tensors with `prefix`, which no name of the model may do."""
        self._format = format
        self._opset = opset
        self._graph = graph
        self._prefix = prefix
        self._count = 0
        self._constants: dict[tuple[int, float, bool], str] = {}
        self._made: list[onnx.NodeProto] = []

    def fresh(self) -> str:
        """Return a new tensor name."""
        self._count += 1
        return f"{self._prefix}{self._count}"

    def cast(self, source: str, to: int, target: str = "") -> onnx.NodeProto:
        """Return a Cast to an element type."""
        return self._node("Cast", source, target=target, to=to)

    def nodes(self, source: str, source_type: int, target: str, target_type: int) -> list[onnx.NodeProto]:
        """Return the nodes that give `target` the rounded values of `source`.

        float64 goes through float32, which is what TensorRT makes of it.
        """
        self._made = []
        if source_type != TensorProto.FLOAT:
            source = self._op("Cast", source, to=TensorProto.FLOAT)
        cast = self._format.cast if self._opset >= self._format.since else None
        if cast is not None:
            rounded = self._op("Cast", source, to=cast)
        else:  # float32 again at the end, whatever the target: a float64 must not keep more
            rounded, cast = self._arithmetic(source), TensorProto.FLOAT
        if target_type != cast:
            self._op("Cast", rounded, to=target_type)
        last = self._made[-1]
        last.output[0], last.name = target, f"{self._prefix}{target}"  # errors of ONNX Runtime name the node
        return self._made

    def _arithmetic(self, source: str) -> str:
        if self._format.largest is None:
            return self._to_grid(source)
        limit = self._format.largest
        scale = self._scale(source, limit)
        low = self._op("Max", self._op("Div", source, scale), self._float(-limit))
        high = self._op("Min", low, self._float(limit))
        return self._op("Mul", self._to_grid(high), scale)

    def _scale(self, source: str, limit: float) -> str:
        """Return the largest magnitude / `limit`. NaN is left out; Inf counts as FLT_MAX."""
        known = self._op("Where", self._op("IsNaN", source), self._float(0.0), self._op("Abs", source))
        flat = self._op("Reshape", known, self._constant(TensorProto.INT64, -1, vector=True))
        # A zero more, so that an empty tensor has a largest value, too.
        more = self._op("Concat", flat, self._constant(TensorProto.FLOAT, 0, vector=True), axis=0)
        finite = self._op("Min", self._op("ReduceMax", more, keepdims=0), self._float(_MAX))
        return self._op("Max", self._op("Div", finite, self._float(limit)), self._float(_TINY))

    def _to_grid(self, source: str) -> str:
        """Round float32 values to the format's grid; the sign of zero is kept."""
        wide = self._op("Cast", source, to=TensorProto.DOUBLE)
        absolute = self._op("Abs", wide)
        magic = self._double(_MAGIC)
        if not self._format.whole:
            unit = self._double(_MAGIC * 2.0**-self._format.bits)
            magic = self._op("Mul", self._power_of_two(absolute), unit)
        rounded = self._op("Sub", self._op("Add", absolute, magic), magic)
        # The sign: -1, +1, or the zero itself with its sign.
        large = self._op("Mul", wide, self._double(2.0**600))
        sign = self._op("Max", self._op("Min", large, self._double(1.0)), self._double(-1.0))
        return self._op("Cast", self._op("Mul", rounded, sign), to=TensorProto.FLOAT)

    def _power_of_two(self, magnitude: str) -> str:
        """Return 2**floor(log2(magnitude)), exact for float32, whose steps there are above 4e-8.

        Between the smallest normal number and 2**127, so that zero, subnormals and Inf get there, too.
        """
        low = self._op("Max", magnitude, self._double(2.0**self._format.smallest))
        natural = self._op("Log", self._op("Min", low, self._double(2.0**127)))
        binary = self._op("Mul", natural, self._double(1 / math.log(2)))
        floor = self._op("Floor", self._op("Add", binary, self._double(1e-9)))
        return self._op("Pow", self._double(2.0), floor)

    def _float(self, value: float) -> str:
        return self._constant(TensorProto.FLOAT, value)

    def _double(self, value: float) -> str:
        return self._constant(TensorProto.DOUBLE, value)

    def _constant(self, elem_type: int, value: float, vector: bool = False) -> str:
        key = (elem_type, value, vector)
        if key not in self._constants:
            name = self._constants[key] = self.fresh()
            values = [int(value) if elem_type == TensorProto.INT64 else value]
            self._graph.initializer.append(helper.make_tensor(name, elem_type, [1] if vector else [], values))
        return self._constants[key]

    def _op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Make a node, and return what it gives."""
        self._made.append(self._node(op, *inputs, **attributes))
        return str(self._made[-1].output[0])

    def _node(self, op: str, *inputs: str, target: str = "", **attributes: Any) -> onnx.NodeProto:
        output = target or self.fresh()
        return helper.make_node(op, list(inputs), [output], name=f"{self._prefix}{output}", **attributes)
