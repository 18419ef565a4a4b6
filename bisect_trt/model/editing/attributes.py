"""Options and values: numbers in attributes that are values, and inputs that are options.

Texts in a model that are values: of string tensors, and of attributes that are no words of ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from bisect_trt.model.graph import is_onnx
from bisect_trt.model.seeded_values import Recipe, parse
from bisect_trt.model.walk import inner_nodes, scopes
from bisect_trt.outcome import Array

LONG = 64
"""A list of at most so many numbers is an option."""

_OPTIONS = {
    "NonMaxSuppression": (2, 3, 4),
    "Range": (0, 1, 2),
    **dict.fromkeys(("Clip", "OneHot"), (1, 2)),
    **dict.fromkeys(("Dropout", "Upsample"), (1,)),
    **dict.fromkeys(("Pad", "Resize"), (1, 2, 3)),
}
"""Inputs that were attributes in older operator sets."""

_DIVISORS = {
    "Reciprocal": (0,),
    **dict.fromkeys(("Div", "Mod", "QuantizeLinear"), (1,)),
    **dict.fromkeys(("QLinearAdd", "QLinearConv", "QLinearMatMul", "QLinearMul"), (6,)),
}
"""Inputs that an operator of ONNX or ONNX Runtime divides by: divisors, scales of what is quantised."""


def option_inputs(node: onnx.NodeProto) -> list[str]:
    """Return inputs that were attributes in older operator sets: scales of a Resize, ends of a Clip, ..."""
    slots = _OPTIONS.get(node.op_type, ()) if is_onnx(node.domain) else ()
    return [node.input[k] for k in slots if k < len(node.input)]


def divisor_inputs(node: onnx.NodeProto) -> list[str]:
    """Return the inputs that a node divides by."""
    return [node.input[k] for k in _DIVISORS.get(node.op_type, ()) if k < len(node.input)]


def values_of(attribute: AttributeProto) -> Array | None:
    """Return the numbers of an attribute that holds values; None when it holds none."""
    if attribute.type == AttributeProto.TENSOR and attribute.t.data_type != TensorProto.STRING:
        inside = attribute.t.data_location != TensorProto.EXTERNAL
        return numpy_helper.to_array(attribute.t) if inside else None
    if len(attribute.floats) > LONG:
        return np.array(attribute.floats, np.float32)
    return np.array(attribute.ints, np.int64) if len(attribute.ints) > LONG else None


def give_values(attribute: AttributeProto, values: Array, recipe: Recipe | None) -> None:
    """Put other numbers of the same type and shape into an attribute, in place."""
    if attribute.type == AttributeProto.TENSOR:
        attribute.t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values)))
    elif attribute.floats:
        attribute.floats[:] = values.tolist()
    else:
        attribute.ints[:] = values.tolist()
    attribute.doc_string = recipe.text if recipe is not None else ""


def attribute_values(graph: onnx.GraphProto) -> Iterator[tuple[Array, Recipe | None]]:
    """Yield all such numbers, those of bodies too."""
    for node in inner_nodes(graph):
        for attribute in node.attribute:
            values = values_of(attribute)
            if values is not None:
                yield values, parse(attribute.doc_string)


TAKE_TEXTS = frozenset({"RegexFullMatch", "StringSplit", "StringNormalizer", "TfIdfVectorizer"})
"""Of ONNX's own operators, those with attributes that may hold any text."""

_PLAIN = re.compile(r"(?:s\d+)?")


def is_plain(text: str) -> bool:
    """Return whether a text carries no information: empty, or `s0`, `s1`, ..."""
    return _PLAIN.fullmatch(text) is not None


def takes_texts(node: onnx.NodeProto) -> bool:
    """Return whether texts of its attributes may be the user's; else they are a few words that ONNX knows."""
    return not is_onnx(node.domain) or node.op_type in TAKE_TEXTS


def texts_of(attribute: AttributeProto) -> list[str]:
    """Return the texts of an attribute, of a tensor in it too."""
    raw = [*([attribute.s] if attribute.type == AttributeProto.STRING else []), *attribute.strings]
    return [text.decode(errors="replace") for text in (*raw, *attribute.t.string_data)]


def value_texts(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield all texts that `replace_texts` changes."""
    for holder, name in _holders(graph):
        old = getattr(holder, name)
        yield from (text.decode(errors="replace") for text in ([old] if isinstance(old, bytes) else old))


def replace_texts(graph: onnx.GraphProto, new: Callable[[str], str]) -> int:
    """Change the texts of string tensors and of such attributes in place; how many changed."""
    changed = 0
    for holder, name in _holders(graph):
        old = getattr(holder, name)
        texts = [old] if isinstance(old, bytes) else list(old)
        made = [new(text.decode(errors="replace")).encode() for text in texts]
        changed += sum(a != b for a, b in zip(texts, made, strict=True))
        if isinstance(old, bytes):
            setattr(holder, name, made[0])
        else:
            old[:] = made
    return changed


def _holders(graph: onnx.GraphProto) -> Iterator[tuple[TensorProto | AttributeProto, str]]:
    for part in scopes(graph):
        yield from ((t, "string_data") for t in part.initializer if t.data_type == TensorProto.STRING)
    for node in inner_nodes(graph):
        for attribute in node.attribute if takes_texts(node) else ():
            if attribute.type == AttributeProto.STRING:
                yield attribute, "s"
            elif attribute.type == AttributeProto.STRINGS:
                yield attribute, "strings"
            elif attribute.type == AttributeProto.TENSOR and attribute.t.string_data:
                yield attribute.t, "string_data"
