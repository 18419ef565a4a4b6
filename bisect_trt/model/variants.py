"""The same model in another form: what a failure may hang on although no node is to blame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import inliner, version_converter

from bisect_trt.model.normalise import dense, name_nodes

MOST_BYTES = 1 << 29
"""Of a model that is taken apart by ONNX's own tools, which copy it several times."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Variant:
    """A model in another form.

    Attributes:
        cause: what was varied, `dimension names`.
        change: what was done, so that one could say `... and the failure is gone`.
        model: the result.
        same_meaning: whether nothing else can have come into it; the converter of ONNX makes mistakes.
    """

    cause: str
    change: str
    model: onnx.ModelProto
    same_meaning: bool = True


def variants(proto: onnx.ModelProto, fed: Shapes) -> Iterator[Variant]:
    """All other forms of a model that differ from it, the most telling first; `fed` are shapes of inputs."""
    for cause, change, edit in _EDITS:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        if edit(copy, fed):
            yield Variant(cause, change, copy)
    if proto.ByteSize() < MOST_BYTES:
        yield from _by_onnx(proto)


def _dims(values: Iterator[onnx.ValueInfoProto]) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for value in values:
        yield from value.type.tensor_type.shape.dim


def _own_names(proto: onnx.ModelProto, fed: Shapes) -> bool:
    """A name of its own for each symbolic dimension."""
    shared = Counter(d.dim_param for d in _dims(iter(proto.graph.input)) if d.dim_param)
    if max(shared.values(), default=0) < 2:
        return False
    for number, dim in enumerate(_dims(iter(proto.graph.input))):
        if dim.dim_param:
            dim.dim_param = f"{dim.dim_param}_{number}"
    _forget_shapes(proto, fed)
    return True


def _forget_shapes(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Outputs without shapes, inner tensors without types: the target infers them."""
    declared = bool(proto.graph.value_info)
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        if output.type.HasField("tensor_type") and output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.ClearField("shape")
            declared = True
    return declared


def _fixed(proto: onnx.ModelProto, fed: Shapes) -> bool:
    """Inputs with the sizes that were fed."""
    changed = False
    for item in proto.graph.input:
        tensor = item.type.tensor_type
        known = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
        if item.name in fed and not known:
            item.type.CopyFrom(onnx.helper.make_tensor_type_proto(tensor.elem_type, fed[item.name]))
            changed = True
    return changed and (_forget_shapes(proto, fed) or True)


def _dense_weights(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Sparse weights written out."""
    graph = proto.graph
    graph.initializer.extend(dense(sparse.values.name, sparse) for sparse in graph.sparse_initializer)
    changed = bool(graph.sparse_initializer)
    graph.ClearField("sparse_initializer")
    return changed


def _weights_no_inputs(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """Initializers that are inputs as well (IR version 3) become constants."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [i for i in proto.graph.input if i.name not in weights]
    if len(kept) == len(proto.graph.input):
        return False
    fresh = onnx.GraphProto(input=kept)
    del proto.graph.input[:]
    proto.graph.input.extend(fresh.input)
    proto.ir_version = max(4, proto.ir_version)
    return True


def _unique_names(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """A name of its own for each node that has a name."""
    names = [node.name for node in proto.graph.node if node.name]
    name_nodes(proto.graph)
    return len(set(names)) < len(names)


def _other_ir(proto: onnx.ModelProto, _fed: Shapes) -> bool:
    """IR version 8, which all releases since 2021 read."""
    changed = proto.ir_version != PLAIN_IR
    proto.ir_version = PLAIN_IR
    return changed


PLAIN_IR = 8
"""All releases since 2021 read it."""

_EDITS: tuple[tuple[str, str, Callable[[onnx.ModelProto, Shapes], bool]], ...] = (
    (
        "the names of dimensions",
        "a name of its own for each dimension (equal names mean equal sizes)",
        _own_names,
    ),
    ("equal names of nodes", "a name of its own for each node", _unique_names),
    ("sparse weights", "the sparse initializers written as dense ones", _dense_weights),
    ("weights that are inputs", "the initializers taken out of the inputs", _weights_no_inputs),
    ("declared shapes", "no declared shapes of outputs and inner tensors", _forget_shapes),
    ("the IR version", f"IR version {PLAIN_IR}", _other_ir),
    ("dynamic dimensions", "the dimensions of all inputs fixed to what was fed", _fixed),
)


def _by_onnx(proto: onnx.ModelProto) -> Iterator[Variant]:
    """What ONNX's tools make; they refuse some models."""
    if proto.functions:
        yield Variant("local functions", "the local functions inlined", inliner.inline_local_functions(proto))
    now = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    for version in (17, 13, 20):
        if version != now:
            try:
                made = version_converter.convert_version(proto, version)
            except Exception:  # no adapter, an unknown operator, ...: raises several kinds
                continue
            change = f"operator set {version} instead of {now}"
            yield Variant("the operator set version", change, made, same_meaning=False)
