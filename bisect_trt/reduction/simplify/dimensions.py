"""Every dimension towards 1, consistently through the graph."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bisect_trt.model.editing.dimensions import Net, size_slots
from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.editing.ties import Var
from bisect_trt.model.walk import inner_nodes, refill
from bisect_trt.outcome import Verdict
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.propose import Edit, attempt, attempt_each, best_draft, verdict_of

_WINDOWS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"}
_PADS = ("pads", "auto_pad", "output_padding", "output_shape")
_ALL = (*_PADS, "dilations", "strides")

EXACT = 16  # up to this size every smaller one is tried


def smaller_dimensions(problem: Problem) -> None:
    """Make all free dimensions 1 at once, then each 1 or the smallest that still fails.

    Dimensions that have to be equal change together. Where a dimension does not shrink by itself, all
    of its size are tried together, for operators whose rules are not known. No dimension gets smaller than
    a size that works: what fails below may be another failure.
    """
    if not may_leap(problem):
        _gaps(problem, Net(best_draft(problem), coarse=True))  # to be told, whatever the budget allows for
    elif not attempt(problem, _all_at_once(best_draft(problem))):
        _halves(problem)
    names = [n.name for n in inner_nodes(best_draft(problem).graph) if n.op_type in _WINDOWS]
    attempt_each(problem, (partial(_point, name, dropped) for name in names for dropped in (_ALL, _PADS)))
    for coarse in (False, True):
        _each(problem, coarse)
    _numbers(problem)


def sizes_below(size: int) -> Iterator[int]:
    """Yield sizes to try, smallest first: all up to `EXACT`, then wider steps, then narrow ones at `size`."""
    wide = [EXACT << n for n in range(1, size.bit_length()) if EXACT << n < size]
    largest = max(wide, default=EXACT)
    narrow = [less for n in reversed(range(size.bit_length())) if (less := size - (1 << n)) > largest]
    yield from (*range(1, min(size, EXACT + 1)), *wide, *narrow)


def may_leap(problem: Problem) -> bool:
    """Return whether only the present sizes and 1 work when all free dimensions change together."""
    if problem.simplifying.sizes:
        return False
    net = Net(best_draft(problem))
    largest = max((net.size(head) for head in net.free), default=1)
    for k in range(1, largest.bit_length()):
        sizes = {head: max(1, net.size(head) >> k) for head in net.free}
        smaller = partial(_resize, net, sizes, f"all free sizes / {1 << k}")
        if verdict_of(problem, smaller) is Verdict.VANISHES:
            return False
    return True


def _floor(problem: Problem, net: Net, head: Var) -> int:
    """Return the largest size below that of a dimension, of its halves, quarters, ..., that works; else 0."""
    size, failing = net.size(head), [net.size(head)]
    while failing[-1] > 1:
        less = failing[-1] // 2
        verdict = verdict_of(problem, partial(_resize, net, {head: less}, f"{size} -> {less}"))
        if verdict is Verdict.VANISHES:
            _tell(problem, net, head, failing, less)
            return less
        failing.append(less)
    return 0


def _tell(problem: Problem, net: Net, head: Var, failing: list[int], works: int) -> None:
    """Remember for the report which sizes fail and which work."""
    place = next((v for v in net.classes[head] if v.kind == "axis"), head)
    name, text = best_draft(problem).called(place.name), ", ".join(map(str, failing))
    verb = "fail" if len(failing) > 1 else "fails"
    axis = f"axis {place.place} of {name}"
    problem.simplifying.tell_size(axis, works, f"{axis}: {text} {verb}, {works} works")


def _all_at_once(draft: Draft) -> Iterator[Edit]:
    """Make everything 1, else 2, else half."""
    net = Net(draft)
    for size in (1, 2):
        larger = {head: size for head in net.free if net.size(head) > size}
        yield partial(_resize, net, larger, f"all free sizes {size}")
    yield all_halved


def all_ones(draft: Draft) -> str:
    """Make every window and every free dimension 1."""
    windows = [node.name for node in inner_nodes(draft.graph) if node.op_type in _WINDOWS]
    said = [text for name in windows if (text := _point(name, _ALL, draft))]
    net = Net(draft)
    said.append(_resize(net, dict.fromkeys(net.free, 1), "all free sizes 1", draft))
    return "; ".join(text for text in said if text)


def all_halved(draft: Draft) -> str:
    """Halve every free dimension."""
    net = Net(draft)
    return _resize(net, {head: -(-net.size(head) // 2) for head in net.free}, "all free sizes halved", draft)


def _halves(problem: Problem) -> None:
    """Halve all free dimensions that follow each other after 1 at once: a half, a quarter, down to two."""
    span = (len(Net(best_draft(problem)).free) + 1) // 2
    while span > 1:
        start = 0
        while start < len((net := Net(best_draft(problem))).free):
            some = dict.fromkeys(net.free[start : start + span], 1)
            kept = attempt(problem, [partial(_resize, net, some, f"{len(some)} free sizes 1")])
            start += 0 if kept else span
        span //= 2


def _point(name: str, dropped: tuple[str, ...], draft: Draft) -> str:
    """Make a window one element large: kernel and padding can only shrink together."""
    node = draft.node(name)
    if node is None:
        return ""
    dims = [a for a in node.attribute if a.name == "kernel_shape"]
    weight = draft.weights.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type.startswith("Conv"):
        if weight is None:
            return ""
        recipe, generated = draft.recipes.get(node.input[1]), node.input[1] in draft.generated
        small = weight[(slice(None), slice(None), *(slice(0, 1),) * (weight.ndim - 2))]
        values = recipe.make(small.shape, small.dtype) if recipe is not None else small
        draft.set_weight(node.input[1], values, recipe)
        if generated:
            draft.generated.add(node.input[1])
    for attribute in dims:
        attribute.ints[:] = [1] * len(attribute.ints)
    refill(node.attribute, [a for a in node.attribute if a.name not in dropped])
    return f"{node.op_type} with a window of 1"


def _resize(net: Net, sizes: dict[Var, int], what: str, draft: Draft) -> str:
    made = net.resized(sizes) if sizes else None
    if made is None:
        return ""
    draft.proto, draft.weights, draft.samples = made.proto, made.weights, made.samples
    draft.generated, draft.recipes, draft.fed = made.generated, made.recipes, made.fed
    return what


def _each(problem: Problem, coarse: bool) -> None:
    """Shrink one class after the other, of what is best by then; each change makes new classes."""
    done: set[tuple[Var, int]] = set()
    gaps = _gaps(problem, Net(best_draft(problem), coarse=coarse))
    while True:
        net = Net(best_draft(problem), coarse=coarse)
        left = (h for h in net.free if (h, net.size(h)) not in done and _is_dimension(net, h))
        if (head := next(left, None)) is None:
            return
        size = net.size(head)
        lowest = gaps.get(head, 0) or _floor(problem, net, head)
        below = (k for k in sizes_below(size) if k > lowest and _keeps(problem, net, {head: k}, gaps))
        if not attempt(problem, (partial(_resize, net, {head: k}, f"{size} -> {k}") for k in below)):
            done.add((head, size))


def _gaps(problem: Problem, net: Net) -> dict[Var, int]:
    """Return the dimensions that have a smaller size that works, with that size."""
    heads = [head for head in net.free if _is_dimension(net, head) and net.size(head) > 1]
    return {head: works for head in heads if (works := _floor(problem, net, head))}


def _keeps(problem: Problem, net: Net, sizes: dict[Var, int], gaps: dict[Var, int]) -> bool:
    """Return whether what works still does with these sizes: if not, it fails for another reason there."""
    others = {head: works for head, works in gaps.items() if head in net.free and head not in sizes}
    smaller = ({**sizes, head: works} for head, works in others.items() if net.size(head) > works)
    edits = (partial(_resize, net, some, "what works") for some in smaller)
    return all(verdict_of(problem, edit) is not Verdict.REPRODUCES for edit in edits)


def _is_dimension(net: Net, head: Var) -> bool:
    """Return whether a class has more to it than a number in a weight (`_numbers` tries those)."""
    return any(var.kind != "value" for var in net.classes[head])


def _numbers(problem: Problem) -> None:
    """Shrink numbers that are read as sizes or places and are tied to nothing: the end of a slice, say."""
    for name in list(best_draft(problem).weights):
        draft = best_draft(problem)
        if name not in draft.weights or not size_slots(draft, name):
            continue
        for k in range(draft.weights[name].size):
            net = Net(best_draft(problem))
            head = net.ties.find(Var("value", name, k))
            if head in net.free and not _is_dimension(net, head):
                size = net.size(head)
                below = sizes_below(min(size, 1 << 16))
                attempt(problem, (partial(_resize, net, {head: n}, f"{size} -> {n}") for n in below))
