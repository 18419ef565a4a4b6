"""Which operators are known: to ONNX, to ONNX Runtime, or to the model itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

import onnx

from bisect_trt.model.graph import is_onnx
from bisect_trt.model.walk import inner_nodes, refill

CHECKED = ("", "ai.onnx", "ai.onnx.ml")
"""Domains whose operators `onnx.checker` knows."""

_KNOWN = (*CHECKED, "ai.onnx.training")
_KNOWN_FAMILIES = ("ai.onnx.preview", "com.microsoft")
ORT_OWN = frozenset(
    (
        *("Affine", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill", "ImageScaler"),
        *("LayerNormalization", "MeanVarianceNormalization", "MemcpyFromHost", "MemcpyToHost"),
        *("ParametricSoftplus", "Scale", "ScaledTanh", "SimplifiedLayerNormalization", "ThresholdedRelu"),
    )
)
"""Operators that ONNX Runtime 1.32 has in ONNX's own domain although ONNX has not, or in operator sets in
which ONNX has not: what its optimiser writes, and what is left of old experiments. All are of version 1."""


def is_known(node: onnx.NodeProto, imports: dict[str, int]) -> bool:
    """Return whether ONNX or ONNX Runtime has the operator in the imported version.

    Deprecated ones are known.
    """
    return is_in_onnx(node, imports) or _is_of_ort(node, imports)


def is_in_onnx(node: onnx.NodeProto, imports: dict[str, int]) -> bool:
    """Return whether `onnx.checker` takes the operator: it has it, and does not call it deprecated."""
    version = import_of(node.domain, imports)
    if version is None or node.domain not in _KNOWN:
        return version is not None and node.domain.startswith(_KNOWN_FAMILIES)
    schema = _schema(node, version)
    return node.domain not in CHECKED or (schema is not None and not schema.deprecated)


def _is_of_ort(node: onnx.NodeProto, imports: dict[str, int]) -> bool:
    if node.domain.startswith(_KNOWN_FAMILIES):
        return True  # it is loaded without an import, too
    version = import_of(node.domain, imports)
    if node.domain not in CHECKED:
        return False
    if version is None:  # ONNX Runtime takes the newest that it has
        return node.domain == "ai.onnx.ml" and onnx.defs.has(node.op_type, node.domain)
    own = node.domain != "ai.onnx.ml" and node.op_type in ORT_OWN
    return own or _schema(node, version) is not None


def _schema(node: onnx.NodeProto, version: int) -> onnx.defs.OpSchema | None:
    return _schema_of(node.op_type, version, "" if node.domain == "ai.onnx" else node.domain)


@cache
def _schema_of(op_type: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    """Return a schema, looked up once: a model has many nodes and few operators."""
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except (onnx.defs.SchemaError, TypeError):  # the latter where the version is no int32
        return None


Allowed = dict[int, set[str]]
"""Types, `tensor(float)` and the like, by the number of an input or output."""


def allowed_types(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> tuple[Allowed, Allowed]:
    """Return what a schema allows for each input and each output of a node that is not left out."""
    known = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}

    def side(names: Sequence[str], formals: list[onnx.defs.OpSchema.FormalParameter]) -> Allowed:
        last = len(formals) - 1
        kinds = {k: formals[min(k, last)].type_str for k, name in enumerate(names) if name and formals}
        return {k: known.get(kind, {kind}) for k, kind in kinds.items()}

    return side(node.input, list(schema.inputs)), side(node.output, list(schema.outputs))


def types_by_schema(node: onnx.NodeProto, version: int, types: Mapping[str, int]) -> dict[str, int]:
    """Return the element types of a node's outputs as its schema gives them, as far as it does.

    onnx infers none for an operator without inference of its own (GroupNormalization), nor for what follows.
    """
    schema = _schema(node, version)
    if schema is None:
        return {}
    formals, bound = list(schema.inputs), dict[str, int]()
    for k, name in enumerate(node.input):
        if formals and name in types:
            bound.setdefault(formals[min(k, len(formals) - 1)].type_str, types[name])
    asked = next((a.i for a in node.attribute if a.name in ("to", "dtype", "output_dtype") and a.i), 0)
    found, made = {}, list(schema.outputs)
    for k, name in enumerate(node.output):
        kind = made[min(k, len(made) - 1)].type_str if made else ""
        plain = kind.startswith("tensor(") and onnx.TensorProto.DataType.Value(kind[7:-1].upper())
        if name and (elem_type := plain or asked or bound.get(kind, 0)):
            found[name] = int(elem_type)
    return found


def import_of(domain: str, imports: dict[str, int]) -> int | None:
    """Return the version that a model imports of a domain; None: it does not."""
    if is_onnx(domain):
        return imports.get("", imports.get("ai.onnx"))
    return imports.get(domain)


def merge_domains(model: onnx.ModelProto) -> None:
    """Call ONNX's own domain by its short name, in imports and nodes: `ai.onnx` is another word for it."""
    for part in (model, *model.functions):
        versions: dict[str, int] = {}
        for entry in part.opset_import:
            domain = "" if is_onnx(entry.domain) else entry.domain
            versions[domain] = max(entry.version, versions.get(domain, 0))
        refill(part.opset_import, (onnx.helper.make_opsetid(d, v) for d, v in versions.items()))
    for part in (model.graph, *model.functions):
        for node in inner_nodes(part):
            if node.domain == "ai.onnx":
                node.domain = ""


def parts(proto: onnx.ModelProto) -> list[tuple[onnx.GraphProto | onnx.FunctionProto, dict[str, int]]]:
    """Return the graph and each local function, with the imports that hold for its nodes."""
    owners = [(proto.graph, proto.opset_import), *((f, f.opset_import) for f in proto.functions)]
    return [(part, {o.domain: o.version for o in imports}) for part, imports in owners]


def local_functions(proto: onnx.ModelProto) -> set[tuple[str, str]]:
    """Return the domain and name of what the model itself defines."""
    return {(f.domain, f.name) for f in proto.functions}


def asked_once(
    question: Callable[[onnx.NodeProto, dict[str, int]], bool],
    imports: dict[str, int],
    local: Collection[tuple[str, str]],
) -> Callable[[onnx.NodeProto], bool]:
    """Return `question` on a node, asked once of each operator: a model has many nodes and few of these.

    It holds for the `local` functions of the model.
    """
    answers = dict.fromkeys(local, True)

    def answer(node: onnx.NodeProto) -> bool:
        key = node.domain, node.op_type
        if key not in answers:
            answers[key] = question(node, imports)
        return answers[key]

    return answer


def unknown_operators(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return nodes, in words, whose operators ONNX, ONNX Runtime and the model do not define, and these."""
    local = local_functions(proto)
    unknown = []
    for part, imports in parts(proto):
        known = asked_once(is_known, imports, local)
        for i, node in enumerate(inner_nodes(part)):
            if not known(node):
                version = import_of(node.domain, imports)
                opset = f" opset {version}" if version is not None else " (which the model does not import)"
                unknown.append((f"{label(node, i)} of {node.domain or 'ai.onnx'}{opset}", node.op_type))
    return unknown


def beside_the_standard(proto: onnx.ModelProto) -> list[str]:
    """Return what runtimes take although the letter of ONNX does not, as sentences for people."""
    local, found = local_functions(proto), dict[str, None]()
    for part, imports in parts(proto):
        seen = set(local)
        for node in inner_nodes(part):
            key = node.domain, node.op_type
            if key in seen:
                continue
            seen.add(key)
            if is_in_onnx(node, imports):
                continue
            version = import_of(node.domain, imports)
            if version is None and is_known(node, imports):
                found[f"The model uses {node.domain} and does not import it: ONNX Runtime takes that."] = None
            elif is_known(node, imports):
                deprecated = (s := _schema(node, version or 0)) is not None and s.deprecated
                why = "calls it deprecated" if deprecated else "has not: it is ONNX Runtime's own"
                found[f"{node.op_type} of opset {version}: ONNX {why}."] = None
    return list(found)


def label(node: onnx.NodeProto, index: int) -> str:
    """Return a node for messages: operator and name, else its number."""
    return f"{node.op_type} {node.name!r}" if node.name else f"{node.op_type} number {index}"


def unordered_outputs(proto: onnx.ModelProto) -> dict[str, int]:
    """Return outputs whose order along an axis means nothing, with that axis: those of TopK with sorted=0."""
    made = {name: node for node in proto.graph.node for name in node.output}
    found = {}
    for output in proto.graph.output:
        node = made.get(output.name)
        while node is not None and node.op_type in ("Identity", "Cast") and is_onnx(node.domain):
            node = made.get(node.input[0])
        if node is not None and node.op_type == "TopK" and is_onnx(node.domain):
            given = {a.name: a.i for a in node.attribute}
            if not given.get("sorted", 1):
                found[output.name] = given.get("axis", -1)
    return found
