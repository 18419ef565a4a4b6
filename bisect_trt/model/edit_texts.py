"""Texts in a model that are values: of string tensors, and of attributes that are no words of ONNX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import onnx
from onnx import AttributeProto, TensorProto

from bisect_trt.model.edit_bodies import inner_nodes, scopes

TAKE_TEXTS = frozenset({"RegexFullMatch", "StringSplit", "StringNormalizer", "TfIdfVectorizer"})
"""Of ONNX's own operators, those with attributes that may hold any text."""

_PLAIN = re.compile(r"(?:s\d+)?")


def is_plain(text: str) -> bool:
    """Whether a text tells nothing: empty, or `s0`, `s1`, ..."""
    return _PLAIN.fullmatch(text) is not None


def takes_texts(node: onnx.NodeProto) -> bool:
    """Whether texts of its attributes may be the user's; else they are a few words that ONNX knows."""
    return node.domain not in ("", "ai.onnx") or node.op_type in TAKE_TEXTS


def texts_of(attribute: AttributeProto) -> list[str]:
    """Texts of an attribute, of a tensor in it too."""
    raw = [*([attribute.s] if attribute.type == AttributeProto.STRING else []), *attribute.strings]
    return [text.decode(errors="replace") for text in (*raw, *attribute.t.string_data)]


def value_texts(graph: onnx.GraphProto) -> Iterator[str]:
    """All texts that `replace_texts` changes."""
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
