"""Attributes that the parser ignores: seen without running an engine.

A model and the same model without one of its attributes mean two things where ONNX Runtime gives other
outputs for them. Then their engines have to differ, whatever they compute; when they are equal byte for byte,
the attribute did not reach the network. Only attributes with another value than ONNX's default are asked:
of a default that is read otherwise `defaults` tells. Seen: SpaceToDepth with mode=CRD (operator set 28).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, NodeProto, defs

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.graph import is_onnx, opset_of
from bisect_trt.model.skeleton import inferred
from bisect_trt.model.walk import copied, refill
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.targets.base import as_declared
from bisect_trt.targets.tensorrt.defaults import Builds, misread_defaults

_SAID = " changes nothing in the engine"
_NO_MATTER = frozenset({"sorted", "seed"})
"""Attributes that a parser may ignore: what it gives is then one of the answers that ONNX allows."""

_MOST_VALUES = 3  # of one attribute, of each of which a node is built alone
_MOST_NODES = 50  # for ONNX's own evaluator

Values = Sequence[Mapping[str, Any]]
Gives = Callable[[bytes], Values | None]
"""The outputs of a serialised model on ONNX Runtime, for each sample; None where it cannot be run."""


def deep_failures(candidate: Candidate, engine: Builds) -> Iterator[Failure]:
    """Yield what the parser misreads without refusing it: wrong defaults, then ignored attributes."""
    model = candidate.model
    yield from misread_defaults(model, engine)
    yield from ignored_attributes(model, engine, _on_reference(candidate))


def ignored_attributes(model: bytes, engine: Builds, gives: Gives) -> Iterator[Failure]:
    """Yield one failure of the parser for each operator and attribute that does not reach the engine.

    Args:
        model: serialised; nodes of bodies are left alone.
        engine: builds a model and gives a digest of the engine.
        gives: asked before an engine is built: what makes no difference there need not make one here.
    """
    proto = onnx.load_model_from_string(model)
    asked = sorted({(n.op_type, a) for n in proto.graph.node for a in given(proto, n)})
    asked = _suspects(proto, asked, engine)
    usual, again = (gives(model), gives(model)) if asked else (None, None)
    if usual is None or again is None or _differ(usual, again):  # a random model
        return
    plain = ""
    for op, attribute in asked:
        other = without(proto, op, attribute)
        changed = gives(other)
        if changed is None or not _differ(usual, changed):
            continue
        plain = plain or engine(model)
        if plain and engine(other) == plain:
            yield _failure(proto, op, attribute)


def _suspects(
    proto: onnx.ModelProto, asked: Sequence[tuple[str, str]], engine: Builds
) -> list[tuple[str, str]]:
    """Keep those whose node, built alone, has one engine with and without, and those that cannot be.

    A node takes milliseconds where the model takes minutes, and an attribute that reaches the engine of its
    node reaches that of the model.
    """
    shapes = {v.name: v for v in (*inferred(proto).graph.value_info, *proto.graph.input)}
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    known: dict[bytes, str] = {}

    def built(model: bytes) -> str:
        if model not in known:
            known[model] = engine(model)
        return known[model]

    def reaches(op: str, attribute: str, node: NodeProto) -> bool:
        one = _of_one_node(proto, node, shapes, weights)
        if one is None:
            return False
        plain = built(one.SerializeToString(deterministic=True))
        return plain != "" and plain != built(without(one, op, attribute))

    found = []
    for op, attribute in asked:
        nodes = [n for n in proto.graph.node if n.op_type == op and attribute in given(proto, n)]
        values = {given(proto, node)[attribute].SerializeToString(): node for node in nodes}
        if not all(reaches(op, attribute, node) for node in list(values.values())[:_MOST_VALUES]):
            found.append((op, attribute))
    return found


def _of_one_node(
    proto: onnx.ModelProto,
    node: NodeProto,
    shapes: Mapping[str, onnx.ValueInfoProto],
    weights: Mapping[str, onnx.TensorProto],
) -> onnx.ModelProto | None:
    """Return a model of one node; None where a shape is not known."""
    names = [name for name in dict.fromkeys(node.input) if name]
    held = [weights[name] for name in names if name in weights]
    inputs = [shapes.get(name) for name in names if name not in weights]
    if any(v is None or not all(d.dim_value > 0 for d in v.type.tensor_type.shape.dim) for v in inputs):
        return None
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    known = {o.name: o for o in proto.graph.output} | dict(shapes)
    kinds = [known.get(value.name) for value in outputs]
    if any(kind is None for kind in kinds):
        return None
    for value, kind in zip(outputs, kinds, strict=True):
        elem = kind.type.tensor_type.elem_type if kind is not None else 0
        value.type.CopyFrom(onnx.helper.make_tensor_type_proto(elem, None))
    graph = onnx.helper.make_graph([node], "alone", [v for v in inputs if v is not None], outputs, held)
    return onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def is_ignored(failure: Failure) -> bool:
    """Return whether a failure is one of these."""
    return failure.stage is Stage.PARSE and failure.signature.endswith(_SAID)


def given(proto: onnx.ModelProto, node: NodeProto) -> dict[str, AttributeProto]:
    """Return attributes of a node that may be left out in ONNX and have another value than its default."""
    version = opset_of(proto)
    if not is_onnx(node.domain) or not defs.has(node.op_type, version):
        return {}
    known = defs.get_schema(node.op_type, version).attributes
    return {
        a.name: a
        for a in node.attribute
        if a.name in known
        and not known[a.name].required
        and a.name not in _NO_MATTER
        and a.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
        and known[a.name].default_value != a
    }


def without(proto: onnx.ModelProto, op: str, attribute: str) -> bytes:
    """Return the model without an attribute of an operator's nodes; shapes that follow are left out."""
    made = copied(proto)
    for node in made.graph.node:
        if node.op_type == op and attribute in given(proto, node):
            refill(node.attribute, [a for a in node.attribute if a.name != attribute])
    del made.graph.value_info[:]
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    data: bytes = made.SerializeToString()
    return data


def without_ignored(proto: onnx.ModelProto, failure: Failure) -> bytes:
    """Return the model that gives the same engine although it means something else."""
    op, _, attribute = failure.signature.removesuffix(_SAID).partition(": ")
    return without(proto, op, attribute)


def _failure(proto: onnx.ModelProto, op: str, attribute: str) -> Failure:
    of_kind = [n for n in proto.graph.node if n.op_type == op and attribute in given(proto, n)]
    value = onnx.helper.get_attribute_value(given(proto, of_kind[0])[attribute])
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    said = f"{op} with {attribute}={text} gives the same engine as without: the attribute is ignored"
    nodes = tuple(node.name for node in of_kind if node.name)
    return Failure(Stage.PARSE, Symptom.MISMATCH, f"{op}: {attribute}{_SAID}", said, nodes, op)


def _differ(ones: Values, others: Values) -> bool:
    """Return whether outputs differ by more than rounding; other shapes do, too."""
    pairs = [(a[name], b.get(name)) for a, b in zip(ones, others, strict=False) for name in a]
    return any(b is None or not _alike(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _alike(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fc" and a.dtype.isbuiltin == 1:
        return bool(np.array_equal(a, b))
    return bool(np.allclose(a.astype(np.float64), b.astype(np.float64), 1e-3, 1e-5, equal_nan=True))


def _on_reference(candidate: Candidate) -> Gives:
    proto = onnx.load_model_from_string(candidate.model)

    def gives(model: bytes) -> Values | None:
        from bisect_trt.references import ort

        feeds = as_declared(proto.graph, candidate.folder, candidate.feeds[:1])
        if not feeds:
            return None
        try:
            return ort.run(model, candidate.folder, feeds)
        except ort.OrtError:  # a preview of an operator set, for one
            return _by_onnx(model, feeds[0]) if len(proto.graph.node) <= _MOST_NODES else None

    return gives


def _by_onnx(model: bytes, feeds: Mapping[str, Any]) -> Values | None:
    """Return outputs by ONNX's own evaluator, which is slow and knows every operator."""
    from onnx.reference import ReferenceEvaluator

    try:
        made = ReferenceEvaluator(onnx.load_model_from_string(model))
        return [dict(zip(made.output_names, made.run(None, dict(feeds)), strict=True))]
    except Exception:  # it is written in Python, node by node, and raises what it likes
        return None
