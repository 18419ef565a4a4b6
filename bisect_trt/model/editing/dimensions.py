"""Give dimensions of a draft other sizes, consistently: weights, shapes, attributes and inputs together.

`Net` knows which dimensions are equal (`ties`). One class of them is given a size; products are
balanced, everything is sliced, and shape inference tells what follows; a dimension that follows and is
tied to more (a weight behind a convolution, say) is given its size in the next round, until nothing
changes. A contradiction ends it: the size cannot be had this way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import numpy as np
import onnx

from bisect_trt.model.cutting.constants import SHAPE_SLOTS
from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.editing.rules import tie_node
from bisect_trt.model.editing.ties import Product, Rule, Ties, Var, attribute_sizes
from bisect_trt.model.graph import bodies, is_static
from bisect_trt.model.seeded_values import is_ramp, ramp
from bisect_trt.model.walk import inner_nodes, integer, scopes
from bisect_trt.outcome import Array

Sizes = dict[Var, int]
"""Size of each class, named by the variable that stands for it."""

_ROUNDS = 12
_LARGEST_SIZE = (1 << 31) - 1


class Net:
    """The dimensions of one draft and what ties them.

    Attributes:
        ties: of all variables.
        classes: the members of each class, by the variable that stands for it.
        free: classes that can be given a size (some member is no consequence of others), size above 1.
    """

    def __init__(self, draft: Draft, *, coarse: bool = False) -> None:
        """Read the dimensions of a draft; `coarse` ties all that have the same size."""
        self.draft = draft
        dims = {name: shape for name, (_, shape) in draft.known_dims().items()}
        sizes = {
            Var("axis", name, k): size
            for name, shape in dims.items()
            for k, size in enumerate(shape)
            if size is not None
        }
        arrays = draft.weights.items()  # integers of them are read as sizes, axes or places
        small = {name: a for name, a in arrays if a.dtype.kind in "iu" and a.ndim <= 1 and a.size <= 16}
        values = {name: [int(v) for v in array.flat] for name, array in small.items()}
        sizes |= {Var("value", name, k): v for name, vs in values.items() for k, v in enumerate(vs)}
        nodes = list(inner_nodes(draft.graph))
        sizes |= attribute_sizes(nodes)
        self.ties = Ties(sizes)
        for node in nodes:
            tie_node(Rule(self.ties, node, dims, values))
        if coarse:
            self._tie_equal()
        self._inputs = {i.name for i in draft.graph.input if None not in dims.get(i.name, (None,))}
        self.classes: dict[Var, list[Var]] = {}
        for var in sizes:
            self.classes.setdefault(self.ties.find(var), []).append(var)
        self.free = [head for head, members in self.classes.items() if self._is_free(members)]

    def size(self, head: Var) -> int:
        """Return the size of a class as it is."""
        return self.ties.sizes[head]

    def resized(self, asked: Mapping[Var, int]) -> Draft | None:
        """Return a draft whose classes have these sizes and all others follow; None: it cannot be had."""
        return next(filter(None, map(self._settle, self._balanced(dict(asked), 3))), None)

    def _tie_equal(self) -> None:
        first: dict[int, Var] = {}
        for var, size in self.ties.sizes.items():
            if size > 1 and var.kind == "axis" and var not in self.ties.fixed:
                self.ties.tie(var, first.setdefault(size, var))

    def _is_free(self, members: list[Var]) -> bool:
        size = self.ties.sizes[members[0]]
        fixed = not self.ties.fixed.isdisjoint(members)
        return size > 1 and not fixed and any(self._is_root(var) for var in members)

    def _is_root(self, var: Var) -> bool:
        return var.kind != "axis" or var.name in self.draft.weights or var.name in self._inputs

    def _settle(self, sizes: Sizes, rounds: int = _ROUNDS) -> Draft | None:
        """Apply sizes, infer, and give what follows its size too, until nothing changes."""
        draft = self._apply(sizes)
        follows = None if draft is None else self._follows(draft, sizes)
        if follows is None or rounds == 0:
            return None
        if not follows and self._violated(sizes) is None:
            return draft
        ways = self._balanced({**sizes, **follows}, 3)
        return next(filter(None, (self._settle(way, rounds - 1) for way in ways)), None)

    def _follows(self, draft: Draft, sizes: Sizes) -> Sizes | None:
        """Return classes whose inferred size is another one; None: a contradiction, or nothing is left."""
        found: Sizes = {}
        for name, (_, shape) in draft.known_dims().items():
            for k, size in enumerate(shape):
                var = Var("axis", name, k)
                if size is None or var not in self.ties.sizes:
                    continue
                head = self.ties.find(var)
                if size == sizes.get(head, found.get(head, self.size(head))):
                    continue
                if head in found and size == self.size(head):
                    continue  # behind a shape that still has to change: the next round tells
                if head in sizes or head in found or size < 1:
                    return None
                found[head] = size
        return found

    def _balanced(self, sizes: Sizes, depth: int) -> Iterator[Sizes]:
        """Yield the sizes that also satisfy all products, if others of them are changed as well."""
        violated = self._violated(sizes)
        if violated is None:
            yield sizes
            return
        if depth == 0:
            return
        options = self._options(violated, sizes)
        for head, size in sorted(options, key=lambda o: o[1] > self.size(o[0])):  # what shrinks comes first
            yield from self._balanced({**sizes, head: size}, depth - 1)

    def _options(self, violated: Product, sizes: Sizes) -> Iterator[tuple[Var, int]]:
        """Yield single classes with the size that mends a product."""
        left, right, factor = violated
        for side, other, times in ((left, right, Fraction(factor)), (right, left, Fraction(1, factor))):
            heads = [self.ties.find(var) for var in side]
            target = self._product(other, sizes) * times
            for head in dict.fromkeys(heads):
                rest = math.prod(self._now(h, sizes) for h in heads if h != head)
                if head in sizes or heads.count(head) > 1 or rest < 1 or target.denominator != 1:
                    continue
                if target.numerator % rest == 0 and target >= rest:
                    yield head, int(target) // rest

    def _violated(self, sizes: Sizes) -> Product | None:
        for product in self.ties.products:
            if self._product(product.left, sizes) != self._product(product.right, sizes) * product.factor:
                return product
        return None

    def _product(self, side: Iterable[Var], sizes: Sizes) -> int:
        return math.prod(self._now(self.ties.find(var), sizes) for var in side)

    def _now(self, head: Var, sizes: Sizes) -> int:
        return sizes.get(head, self.size(head))

    def _apply(self, sizes: Sizes) -> Draft | None:
        draft = self.draft.copy()
        nodes = {node.name: node for node in inner_nodes(draft.graph)}
        declared = _declared_in_bodies(draft)
        for head, size in sizes.items():
            if not self.ties.fixed.isdisjoint(self.classes[head]):
                return None
            for var in self.classes[head]:
                if var.kind == "attribute":
                    _set_attribute(nodes[var.name], var, size)
                elif var.kind == "value":
                    _set_value(draft, var, size)
                elif var.name in declared:
                    declared[var.name].type.tensor_type.shape.dim[var.place].dim_value = size
                elif self._is_root(var) and not _set_axis(draft, var, size):
                    return None
        _refresh(draft, self.draft)
        _wrap_indices(draft)
        return draft


def _declared_in_bodies(draft: Draft) -> dict[str, onnx.ValueInfoProto]:
    """Return the inputs of bodies whose dimensions are written down."""
    infos = (info for part in list(scopes(draft.graph))[1:] for info in part.input)
    return {info.name: info for info in infos if info.type.tensor_type.shape.dim}


def _set_attribute(node: onnx.NodeProto, var: Var, size: int) -> None:
    attribute = next(a for a in node.attribute if a.name == var.attribute)
    if attribute.type == onnx.AttributeProto.INTS:
        attribute.ints[var.place] = size
    else:
        attribute.i = size


def _set_value(draft: Draft, var: Var, size: int) -> None:
    array = np.array(draft.weights[var.name])
    if var.place < array.size:  # the weight itself may have been cut shorter before
        array.reshape(-1)[var.place] = size
        draft.set_weight(var.name, array)


def _set_axis(draft: Draft, var: Var, size: int) -> bool:
    """Slice a weight, or an input and its values; False: it would have to grow."""
    if var.name in draft.weights:
        array = draft.weights[var.name]
        if var.place >= array.ndim or not 1 <= size <= min(array.shape[var.place], _LARGEST_SIZE):
            return False
        recipe, generated = draft.recipes.get(var.name), var.name in draft.generated
        draft.set_weight(var.name, _cut(array, var.place, size), recipe)
        if generated:
            draft.generated.add(var.name)
        return True
    info = next(i for i in draft.graph.input if i.name == var.name)
    dim = info.type.tensor_type.shape.dim[var.place]
    if size > dim.dim_value:
        return False
    dim.dim_value = size
    for sample in draft.samples:
        if var.name in sample:
            sample[var.name] = _cut(sample[var.name], var.place, size)
    return True


def _cut(array: Array, axis: int, size: int) -> Array:
    return array[(slice(None),) * axis + (slice(0, size),)]


def _refresh(draft: Draft, before: Draft) -> None:
    """Make what is made by a rule again for its new shape."""
    for name, recipe in list(draft.recipes.items()):
        old = draft.weights[name]
        if old.shape != before.weights[name].shape:
            draft.set_weight(name, recipe.make(old.shape, old.dtype), recipe)
    for k, (sample, origin) in enumerate(zip(draft.samples, before.samples, strict=True)):
        for name, array in list(sample.items()):
            old, made = origin[name], draft.fed.get((k, name))
            if made is not None and old.shape != array.shape:
                draft.set_input(k, name, made.make(array.shape, array.dtype), made)
            elif old.shape != array.shape and old.dtype.kind not in "OU" and is_ramp(old):
                sample[name] = ramp(array.shape, array.dtype)


_INDICES = {"Gather": 1, "GatherElements": 1, "ScatterElements": 1, "GatherND": 1, "ScatterND": 1}
_INDICES |= {"RoiAlign": 2}


def _wrap_indices(draft: Draft) -> None:
    """Bring indices inside of what they point into, which may be smaller now."""
    for node in inner_nodes(draft.graph):
        slot = _INDICES.get(node.op_type)
        if slot is None or len(node.input) <= slot or any(bodies(node)):
            continue
        name, shape = node.input[slot], _shape(draft, node.input[0])
        if shape is None:
            continue
        limit = _limits(node, shape)
        if name in draft.weights and (wrapped := _wrapped(draft.weights[name], limit)) is not None:
            draft.set_weight(name, wrapped)
        for sample in draft.samples:
            if name in sample and (wrapped := _wrapped(sample[name], limit)) is not None:
                sample[name] = wrapped


def _shape(draft: Draft, tensor: str) -> tuple[int, ...] | None:
    if tensor in draft.weights:
        return draft.weights[tensor].shape
    _, dims = draft.known_dims().get(tensor, (0, None))
    return dims if is_static(dims) else None


def _limits(node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    """Return the sizes that the last axis of the indices points into; one of them: all do."""
    if node.op_type in ("GatherND", "ScatterND"):
        return np.array(shape)
    axis = 0 if node.op_type == "RoiAlign" else integer(node, "axis", 0)
    return np.array([shape[axis % max(1, len(shape))]]) if shape else np.array([1])


def _wrapped(indices: Array, limit: Array) -> Array | None:
    """Return indices modulo the size; None when they are all inside."""
    if indices.dtype.kind not in "iu" or indices.size == 0:
        return None
    depth = indices.shape[-1] if limit.size > 1 and indices.ndim else 1
    bound = limit[:depth] if limit.size > 1 else limit
    if bound.size not in (1, depth) or (bound < 1).any():
        return None
    values = np.asarray(indices)
    if ((values < bound) & (values >= -bound)).all():
        return None
    return np.asarray(values % bound, dtype=indices.dtype)


def size_slots(draft: Draft, name: str) -> bool:
    """Return whether a weight is read as sizes or places, so that its numbers can be tried smaller."""
    return any(k in SHAPE_SLOTS.get(node.op_type, ()) for node, k in draft.readers(name))
