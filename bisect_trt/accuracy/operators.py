"""What operators do with numbers: which compute nothing, which sum up, which are discontinuous."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Shape = tuple[int, ...]


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


EXACT = _ops(
    "Abs And ArgMax ArgMin Cast CastLike Ceil Clip Compress Concat ConcatFromSequence Constant"
    " ConstantOfShape DepthToSpace Dropout Equal Expand EyeLike Flatten Floor Gather GatherElements"
    " GatherND GlobalMaxPool Greater GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Max MaxPool"
    " MaxUnpool Min Neg NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement Or Pad"
    " ReduceMax ReduceMin Relu Reshape ReverseSequence Round ScatterElements ScatterND SequenceAt"
    " SequenceConstruct SequenceInsert Shape Sign Size Slice SpaceToDepth Split SplitToSequence Squeeze"
    " ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Where Xor"
)
"""They move, choose or compare values: given the same inputs every target has the same outputs."""

ONCE = _ops("Add Sub Mul Div Sqrt Reciprocal Mod Sum Mean DequantizeLinear Hardmax LeakyRelu PRelu Range")
"""Rounded once, or a few times."""

PLACED = _ops("Resize Upsample GridSample RoiAlign DeformConv")
"""They compute where to read: a coordinate is a number as large as the tensor is long."""

SUMS = PLACED | _ops(
    "Conv ConvTranspose MatMul Gemm Einsum ReduceSum ReduceMean AveragePool GlobalAveragePool CumSum"
    " FusedMatMul"
)
"""Linear in their data: the operator of the magnitudes is |A||B|."""

GROWING = SUMS | _ops("Add Sub Mul Pow Exp Sum Cast ReduceProd ReduceSumSquare ReduceL2 LeakyRelu")
"""Finite numbers stay finite in them: what is infinite is too large for its type."""

BOUNDED = _ops("Sigmoid Tanh Erf Softmax Softplus Softsign HardSigmoid Gelu Sin Cos Swish Mish")
"""Approximated to an absolute error, also where they are small."""

SMOOTH = SUMS | _ops(
    "Abs Add Clip Concat DepthToSpace Dropout Elu Erf Expand Flatten Gather Gelu Identity LeakyRelu Max Mean"
    " MaxPool Min Mul Neg PRelu Pad Relu Reshape Sigmoid Slice Softplus SpaceToDepth Split Squeeze Sub Sum"
    " Tanh Tile Transpose Unsqueeze"
)
"""Errors of their inputs come out of the same size or smaller, and never all at once."""

NORMS = _ops("LayerNormalization RMSNormalization SimplifiedLayerNormalization")

INNER_SUMS = NORMS | _ops(
    "Softmax LogSoftmax InstanceNormalization GroupNormalization SkipLayerNormalization LpNormalization"
    " SkipSimplifiedLayerNormalization MeanVarianceNormalization ReduceL1 ReduceL2 ReduceLogSum ReduceProd"
    " ReduceLogSumExp ReduceSumSquare LRN Attention MultiHeadAttention GroupQueryAttention LSTM GRU RNN"
    " LpPool GlobalLpPool"
)
"""Made of several steps, with sums in between."""

THRESHOLDS = _ops(
    "ArgMax ArgMin Cast Ceil Equal Floor Greater GreaterOrEqual Less LessOrEqual NonMaxSuppression NonZero"
    " QuantizeLinear DynamicQuantizeLinear Round Sign TopK Unique Hardmax OneHot Compress Not And Or Xor"
)
"""Discontinuous: a unit in the last place of the input may change the output altogether."""

_PRODUCTS = {"Attention": 3, "MultiHeadAttention": 3, "GRU": 3, "LSTM": 3, "RNN": 3, "Einsum": 16}
_MATRICES = _ops("Conv ConvTranspose DeformConv FusedConv FusedGemm FusedMatMul Gemm MatMul")
_PRODUCTS |= dict.fromkeys(_MATRICES, 2)


def products(op: str) -> int:
    """Say how many of the first inputs of an operator enter a matrix product; 0 for other operators."""
    return _PRODUCTS.get(op, 0)


def sum_length(op: str, inputs: Sequence[Shape], output: Shape, attributes: Mapping[str, Any]) -> int:
    """Say how many terms the sums of an operator have, from the shapes of its inputs and of its output."""
    first = inputs[0] if inputs else ()
    second = inputs[1] if len(inputs) > 1 else ()
    known = _LENGTHS.get(op)
    if known is not None:
        return max(1, int(known(first, second, attributes)))
    if op == "Einsum":
        terms = math.prod(math.prod(shape) for shape in inputs) // max(1, math.prod(output))
        return max(1, math.isqrt(terms))
    if op in PLACED:
        return 16
    if op.startswith(("Reduce", "Global")):
        return max(1, math.prod(first) // max(1, math.prod(output)))
    return max(1, math.prod(first[1:])) if op in INNER_SUMS or op == "CumSum" else 1


def _last(first: Shape, _: Shape, __: Mapping[str, Any]) -> int:
    return first[-1] if first else 1


def _of_axis(first: Shape, _: Shape, attributes: Mapping[str, Any]) -> int:
    return first[int(attributes.get("axis", -1))] if first else 1


def _from_axis(first: Shape, _: Shape, attributes: Mapping[str, Any]) -> int:
    return math.prod(first[int(attributes.get("axis", -1)) :])


def _window(_: Shape, second: Shape, __: Mapping[str, Any]) -> int:
    return math.prod(second[1:])


_Length = Callable[[Shape, Shape, Mapping[str, Any]], int]
_LENGTHS: dict[str, _Length] = {
    **dict.fromkeys(_ops("Conv DeformConv FusedConv"), _window),
    **dict.fromkeys(_ops("MatMul FusedMatMul"), _last),
    **dict.fromkeys(_ops("Softmax LogSoftmax"), _of_axis),
    **dict.fromkeys(NORMS, _from_axis),
    "ConvTranspose": lambda _, second, __: math.prod(second) // max(1, *second[1:2], 1),
    "Gemm": lambda first, _, attributes: first[0 if attributes.get("transA") else -1] if first else 1,
    "AveragePool": lambda _, __, attributes: math.prod(attributes.get("kernel_shape", (1,))),
}
