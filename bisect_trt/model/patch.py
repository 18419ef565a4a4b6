"""Patches models: casts for some nodes, inner tensors as outputs, fixed shapes of inputs.

This file stands alone: `apply.py` of a `precision` or `blame` run holds a copy of it. It needs numpy,
onnx, and for casts onnx-graphsurgeon, which is imported nowhere else.

Every float32 tensor `t` that a lowered node reads or writes gets a narrow twin, `t__fp16`; the tensor
itself keeps its name and type for those that stay. One Cast joins the two where both are needed, so casts
stand at the edges of the lowered part only, and are shared. Weights get narrow copies; values beyond the
range become infinite, as a Cast makes them.

onnx-graphsurgeon 0.6 forgets metadata, documentation, overloads of functions, default values of inputs,
texts that are no UTF-8, lists of graphs, and types that numpy has not: what it does not need to change is
taken over from the model as it was (`_mended`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

Slots = tuple[Sequence[int], Sequence[int]]
"""Which inputs and which outputs of a node become narrow."""

NARROW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
"""Types by the name that users write."""

TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
"""Attributes that name the type of what a node makes."""

Narrow = Callable[[TensorProto, str, int], TensorProto]
"""Gives a weight in a narrow type under another name, wherever its values lie."""


def key_of(node: Any) -> str:
    """Return what a node is known by: its first output; names may be empty or stand twice."""
    names = [t if isinstance(t, str) else t.name for t in (getattr(node, "output", None) or node.outputs)]
    return next((name for name in names if name), "")


def narrow_copy(tensor: TensorProto, name: str, kind: int) -> TensorProto:
    """Return a weight in another type under another name; values beyond its range become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    return TensorProto(name=name, data_type=kind, dims=tensor.dims, raw_data=values.tobytes())


@dataclass  # not a Struct: this file is handed over by itself, too, and needs onnx and numpy alone
class Lowered:
    """What came of a model.

    Attributes:
        model: with casts.
        casts: number of casts that were put in.
        missing: nodes that were to be lowered and are not there any more.
    """

    model: onnx.ModelProto
    casts: int = 0
    missing: list[str] = field(default_factory=list)


def lowered(
    model: onnx.ModelProto, slots: Mapping[str, Slots], to: str, narrow: Narrow = narrow_copy
) -> Lowered:
    """Return the model with some nodes in a narrow type.

    Args:
        model: nodes in topological order; it is not changed.
        slots: nodes to be lowered, by `key_of`, in the main graph.
        to: a key of `NARROW`.
        narrow: for weights that lie outside of the model.
    """
    gs, graph = _stripped(model)
    # Of a model that may leave them out, inputs that have a default value may be given another one.
    inputs = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
    work = _Lowering(gs, graph, slots, to, narrow, _weights(model.graph), inputs)
    work.run()
    exported = gs.export_onnx(graph, do_type_check=False)
    missing = [key for key in slots if key not in work.done]
    made = _mended(model, exported, work)
    _part(made.graph, work.made_by_casts)
    return Lowered(made, len(work.made_by_casts), missing)


def quantised(
    model: onnx.ModelProto,
    slots: Mapping[str, Slots],
    to: str,
    scales: Mapping[str, TensorProto],
    zero: TensorProto,
    weights: Mapping[str, TensorProto],
) -> Lowered:
    """Return the model with QuantizeLinear and DequantizeLinear before some nodes, one pair for each tensor.

    Args:
        model: nodes in topological order; it is not changed.
        slots: nodes whose inputs are quantised, by `key_of`, in the main graph.
        to: ends the names of what is new.
        scales: of each tensor that is quantised.
        zero: of all of them.
        weights: those that are quantised already; they only need to become float again.
    """
    gs, graph = _stripped(model)
    work = _Quantising(gs, graph, slots, to, scales, zero, weights)
    work.run()
    made = _mended(model, gs.export_onnx(graph, do_type_check=False), work)
    return Lowered(made, len(work.there))


def exposed(
    model: onnx.ModelProto, tensors: Iterable[str], inferred: onnx.ModelProto | None = None
) -> onnx.ModelProto:
    """Return a copy of the model in which these tensors of the main graph are outputs, too.

    Builders do not fuse over an output. Types and shapes are those of the model, or of `inferred`, which is
    the model with inferred shapes; a tensor without a type, or that is a sequence, is left out.
    """
    typed = {v.name: v for v in (inferred or model).graph.value_info if v.type.tensor_type.elem_type}
    inner = set(inner_tensors(model))
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.output.extend(typed[n] for n in dict.fromkeys(tensors) if n in inner and n in typed)
    return made


def fixed(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Return a copy of the model whose dynamic inputs have these shapes.

    Those of what follows are left out.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    fix(made, shapes)
    return made


def fix(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Do as `fixed` does, in place, and return whether an input was dynamic; -1 is no size."""
    changed = False
    for value in model.graph.input:
        tensor = value.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        if value.name in shapes and not (tensor.HasField("shape") and min(sizes, default=0) >= 0):
            kind = onnx.helper.make_tensor_type_proto(tensor.elem_type, shapes[value.name])
            value.type.CopyFrom(kind)
            changed = True
    if changed:
        del model.graph.value_info[:]
        for value in model.graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    return changed


def inner_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the tensors of the main graph that nodes make and that are no outputs, in topological order."""
    there = {value.name for value in model.graph.output}
    return [name for node in model.graph.node for name in node.output if name and name not in there]


def _stripped(model: onnx.ModelProto) -> tuple[Any, Any]:
    """Return onnx-graphsurgeon and its graph of the model, with no more than it needs to read."""
    import onnx_graphsurgeon as gs  # it takes a while, and not every run needs it

    gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.CRITICAL
    before = onnx.ModelProto()
    before.CopyFrom(model)
    _strip(before.graph)
    return gs, gs.import_onnx(before)


def _weights(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Return initializers, and what Constant nodes hold; their values may lie in a file, too."""
    found = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return found


def _strip(graph: onnx.GraphProto) -> None:
    """Take away what onnx-graphsurgeon need not read, some of which it cannot: `_mended` has it all."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.ClearField("type")
    for node in graph.node:
        used = (*TYPE_ATTRIBUTES, "value", "value_float", "value_floats")
        kept = [a for a in node.attribute if a.name in used or a.type == AttributeProto.GRAPH]
        del node.attribute[:]  # those that are kept live on
        node.attribute.extend(kept)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _strip(attribute.g)


class _Lowering:
    def __init__(
        self,
        gs: Any,
        graph: Any,
        slots: Mapping[str, Slots],
        to: str,
        narrow: Narrow,
        weights: Mapping[str, TensorProto],
        inputs: set[str],
    ) -> None:
        self.gs, self.graph, self.slots, self.narrow, self.weights = gs, graph, slots, narrow, weights
        self.twins: list[TensorProto] = []  # narrow weights, which onnx-graphsurgeon need not hold
        self.type = NARROW[to]
        self.dtype = onnx.helper.tensor_dtype_to_np_dtype(self.type)
        self.made_by_casts: set[str] = set()
        self.done: set[str] = set()
        self.changed: dict[str, set[str]] = {}  # attributes of a node that are other ones now
        self.suffix = f"__{to}"
        known = graph.tensors()
        while any(name.endswith(self.suffix) for name in known):
            self.suffix += "_"
        self._taken = {node.name for node in graph.nodes}
        self._inputs = inputs
        self._nodes: list[Any] = []
        self._narrow: dict[str, Any] = {}  # tensor to its twin
        self._wide: set[str] = set()  # tensors of lowered nodes that are there as they were, too
        self._made_low: dict[str, Any] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            key = key_of(node)
            if key in self.slots:
                self._lower(node, key)
            else:
                for tensor in (*node.inputs, *self._captured(node)):
                    self._need_wide(tensor)
                self._nodes.append(node)
        for tensor in self.graph.outputs:
            self._need_wide(tensor)
        self.graph.nodes[:] = self._nodes

    def _lower(self, node: Any, key: str) -> None:
        inputs, outputs = self.slots[key]
        self.done.add(key)
        for k, tensor in enumerate(list(node.inputs)):
            if k in inputs:
                node.inputs[k] = self._need_narrow(tensor)
            else:
                self._need_wide(tensor)
        for k in outputs:
            tensor = node.outputs[k]
            twin = self.gs.Variable(tensor.name + self.suffix, dtype=self._variable_type, shape=tensor.shape)
            self._narrow[tensor.name] = twin
            self._made_low[tensor.name] = tensor
            node.outputs[k] = twin
            self.changed.setdefault(twin.name, set())
        self._change_attributes(node)
        self._nodes.append(node)

    @property
    def _variable_type(self) -> Any:
        return np.float16 if self.type == TensorProto.FLOAT16 else int(self.type)

    def _need_wide(self, tensor: Any) -> None:
        original = self._made_low.get(tensor.name)
        if original is None or tensor.name in self._wide:
            return
        self._wide.add(tensor.name)
        self._cast(self._narrow[tensor.name], original, TensorProto.FLOAT)

    def _need_narrow(self, tensor: Any) -> Any:
        if tensor.name in self._narrow:
            return self._narrow[tensor.name]
        weight = self._constant(tensor)
        name = tensor.name + self.suffix
        twin = self.gs.Variable(name, dtype=self._variable_type, shape=tensor.shape)
        if weight is not None:
            self.twins.append(self.narrow(weight, name, self.type))
        else:
            self._cast(tensor, twin, self.type)
        self._narrow[tensor.name] = twin
        return twin

    def _constant(self, tensor: Any) -> TensorProto | None:
        """Return a weight, or what a Constant node holds; None for anything else."""
        if tensor.name in self._inputs:
            return None
        if tensor.name in self.weights:
            return self.weights[tensor.name]
        maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        if maker is None or maker.op != "Constant":
            return None
        for name in ("value_float", "value_floats"):
            if name in maker.attrs:
                return numpy_helper.from_array(np.asarray(maker.attrs[name], np.float32))
        return None

    def _cast(self, source: Any, made: Any, kind: int) -> None:
        self.made_by_casts.add(made.name)
        name = f"{made.name}_cast{self.suffix}"
        while name in self._taken:
            name += "_"
        attributes = {"to": int(kind)}
        self._nodes.append(self.gs.Node("Cast", name, attributes, inputs=[source], outputs=[made]))

    def _captured(self, node: Any) -> list[Any]:
        """Return the tensors that the bodies of a node name, those that are their own included."""
        found: list[Any] = []
        for value in node.attrs.values():
            for graph in [value] if isinstance(value, self.gs.Graph) else []:
                found += graph.outputs
                for inner in graph.nodes:
                    found += [*inner.inputs, *self._captured(inner)]
        return found

    def _change_attributes(self, node: Any) -> None:
        changed = self.changed.setdefault(key_of(node), set())
        for name in TYPE_ATTRIBUTES:
            if node.attrs.get(name) == TensorProto.FLOAT:
                node.attrs[name] = int(self.type)
                changed.add(name)
        if node.op == "ConstantOfShape":
            value = node.attrs.get("value")
            values = value.values if isinstance(value, self.gs.Constant) else np.zeros(1, np.float32)
            node.attrs["value"] = self.gs.Constant("value", values.astype(self.dtype))
            changed.add("value")


class _Quantising:
    suffix = ""  # no tensor gets another name
    changed: Mapping[str, set[str]] = {}

    def __init__(
        self,
        gs: Any,
        graph: Any,
        slots: Mapping[str, Slots],
        to: str,
        scales: Mapping[str, TensorProto],
        zero: TensorProto,
        weights: Mapping[str, TensorProto],
    ) -> None:
        self.gs, self.graph, self.slots, self.to = gs, graph, slots, to
        self.scales, self.zero, self.weights = scales, zero, weights
        self.twins = [zero]
        self.made_by_casts: set[str] = set()
        self.there: dict[str, Any] = {}  # tensor to what quantised nodes read of it

    def run(self) -> None:
        nodes: list[Any] = []
        for node in list(self.graph.nodes):
            for k in self.slots.get(key_of(node), ((), ()))[0]:
                node.inputs[k] = self._low(node.inputs[k], nodes)
            nodes.append(node)
        self.graph.nodes[:] = nodes

    def _low(self, tensor: Any, nodes: list[Any]) -> Any:
        if tensor.name not in self.there:
            low, made = (self.gs.Variable(f"{tensor.name}__{self.to}{end}") for end in ("", "_float"))
            scale = self.scales[tensor.name]
            more = [self.gs.Variable(scale.name), self.gs.Variable(self.zero.name)]
            self.twins.append(scale)
            if tensor.name in self.weights:
                narrow = TensorProto.FromString(self.weights[tensor.name].SerializeToString())
                narrow.name = low.name
                self.twins.append(narrow)
            else:
                nodes.append(self.gs.Node("QuantizeLinear", f"{low.name}_q", {}, [tensor, *more], [low]))
            nodes.append(self.gs.Node("DequantizeLinear", f"{low.name}_dq", {}, [low, *more], [made]))
            self.made_by_casts |= {low.name, made.name}
            self.there[tensor.name] = made
        return self.there[tensor.name]


def _mended(
    model: onnx.ModelProto, exported: onnx.ModelProto, work: _Lowering | _Quantising
) -> onnx.ModelProto:
    """Return the exported nodes and weights in the model as it was; nodes keep all that was not changed."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    known = {key_of(node): node for node in model.graph.node}
    fresh = onnx.GraphProto()
    for node in exported.graph.node:
        key = key_of(node)
        old = known.get(key) or known.get(key.removesuffix(work.suffix))
        if old is None or key in work.made_by_casts:  # which may make what a Cast of the user's made
            fresh.node.append(node)
            continue
        kept = fresh.node.add()
        kept.CopyFrom(old)
        del kept.input[:], kept.output[:]
        kept.input.extend(node.input)
        kept.output.extend(node.output)
        _take_attributes(kept, node, work.changed.get(key, set()))
    there = {t.name for t in model.graph.initializer}
    needed = _read(fresh) | {o.name for o in model.graph.output} | {i.name for i in model.graph.input}
    fresh.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    fresh.initializer.extend(t for t in exported.graph.initializer if t.name not in there)
    fresh.initializer.extend(work.twins)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(n for n in fresh.node if n.op_type != "Constant" or key_of(n) in needed)
    made.graph.initializer.extend(fresh.initializer)
    made.ir_version = max(4, made.ir_version)  # before, initializers were inputs
    return made


def _part(graph: onnx.GraphProto, casts: Collection[str]) -> None:
    """Put a Sum of one tensor behind a Cast where a LayerNorm has its data and its scale in two types.

    ONNX Runtime (1.32) fuses such nodes over the Cast to a LayerNormalization of two types, and refuses the
    model then. It drops an Identity before that, but no Sum. That is narrow unless data is cast to FP32.
    """
    makers = {name: node for node in graph.node for name in node.output}
    apart: dict[str, bool] = {}  # what a Cast makes, and whether it is that of the data
    for scaled in (name for node in graph.node if node.op_type == "Mul" for name in node.input):
        data, passed = _behind_a_norm(scaled, makers, casts)
        if data and len(passed) % 2:
            apart[passed[0]] = makers[passed[0]].input[0] == data
    fresh = onnx.GraphProto()
    for node in graph.node:
        copy, made = fresh.node.add(), key_of(node)
        copy.CopyFrom(node)
        if made in apart:
            between = f"{made}_apart"
            if not apart[made] and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute):
                kept = onnx.NodeProto()
                kept.CopyFrom(copy)
                copy.CopyFrom(onnx.NodeProto(op_type="Sum", name=between, input=node.input, output=[between]))
                kept.input[0] = between
                fresh.node.append(kept)
            else:
                copy.output[0] = between
                fresh.node.add(op_type="Sum", name=between, input=[between], output=[made])
    del graph.node[:]
    graph.node.extend(fresh.node)


def _behind_a_norm(
    name: str, makers: Mapping[str, onnx.NodeProto], casts: Collection[str]
) -> tuple[str, list[str]]:
    """Return the input of a LayerNorm, empty if this is none, and the casts on the way."""
    passed: list[str] = []
    for op in ("Div", "Sub", ""):  # from the scale back to the data
        if name in casts:
            passed.append(name)
            name = makers[name].input[0]
        if not op:
            return name, passed
        if name not in makers or makers[name].op_type != op:
            break
        name = makers[name].input[0]
    return "", passed


def _take_attributes(kept: onnx.NodeProto, node: onnx.NodeProto, changed: set[str]) -> None:
    left = [a for a in kept.attribute if a.name not in changed]
    del kept.attribute[:]
    kept.attribute.extend([*left, *(a for a in node.attribute if a.name in changed)])


def _read(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that nodes read, in bodies too."""
    found: set[str] = set()
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                found |= _read(body) | {o.name for o in body.output}
    return found
