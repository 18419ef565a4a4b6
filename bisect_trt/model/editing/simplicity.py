"""How far a candidate is from the simplest one: the order that decides which edits are kept."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import IntEnum
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from bisect_trt.model.editing.attributes import attribute_values, is_plain, value_texts
from bisect_trt.model.graph import dims_of
from bisect_trt.model.seeded_values import Recipe, is_ramp, is_uniform, three_digits
from bisect_trt.model.walk import inner_nodes, scopes
from bisect_trt.outcome import Array

_TENSOR = re.compile(r"[xywstbc]\d+(?:_shape)?")
_FILL = re.compile(r"[xywstbc]\d+_fill")

_INPUT = 64  # what a graph input counts besides its values, in bytes: its line in the script
_WIDE = {TensorProto.DOUBLE: 2, TensorProto.INT64: 1}
_LARGEST_COUNT = 1 << 20  # a number counts at most this much


def simplicity(
    proto: onnx.ModelProto,
    weights: Mapping[str, Array],
    generated: AbstractSet[str],
    recipes: Mapping[str, Recipe],
    samples: Sequence[Mapping[str, Array]],
    made: Mapping[tuple[int, str], Recipe],
) -> tuple[int, ...]:
    """Return figures of a model that are compared from the first one on; smaller is simpler.

    Values that have to travel are those that are not one repeated value, a ramp or a recipe.
    """
    graph = proto.graph
    fed = [(made.get((k, n)), a) for k, sample in enumerate(samples) for n, a in sample.items()]
    levels = [level(array, recipes.get(name)) for name, array in weights.items()]
    levels += [level(array, recipe) for recipe, array in fed]
    levels += [level(array, recipe) for array, recipe in attribute_values(graph)]
    declared = [dims_of(info.type) or () for info in (*graph.input, *graph.output)]
    shapes = [array.shape for array in weights.values()]
    shapes += [tuple(d for d in dims if isinstance(d, int)) for dims in declared]
    in_bodies = sum(1 for _ in inner_nodes(graph)) - len(graph.node)
    travelling = sum(carried for carried, _ in levels) + _INPUT * len(graph.input) + len(samples)
    big = [a for name, a in weights.items() if name not in generated and a.nbytes > 256]
    constants = [array for array in big if array.dtype.kind not in "OU" and is_uniform(array)]
    return (
        len(graph.output),
        in_bodies,
        travelling,
        sum(map(math.prod, shapes)),
        sum(map(sum, shapes)),
        sum(odd for _, odd in levels),
        sum(map(_numbers, weights.values())),
        *_attributes(graph),
        _width(graph, weights),
        sum(o.version for o in proto.opset_import) + proto.ir_version,
        len(proto.opset_import),
        _strings(proto) + _misnamed(proto, weights),
        len(constants),
        len(generated),
    )


class Odd(IntEnum):
    """How odd a value is; the smaller, the simpler."""

    ZEROS = 0
    ONES = 1
    SHORT = 2  # one value of at most three digits
    ONE = 3  # one value
    RAMP = 4
    SEEDED = 5
    SPARSE = 6
    ROUNDED = 7
    ANY = 8


def level(array: Array, recipe: Recipe | None) -> tuple[int, Odd]:
    """Return the bytes that have to travel for a value, and how odd it is."""
    if array.size == 0:
        return 0, Odd.ZEROS
    if array.dtype.kind in "OU":
        return sum(len(str(item)) for item in array.flat), Odd.ROUNDED
    whole = array.dtype.kind in "iu" and array.size <= 64
    if is_uniform(array):
        return array.nbytes if whole else 0, _of_one(array.reshape(-1)[0])
    if recipe is not None:
        return 32, Odd.SEEDED
    if whole:  # sizes and axes: of [2, 2] and [2, 1] neither travels lighter
        return array.nbytes, Odd.ROUNDED
    if is_ramp(array):
        return 0, Odd.RAMP
    used = int(np.count_nonzero(array))
    odd = Odd.SPARSE if 4 * used <= array.size else Odd.ROUNDED if _is_rounded(array) else Odd.ANY
    return used * array.dtype.itemsize, odd


def _of_one(value: Any) -> Odd:
    if value == 0 or value == 1:
        return Odd.ZEROS if value == 0 else Odd.ONES
    with np.errstate(all="ignore"):
        wide = float(value)
        short = np.array(three_digits(wide)).astype(np.asarray(value).dtype)
    return Odd.SHORT if short == value or not math.isfinite(wide) or wide.is_integer() else Odd.ONE


def _is_rounded(array: Array) -> bool:
    """Return whether the last bits of floats are not used: fewer digits to print, better to compress."""
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        return True
    wide = np.asarray(array)
    with np.errstate(all="ignore"):
        return bool(np.array_equal(wide, wide.astype(np.float16).astype(wide.dtype), equal_nan=True))


def _numbers(array: Array) -> int:
    """Say how far small integers (sizes, axes, counts) are from 0."""
    if array.dtype.kind not in "iu" or array.size > 64:
        return 0
    return sum(map(_count, array.flat))


def _attributes(graph: onnx.GraphProto) -> tuple[int, int]:
    """Return the number of attributes and wired inputs, and how far their values are from 0 and 1."""
    attributes = [attribute for node in inner_nodes(graph) for attribute in node.attribute]
    wired = sum(1 for node in inner_nodes(graph) for name in (*node.input, *node.output) if name)
    return len(attributes) + wired, sum(map(_far, attributes))


def _far(attribute: AttributeProto) -> int:
    if attribute.type == AttributeProto.INT:
        return _count(attribute.i)
    if attribute.type == AttributeProto.FLOAT:
        return _of_one(np.float32(attribute.f))
    floats = sum(1 + _of_one(np.float32(value)) for value in attribute.floats)
    return floats + sum(1 + _count(value) for value in attribute.ints)


def _count(number: int) -> int:
    return min(abs(int(number)), _LARGEST_COUNT)


def _width(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> int:
    total = sum(_WIDE.get(info.type.tensor_type.elem_type, 0) for info in (*graph.input, *graph.output))
    return total + sum({"float64": 2, "int64": 1}.get(a.dtype.name, 0) for a in weights.values())


def _strings(proto: onnx.ModelProto) -> int:
    """Count texts that mean nothing, and names that are not as `reduction.simplify.names` gives them."""
    total = sum(len(text) for text in texts(proto))
    total += sum(len(text) + (0 if is_plain(text) else 100) for text in value_texts(proto.graph))
    for node in inner_nodes(proto.graph):
        own = node.name.startswith(node.op_type.lower()) and node.name[len(node.op_type) :].isdigit()
        total += len(node.name) + (0 if own or _FILL.fullmatch(node.name) else 100)
        names = [name for name in (*node.input, *node.output) if name]
        total += sum(len(name) + (0 if _TENSOR.fullmatch(name) else 100) for name in names)
    return total


def _misnamed(proto: onnx.ModelProto, weights: Mapping[str, Array]) -> int:
    """Return inputs, outputs and weights that are not numbered from 0."""
    graph = proto.graph
    sides = (("x", [i.name for i in graph.input]), ("y", [o.name for o in graph.output]), ("w", weights))
    return sum(name != f"{letter}{k}" for letter, names in sides for k, name in enumerate(names))


def texts(proto: onnx.ModelProto) -> Iterator[str]:
    """Yield doc strings, metadata, producer, model domain and version; in bodies too."""
    yield from (proto.producer_name, proto.producer_version, proto.domain, proto.doc_string)
    yield from (f"{p.key}{p.value}" for p in proto.metadata_props)
    yield f"{proto.model_version or ''}"
    for graph in scopes(proto.graph):
        infos = (*graph.input, *graph.output, *graph.value_info)
        holders: list[Any] = [graph, *infos, *graph.node]
        for holder in holders:
            yield holder.doc_string
            yield from (f"{p.key}{p.value}" for p in getattr(holder, "metadata_props", ()))
        for info in infos:
            shape = info.type.tensor_type.shape
            yield from (d.dim_param + d.denotation for d in shape.dim)
