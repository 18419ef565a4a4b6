"""Element types and the operator set."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from bisect_trt.machine import native
from bisect_trt.model.editing.draft import Draft
from bisect_trt.model.graph import is_onnx
from bisect_trt.model.normalise import name_nodes
from bisect_trt.model.store import type_name
from bisect_trt.model.walk import inner_nodes, scopes
from bisect_trt.outcome import Array
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.attributes import schema_of
from bisect_trt.reduction.simplify.propose import attempt, attempt_each, best_draft

_NARROWER: dict[int, int] = {TensorProto.DOUBLE: TensorProto.FLOAT, TensorProto.INT64: TensorProto.INT32}
_OLDEST = 7  # the oldest operator set that ONNX Runtime promises to run
_GENERATORS = 9  # the one that brought ConstantOfShape


def narrower_types(problem: Problem) -> None:
    """Make float64 float32 and int64 int32: everywhere, else tensor by tensor."""
    for kind in _NARROWER:
        attempt(problem, [partial(_narrow, kind, None)])
        draft = best_draft(problem)
        names = [i.name for i in draft.graph.input if i.type.tensor_type.elem_type == kind]
        names += [n for n, a in draft.weights.items() if a.dtype == helper.tensor_dtype_to_np_dtype(kind)]
        attempt_each(problem, (partial(_narrow, kind, name) for name in names))


def lower_opset(problem: Problem) -> None:
    """Find the lowest operator set that still fails; where nothing else changes, only its number does."""
    attempt(problem, (partial(_opset, version) for version in _versions(best_draft(problem))))
    attempt(problem, [_ir_version])


def lowest_opset(draft: Draft) -> str:
    """Go down to the lowest operator set that there is for these nodes, and to its file format."""
    ways = (_opset(version, draft) for version in _versions(draft))
    said = (next((text for text in ways if text), ""), _ir_version(draft))
    return "; ".join(text for text in said if text)


def _narrow(kind: int, only: str | None, draft: Draft) -> str:
    new = _NARROWER[kind]
    wide, narrow = helper.tensor_dtype_to_np_dtype(kind), helper.tensor_dtype_to_np_dtype(new)
    changed = _narrow_inputs(draft, kind, only)
    for name, array in draft.weights.items():
        if array.dtype == wide and only in (None, name):
            draft.weights[name], changed = _cast(array, narrow), changed + 1
    if only is None:
        changed += _narrow_attributes(draft, kind, new)
    for output in draft.graph.output:
        output.type.tensor_type.elem_type = 0
    text = f"{type_name(kind)} -> {type_name(new)}"
    return f"{text} ({changed} places)" if changed else ""


def _narrow_inputs(draft: Draft, kind: int, only: str | None) -> int:
    new, changed = _NARROWER[kind], 0
    for info in draft.graph.input:
        if info.type.tensor_type.elem_type != kind or only not in (None, info.name):
            continue
        info.type.tensor_type.elem_type, changed = new, changed + 1
        for sample in draft.samples:
            if info.name in sample:
                sample[info.name] = _cast(sample[info.name], helper.tensor_dtype_to_np_dtype(new))
    return changed


def _cast(array: Array, narrow: np.dtype[Any]) -> Array:
    """Return an array in another type; one repeated value stays one."""
    with np.errstate(all="ignore"):
        if array.size > 1 and not any(array.strides):
            return np.broadcast_to(array.reshape(-1)[0].astype(narrow), array.shape)
        return array.astype(narrow)


def _narrow_attributes(draft: Draft, kind: int, new: int) -> int:
    """Change `to` of Cast and `dtype` of what makes values; gives how many."""
    every = (a for n in inner_nodes(draft.graph) for a in n.attribute if a.type == AttributeProto.INT)
    named = [a for a in every if a.name in ("to", "dtype") and a.i == kind]
    for attribute in named:
        attribute.i = new
    return len(named)


def _versions(draft: Draft) -> range:
    """Return the older operator sets that these nodes can be written in, the oldest first.

    ONNX's converter goes down step by step: what it refuses on the way to one, it refuses on the way to all
    that are older. A step that changes no operator refuses nothing, and is not asked for.
    """
    older = range(_OLDEST, draft.opset)
    nodes = [node for node in inner_nodes(draft.graph) if schema_of(node, draft.opset)]
    known = [v for v in older if all(schema_of(node, v) for node in nodes)]
    steps = [v for v in known if v in (known[0], _GENERATORS) or not _are_same(nodes, v - 1, v)]
    first = bisect_left(steps, True, key=lambda version: bool(_opset(version, draft.copy())))
    return range(steps[first], draft.opset) if first < len(steps) else older[:0]


def _opset(version: int, draft: Draft) -> str:
    if version >= draft.opset:
        return ""
    before = draft.opset
    if _is_unchanged(draft, version):
        for entry in draft.proto.opset_import:
            if is_onnx(entry.domain):
                entry.version = version
    elif not _convert(draft, version):
        return ""
    return f"opset {before} -> {version}"


def _is_unchanged(draft: Draft, version: int) -> bool:
    """Return whether every operator is the same one in both operator sets."""
    nodes = [node for node in inner_nodes(draft.graph) if is_onnx(node.domain)]
    return _are_same(nodes, draft.opset, version) and (not draft.generated or version >= _GENERATORS)


def _are_same(nodes: Sequence[onnx.NodeProto], version: int, other: int) -> bool:
    for node in nodes:
        one, two = schema_of(node, version), schema_of(node, other)
        if one is None or two is None or one.since_version != two.since_version:
            return False
    return True


def _convert(draft: Draft, version: int) -> bool:
    """Convert by ONNX's own converter, which knows few ways down."""
    proto = onnx.ModelProto()
    proto.CopyFrom(draft.proto)
    for name, array in draft.weights.items():
        if array.nbytes > 1 << 16:
            return False
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        new = native.convert_version(proto, version)
    except (native.RefusedError, native.NotKnownError):  # it knows few ways down
        return False
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in new.graph.initializer}
    new.graph.ClearField("initializer")
    for part in scopes(new.graph):
        part.ClearField("value_info")
    draft.proto = new
    for name in [name for name in draft.weights if name not in weights]:
        draft.drop_weight(name)
    for name, array in weights.items():
        if name not in draft.weights:
            draft.set_weight(name, array)
    name_nodes(new.graph)
    return True


def _ir_version(draft: Draft) -> str:
    """Go down to the oldest file format of the operator set; 4 at least, as weights are no inputs."""
    oldest = max(4, int(helper.find_min_ir_version_for(list(draft.proto.opset_import), ignore_unknown=True)))
    if oldest >= draft.proto.ir_version:
        return ""
    before, draft.proto.ir_version = draft.proto.ir_version, oldest
    return f"IR version {before} -> {oldest}"
