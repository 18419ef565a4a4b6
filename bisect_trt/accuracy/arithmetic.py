"""How exactly a target computes: the unit roundoff of what it stores, multiplies and sums up.

Unit roundoffs are those of Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition (SIAM, 2002),
section 2.1: half of the distance between 1 and the next larger number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.settings import TargetSettings


class Arithmetic(Struct, frozen=True):
    """How a target rounds.

    Attributes:
        name: for people: `FP32`, `TF32`, `BF16`, `FP16`, `FP8`, `INT8`.
        unit: unit roundoff of stored tensors; those of narrower types of the model have their own.
        sums: unit roundoff of accumulators, and inside of operators that are made of several steps.
        products: unit roundoff of what enters a matrix product or a convolution, if only that is rounded.
        step: largest rounding error where all elements share a scale and the largest magnitude is 1.
        tiny: largest rounding error of numbers below the normal ones.
        largest: finite number; what is larger overflows. Infinite where large values saturate.
    """

    name: str
    unit: float = 2.0**-24
    sums: float = 2.0**-24
    products: float = 0.0
    step: float = 0.0
    tiny: float = 2.0**-150
    largest: float = 3.4028234663852886e38

    @property
    def narrow(self) -> bool:
        """Whether tensors are stored with fewer bits than float32 has."""
        return self.unit > FP32.unit or self.step > 0

    @property
    def roundoff(self) -> float:
        """The largest relative error of one rounding."""
        return max(self.unit, self.products, self.step)


FP32 = Arithmetic("FP32")
TF32 = Arithmetic("TF32", products=2.0**-11)
FP16 = Arithmetic("FP16", unit=2.0**-11, tiny=2.0**-25, largest=65504.0)
BF16 = Arithmetic("BF16", unit=2.0**-8, largest=3.3895313892515355e38)
FP8 = Arithmetic("FP8", unit=2.0**-4, step=2.0**-10 / 448, largest=float("inf"))  # E4M3, scaled to 448
INT8 = Arithmetic("INT8", unit=0.0, step=1 / 254, largest=float("inf"))

_BY_NAME = {a.name.lower(): a for a in (FP32, TF32, FP16, BF16, FP8, INT8)}
_TF32_BY_DEFAULT = ("cuda", "tensorrt", "nvtensorrt")
_HINTS = {"f32": FP32, "f16": FP16, "bf16": BF16}


def arithmetic_of(target: TargetSettings) -> Arithmetic:
    """Say how a target computes with float32 tensors, as far as its settings and this machine tell.

    TensorRT multiplies in TF32 unless that is forbidden; so does ONNX Runtime's CUDA provider. OpenVINO takes
    bfloat16 where the CPU has it, unless a hint says otherwise. FP16 of a real target may accumulate in FP16,
    that of an emulation accumulates in FP32.
    """
    kind, _, argument = target.spec.partition(":")
    if target.precision:
        chosen = _BY_NAME.get(target.precision.lower(), FP32)
        return replace(chosen, sums=chosen.unit) if chosen is FP16 else chosen
    if kind == "emulate":
        return _BY_NAME.get(argument.lower(), FP32)
    if kind in ("auto", "tensorrt", "tensorrt-rtx"):
        return FP32 if target.tf32 is False else TF32
    provider = argument.lower().removesuffix("executionprovider")
    if kind == "ort" and provider.startswith("openvino"):
        hint = re.search(r'inference_precision_hint"?\s*[:=]\s*"?(\w+)', provider)
        return _HINTS.get(hint[1], FP32) if hint else BF16 if computes_in_bfloat16() else FP32
    if kind == "ort" and provider.startswith(_TF32_BY_DEFAULT):
        return FP32 if re.search(r"use_tf32=(0|false)", provider) or target.tf32 is False else TF32
    return FP32


def coarsest(target: Arithmetic, types: Iterable[str]) -> Arithmetic:
    """Return what rounds most where tensors have these types: the target, or a narrow type of the model.

    Args:
        target: how it computes with float32 tensors.
        types: NumPy's names for the types, such as `float16`.
    """
    own = [arithmetic for name, arithmetic in (("float16", FP16), ("bfloat16", BF16)) if name in set(types)]
    return max((target, *own), key=lambda arithmetic: arithmetic.roundoff)


@cache
def computes_in_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16, which OpenVINO then uses for float32 models."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16)\b", flags) is not None
