"""Which dimensions of a graph have to be equal: constraints between axes, shape values and attributes.

A *variable* is one dimension: an axis of a tensor, an element of a weight that holds sizes, or an
integer of an attribute. `Ties` joins variables that must be equal (union-find) and keeps products. What
follows from others in any other way (the size behind a strided convolution, a Concat) is not told here:
shape inference knows it, see `edit_dims`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx

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
        """`sizes` are the dimensions as they are; variables of unknown size are never tied."""
        self.sizes = sizes
        self.products: list[Product] = []
        self.fixed: set[Var] = set()
        self._above: dict[Var, Var] = {}

    def find(self, var: Var) -> Var:
        """The variable that stands for the class."""
        while var in self._above:
            var = self._above[var]
        return var

    def tie(self, one: Var, other: Var) -> None:
        """Both are equal, if they are now (a broadcast 1 is not tied)."""
        size = self.sizes.get(one)
        if size is None or size != self.sizes.get(other):
            return
        first, second = sorted((self.find(one), self.find(other)))
        if first != second:
            self._above[second] = first

    def product(self, left: Sequence[Var], right: Sequence[Var], factor: int = 1) -> None:
        """Both sides have the same product."""
        if all(v in self.sizes for v in (*left, *right)):
            self.products.append(Product(tuple(left), tuple(right), factor))


class Rule(NamedTuple):
    """What the rules are given: a node, the ranks and constant integer values it sees."""

    ties: Ties
    node: onnx.NodeProto
    dims: Mapping[str, Dims]
    values: Mapping[str, Sequence[int]]

    def rank(self, tensor: str) -> int:
        """Number of axes; 0 when unknown."""
        return len(self.dims.get(tensor, ()))

    def input(self, k: int) -> str:
        """Name of an input; '' when it is left out."""
        return self.node.input[k] if k < len(self.node.input) else ""

    def attribute(self, name: str, default: int) -> int:
        """An integer attribute."""
        return next((a.i for a in self.node.attribute if a.name == name), default)

    def of(self, name: str, index: int = 0) -> Var:
        """An attribute as a variable."""
        return Var("attribute", self.node.name, index, name)


def axis(tensor: str, index: int) -> Var:
    """An axis as a variable."""
    return Var("axis", tensor, index)
