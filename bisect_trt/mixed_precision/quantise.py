"""Nodes whose inputs are quantised: QuantizeLinear and DequantizeLinear, one scale for each tensor.

What may be quantised is what builders have kernels for: convolutions and products of matrices, their data and
their weights. Both are made INT8 or FP8 (E4M3) before such a node and float again at once, which is how ONNX
and TensorRT say that the node computes in that type. The scale of a tensor makes its largest magnitude in the
samples, in FP32, the largest number of the type; weights are kept in the narrow type. There is no zero point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from msgspec import Struct, field
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model import patch
from bisect_trt.model.graph import is_onnx
from bisect_trt.model.patch import Lowered, Slots, key_of
from bisect_trt.targets.roles import Roles, float_types, node_names

Array = npt.NDArray[np.float32]

OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_READ = (0, 1)


class Kind(Struct, frozen=True):
    """A narrow type: of ONNX, of numpy, its largest number, the first opset whose QuantizeLinear has it."""

    onnx: int
    numpy: type
    largest: float
    since: int


KINDS: Mapping[str, Kind] = {
    "int8": Kind(TensorProto.INT8, np.int8, 127.0, 13),
    "fp8": Kind(TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn, 448.0, 19),
}
"""By the words of `--to`."""


def lacking(model: onnx.ModelProto, to: str) -> str:
    """Say that a model has nothing that is ever quantised; empty where it has, or where `to` is not that."""
    if to not in KINDS or any(node.op_type in OPS for node in model.graph.node):
        return ""
    return f"{to.upper()} is for {', '.join(OPS)}, and it has none: --to fp16 or bf16"


def quantisable(model: onnx.ModelProto, scales: Mapping[str, float]) -> Roles:
    """Nodes of which both data and weights are float tensors that have a scale; what they read.

    Args:
        model: functions inlined, nodes in topological order.
        scales: of tensors.
    """
    types = float_types(model)

    def fits(name: str) -> bool:
        return types.get(name) == TensorProto.FLOAT and name in scales

    slots = {
        key_of(node): (_READ, ())
        for node in model.graph.node
        if node.op_type in OPS and is_onnx(node.domain) and all(map(fits, node.input[:2]))
    }
    operators = {key_of(node): node.op_type for node in model.graph.node}
    return Roles(slots, types=types, names=node_names(model.graph), ops=operators)


class Quantiser(Struct):
    """Makes the nodes and the values of one type.

    Attributes:
        to: a key of `KINDS`.
        scales: of tensors.
        graph: gets the scales as initializers.
        prefix: of all new names.
    """

    to: str
    scales: Mapping[str, float]
    graph: onnx.GraphProto
    prefix: str
    _made: set[str] = field(default_factory=set)

    @property
    def kind(self) -> Kind:
        """The type."""
        return KINDS[self.to]

    def nodes(self, tensor: str, source: str, made: str) -> list[onnx.NodeProto]:
        """Give `made` the values of `source`, quantised by the scale of `tensor` and float again."""
        low = f"{self.prefix}{tensor}__{self.to}"
        return [
            helper.make_node("QuantizeLinear", [source, *self._constants(tensor)], [low], f"{low}_q"),
            helper.make_node("DequantizeLinear", [low, *self._constants(tensor)], [made], f"{low}_dq"),
        ]

    def values(self, tensor: str, values: Array) -> Array:
        """Give the values of a weight as a quantised node reads them; as they are where none does."""
        if tensor not in self.scales:
            return values
        scale = np.float32(self.scales[tensor])
        return narrow_values(values, float(scale), self.kind).astype(np.float32) * scale

    def _constants(self, tensor: str) -> tuple[str, str]:
        scale, zero = f"{self.prefix}{tensor}__{self.to}_scale", f"{self.prefix}__{self.to}_zero"
        for value in (_scale(scale, self.scales[tensor]), _zero(zero, self.kind)):
            if value.name not in self._made:
                self._made.add(value.name)
                self.graph.initializer.append(value)
        return scale, zero


def narrow_values(values: Array, scale: float, kind: Kind) -> npt.NDArray[np.generic]:
    """Quantise as QuantizeLinear does: divided, rounded to nearest, ties to even, and saturated."""
    quotient = np.asarray(values, np.float32) / np.float32(scale)
    whole = np.rint(quotient) if kind.numpy is np.int8 else quotient
    least = -kind.largest - (kind.numpy is np.int8)
    return np.asarray(np.clip(whole, least, kind.largest)).astype(kind.numpy)


def scales_of(largest: Mapping[str, float], to: str) -> dict[str, float]:
    """Give the scale of each tensor from its largest magnitude."""
    made = {name: float(np.float32(value / KINDS[to].largest)) for name, value in largest.items()}
    return {name: scale for name, scale in made.items() if 0 < scale < float("inf")}


def quantised(
    model: onnx.ModelProto,
    slots: Mapping[str, Slots],
    to: str,
    scales: Mapping[str, float],
    load: Callable[[TensorProto], npt.NDArray[np.generic]],
) -> Lowered:
    """Give the model with some nodes quantised, by `key_of`. Each tensor is quantised once."""
    inputs = {value.name for value in model.graph.input}
    read = {n.input[k]: None for n in model.graph.node for k in slots.get(key_of(n), ((), ()))[0]}
    given = {name: _scale(f"{name}__{to}_scale", scales[name]) for name in read}
    weights = {
        t.name: _narrow(np.asarray(load(t), np.float32), scales[t.name], KINDS[to])
        for t in model.graph.initializer
        if t.name in read and t.name not in inputs
    }
    made = patch.quantised(model, slots, to, given, _zero(f"__{to}_zero", KINDS[to]), weights)
    made.model.ir_version = max(made.model.ir_version, 9 if to == "fp8" else 4)
    return made


def _narrow(values: Array, scale: float, kind: Kind) -> TensorProto:
    data = narrow_values(values, scale, kind).tobytes()
    return TensorProto(data_type=kind.onnx, dims=values.shape, raw_data=data)


def _scale(name: str, value: float) -> TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def _zero(name: str, kind: Kind) -> TensorProto:
    return TensorProto(name=name, data_type=kind.onnx, dims=[], raw_data=b"\0")
