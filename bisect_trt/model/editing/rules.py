"""What each operator asks of the dimensions around it, see `ties`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, takewhile

from onnx import ValueInfoProto

from bisect_trt.model.editing.ties import (
    ATTRIBUTES,
    PATTERNS,
    Dims,
    Rule,
    Var,
    axis,
    same_axes,
    tie_axes,
    tie_pattern,
)
from bisect_trt.model.graph import bodies
from bisect_trt.model.walk import integer, integers

_SIZES = {"Reshape": 1, "Expand": 1, "Resize": 3, "ConstantOfShape": 0, "CenterCropPad": 1}
"""Inputs that hold the dimensions of the output."""

_LISTS: dict[str, tuple[int, ...]] = {
    **{op: (slot,) for op, slot in _SIZES.items()},
    **dict.fromkeys(("Tile", "Split", "Squeeze", "Unsqueeze", "TopK"), (1,)),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
}
"""Inputs that have an element for each of certain axes: their length stays."""


def tie_node(rule: Rule) -> None:
    """Add what one node asks for."""
    op = rule.node.op_type
    slots = (1,) if op.startswith("Reduce") else _LISTS.get(op, ())
    rule.ties.fixed.update(axis(rule.input(k), 0) for k in slots if rule.input(k))
    if op in _SIZES and (sizes := rule.input(_SIZES[op])):
        for k in range(len(rule.values.get(sizes, ()))):
            rule.ties.tie(axis(rule.node.output[0], k), Var("value", sizes, k))
    for name, index, at in ATTRIBUTES.get(op, ()):
        rule.ties.tie(axis(rule.node.output[0], at), rule.of(name, index))
    if op in _RULES:
        _RULES[op](rule)
    elif op in PATTERNS:
        tie_pattern(rule, PATTERNS[op])
    elif op.startswith("Reduce") or op in ("ArgMax", "ArgMin"):
        _reduce(rule)
    elif _is_elementwise(rule):
        _broadcast(rule)
    else:
        _same_valued(rule)


def _is_elementwise(rule: Rule) -> bool:
    """Return whether each output's shape is the broadcast of all inputs."""
    inputs, outputs = list(filter(None, rule.node.input)), list(filter(None, rule.node.output))
    known = all(t in rule.dims for t in (*inputs, *outputs))
    if not known or not inputs or any(bodies(rule.node)):
        return False
    rank = max(rule.rank(t) for t in inputs)
    if any(rule.rank(t) != rank for t in outputs):
        return False
    full = rule.dims[outputs[0]]
    pairs = (zip(d, full[rank - len(d) :], strict=True) for d in (rule.dims[t] for t in (*inputs, *outputs)))
    return all(a in (b, 1) for pair in pairs for a, b in pair)


def _broadcast(rule: Rule) -> None:
    for out in rule.node.output:
        for tensor in rule.node.input:
            rank = rule.rank(tensor)
            tie_axes(rule, tensor, out, range(rank), rule.rank(out) - rank)


def _same_valued(rule: Rule) -> None:
    """Take equal dimensions to be one: nothing is known of the operator."""
    seen: dict[int, Var] = {}
    for tensor in (*rule.node.input, *rule.node.output):
        for k, size in enumerate(rule.dims.get(tensor, ())):
            if size is not None and size > 1:
                rule.ties.tie(axis(tensor, k), seen.setdefault(size, axis(tensor, k)))


def _reduce(rule: Rule) -> None:
    """Tie the axes that stay, in order; with `keepdims=0` the reduced ones are missing."""
    one, out = rule.input(0), rule.node.output[0]
    if rule.rank(one) == rule.rank(out):
        same_axes(rule, one, out)
        return
    kept = sorted(set(range(rule.rank(one))) - _axes(rule, 1))
    for to, k in enumerate(kept):
        rule.ties.tie(axis(one, k), axis(out, to))


def _axes(rule: Rule, slot: int) -> set[int]:
    """Return axes from an attribute or a constant input, not negative; all when not given."""
    rank = rule.rank(rule.input(0))
    found = [a for a in rule.node.attribute if a.name in ("axes", "axis")]
    given: Sequence[int] = rule.values.get(rule.input(slot), ())
    if found:
        given = list(found[0].ints) or [found[0].i]
    return {k % rank for k in given} if rank and given else set(range(rank))


def _reshape(rule: Rule) -> None:
    """Tie equal axes at both ends; the sizes between them have the same product."""
    one, out = rule.input(0), rule.node.output[0]
    a, b = rule.dims.get(one, ()), rule.dims.get(out, ())
    start = _alike(a, b)
    end = _alike(a[start:][::-1], b[start:][::-1])
    tie_axes(rule, one, out, range(start))
    tie_axes(rule, one, out, range(len(a) - end, len(a)), len(b) - len(a))
    left = [axis(one, k) for k in range(start, len(a) - end)]
    right = [axis(out, k) for k in range(start, len(b) - end)]
    if left or right:
        rule.ties.product(left, right)


def _alike(one: Dims, other: Dims) -> int:
    """Return how many dimensions are the same from the first one on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _transpose(rule: Rule) -> None:
    one, out = rule.input(0), rule.node.output[0]
    for to, k in enumerate(integers(rule.node, "perm") or reversed(range(rule.rank(one)))):
        rule.ties.tie(axis(one, k), axis(out, to))


def _squeeze(rule: Rule) -> None:
    """Tie the axes that stay, which keep their order."""
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
    tie_axes(rule, a, out, range(ra - 2), ro - ra)
    tie_axes(rule, b, out, range(rb - 2), ro - rb)
    tie_axes(rule, a, b, range(max(0, ra - rb), ra - 2), rb - ra)


def _gemm(rule: Rule) -> None:
    first = "KM" if integer(rule.node, "transA", 0) else "MK"
    second = "NK" if integer(rule.node, "transB", 0) else "KN"
    third = "N" if rule.rank(rule.input(2)) == 1 else "MN"
    tie_pattern(rule, f"{first},{second},{third}->MN")


def _concat(rule: Rule) -> None:
    """Tie all axes but one, which are equal everywhere; Split is the same backwards."""
    joined = rule.node.input if rule.node.op_type == "Concat" else rule.node.input[:1]
    tensors = [*rule.node.output, *joined]
    rank = rule.rank(tensors[0])
    along = integer(rule.node, "axis", 0) % rank if rank else 0
    for one, other in pairwise(tensors):
        tie_axes(rule, one, other, (k for k in range(rank) if k != along))


def _gather(rule: Rule) -> None:
    """Tie the axes of the data, which stand around those of the indices in the output."""
    data, indices, out = rule.input(0), rule.input(1), rule.node.output[0]
    along = integer(rule.node, "axis", 0) % max(1, rule.rank(data))
    tie_axes(rule, data, out, range(along))
    tie_axes(rule, indices, out, range(rule.rank(indices)), along)
    tie_axes(rule, data, out, range(along + 1, rule.rank(data)), rule.rank(indices) - 1)


def _elements(rule: Rule) -> None:
    """Tie indices and output of GatherElements; data and output, indices and updates of ScatterElements."""
    data, indices, out = rule.input(0), rule.input(1), rule.node.output[0]
    if rule.node.op_type == "GatherElements":
        same_axes(rule, indices, out)
    else:
        same_axes(rule, data, out)
        same_axes(rule, indices, rule.input(2))


def _nd(rule: Rule) -> None:
    """Tie slices of the data with the places that the last axis of the indices names."""
    data, indices = rule.input(0), rule.input(1)
    slices = rule.node.output[0] if rule.node.op_type == "GatherND" else rule.input(2)
    if rule.node.op_type == "ScatterND":
        same_axes(rule, data, rule.node.output[0])
    batch, places = integer(rule.node, "batch_dims", 0), rule.rank(indices) - 1
    if places < 0 or (depth := rule.dims[indices][-1]) is None:
        return
    tie_axes(rule, indices, slices, range(places))
    tie_axes(rule, data, indices, range(batch))
    tie_axes(rule, data, slices, range(batch + depth, rule.rank(data)), places - batch - depth)


def _resized(rule: Rule) -> None:
    """Tie axes that have the same size on both sides."""
    same_axes(rule, rule.input(0), rule.node.output[0])
    if rule.node.op_type == "TopK":
        along = integer(rule.node, "axis", -1) % max(1, rule.rank(rule.input(0)))
        for out in rule.node.output:
            rule.ties.tie(axis(out, along), Var("value", rule.input(1), 0))


def _attention(rule: Rule) -> None:
    ranks = [rule.rank(rule.input(k)) for k in range(3)]
    if ranks == [4, 4, 4]:
        tie_pattern(rule, "BHSD,BKTD,BKTV->BHSV")
    else:
        tie_pattern(rule, "BSX,BTY,BTZ->BSW")
    for k, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        if ranks[0] == 4:
            rule.ties.tie(axis(rule.input(k), 1), rule.of(name))


def _einsum(rule: Rule) -> None:
    equation = next((a.s.decode() for a in rule.node.attribute if a.name == "equation"), "")
    if "." in equation or "->" not in equation:
        _same_valued(rule)
    else:
        tie_pattern(rule, equation.replace(" ", ""))


def _blocks(rule: Rule) -> None:
    size = integer(rule.node, "blocksize", 1)
    wide, narrow = rule.input(0), rule.node.output[0]
    if rule.node.op_type == "SpaceToDepth":
        wide, narrow = narrow, wide
    rule.ties.tie(axis(wide, 0), axis(narrow, 0))
    rule.ties.product([axis(wide, 1)], [axis(narrow, 1)], size * size)


def _if(rule: Rule) -> None:
    """Tie the outputs with what each branch makes."""
    for branch in bodies(rule.node):
        for inner, out in zip(branch.output, rule.node.output, strict=False):
            same_axes(rule, inner.name, out)


def _loop(rule: Rule) -> None:
    """Tie what states come in with, carry and go out with; what is collected gets a first axis."""
    node, body = rule.node, bodies(rule.node)[0]
    states = len(node.input) - 2
    _carried(rule, node.input[2:], _names(body.input)[2:], _names(body.output)[1:], node.output)
    for inner, out in zip(body.output[1 + states :], node.output[states:], strict=False):
        _collected(rule, inner.name, out, 0)


def _scan(rule: Rule) -> None:
    """Tie as for Loop; a scanned input loses the axis along which it is read, and all of these are equal."""
    node, body = rule.node, bodies(rule.node)[0]
    scanned = integer(rule.node, "num_scan_inputs", len(node.input))
    states = len(node.input) - scanned
    _carried(rule, node.input[:states], _names(body.input), _names(body.output), node.output)
    steps: list[Var] = []
    sides = (
        ("scan_input_axes", zip(body.input[states:], node.input[states:], strict=False)),
        ("scan_output_axes", zip(body.output[states:], node.output[states:], strict=False)),
    )
    for name, pairs in sides:
        axes = integers(node, name)
        for k, (inner, outer) in enumerate(pairs):
            at = (axes[k] if k < len(axes) else 0) % max(1, rule.rank(outer))
            _collected(rule, inner.name, outer, at)
            steps.append(axis(outer, at))
    for one, other in pairwise(steps):
        rule.ties.tie(one, other)


def _names(values: Iterable[ValueInfoProto]) -> list[str]:
    return [value.name for value in values]


def _carried(rule: Rule, given: Sequence[str], *others: Sequence[str]) -> None:
    """Tie each state that is given; ONNX Runtime runs a node that has fewer outputs than its body."""
    for k, first in enumerate(given):
        state = [first, *(names[k] for names in others if k < len(names))]
        for one, other in pairwise(filter(None, state)):
            same_axes(rule, one, other)


def _collected(rule: Rule, inner: str, outer: str, at: int) -> None:
    """Tie `outer`, which is many of `inner`, one behind the other along the axis `at`."""
    tie_axes(rule, inner, outer, range(at))
    tie_axes(rule, inner, outer, range(at, rule.rank(inner)), 1)


_RULES: dict[str, Callable[[Rule], None]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "Transpose": _transpose,
    "Gemm": _gemm,
    "Gather": _gather,
    "Attention": _attention,
    "Einsum": _einsum,
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
    **dict.fromkeys(("MatMul", "MatMulInteger"), _matmul),
    **dict.fromkeys(("Concat", "Split"), _concat),
    **dict.fromkeys(("GatherElements", "ScatterElements"), _elements),
    **dict.fromkeys(("GatherND", "ScatterND"), _nd),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    **dict.fromkeys(("Resize", "Slice", "Pad", "Tile", "TopK", "Expand", "Trilu", "CumSum"), _resized),
}
