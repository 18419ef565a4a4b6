"""Structural checks of a parsed model, with messages that name what is wrong and where."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import onnx
from onnx import TensorProto

from bisect_trt.errors import UsageError
from bisect_trt.isolation import native
from bisect_trt.model.external import tensor_size, tensors
from bisect_trt.model.graph import bodies, consumed, topological
from bisect_trt.model.skeleton import skeleton
from bisect_trt.model.store import bits_per_element

_AGAIN = "export the model again"
_CHECKED = ("", "ai.onnx", "ai.onnx.ml")
_KNOWN = (*_CHECKED, "ai.onnx.training")
_KNOWN_FAMILIES = ("ai.onnx.preview", "com.microsoft")
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
    _check_version(proto, name)
    _check_types(proto.graph)
    _check_data(proto)
    _check_wiring(proto.graph, frozenset(), "the graph")
    for function in proto.functions:
        _check_nodes(function.node, set(function.input), frozenset(), f"function {function.name}")
    _check_recursion(proto)
    unknown = unknown_operators(proto)
    strange = [label for label, op in unknown if not op.endswith(_BUILT_IN)]
    if strange and not allow_unknown:
        raise UsageError(
            f"{name} has an operator that is not known: {strange[0]}",
            "if a plugin provides it, pass the library with --plugins; else check domain and opset",
        )
    _check_with_onnx(proto, name, bool(unknown))


def _check_version(proto: onnx.ModelProto, name: str) -> None:
    if proto.ir_version > onnx.IR_VERSION:
        known = f"ONNX {onnx.__version__} knows up to {onnx.IR_VERSION}"
        raise UsageError(
            f"{name} has IR version {proto.ir_version}; {known}",
            "update onnx, or export the model for an older version",
        )
    newest = onnx.defs.onnx_opset_version()
    version = _import_of("", {o.domain: o.version for o in proto.opset_import})
    if version is not None and not 0 < version <= newest:
        raise UsageError(
            f"{name} imports operator set {version}; ONNX {onnx.__version__} knows 1 to {newest}",
            "update onnx, or export the model for an older operator set",
        )


def _check_types(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type.elem_type
        if kind not in TensorProto.DataType.values():
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
    """How many entries the typed field of a tensor has to have."""
    if tensor.data_type != TensorProto.STRING and bits_per_element(tensor.data_type) < 8:
        return tensor_size(tensor)  # packed: a byte in each entry
    pair = tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return math.prod(map(int, tensor.dims)) * (2 if pair else 1)


def _check_wiring(graph: onnx.GraphProto, outer: frozenset[str], where: str) -> None:
    """Every tensor is made once, before or after it is used, and nothing feeds itself."""
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
                    f"tensor {tensor!r} in {where} is made twice, again by {_label(node, i)}", _AGAIN
                )
            own.add(tensor)
    made = outer | own
    for i, node in enumerate(nodes):
        for tensor in consumed(node):
            if tensor not in made:
                raise UsageError(f"{_label(node, i)} in {where} reads {tensor!r}, which nobody makes", _AGAIN)
    _check_acyclic(nodes, where)
    for i, node in enumerate(nodes):
        for body in bodies(node):
            _check_wiring(body, made, f"a body of {_label(node, i)}")
    return made


def _check_acyclic(nodes: Sequence[onnx.NodeProto], where: str) -> None:
    try:
        topological(nodes)
    except Exception as error:
        import networkx as nx  # here and below: takes a while, and most models need none of it

        if not isinstance(error, nx.NetworkXUnfeasible):
            raise
        producer = {t: i for i, node in enumerate(nodes) for t in node.output if t}
        edges = [(producer[t], i) for i, node in enumerate(nodes) for t in consumed(node) if t in producer]
        cycle = [source for source, _ in nx.find_cycle(nx.DiGraph(edges))]
        labels = [_label(nodes[i], i) for i in cycle]
        shown = " -> ".join([*labels[:8], "..."] if len(labels) > 8 else [*labels, labels[0]])
        raise UsageError(f"nodes of {where} form a cycle: {shown}", _AGAIN) from None


def _label(node: onnx.NodeProto, index: int) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else f"{node.op_type} number {index}"


def _check_recursion(proto: onnx.ModelProto) -> None:
    if not proto.functions:
        return
    import networkx as nx

    calls: nx.DiGraph[tuple[str, str]] = nx.DiGraph()
    for function in proto.functions:
        here = (function.domain, function.name)
        calls.add_edges_from((here, (n.domain, n.op_type)) for n in _all_nodes(function.node))
    for cycle in nx.simple_cycles(calls):
        raise UsageError(f"local function {cycle[0][1]!r} calls itself", _AGAIN)


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _all_nodes(body.node)


def unknown_operators(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    """Nodes, in words, whose operators neither ONNX, ONNX Runtime nor the model itself defines, and these."""
    local = {(f.domain, f.name) for f in proto.functions}
    versions = {o.domain: o.version for o in proto.opset_import}
    unknown = []
    for part, imports in [(proto.graph.node, versions)] + [
        (f.node, {o.domain: o.version for o in f.opset_import}) for f in proto.functions
    ]:
        for i, node in enumerate(_all_nodes(part)):
            if (node.domain, node.op_type) not in local and not _is_known(node, imports):
                where = f"{_label(node, i)} of {node.domain or 'ai.onnx'}{_version(node, imports)}"
                unknown.append((where, node.op_type))
    return unknown


def _import_of(domain: str, imports: dict[str, int]) -> int | None:
    if domain in ("", "ai.onnx"):
        return imports.get("", imports.get("ai.onnx"))
    return imports.get(domain)


def _version(node: onnx.NodeProto, imports: dict[str, int]) -> str:
    version = _import_of(node.domain, imports)
    return f" opset {version}" if version is not None else " (which the model does not import)"


def _is_known(node: onnx.NodeProto, imports: dict[str, int]) -> bool:
    if node.domain.startswith(_KNOWN_FAMILIES):
        return True
    if node.domain not in _KNOWN:
        return False
    version = _import_of(node.domain, imports)
    if version is None:
        return False
    if node.domain not in _CHECKED:
        return True
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        return not onnx.defs.get_schema(node.op_type, version, domain).deprecated
    except onnx.defs.SchemaError:
        return False


def _check_with_onnx(proto: onnx.ModelProto, name: str, has_unknown: bool) -> None:
    """`onnx.checker` on a copy in which all that it wrongly refuses is mended."""
    copy = skeleton(proto, empty=True)
    graph = copy.graph
    graph.name = graph.name or "graph"
    copy.ir_version = max(copy.ir_version, 4)  # before, weights have to be inputs as well
    nodes = [graph.node[i] for i in topological(graph.node)]
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    for info in (*graph.input, *graph.output):
        _complete(info)
    if has_unknown:
        _hide_unknown(copy)
    try:
        native.check_model(copy)
    except native.NotKnownError:
        return  # our own checks have passed
    except native.RefusedError as error:
        raise UsageError(f"{name} is not valid ONNX: {_one_line(str(error))}", _AGAIN) from error


def _complete(info: onnx.ValueInfoProto) -> None:
    """Give a shape to a type without one, and outputs a type: runtimes infer both."""
    if not info.HasField("type") or info.type.WhichOneof("value") is None:
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    if info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape"):
        info.type.tensor_type.shape.SetInParent()


def _hide_unknown(copy: onnx.ModelProto) -> None:
    imports = {o.domain: o.version for o in copy.opset_import}
    local = {(f.domain, f.name) for f in copy.functions}
    copy.opset_import.add(domain=_UNCHECKED, version=1)
    for node in _all_nodes(copy.graph.node):
        if (node.domain, node.op_type) not in local and not _is_known(node, imports):
            node.domain = _UNCHECKED


def _one_line(text: str) -> str:
    return " ".join(text.split("\n\n==>")[0].split())[:300]
