"""Attributes whose default the parser reads in another way than ONNX: seen without running anything.

A model whose attributes are left out and one that spells ONNX's defaults out mean the same, so they have to
give the same engine; engines of equal networks are equal byte for byte when each is made by a builder of
its own (seen with TensorRT-RTX 1.4 to 1.7; not with loops such as those of an LSTM, which say nothing here).
Seen: Trilu without `upper`, Selu without `alpha` or `gamma`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import onnx
from onnx import AttributeProto, NodeProto, defs

from bisect_trt.model.graph import is_onnx, opset_of
from bisect_trt.model.walk import copied
from bisect_trt.outcome import Failure, Stage, Symptom

_SAID = " gives another engine than with its default"

Builds = Callable[[bytes], str]
"""The engine of a serialised model as a digest; empty where there is none."""


def misread_defaults(model: bytes, engine: Builds) -> Iterator[Failure]:
    """Find one failure of the parser for each operator and attribute whose default is read otherwise.

    Args:
        model: serialised; nodes of bodies are left alone.
        engine: builds a model and gives a digest of the engine. It is called twice for the model as it is:
            where these two differ, nothing can be told, and nothing is.
    """
    proto = onnx.load_model_from_string(model)
    left_out = sorted({(n.op_type, a) for n in proto.graph.node for a in omitted(proto, n)})
    if not left_out:
        return
    plain = engine(model)
    if not plain or engine(spelled_out(proto)) == plain or engine(model) != plain:
        return
    for op, attribute in left_out:
        other = engine(spelled(proto, [(op, attribute)]))
        if other not in ("", plain):
            yield _failure(proto, op, attribute)


def is_misread_default(failure: Failure) -> bool:
    """Return whether a failure is one of these."""
    return failure.stage is Stage.PARSE and failure.signature.endswith(_SAID)


def _failure(proto: onnx.ModelProto, op: str, attribute: str) -> Failure:
    of_kind = (n for n in proto.graph.node if n.op_type == op)
    defaults = [(n.name, omitted(proto, n)[attribute]) for n in of_kind if attribute in omitted(proto, n)]
    nodes = tuple(name for name, _ in defaults if name)
    value = onnx.helper.get_attribute_value(defaults[0][1])
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    said = f"{op} without {attribute} gives another engine than with {attribute}={text}, ONNX's default"
    signature = f"{op} without {attribute}{_SAID}"
    return Failure(Stage.PARSE, Symptom.MISMATCH, signature, said, nodes, op)


def omitted(proto: onnx.ModelProto, node: NodeProto) -> dict[str, AttributeProto]:
    """Return the attributes of a node that are left out and have a default in ONNX, with that default."""
    version = opset_of(proto)
    if not is_onnx(node.domain) or not defs.has(node.op_type, version):
        return {}
    schema = defs.get_schema(node.op_type, version)
    there = {attribute.name for attribute in node.attribute}
    return {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if name not in there and attribute.default_value.type != AttributeProto.UNDEFINED
    }


def spelled(proto: onnx.ModelProto, which: list[tuple[str, str]]) -> bytes:
    """Return the model with these defaults (operator, attribute) written into its nodes."""
    made = copied(proto)
    for node in made.graph.node:
        for name, default in omitted(made, node).items():
            if (node.op_type, name) in which:
                node.attribute.append(default)
    data: bytes = made.SerializeToString()
    return data


def spelled_out(proto: onnx.ModelProto) -> bytes:
    """Return the model with every default that its nodes leave out."""
    return spelled(proto, [(n.op_type, a) for n in proto.graph.node for a in omitted(proto, n)])


def digest(plan: object) -> str:
    """Return the digest of the bytes of an engine."""
    return hashlib.sha256(memoryview(plan)).hexdigest()  # type: ignore[arg-type]
