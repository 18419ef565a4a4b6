"""Which dimensions of a graph have to be equal: constraints between axes, shape values and attributes.

A *variable* is one dimension: an axis of a tensor, an element of a weight that holds sizes, or an
integer of an attribute. `Ties` joins variables that must be equal (union-find) and keeps products. What
follows from others in any other way (the size behind a strided convolution, a Concat) is not told here:
shape inference knows it, see `dimensions`.


Operators whose dimensions a line of letters describes, and attributes that are dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx
from onnx import helper

from bisect_trt.model.walk import integer

Dims = tuple[int | None, ...]


class Var(NamedTuple):
    """One dimension: `kind` is `axis` of a tensor, `value` of a weight, or `attribute` of a node."""

    kind: str
    name: str
    place: int
    attribute: str = ""


class Product(NamedTuple):
    """Variables whose sizes have the same product on both sides."""

    left: tuple[Var, ...]
    right: tuple[Var, ...]
    factor: int = 1  # product(left) = factor * product(right)


class Ties:
    """Classes of variables that are equal."""

    def __init__(self, sizes: Mapping[Var, int]) -> None:
        """Begin with nothing tied; `sizes` are the dimensions as they are. What has none is never tied."""
        self.sizes = sizes
        self.products: list[Product] = []
        self.fixed: set[Var] = set()
        self._above: dict[Var, Var] = {}

    def find(self, var: Var) -> Var:
        """Return the variable that stands for the class."""
        while var in self._above:
            var = self._above[var]
        return var

    def tie(self, one: Var, other: Var) -> None:
        """Tie two that are equal now (a broadcast 1 is not tied)."""
        size = self.sizes.get(one)
        if size is None or size != self.sizes.get(other):
            return
        first, second = sorted((self.find(one), self.find(other)))
        if first != second:
            self._above[second] = first

    def product(self, left: Sequence[Var], right: Sequence[Var], factor: int = 1) -> None:
        """Tie two products that are equal."""
        if all(v in self.sizes for v in (*left, *right)):
            self.products.append(Product(tuple(left), tuple(right), factor))


class Rule(NamedTuple):
    """What the rules are given: a node, the ranks and constant integer values it sees."""

    ties: Ties
    node: onnx.NodeProto
    dims: Mapping[str, Dims]
    values: Mapping[str, Sequence[int]]

    def rank(self, tensor: str) -> int:
        """Return the number of axes; 0 when unknown."""
        return len(self.dims.get(tensor, ()))

    def input(self, k: int) -> str:
        """Return the name of an input; '' when it is left out."""
        return self.node.input[k] if k < len(self.node.input) else ""

    def of(self, name: str, index: int = 0) -> Var:
        """Return an attribute as a variable."""
        return Var("attribute", self.node.name, index, name)


def axis(tensor: str, index: int) -> Var:
    """Return an axis as a variable."""
    return Var("axis", tensor, index)


PATTERNS = {
    "Conv": "NC*,MC*,M->NM*",
    "ConvTranspose": "NC*,CM*,M->NM*",
    "ConvInteger": "NC*,MC*->NM*",
    "DeformConv": "NC*,MC*,NO*,M,NP*->NM*",
    "BatchNormalization": "NC*,C,C,C,C->NC*",
    "RoiAlign": "NCHW,R4,R->RCPQ",
    "MaxRoiPool": "NCHW,R5->RCPQ",
    "NonMaxSuppression": "NB4,NCB->",
    "GridSample": "NCHW,NPQ2->NCPQ",
    "LSTM": "SBI,DFI,DFH,DE,B,DBH,DBH,DP->SDBH,DBH,DBH",
    "GRU": "SBI,DFI,DFH,DE,B,DBH->SDBH,DBH",
    "RNN": "SBI,DHI,DHH,DE,B,DBH->SDBH,DBH",
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization"), "NC*,C,C->NC*"),
    **dict.fromkeys(("OneHot", "Shape", "Size", "ConstantOfShape"), ""),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "Upsample"), "NC*->NC*"),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), "NC*->NC*"),
}
ATTRIBUTES = {
    "RoiAlign": (("output_height", 0, 2), ("output_width", 0, 3)),
    "MaxRoiPool": (("pooled_shape", 0, 2), ("pooled_shape", 1, 3)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (("hidden_size", 0, 3),)),
}
"""Attribute, element of it, axis of the first output."""

_GATES = {"LSTM": 4, "GRU": 3}


def tie_pattern(rule: Rule, pattern: str) -> None:
    """Tie by a pattern, `NC*,MC*->NM*`: axes of one letter are equal, digits stay, `*` is any more axes."""
    left, _, right = pattern.partition("->")
    seen: dict[str, Var] = {}
    for tensors, texts in ((rule.node.input, left), (rule.node.output, right)):
        for tensor, letters in zip(tensors, texts.split(","), strict=False):
            for k, letter in enumerate(letters.rstrip("*")):
                if tensor and letter.isdigit():
                    rule.ties.fixed.add(axis(tensor, k))
                elif tensor:
                    rule.ties.tie(axis(tensor, k), seen.setdefault(letter, axis(tensor, k)))
    _extra(rule)


def _extra(rule: Rule) -> None:
    op, node, ties = rule.node.op_type, rule.node, rule.ties
    if op in ("Conv", "ConvTranspose") and len(node.input) > 1:
        weight, group = node.input[1], integer(rule.node, "group", 1)
        for k in range(rule.rank(weight) - 2):
            ties.tie(axis(weight, 2 + k), rule.of("kernel_shape", k))
        if group > 1:
            outer = axis(node.input[0], 1) if op == "Conv" else axis(node.output[0], 1)
            ties.product([outer], [rule.of("group"), axis(weight, 1)])
            if op == "Conv" and ties.sizes.get(axis(weight, 0)) == group:
                ties.tie(axis(weight, 0), rule.of("group"))
    if op in _GATES and len(node.input) > 2:
        ties.product([axis(node.input[1], 1)], [rule.of("hidden_size")], _GATES[op])
        if len(node.input) > 3 and node.input[3]:
            ties.product([axis(node.input[3], 1)], [rule.of("hidden_size")], 2 * _GATES[op])
    if op in ("BatchNormalization", "InstanceNormalization", "GroupNormalization"):
        same_axes(rule, node.input[0], node.output[0])


def same_axes(rule: Rule, one: str, other: str) -> None:
    """Tie the axes of the same number."""
    tie_axes(rule, one, other, range(min(rule.rank(one), rule.rank(other))))


def tie_axes(rule: Rule, one: str, other: str, places: Iterable[int], shift: int = 0) -> None:
    """Tie axes of a tensor with those of another one that stand `shift` further behind."""
    for k in places:
        rule.ties.tie(axis(one, k), axis(other, k + shift))


def attribute_sizes(nodes: Iterable[onnx.NodeProto]) -> dict[Var, int]:
    """Return the integer attributes that are dimensions."""
    names = {name for rows in ATTRIBUTES.values() for name, _, _ in rows}
    names |= {"kernel_shape", "group", "q_num_heads", "kv_num_heads"}
    found: dict[Var, int] = {}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in names:
                value = helper.get_attribute_value(attribute)
                for k, size in enumerate(value if isinstance(value, list) else [value]):
                    found[Var("attribute", node.name, k, attribute.name)] = int(size)
    return found
