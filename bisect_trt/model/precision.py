"""A model in float16 or bfloat16 for builders that take types as they stand (strong typing).

Every float32 tensor `t` gets a narrow twin `t__fp16`: nodes that can compute in the narrow type read and
write the twins, all others keep `t`. A Cast joins the two where somebody needs both. So inputs, outputs,
subgraphs and every name of the model keep their types and meanings.

What stays float32: nodes whose operator has no narrow form (NonMaxSuppression, the scales of Resize),
nodes with subgraphs, operators that nobody knows, and arithmetic on shapes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from bisect_trt.machine import native
from bisect_trt.model.graph import bodies, consumed, is_onnx, topological
from bisect_trt.model.patch import NARROW, TYPE_ATTRIBUTES
from bisect_trt.model.shape_arithmetic import shape_arithmetic
from bisect_trt.model.skeleton import skeleton
from bisect_trt.model.walk import copied, refill
from bisect_trt.model.weight_values import EMBED_LIMIT, save_whole, values_of

_RANDOM = ("RandomNormal", "RandomUniform")  # float32 unless they say otherwise


@dataclass
class Narrowed:
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
    work = _Narrowing(proto, folder, precision)
    work.run()
    done = Narrowed(b"", folder, work.count, dict(work.kept), work.clamped)
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > EMBED_LIMIT:
        save_whole(proto, folder, scratch / "narrow.onnx", outside=True)
        done.folder = scratch
    done.model = proto.SerializeToString()
    return done


class _Narrowing:
    def __init__(self, proto: onnx.ModelProto, folder: Path, precision: str) -> None:
        self.proto, self.folder = proto, folder
        self.count, self.clamped = 0, 0
        self.kept: Counter[str] = Counter()
        self._type = NARROW[precision]
        self._wide = _float_tensors(proto)
        self._weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        known = set(self._wide) | {t for n in proto.graph.node for t in (*n.input, *n.output)}
        self._suffix = f"__{precision}"
        while any(name.endswith(self._suffix) for name in known):
            self._suffix += "_"
        self._on_shapes = shape_arithmetic(proto.graph)
        self._versions = [o for o in proto.opset_import if is_onnx(o.domain)]
        self._nodes: list[onnx.NodeProto] = []
        self._made_wide: set[str] = set()
        self._made_narrow: set[str] = set()
        self._read: set[str] = set()  # weights that somebody reads as they are

    def run(self) -> None:
        """Rewrite the graph in place."""
        graph = self.proto.graph
        self._made_wide |= {value.name for value in graph.input} | self._weights.keys()
        for node in [graph.node[k] for k in topological(list(graph.node))]:
            self._take(node)
        for value in graph.output:
            self._need_wide(value.name)
        refill(graph.node, self._nodes)
        del graph.value_info[:]
        self._drop_weights()
        self.proto.ir_version = max(4, self.proto.ir_version)  # before, initializers were inputs

    def _take(self, node: onnx.NodeProto) -> None:
        node = copied(node)
        inputs, outputs = self._narrow_slots(node)
        if not inputs and not outputs:
            if any(name in self._wide for name in (*node.input, *node.output)):
                self.kept[node.op_type] += 1
            for name in consumed(node):
                self._need_wide(name)
        else:
            self.count += 1
            for k, name in enumerate(node.input):
                if k in inputs:
                    node.input[k] = self._need_narrow(name)
                else:
                    self._need_wide(name)
            for k in outputs:
                self._made_narrow.add(node.output[k])
                node.output[k] += self._suffix
            self._change_attributes(node)
        self._nodes.append(node)
        self._made_wide.update(name for k, name in enumerate(node.output) if name and k not in outputs)

    def _narrow_slots(self, node: onnx.NodeProto) -> tuple[list[int], list[int]]:
        """Say which inputs and outputs of a node become narrow; none at all when it stays as it is."""
        on_shapes = self._on_shapes.intersection(node.output) and node.op_type not in ("Shape", "Size")
        schema = None if on_shapes or any(True for _ in bodies(node)) else _newest(node)
        if schema is None:
            return [], []
        allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
        narrow = "tensor(float16)" if self._type == TensorProto.FLOAT16 else "tensor(bfloat16)"

        def fits(formals: list[onnx.defs.OpSchema.FormalParameter], k: int, name: str) -> bool:
            if name not in self._wide or not formals:
                return False
            kind = formals[min(k, len(formals) - 1)].type_str
            return narrow in allowed.get(kind, {kind})

        inputs = [k for k, name in enumerate(node.input) if fits(list(schema.inputs), k, name)]
        outputs = [k for k, name in enumerate(node.output) if fits(list(schema.outputs), k, name)]
        return inputs, outputs

    def _change_attributes(self, node: onnx.NodeProto) -> None:
        """Make types and values narrow that a node carries with it."""
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT:
                attribute.i = self._type
            elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(self._narrow_weight(attribute.t, attribute.t.name))
            elif attribute.name in ("value_float", "value_floats"):
                given = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = self._narrow_weight(numpy_helper.from_array(np.asarray(given, np.float32)), "")
                attribute.CopyFrom(helper.make_attribute("value", tensor))
        names = {attribute.name for attribute in node.attribute}
        if node.op_type in _RANDOM and "dtype" not in names:
            node.attribute.append(helper.make_attribute("dtype", self._type))
        if node.op_type == "ConstantOfShape" and "value" not in names:
            zero = TensorProto(data_type=self._type, dims=[1], raw_data=b"\0\0")
            node.attribute.append(helper.make_attribute("value", zero))

    def _need_wide(self, name: str) -> None:
        """Put a float32 tensor of this name from here on."""
        if name in self._weights:
            self._read.add(name)
        elif name in self._made_narrow and name not in self._made_wide:
            self._made_wide.add(name)
            self._nodes.append(self._cast(name + self._suffix, name, TensorProto.FLOAT))

    def _need_narrow(self, name: str) -> str:
        """Return the name of the narrow twin of a float32 tensor, which there is from here on."""
        twin = name + self._suffix
        if name not in self._made_narrow:
            self._made_narrow.add(name)
            if name in self._weights:
                self.proto.graph.initializer.append(self._narrow_weight(self._weights[name], twin))
            else:
                self._nodes.append(self._cast(name, twin, self._type))
        return twin

    def _cast(self, source: str, made: str, kind: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [source], [made], name=f"{made}_cast{self._suffix}", to=kind)

    def _narrow_weight(self, tensor: TensorProto, name: str) -> TensorProto:
        wide = values_of(tensor, self.folder)
        dtype = helper.tensor_dtype_to_np_dtype(self._type)
        # The largest value that does not round to infinity.
        most = np.float32(65504 if self._type == TensorProto.FLOAT16 else 3.3895313892515355e38)
        beyond = np.isfinite(wide) & (np.abs(wide) > most)
        self.clamped += int(np.count_nonzero(beyond))
        values = np.where(beyond, np.copysign(most, wide), wide).astype(dtype)
        return TensorProto(name=name, data_type=self._type, dims=wide.shape, raw_data=values.tobytes())

    def _drop_weights(self) -> None:
        """Drop the weights that only narrow nodes read: these have their twins now."""
        graph = self.proto.graph
        gone = {name for name in self._weights if name in self._made_narrow and name not in self._read}
        for part in (graph.initializer, graph.input):
            refill(part, [one for one in part if one.name not in gone])


def _float_tensors(proto: onnx.ModelProto) -> set[str]:
    """Return the tensors of the main graph that are known to be float32."""
    try:
        graph = native.infer_shapes(skeleton(proto)).graph
    except (native.RefusedError, native.NotKnownError):
        graph = proto.graph  # tensors of unknown type stay as they are
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
