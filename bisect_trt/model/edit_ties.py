"""Which dimensions of a graph have to be equal: constraints between axes, shape values and attributes.

A *variable* is one dimension: an axis of a tensor, an element of a weight that holds sizes, or an
integer of an attribute. `Ties` joins variables that must be equal (union-find) and keeps products. What
follows from others in any other way (the size behind a strided convolution, a Concat) is not told here:
shape inference knows it, see `edit_dims`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import onnx
from onnx import helper

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


_PATTERNS = {
    "Conv": "NC*,MC*,M->NM*",
    "ConvTranspose": "NC*,CM*,M->NM*",
    "ConvInteger": "NC*,MC*->NM*",
    "DeformConv": "NC*,MC*,NO*,M,NP*->NM*",
    "BatchNormalization": "NC*,C,C,C,C->NC*",
    "InstanceNormalization": "NC*,C,C->NC*",
    "GroupNormalization": "NC*,C,C->NC*",
    "RoiAlign": "NCHW,R4,R->RCPQ",
    "MaxRoiPool": "NCHW,R5->RCPQ",
    "NonMaxSuppression": "NB4,NCB->",
    "GridSample": "NCHW,NPQ2->NCPQ",
    "Upsample": "NC*->NC*",
    "LSTM": "SBI,DFI,DFH,DE,B,DBH,DBH,DP->SDBH,DBH,DBH",
    "GRU": "SBI,DFI,DFH,DE,B,DBH->SDBH,DBH",
    "RNN": "SBI,DHI,DHH,DE,B,DBH->SDBH,DBH",
    "OneHot": "",
    "Shape": "",
    "Size": "",
    "ConstantOfShape": "",
}
_POOLS = {"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}
_ATTRIBUTES = {
    "RoiAlign": (("output_height", 0, 2), ("output_width", 0, 3)),
    "MaxRoiPool": (("pooled_shape", 0, 2), ("pooled_shape", 1, 3)),
    "LSTM": (("hidden_size", 0, 3),),
    "GRU": (("hidden_size", 0, 3),),
    "RNN": (("hidden_size", 0, 3),),
}
"""Attribute, element of it, axis of the first output."""

_GATES = {"LSTM": 4, "GRU": 3}
_SIZES = {"Reshape": 1, "Expand": 1, "Resize": 3, "ConstantOfShape": 0, "CenterCropPad": 1}
"""Inputs that hold the dimensions of the output."""


_LISTS: dict[str, tuple[int, ...]] = {
    **{op: (slot,) for op, slot in _SIZES.items()},
    **dict.fromkeys(("Tile", "Split", "Squeeze", "Unsqueeze", "TopK"), (1,)),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
}
_REDUCED = (1,)
"""Inputs that have an element for each of certain axes: their length stays."""


def tie_node(rule: Rule) -> None:
    """Add what one node asks for."""
    op = rule.node.op_type
    slots = _REDUCED if op.startswith("Reduce") else _LISTS.get(op, ())
    rule.ties.fixed.update(axis(rule.input(k), 0) for k in slots if rule.input(k))
    if op in _SIZES and (sizes := rule.input(_SIZES[op])):
        for k in range(len(rule.values.get(sizes, ()))):
            rule.ties.tie(axis(rule.node.output[0], k), Var("value", sizes, k))
    for name, index, at in _ATTRIBUTES.get(op, ()):
        rule.ties.tie(axis(rule.node.output[0], at), rule.of(name, index))
    if op in _RULES:
        _RULES[op](rule)
    elif op in _PATTERNS:
        _pattern(rule, _PATTERNS[op])
    elif op in _POOLS:
        _pattern(rule, "NC*->NC*")
    elif op.startswith("Reduce") or op in ("ArgMax", "ArgMin"):
        _reduce(rule)
    elif _is_elementwise(rule):
        _broadcast(rule)
    else:
        _same_valued(rule)


def _pattern(rule: Rule, pattern: str) -> None:
    """`NC*,MC*->NM*`: axes of one letter are equal, digits stay; `*` stands for any further axes."""
    left, _, right = pattern.partition("->")
    seen: dict[str, Var] = {}
    sides = ((rule.node.input, left), (rule.node.output, right))
    for tensors, texts in sides:
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
        weight, group = node.input[1], rule.attribute("group", 1)
        for k in range(rule.rank(weight) - 2):
            ties.tie(axis(weight, 2 + k), rule.of("kernel_shape", k))
        if group > 1:
            inner = 1 if op == "Conv" else 0
            outer = axis(node.input[0], 1) if op == "Conv" else axis(node.output[0], 1)
            ties.product([outer], [rule.of("group"), axis(weight, 1)])
            if inner == 1 and rule.ties.sizes.get(axis(weight, 0)) == group:
                ties.tie(axis(weight, 0), rule.of("group"))
    if op in _GATES and len(node.input) > 2:
        ties.product([axis(node.input[1], 1)], [rule.of("hidden_size")], _GATES[op])
        if len(node.input) > 3 and node.input[3]:
            ties.product([axis(node.input[3], 1)], [rule.of("hidden_size")], 2 * _GATES[op])
    if op in ("BatchNormalization", "InstanceNormalization", "GroupNormalization"):
        _same_axes(rule, node.input[0], node.output[0])


def _same_axes(rule: Rule, one: str, other: str) -> None:
    for k in range(min(rule.rank(one), rule.rank(other))):
        rule.ties.tie(axis(one, k), axis(other, k))


def _is_elementwise(rule: Rule) -> bool:
    """Whether each output's shape is the broadcast of all inputs."""
    inputs = [t for t in rule.node.input if t]
    known = all(t in rule.dims for t in (*inputs, *rule.node.output) if t)
    if not known or not inputs or any(a.type in (5, 10) for a in rule.node.attribute):
        return False
    rank = max(rule.rank(t) for t in inputs)
    outputs = [t for t in rule.node.output if t]
    if any(rule.rank(t) != rank for t in outputs):
        return False
    for tensor in (*inputs, *outputs):
        dims = rule.dims[tensor]
        full = rule.dims[outputs[0]][rank - len(dims) :]
        if any(a != b and a != 1 for a, b in zip(dims, full, strict=True)):
            return False
    return True


def _broadcast(rule: Rule) -> None:
    for out in rule.node.output:
        for tensor in rule.node.input:
            shift = rule.rank(out) - rule.rank(tensor)
            for k in range(rule.rank(tensor)):
                rule.ties.tie(axis(tensor, k), axis(out, k + shift))


def _same_valued(rule: Rule) -> None:
    """Nothing is known of the op: equal dimensions are taken to be one."""
    seen: dict[int, Var] = {}
    for tensor in (*rule.node.input, *rule.node.output):
        for k, size in enumerate(rule.dims.get(tensor, ())):
            if size is not None and size > 1:
                rule.ties.tie(axis(tensor, k), seen.setdefault(size, axis(tensor, k)))


def _reduce(rule: Rule) -> None:
    """Axes stay in order; with `keepdims=0` the reduced ones are missing."""
    one, out = rule.input(0), rule.node.output[0]
    if rule.rank(one) == rule.rank(out):
        _same_axes(rule, one, out)
        return
    axes = _axes(rule, 1)
    kept = [k for k in range(rule.rank(one)) if k not in axes]
    for to, k in enumerate(kept):
        rule.ties.tie(axis(one, k), axis(out, to))


def _axes(rule: Rule, slot: int) -> set[int]:
    """Axes from an attribute or a constant input, not negative; all when not given."""
    rank = rule.rank(rule.input(0))
    found = [a for a in rule.node.attribute if a.name in ("axes", "axis")]
    given: Sequence[int] = rule.values.get(rule.input(slot), ())
    if found:
        given = list(found[0].ints) or [found[0].i]
    return {k % rank for k in given} if rank and given else set(range(rank))


def _reshape(rule: Rule) -> None:
    """Equal axes at both ends are the same; what is between has the same product."""
    one, out = rule.input(0), rule.node.output[0]
    a, b = rule.dims.get(one, ()), rule.dims.get(out, ())
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        rule.ties.tie(axis(one, start), axis(out, start))
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        rule.ties.tie(axis(one, len(a) - 1 - end), axis(out, len(b) - 1 - end))
        end += 1
    left = [axis(one, k) for k in range(start, len(a) - end)]
    right = [axis(out, k) for k in range(start, len(b) - end)]
    if left or right:
        rule.ties.product(left, right)


def _transpose(rule: Rule) -> None:
    one, out = rule.input(0), rule.node.output[0]
    perm = next((list(a.ints) for a in rule.node.attribute if a.name == "perm"), None)
    for to, k in enumerate(perm or reversed(range(rule.rank(one)))):
        rule.ties.tie(axis(one, k), axis(out, to))


def _squeeze(rule: Rule) -> None:
    """Axes that stay keep their order."""
    short, long = rule.input(0), rule.node.output[0]
    if rule.node.op_type == "Squeeze":
        short, long = long, short
    a, b = rule.dims.get(short, ()), rule.dims.get(long, ())
    at = 0
    for k, size in enumerate(b):
        if at < len(a) and size == a[at] and (size != 1 or len(b) - k == len(a) - at):
            rule.ties.tie(axis(long, k), axis(short, at))
            at += 1


def _matmul(rule: Rule) -> None:
    a, b = rule.input(0), rule.input(1)
    ra, rb, out = rule.rank(a), rule.rank(b), rule.node.output[0]
    if not ra or not rb:
        return
    rule.ties.tie(axis(a, ra - 1), axis(b, max(0, rb - 2)))
    ro = rule.rank(out)
    if rb > 1:
        rule.ties.tie(axis(b, rb - 1), axis(out, ro - 1))
    if ra > 1:
        rule.ties.tie(axis(a, ra - 2), axis(out, ro - (2 if rb > 1 else 1)))
    for tensor, rank in ((a, ra), (b, rb)):
        for k in range(rank - 2):
            rule.ties.tie(axis(tensor, k), axis(out, ro - rank + k))
    for k in range(3, min(ra, rb) + 1):
        rule.ties.tie(axis(a, ra - k), axis(b, rb - k))


def _gemm(rule: Rule) -> None:
    first = "KM" if rule.attribute("transA", 0) else "MK"
    second = "NK" if rule.attribute("transB", 0) else "KN"
    third = "N" if rule.rank(rule.input(2)) == 1 else "MN"
    _pattern(rule, f"{first},{second},{third}->MN")


def _concat(rule: Rule) -> None:
    """All axes but one are equal everywhere; Split is the same backwards."""
    joined = rule.node.input if rule.node.op_type == "Concat" else rule.node.input[:1]
    tensors = [*rule.node.output, *joined]
    rank = rule.rank(tensors[0])
    along = rule.attribute("axis", 0) % rank if rank else 0
    for k in range(rank):
        if k != along:
            for one, other in pairwise(tensors):
                rule.ties.tie(axis(one, k), axis(other, k))


def _gather(rule: Rule) -> None:
    """Axes of the data around those of the indices."""
    data, indices, out = rule.input(0), rule.input(1), rule.node.output[0]
    along = rule.attribute("axis", 0) % max(1, rule.rank(data))
    for k in range(along):
        rule.ties.tie(axis(data, k), axis(out, k))
    for k in range(rule.rank(indices)):
        rule.ties.tie(axis(indices, k), axis(out, along + k))
    for k in range(along + 1, rule.rank(data)):
        rule.ties.tie(axis(data, k), axis(out, k + rule.rank(indices) - 1))


def _elements(rule: Rule) -> None:
    """GatherElements: indices and output; ScatterElements: data and output, indices and updates."""
    data, indices, out = rule.input(0), rule.input(1), rule.node.output[0]
    if rule.node.op_type == "GatherElements":
        _same_axes(rule, indices, out)
    else:
        _same_axes(rule, data, out)
        _same_axes(rule, indices, rule.input(2))


def _nd(rule: Rule) -> None:
    """GatherND and ScatterND: slices of the data at places that the last axis of the indices names."""
    data, indices = rule.input(0), rule.input(1)
    slices = rule.node.output[0] if rule.node.op_type == "GatherND" else rule.input(2)
    if rule.node.op_type == "ScatterND":
        _same_axes(rule, data, rule.node.output[0])
    batch, places = rule.attribute("batch_dims", 0), rule.rank(indices) - 1
    if places < 0 or (depth := rule.dims[indices][-1]) is None:
        return
    for k in range(places):
        rule.ties.tie(axis(indices, k), axis(slices, k))
    for k in range(batch):
        rule.ties.tie(axis(data, k), axis(indices, k))
    for k in range(batch + depth, rule.rank(data)):
        rule.ties.tie(axis(data, k), axis(slices, places + k - batch - depth))


def _resized(rule: Rule) -> None:
    """Axes that have the same size on both sides are the same."""
    _same_axes(rule, rule.input(0), rule.node.output[0])
    if rule.node.op_type == "TopK":
        along = rule.attribute("axis", -1) % max(1, rule.rank(rule.input(0)))
        for out in rule.node.output:
            rule.ties.tie(axis(out, along), Var("value", rule.input(1), 0))


def _attention(rule: Rule) -> None:
    ranks = [rule.rank(rule.input(k)) for k in range(3)]
    if ranks == [4, 4, 4]:
        _pattern(rule, "BHSD,BKTD,BKTV->BHSV")
    else:
        _pattern(rule, "BSX,BTY,BTZ->BSW")
    for k, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        if ranks[0] == 4:
            rule.ties.tie(axis(rule.input(k), 1), rule.of(name))


def _einsum(rule: Rule) -> None:
    equation = next((a.s.decode() for a in rule.node.attribute if a.name == "equation"), "")
    if "." in equation or "->" not in equation:
        _same_valued(rule)
    else:
        _pattern(rule, equation.replace(" ", ""))


def _blocks(rule: Rule) -> None:
    size = rule.attribute("blocksize", 1)
    wide, narrow = rule.input(0), rule.node.output[0]
    if rule.node.op_type == "SpaceToDepth":
        wide, narrow = narrow, wide
    rule.ties.tie(axis(wide, 0), axis(narrow, 0))
    rule.ties.product([axis(wide, 1)], [axis(narrow, 1)], size * size)


_RULES: dict[str, Callable[[Rule], None]] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "Concat": _concat,
    "Split": _concat,
    "Gather": _gather,
    "GatherElements": _elements,
    "ScatterElements": _elements,
    "GatherND": _nd,
    "ScatterND": _nd,
    "Attention": _attention,
    "Einsum": _einsum,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
    **dict.fromkeys(("Resize", "Slice", "Pad", "Tile", "TopK", "Expand", "Trilu", "CumSum"), _resized),
}


def attribute_sizes(nodes: Sequence[onnx.NodeProto]) -> dict[Var, int]:
    """Integer attributes that are dimensions."""
    names = {name for rows in _ATTRIBUTES.values() for name, _, _ in rows}
    names |= {"kernel_shape", "group", "q_num_heads", "kv_num_heads"}
    found: dict[Var, int] = {}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in names:
                value = helper.get_attribute_value(attribute)
                for k, size in enumerate(value if isinstance(value, list) else [value]):
                    found[Var("attribute", node.name, k, attribute.name)] = int(size)
    return found
