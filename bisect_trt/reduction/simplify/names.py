"""Plain names without information, and no texts without meaning."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import count

from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto

from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.graph import bodies
from bisect_trt.model.seeded_values import parse
from bisect_trt.model.walk import inner_nodes, refill, rename, scopes
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.propose import Edit, attempt, attempt_each
from bisect_trt.writing.text import counted

_OF_MODEL = {"producer_name", "producer_version", "domain", "model_version", "configuration"}
_ANYWHERE = {"doc_string", "metadata_props", "denotation", "quantization_annotation"}
_ANYWHERE |= {"overload", "device_configurations"}


def plain_names(problem: Problem) -> None:
    """Call things `x0`, `conv1`, ... and drop texts without meaning, like doc strings: all, else by kind."""
    fixed = problem.simplifying.profiled
    if not attempt(problem, [partial(plain, fixed)]):
        attempt_each(problem, _kinds(fixed))


def plain(fixed: frozenset[str], draft: Draft) -> str:
    """Make every name a plain one; inputs of the names `fixed` keep theirs."""
    return ", ".join(said for kind in _kinds(fixed) if (said := kind(draft)))


def _kinds(fixed: frozenset[str]) -> tuple[Edit, ...]:
    return drop_texts, drop_imports, rename_nodes, partial(_rename_tensors, fixed), rename_dimensions


def drop_texts(draft: Draft) -> str:
    """Drop doc strings, metadata, producer, domain and version of the model."""
    proto = draft.proto
    before = proto.ByteSize()
    for name in _OF_MODEL.intersection(proto.DESCRIPTOR.fields_by_name):
        proto.ClearField(name)
    _clear(proto)
    for k, part in enumerate(scopes(proto.graph)):
        part.name = f"body{k - 1}" if k else "graph"
    saved = before - proto.ByteSize()
    return f"{saved} bytes of text dropped" if saved > 0 else ""


def _clear(message: Message) -> None:
    """Clear the texts of it and of all that it holds, and names of attributes' tensors; recipes stay."""
    for field, value in message.ListFields():
        if field.name in _ANYWHERE and not (isinstance(message, AttributeProto) and parse(value)):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                if isinstance(part, TensorProto) and isinstance(message, AttributeProto):
                    part.ClearField("name")
                _clear(part)


def drop_imports(draft: Draft) -> str:
    """Drop operator sets that no node is of."""
    used = {node.domain for node in inner_nodes(draft.graph)} | {""}
    kept = [entry for entry in draft.proto.opset_import if entry.domain in used]
    gone = len(draft.proto.opset_import) - len(kept)
    refill(draft.proto.opset_import, kept)
    return f"{counted(gone, 'operator set')} dropped" if gone else ""


def rename_nodes(draft: Draft) -> str:
    """Call nodes `conv0`, `conv1`, `relu0`: the operator and a number."""
    counts: dict[str, int] = {}
    changed = 0
    for node in inner_nodes(draft.graph):
        op = node.op_type.lower()
        name = f"{op}{counts.get(op, 0)}"
        counts[op] = counts.get(op, 0) + 1
        changed += name != node.name
        node.name = name
    return f"{counted(changed, 'node')} renamed" if changed else ""


def _rename_tensors(fixed: frozenset[str], draft: Draft) -> str:
    """Call inputs `x0`, outputs `y0`, weights `w0`, all other tensors `t0`."""
    new = _tensor_names(draft, fixed)
    changed = sum(old != name for old, name in new.items())
    rename(draft.graph, new)
    draft.weights = {new[n]: a for n, a in draft.weights.items()}
    draft.recipes = {new[n]: r for n, r in draft.recipes.items()}
    draft.generated = {new[n] for n in draft.generated}
    draft.fed = {(k, new.get(n, n)): r for (k, n), r in draft.fed.items()}
    draft.origins = {name: draft.origins.get(old, old) for old, name in new.items()}
    draft.samples = [{new.get(n, n): a for n, a in sample.items()} for sample in draft.samples]
    return f"{counted(changed, 'tensor')} renamed" if changed else ""


def _tensor_names(draft: Draft, fixed: frozenset[str]) -> dict[str, str]:
    graph = draft.graph
    new = {i.name: i.name for i in graph.input if i.name in fixed}
    taken = set(new.values())

    def give(names: Iterable[str], letter: str) -> None:
        free = (given for number in count() if (given := f"{letter}{number}") not in taken)
        for name in names:
            if name and name not in new:
                new[name] = next(free)
                taken.add(new[name])

    give((i.name for i in graph.input), "x")
    give((o.name for o in graph.output), "y")
    give(draft.weights, "w")
    give((t.name for t in graph.initializer), "s")
    for node in inner_nodes(graph):
        for body in bodies(node):
            give((i.name for i in body.input), "b")
            give((t.name for t in body.initializer), "c")
        give(node.output, "t")
    return new


def rename_dimensions(draft: Draft) -> str:
    """Call the symbols of dynamic dimensions `d0`, `d1`; equal ones stay equal."""
    new: dict[str, str] = {}
    for info in (*draft.graph.input, *draft.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = new.setdefault(dim.dim_param, f"d{len(new)}")
    changed = sum(old != name for old, name in new.items())
    return f"{counted(changed, 'dimension')} renamed" if changed else ""
