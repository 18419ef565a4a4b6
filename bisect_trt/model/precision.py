"""A model in float16 or bfloat16 for builders that take types as they stand (strong typing).

Every float32 tensor `t` gets a narrow twin `t__fp16`: nodes that can compute in the narrow type read and
write the twins, all others keep `t`. A Cast joins the two where somebody needs both. So inputs, outputs,
subgraphs and every name of the model keep their types and meanings.

What stays float32: nodes whose operator has no narrow form (NonMaxSuppression, the scales of Resize),
nodes with subgraphs, operators that nobody knows, and arithmetic on shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct, field
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from bisect_trt.model.cutting.constants import shape_arithmetic
from bisect_trt.model.graph import bodies, is_onnx
from bisect_trt.model.normalise import drop_weight_inputs, sort_nodes
from bisect_trt.model.operators import allowed_types
from bisect_trt.model.patch import Slots, key_of, lowered
from bisect_trt.model.skeleton import inferred, skeleton
from bisect_trt.model.walk import refill
from bisect_trt.model.weight_values import EMBED_LIMIT, save_whole, values_of
from bisect_trt.outcome import Array

_RANDOM = ("RandomNormal", "RandomUniform")  # float32 unless they say otherwise
_LARGEST = {"fp16": 65504, "bf16": 3.3895313892515355e38}
"""The largest values that do not round to infinity."""


class Narrowed(Struct):
    """What came of a model.

    Attributes:
        model: serialised.
        folder: where its external data lies.
        narrow: nodes that compute in the narrow type.
        kept: operators that stay float32 although they work on float32, with their number.
        clamped: weights beyond the range of the narrow type; they are its largest value now.
    """

    model: bytes
    folder: Path
    narrow: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    clamped: int = 0

    def facts(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {"narrow_nodes": self.narrow, "float32_nodes": self.kept, "clamped_weights": self.clamped}


def narrowed(model: bytes, folder: Path, precision: str, scratch: Path) -> Narrowed:
    """Return the model with its float32 arithmetic in `precision`.

    Args:
        model: serialised ModelProto; external data lies in `folder`.
        folder: of the external data; nothing is written there.
        precision: a key of `patch.NARROW`.
        scratch: existing folder for weights that do not fit in a message.

    Raises:
        OSError: external data is missing, or `scratch` cannot be written.
        ValueError: external data is no such data.
    """
    proto = onnx.load_model_from_string(model)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    light = skeleton(proto)  # what becomes narrow is read from `weights`, a weight at a time
    graph = light.graph
    drop_weight_inputs(graph)
    sort_nodes(graph)
    slots, kept = _slots(light, precision)
    done = Narrowed(b"", folder, len(slots), kept)

    def within(wide: Array) -> Array:
        beyond = np.isfinite(wide) & (np.abs(wide) > _LARGEST[precision])
        done.clamped += int(np.count_nonzero(beyond))
        return np.where(beyond, np.copysign(np.float32(_LARGEST[precision]), wide), wide)

    def narrow(tensor: TensorProto, name: str, kind: int) -> TensorProto:
        stub = tensor.data_location == TensorProto.EXTERNAL  # else it may only be called like a weight
        values = within(values_of(weights.get(tensor.name, tensor) if stub else tensor, folder))
        low = values.astype(helper.tensor_dtype_to_np_dtype(kind))
        return TensorProto(name=name, data_type=kind, dims=values.shape, raw_data=low.tobytes())

    for node in (node for node in graph.node if key_of(node) in slots):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(within(values_of(attribute.t, folder))))
        if node.op_type in _RANDOM and all(attribute.name != "dtype" for attribute in node.attribute):
            node.attribute.append(helper.make_attribute("dtype", TensorProto.FLOAT))
    made = _with_weights_of(proto, lowered(light, slots, precision, narrow).model)
    if sum(len(tensor.raw_data) for tensor in made.graph.initializer) > EMBED_LIMIT:
        save_whole(made, folder, scratch / "narrow.onnx", outside=True)
        done.folder = scratch
    done.model = made.SerializeToString()
    return done


def _with_weights_of(proto: onnx.ModelProto, made: onnx.ModelProto) -> onnx.ModelProto:
    """Put the user's weights where their light copies stand, in place; those that nobody reads are gone."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    del made.graph.value_info[:]
    for tensor in (tensor for tensor in made.graph.initializer if tensor.name in weights):
        tensor.CopyFrom(weights[tensor.name])
    gone = weights.keys() - {tensor.name for tensor in made.graph.initializer}
    refill(made.graph.input, (value for value in proto.graph.input if value.name not in gone))
    refill(made.opset_import, proto.opset_import)
    return made


def _slots(model: onnx.ModelProto, precision: str) -> tuple[dict[str, Slots], dict[str, int]]:
    """Return the slots of nodes that become narrow, and the operators of others that work on float32."""
    wide, on_shapes = _float_tensors(model), shape_arithmetic(model.graph)
    slots: dict[str, Slots] = {}
    kept: Counter[str] = Counter()
    for node in model.graph.node:
        stays = node.op_type not in ("Shape", "Size") and not on_shapes.isdisjoint(node.output)
        schema = None if stays or any(True for _ in bodies(node)) else _newest(node)
        found = _narrow_slots(node, schema, wide, precision) if schema is not None else ([], [])
        if any(found) and node.op_type != "Constant":  # which is a weight
            slots[key_of(node)] = found
        elif not any(found) and not wide.isdisjoint((*node.input, *node.output)):
            kept[node.op_type] += 1
    return slots, dict(kept)


def _narrow_slots(
    node: onnx.NodeProto, schema: onnx.defs.OpSchema, wide: Collection[str], precision: str
) -> Slots:
    """Say which inputs and outputs of a node become narrow; none at all when it stays as it is."""
    narrow = "tensor(float16)" if precision == "fp16" else "tensor(bfloat16)"
    inputs, outputs = allowed_types(node, schema)
    return (
        [k for k, types in inputs.items() if narrow in types and node.input[k] in wide],
        [k for k, types in outputs.items() if narrow in types and node.output[k] in wide],
    )


def _float_tensors(proto: onnx.ModelProto) -> set[str]:
    """Return the tensors of the main graph that are known to be float32."""
    graph = inferred(proto).graph  # tensors of unknown type stay as they are
    values = (*graph.input, *graph.output, *graph.value_info, *proto.graph.value_info)
    found = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}


def _newest(node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
    """Return the newest schema of an operator: builders take types in old opsets that only new ones allow."""
    if not is_onnx(node.domain):
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type)
        return onnx.defs.get_schema(node.op_type, schema.since_version - 1) if schema.deprecated else schema
    except onnx.defs.SchemaError:
        return None
