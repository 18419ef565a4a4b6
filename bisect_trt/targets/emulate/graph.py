"""Rewrites a model so that every float tensor is rounded to a narrower format; see `emulate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import onnx
from msgspec import Struct, field
from onnx import TensorProto

from bisect_trt.errors import UsageError
from bisect_trt.machine import native
from bisect_trt.model.graph import bodies, consumed, opset_of
from bisect_trt.model.normalise import write_out_sparse
from bisect_trt.model.skeleton import skeleton
from bisect_trt.model.walk import inner_nodes, refill, tensor_names
from bisect_trt.targets.emulate.rounding import FORMATS, OLDEST, TYPED, Rounder

_NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_FLOATS = _NARROW | {TensorProto.FLOAT, TensorProto.DOUBLE}

# Float inputs that are no data: TensorRT reads them on the host when it builds, in FP32.
PARAMETERS: dict[str, tuple[int, ...]] = {
    "NonMaxSuppression": (3, 4),
    "Resize": (1, 2),
    **dict.fromkeys(("DequantizeLinear", "Dropout", "QuantizeLinear", "Upsample"), (1,)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), (1, 4, 6)),
}
# What tensor cores multiply; TF32 is a format of their inputs and nothing else.
_MULTIPLIED: dict[str, tuple[int, ...]] = {
    "Einsum": tuple(range(16)),
    **dict.fromkeys(("Conv", "ConvTranspose", "DeformConv", "FusedConv"), (0, 1)),
    **dict.fromkeys(("FusedGemm", "FusedMatMul", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(("Attention", "GRU", "LSTM", "MultiHeadAttention", "RNN"), (0, 1, 2)),
}
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
# The type of what they give is in an attribute or made up of several: they run in the model's own types.
_OWN_TYPES = frozenset(
    {"Bernoulli", "BitCast", "Cast", "CastLike", "ConcatFromSequence", "Constant", "ConstantOfShape"}
    | {"DequantizeLinear", "EyeLike", "Multinomial", "Optional", "OptionalGetElement", "QuantizeLinear"}
    | {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "SequenceAt"}
    | {"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"}
)
# Arithmetic on shapes is made of these. What makes data of a shape (ConstantOfShape, Expand, Range) is none.
_ON_SHAPES = frozenset(
    {"Abs", "Add", "And", "Cast", "Ceil", "Concat", "Div", "Equal", "Floor", "Gather", "Greater", "Identity"}
    | {"Less", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "ReduceMax", "ReduceMin"}
    | {"ReduceProd", "ReduceSum", "Reshape", "Round", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Unsqueeze"}
    | {"Where"}
)


class Emulation(Struct):
    """A model whose tensors are rounded, and what could not be.

    Attributes:
        model: gives what the original gives, of the same names and types.
        inputs: name of an input of the original to its name in `model`.
        rounded: number of tensors that are rounded.
        unknown: tensors whose type could not be inferred; they are not rounded.
    """

    model: onnx.ModelProto
    inputs: dict[str, str] = field(default_factory=dict)
    rounded: int = 0
    unknown: list[str] = field(default_factory=list)


AskTypes = Callable[[Sequence[str]], Mapping[str, int]]
"""Gives the element types of tensors that onnx itself cannot infer."""


def emulate(model: onnx.ModelProto, precision: str, ask: AskTypes = lambda names: {}) -> Emulation:
    """Round every float tensor of a model to one of `rounding.FORMATS`, If/Loop/Scan bodies included.

    The model is changed; its weights stay where they are. Shape arithmetic (what depends on `Shape` and
    `Size` only) and parameters such as the scales of a Resize stay as they are. `ask` is called once, where
    operators that onnx does not know (of ONNX Runtime, or custom) leave tensors without types.

    Raises:
        UsageError: the model's opset is too old for the nodes that round, or a sparse weight is too large.
    """
    write_out_sparse(model.graph)  # they are rounded as weights are
    if model.functions:
        model = native.inline_local_functions(model)
    opset = opset_of(model)
    if opset < OLDEST[precision]:
        raise UsageError(
            f"emulate:{precision} needs opset {OLDEST[precision]}, the model has {opset}",
            "Convert it with onnx.version_converter.convert_version.",
        )
    model.ir_version = max(model.ir_version, 4)  # before, each weight had to be an input
    with suppress(native.RefusedError):  # declared types are wrong: ask for them
        _take_types(native.infer_shapes(skeleton(model)).graph, model.graph)
    if untyped := _untyped(model.graph):
        model.graph.value_info.extend(
            onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in ask(untyped).items()
        )
    emulation = Emulation(model)
    rounder = Rounder(FORMATS[precision], opset, model.graph, _unused_prefix(model.graph))
    rewrite = _Tf32(emulation, rounder) if precision == "tf32" else _Everywhere(emulation, rounder, precision)
    rewrite.graph(model.graph, None)
    return emulation


def _take_types(source: onnx.GraphProto, target: onnx.GraphProto) -> None:
    refill(target.value_info, source.value_info)
    for theirs, ours in zip(source.node, target.node, strict=True):
        for inner, own in zip(bodies(theirs), bodies(ours), strict=True):
            _take_types(inner, own)


def _untyped(graph: onnx.GraphProto) -> list[str]:
    """Return what nodes make whose type is not known; an output may be declared without one."""
    known = {v.name for v in (*graph.value_info, *graph.output) if v.type.WhichOneof("value")}
    return [t for node in graph.node for t in node.output if t and t not in known]


def _unused_prefix(graph: onnx.GraphProto) -> str:
    names = {*tensor_names(graph), *(node.name for node in inner_nodes(graph))}
    prefix = "rounded:"
    while any(name.startswith(prefix) for name in names):
        prefix = f"_{prefix}"
    return prefix


class _Scope:
    """What is known of the tensors that are visible in a graph.

    Attributes:
        types: element types; 0 for what is no tensor.
        weights: initializers.
        host: tensors that depend on nothing but shapes and are computed on the host.
        read: tensors that something needs.
        exempt: tensors that are not rounded: those of the host, their constants, and parameters.
    """

    def __init__(self, graph: onnx.GraphProto, outer: _Scope | None) -> None:
        self.types: dict[str, int] = {**(outer.types if outer else {}), **_declared_types(graph)}
        own = {tensor.name for tensor in graph.initializer}
        self.weights: frozenset[str] = (outer.weights if outer else frozenset()) | own
        host: set[str] = set(outer.host if outer else ())
        parameters: set[str] = set()
        used: dict[bool, set[str]] = {True: set(), False: set()}  # by the host, by the device
        for node in graph.node:
            read = consumed(node)
            varying = [name for name in read if name not in self.weights]
            on_shapes = node.op_type in _ON_SHAPES and varying and host.issuperset(varying)
            if node.op_type in ("Shape", "Size") or on_shapes:
                host.update(filter(None, node.output))
            used[bool(on_shapes)].update(read)
            slots = PARAMETERS.get(node.op_type, ())
            parameters.update(node.input[s] for s in slots if s < len(node.input) and node.input[s])
        self.host: frozenset[str] = frozenset(host)
        self.read = used[True] | used[False] | {value.name for value in graph.output}
        constants = (self.weights & used[True]) - used[False]
        self.exempt = self.host | parameters | constants


def _declared_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the element types that a graph declares; 0 for what is no tensor."""
    types = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.WhichOneof("value")
        if kind == "tensor_type" and value.type.tensor_type.elem_type:
            types[value.name] = value.type.tensor_type.elem_type
        elif kind is not None and kind != "tensor_type":
            types[value.name] = 0
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def host_tensors(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the tensors that depend on nothing but shapes and are computed on the host, in FP32."""
    return _Scope(graph, None).host


class _Everywhere:
    """Rounds each tensor where it is made: consumers, bodies and outputs see the rounded one.

    As `typed`, tensors that are narrow in the model are rounded to their own type, and no others.
    """

    def __init__(self, emulation: Emulation, rounder: Rounder, precision: str) -> None:
        self._emulation = emulation
        self._rounder = rounder
        self._typed = precision == TYPED
        self._format = FORMATS[precision]

    def graph(self, graph: onnx.GraphProto, outer: _Scope | None) -> None:
        scope = _Scope(graph, outer)
        weights = list(graph.initializer)  # the rounder will add its constants
        made: list[onnx.NodeProto] = []
        if outer is None:
            made += self._inputs(graph, scope)
        made += self._weights(weights, scope)
        for node in graph.node:
            made += self._node(node, scope)
        refill(graph.node, made)

    def _inputs(self, graph: onnx.GraphProto, scope: _Scope) -> Iterable[onnx.NodeProto]:
        for value in graph.input:
            raw, nodes = self._round(value.name, scope)
            self._emulation.inputs[value.name] = raw
            value.name = raw
            yield from nodes

    def _weights(self, weights: list[TensorProto], scope: _Scope) -> Iterable[onnx.NodeProto]:
        for tensor in weights:
            if tensor.name in self._emulation.inputs:  # a default value of an input
                tensor.name = self._emulation.inputs[tensor.name]
                continue
            tensor.name, nodes = self._round(tensor.name, scope)
            yield from nodes

    def _node(self, node: onnx.NodeProto, scope: _Scope) -> Iterable[onnx.NodeProto]:
        """Yield the node in FP32, with casts before it if the model is narrower, and rounding behind it."""
        if node.op_type in _CONTROL_FLOW:
            for body in bodies(node):
                self.graph(body, scope)
            yield node  # all that enters and leaves is rounded
            return
        widened = node.op_type not in _OWN_TYPES and node.domain in ("", "ai.onnx", "com.microsoft")
        if widened:
            for slot, name in enumerate(node.input):
                if scope.types.get(name) in _NARROW:
                    cast = self._rounder.cast(name, TensorProto.FLOAT)
                    node.input[slot] = cast.output[0]
                    yield cast
        behind: list[onnx.NodeProto] = []
        for slot, name in enumerate(node.output):
            if name:
                node.output[slot], nodes = self._round(name, scope, widened)
                behind += nodes
        yield node
        yield from behind

    def _round(self, name: str, scope: _Scope, widened: bool = False) -> tuple[str, list[onnx.NodeProto]]:
        """Return what to call the tensor as it is made, and the nodes that make `name` of it."""
        known = scope.types.get(name)
        if known is None and name in scope.read:
            self._emulation.unknown.append(name)
        if known not in _FLOATS:
            return name, []
        source = TensorProto.FLOAT if widened and known in _NARROW else known
        if name in scope.exempt or self._typed:
            if source == known:
                return name, []
            raw = self._rounder.fresh()
            self._emulation.rounded += self._typed
            return raw, [self._rounder.cast(raw, known, name)]
        if source == self._format.cast:
            return name, []
        self._emulation.rounded += 1
        raw = self._rounder.fresh()
        return raw, list(self._rounder.nodes(raw, source, name, known))


class _Tf32:
    """Rounds what enters a matrix product or a convolution in float32; nothing else changes."""

    def __init__(self, emulation: Emulation, rounder: Rounder) -> None:
        self._emulation = emulation
        self._rounder = rounder

    def graph(self, graph: onnx.GraphProto, outer: _Scope | None) -> None:
        scope = _Scope(graph, outer)
        if outer is None:
            self._emulation.inputs.update((value.name, value.name) for value in graph.input)
        made: list[onnx.NodeProto] = []
        rounded: dict[str, str] = {}
        for node in graph.node:
            for body in bodies(node):
                self.graph(body, scope)
            for slot in _MULTIPLIED.get(node.op_type, ()):
                if slot < len(node.input) and node.input[slot]:
                    made += self._round(node, slot, scope.types, rounded)
            made.append(node)
        refill(graph.node, made)

    def _round(
        self, node: onnx.NodeProto, slot: int, types: Mapping[str, int], rounded: dict[str, str]
    ) -> Iterable[onnx.NodeProto]:
        name = node.input[slot]
        if name not in types:
            self._emulation.unknown.append(name)
        if types.get(name) != TensorProto.FLOAT:
            return
        if name not in rounded:
            rounded[name] = self._rounder.fresh()
            self._emulation.rounded += 1
            yield from self._rounder.nodes(name, TensorProto.FLOAT, rounded[name], TensorProto.FLOAT)
        node.input[slot] = rounded[name]
