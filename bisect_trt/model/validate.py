"""Structural checks of a parsed model, with messages that name what is wrong and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import TensorProto

from bisect_trt.errors import UsageError
from bisect_trt.machine import native
from bisect_trt.model.external import KINDS, tensor_size, tensors
from bisect_trt.model.graph import bodies, consumed, is_onnx
from bisect_trt.model.normalise import sort_nodes
from bisect_trt.model.operators import (
    asked_once,
    import_of,
    is_in_onnx,
    label,
    local_functions,
    merge_domains,
    parts,
    unknown_operators,
)
from bisect_trt.model.skeleton import skeleton
from bisect_trt.model.store import bits_per_element
from bisect_trt.model.walk import inner_nodes

_AGAIN = "export the model again"
_BUILT_IN = "_TRT"
"""What the names of TensorRT's own plugins end with: `EfficientNMS_TRT`. They need no library."""
_UNCHECKED = "bisect_trt.unchecked"
_TYPED = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def validate(proto: onnx.ModelProto, name: str, *, allow_unknown: bool) -> None:
    """Refuse a model that is not sound; unsorted nodes and equal node names are sound for us.

    Args:
        proto: the model; it is not changed.
        name: of the file, for messages.
        allow_unknown: accept operators that nobody here knows, not only TensorRT's own plugins.

    Raises:
        UsageError: what is wrong, in which node or tensor.
    """
    if not proto.opset_import:
        raise UsageError(f"{name} imports no operator set: it is truncated or damaged", _AGAIN)
    if not proto.graph.node or not proto.graph.output:
        missing = "nodes" if not proto.graph.node else "outputs"
        raise UsageError(f"{name} has no {missing}", "pass a model that computes something")
    _check_texts(proto, (None, name, None))
    _check_version(proto, name)
    _check_types(proto.graph)
    _check_data(proto)
    _check_wiring(proto.graph, frozenset(), "the graph")
    for function in proto.functions:
        _check_nodes(function.node, set(function.input), frozenset(), f"function {function.name}")
    _check_recursion(proto)
    unknown = unknown_operators(proto)
    strange = [where for where, op in unknown if not op.endswith(_BUILT_IN)]
    if strange and not allow_unknown:
        raise UsageError(
            f"{name} has an operator that is not known: {strange[0]}",
            "if a plugin provides it, pass the library with --plugins; else check domain and opset",
        )
    _check_with_onnx(proto, name)


_MESSAGE, _TEXT = FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING
_Way = tuple[Any, str, int | None]
"""What leads to a message: the way to what holds it, or None; its name, and its number among several."""


def _check_texts(message: Message, way: _Way) -> None:
    """Check that every text is UTF-8, as protobuf demands: else it cannot even be shown."""
    for field, value in message.ListFields():
        kind, repeated, name = _known(field)
        if kind == _MESSAGE and repeated:
            for number, one in enumerate(value):
                _check_texts(one, (way, name, number))
        elif kind == _MESSAGE:
            _check_texts(value, (way, name, None))
        elif kind == _TEXT and bytes in map(type, value if repeated else (value,)):
            k = [type(one) for one in value].index(bytes) if repeated else None
            given = value if k is None else value[k]  # so protobuf hands out a text that is none
            place = name if k is None else f"{name} {k}"
            raise UsageError(f"{_words(way)}: {place} is no text: {given[:40]!r} is not UTF-8", _AGAIN)


@cache
def _known(field: FieldDescriptor) -> tuple[int, bool, str]:
    """Return the kind of a field, whether it is repeated, and its name: protobuf is slow to tell."""
    return field.type, field.is_repeated, field.name


def _words(way: _Way) -> str:
    above, name, k = way
    here = name if k is None else f"{name} {k}"
    return here if above is None else f"{_words(above)}, {here}"


def _check_version(proto: onnx.ModelProto, name: str) -> None:
    if proto.ir_version > onnx.IR_VERSION:
        known = f"ONNX {onnx.__version__} knows up to {onnx.IR_VERSION}"
        raise UsageError(
            f"{name} has IR version {proto.ir_version}; {known}",
            "update onnx, or export the model for an older version",
        )
    newest = onnx.defs.onnx_opset_version()
    version = import_of("", {o.domain: o.version for o in proto.opset_import})
    if version is not None and not 0 < version <= newest:
        raise UsageError(
            f"{name} imports operator set {version}; ONNX {onnx.__version__} knows 1 to {newest}",
            "update onnx, or export the model for an older operator set",
        )


def _check_types(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type.elem_type
        if kind not in KINDS:
            raise UsageError(f"{value.name!r} has the element type {kind}, which ONNX does not know", _AGAIN)


def _check_data(proto: onnx.ModelProto) -> None:
    for tensor in tensors(proto):
        needed = tensor_size(tensor)
        if tensor.data_location == TensorProto.EXTERNAL:
            continue
        if tensor.HasField("raw_data"):
            sound = len(tensor.raw_data) == needed
        else:
            sound = sum(len(getattr(tensor, field)) for field in _TYPED) == _entries(tensor)
        if not sound:
            raise UsageError(
                f"tensor {tensor.name!r} of shape {list(tensor.dims)} holds too little or too much data",
                _AGAIN,
            )


def _entries(tensor: TensorProto) -> int:
    """Say how many entries the typed field of a tensor has to have."""
    if tensor.data_type != TensorProto.STRING and bits_per_element(tensor.data_type) < 8:
        return tensor_size(tensor)  # packed: a byte in each entry
    pair = tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return math.prod(map(int, tensor.dims)) * (2 if pair else 1)


def _check_wiring(graph: onnx.GraphProto, outer: frozenset[str], where: str) -> None:
    """Check that every tensor is made once, before or after it is used, and that nothing feeds itself."""
    given = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    given |= {t.values.name for t in graph.sparse_initializer}
    made = _check_nodes(graph.node, given, outer, where)
    for output in graph.output:
        if output.name not in made:
            raise UsageError(f"output {output.name!r} of {where} is made by nobody", _AGAIN)


def _check_nodes(
    nodes: Sequence[onnx.NodeProto], given: set[str], outer: frozenset[str], where: str
) -> frozenset[str]:
    """Check nodes that see the tensors `given` here and those of the `outer` scopes; gives all they see."""
    own = set(given)
    for i, node in enumerate(nodes):
        for tensor in filter(None, node.output):
            if tensor in own:
                raise UsageError(
                    f"tensor {tensor!r} in {where} is made twice, again by {label(node, i)}", _AGAIN
                )
            own.add(tensor)
    made = outer | own
    reads = [consumed(node) for node in nodes]
    for i, read in enumerate(reads):
        if missing := [tensor for tensor in read if tensor not in made]:
            who = label(nodes[i], i)
            raise UsageError(f"{who} in {where} reads {missing[0]!r}, which nobody makes", _AGAIN)
    _check_acyclic(nodes, reads, where)
    for i, node in enumerate(nodes):
        if node.op_type == "Constant" and is_onnx(node.domain) and not node.attribute:
            raise UsageError(f"{label(node, i)} in {where} has no value", _AGAIN)
        for body in bodies(node):
            _check_wiring(body, made, f"a body of {label(node, i)}")
    return made


def _check_acyclic(nodes: Sequence[onnx.NodeProto], reads: Sequence[Sequence[str]], where: str) -> None:
    producer = {t: i for i, node in enumerate(nodes) for t in node.output if t}
    edges = [(producer[t], i) for i, read in enumerate(reads) for t in read if t in producer]
    if all(source < i for source, i in edges):
        return
    import networkx as nx  # here and below: takes a while, and most models need none of it

    graph = nx.DiGraph(edges)
    if nx.is_directed_acyclic_graph(graph):  # to look for a cycle where there is none takes their square
        return
    labels = [label(nodes[i], i) for i, _ in nx.find_cycle(graph)]
    shown = " -> ".join([*labels[:8], "..."] if len(labels) > 8 else [*labels, labels[0]])
    raise UsageError(f"nodes of {where} form a cycle: {shown}", _AGAIN)


def _check_recursion(proto: onnx.ModelProto) -> None:
    if not proto.functions:
        return
    import networkx as nx

    calls: nx.DiGraph[tuple[str, str]] = nx.DiGraph()
    for function in proto.functions:
        here = (function.domain, function.name)
        calls.add_edges_from((here, (n.domain, n.op_type)) for n in inner_nodes(function))
    for cycle in nx.simple_cycles(calls):
        raise UsageError(f"local function {cycle[0][1]!r} calls itself", _AGAIN)


def _check_with_onnx(proto: onnx.ModelProto, name: str) -> None:
    """Ask `onnx.checker` of a copy in which all that it wrongly refuses is mended."""
    copy = skeleton(proto, empty=True)
    merge_domains(copy)
    graph = copy.graph
    graph.name = graph.name or "graph"
    copy.ir_version = max(copy.ir_version, 4)  # before, weights have to be inputs as well
    sort_nodes(graph)
    for info in (*graph.input, *graph.output):
        _complete(info)
    _hide_what_onnx_lacks(copy)
    try:
        native.check_model(copy)
    except native.NotKnownError:
        return  # our own checks have passed
    except native.RefusedError as error:
        words = " ".join(str(error).split("\n\n==>")[0].split())
        raise UsageError(f"{name} is not valid ONNX: {words[:300]}", _AGAIN) from error


def _complete(info: onnx.ValueInfoProto) -> None:
    """Give a shape to a type without one, and outputs a type: runtimes infer both."""
    if not info.HasField("type") or info.type.WhichOneof("value") is None:
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    if info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape"):
        info.type.tensor_type.shape.SetInParent()


def _hide_what_onnx_lacks(copy: onnx.ModelProto) -> None:
    """Put nodes that the checker would refuse for their operator into a domain that it does not look at."""
    local = local_functions(copy)
    hidden = False
    for part, imports in parts(copy):
        taken = asked_once(is_in_onnx, imports, local)
        for node in inner_nodes(part):
            if not taken(node):
                node.domain, hidden = _UNCHECKED, True
    for imports in (copy.opset_import, *(f.opset_import for f in copy.functions)) if hidden else ():
        imports.add(domain=_UNCHECKED, version=1)
