"""Models whose outputs differ on a target for a reason, and models that only make its rounding large.

Each case is a model with its input, a target, a tolerance, and the node that has to be named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

import accuracy_cases as cases
import openvino_cpu
from accuracy_cases import Builder, batch
from bisect_trt.settings import AccuracySettings

Feeds = dict[str, Any]
Made = tuple[onnx.ModelProto, Feeds]
OPENVINO = openvino_cpu.SPEC


@dataclass(frozen=True)
class Case:
    """A model that differs on a target, and what is to be said of it."""

    name: str
    make: Callable[[], Made]
    target: str
    rtol: float | None = None
    named: str = ""  # a node that is to blame, or that makes errors large

    @property
    def accuracy(self) -> AccuracySettings:
        rtol = () if self.rtol is None else (("", self.rtol),)
        return AccuracySettings(rtol=rtol)


def raised(layers: int = 2) -> Made:
    """+8192 and -8192 around nothing: in FP16 numbers beyond 8192 are 8 apart."""
    b = Builder()
    up = b.node("Add", b.layers("x", layers), b.weight(8192.0), name="raise")
    return b.done({"x": [8, 32]}, b.layers(b.node("Sub", up, b.weight(8192.0), name="lower"), 2)), batch()


def normalised() -> Made:
    """A block with a norm between +8192 and -8192."""
    b = Builder()
    last = b.weight([-1], np.int64)
    up = b.node("Add", b.layers("x", 2), b.weight(8192.0), name="raise")
    centred = b.node("Sub", up, b.node("ReduceMean", up, last, keepdims=1), name="centre")
    variance = b.node("ReduceMean", b.node("Mul", centred, centred), last, keepdims=1)
    norm = b.node("Div", centred, b.node("Sqrt", b.node("Add", variance, b.weight(1e-5))))
    total = b.node("Add", up, b.linear(norm))
    return b.done({"x": [8, 32]}, b.layers(b.node("Sub", total, b.weight(8192.0), name="lower"), 1)), batch()


def variance_in_one_pass() -> Made:
    """E[y^2] - E[y]^2 of numbers around 3000."""
    b = Builder()
    last = b.weight([-1], np.int64)
    y = b.node("Add", b.layers("x", 2, 64), b.weight(3000.0))
    mean = b.node("ReduceMean", y, last, keepdims=1)
    squares = b.node("ReduceMean", b.node("Mul", y, y), last, keepdims=1)
    variance = b.node("Abs", b.node("Sub", squares, b.node("Mul", mean, mean), name="difference"))
    scale = b.node("Sqrt", b.node("Add", variance, b.weight(1e-5)))
    return b.done({"x": [8, 64]}, b.node("Div", b.node("Sub", y, mean), scale)), batch(64)


def chaos() -> Made:
    """The logistic map doubles an error in each of 24 steps."""
    b = Builder()
    z = b.node("Sigmoid", b.layers("x", 2, 64))
    for k in range(24):
        z = b.node("Mul", b.node("Mul", z, b.node("Sub", b.weight(1.0), z)), b.weight(3.99), name=f"step{k}")
    return b.done({"x": [8, 64]}, z), batch(64)


def divided() -> Made:
    """1 / ((x + 1000) - 999.9999)."""
    b = Builder()
    y = b.node("Add", b.layers("x", 2, 64), b.weight(1000.0))
    small = b.node("Sub", y, b.weight(999.9999), name="difference")
    return b.done({"x": [8, 64]}, b.node("Div", b.weight(1.0), small, name="divide")), batch(64)


def equal_logits() -> Made:
    """A hundred logits near 1e9 that ought to be equal: which is the largest is up to the order of sums."""
    b = Builder()
    image = np.random.default_rng(3).uniform(0.5, 1.5, (1, 64, 13, 13)).astype(np.float32)
    weight = np.repeat(b.rng.uniform(1e7, 2e7, (1, 64, 1, 1)), 100, 0)
    pooled = b.node("GlobalAveragePool", b.node("Relu", b.node("Conv", "x", b.weight(weight))))
    return b.done({"x": [1, 64, 13, 13]}, b.node("Softmax", pooled, name="softmax", axis=1)), {"x": image}


def decided(op: str) -> Made:
    """Scores that lie closer together than FP16 tells apart, and an operator that decides by them."""
    b = Builder()
    x = b.node("Add", b.node("Mul", b.layers("x", 1, 64), b.weight(1e-3)), b.weight(3.0), name="close")
    if op == "ArgMax":
        best = b.node(op, x, name="decide", axis=-1, keepdims=0)
        return b.done({"x": [8, 64]}, _as_float(b, best)), batch(64)
    if op == "TopK":
        b.nodes.append(
            onnx.helper.make_node(op, [x, b.weight([5], np.int64)], ["values", "indices"], "decide")
        )
        return b.done({"x": [8, 64]}, _as_float(b, "indices")), batch(64)
    if op == "Greater":
        return b.done({"x": [8, 64]}, _as_float(b, b.node(op, x, b.weight(3.0002), name="decide"))), batch(64)
    if op == "NonZero":
        mask = _as_float(b, b.node("Greater", x, b.weight(3.0002)))
        return b.done({"x": [8, 64]}, _as_float(b, b.node(op, mask, name="decide"))), batch(64)
    if op == "QuantizeLinear":
        less = b.node("Sub", x, b.weight(3.0))
        scaled = b.node(op, less, b.weight(1e-5), b.weight(0, np.int8), name="decide")
        return b.done({"x": [8, 64]}, _as_float(b, scaled)), batch(64)
    if op == "Floor":
        return b.done({"x": [8, 64]}, b.node(op, b.node("Mul", b.linear(x, 64), b.weight(300.0)))), batch(64)
    rounded = b.node(op, b.node("Mul", x, b.weight(1000.0)), name="decide")
    return b.done({"x": [8, 64]}, b.node("Sub", rounded, b.weight(3000.0))), batch(64)


def root_mean_square() -> Made:
    """Squares of values around 500, and what is made of them."""
    b = Builder()
    x = b.node("Mul", b.layers("x", 2), b.weight(700.0))
    squares = b.node("Mul", x, x, name="square")
    mean = b.node("ReduceMean", squares, b.weight([-1], np.int64), keepdims=1)
    norm = b.node("Reciprocal", b.node("Sqrt", b.node("Add", mean, b.weight(1e-6))))
    return b.done({"x": [8, 32]}, b.layers(b.node("Mul", x, norm), 1)), batch()


def half_with_norm() -> Made:
    """A float16 model between float32 inputs and outputs: 160,000 between two nodes of a norm."""
    node, half = onnx.helper.make_node, np.float16
    rng = np.random.default_rng(0)
    nodes = [
        node("Cast", ["x"], ["a"], "cast", to=onnx.TensorProto.FLOAT16),
        node("MatMul", ["a", "w"], ["b"], "mm"),
        node("Mul", ["b", "scale"], ["c"], "outlier"),
        node("ReduceMean", ["c"], ["m"], "mean", axes=[-1]),
        node("Sub", ["c", "m"], ["d"], "sub"),
        node("Pow", ["d", "two"], ["q"], "pow"),
        node("ReduceMean", ["q"], ["v"], "var", axes=[-1]),
        node("Sqrt", ["v"], ["s"], "sqrt"),
        node("Div", ["d", "s"], ["o"], "div"),
        node("Cast", ["o"], ["y"], "back", to=onnx.TensorProto.FLOAT),
    ]
    scale = np.where(np.arange(32) == 5, 400, 1).astype(half)
    values = {"w": (rng.standard_normal((32, 32)) / 6).astype(half), "scale": scale, "two": np.array(2, half)}
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [8, 32]) for n in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    ), batch()


def reciprocal(between: str) -> Made:
    """1 / x with ones that are folded, and a Mul: ONNX Runtime 1.32 fuses both and loses a dimension."""
    b = Builder()
    ones = b.node(
        "ConstantOfShape", b.weight([1, 1, 1], np.int64), value=onnx.helper.make_tensor("v", 1, [1], [1.0])
    )
    x = b.node("Add", b.node("Abs", b.layers("x", 1)), b.weight(1.0))
    four = b.node("Sqrt", b.weight(4.0))
    if between == "Cast":
        part = b.node("Cast", b.node("Div", ones, x, name="divide"), to=onnx.TensorProto.FLOAT, name="same")
        y = b.node("Mul", four, part, name="times")
    else:
        y = b.node(
            "Mul", b.node("Div", ones, b.node("Dropout", x, name="same"), name="divide"), four, name="times"
        )
    return b.done({"x": [8, 32]}, y), batch()


def reshaped() -> Made:
    """A Reshape by two sizes of another input: ONNX Runtime 1.32 takes those of its data instead."""
    b = Builder()
    sizes, axis = b.node("Shape", "s"), b.weight([0], np.int64)
    parts = [
        b.node("Unsqueeze", b.node("Gather", sizes, b.weight(k, np.int64), axis=0), axis) for k in (0, 1)
    ]
    shape = b.node("Concat", *parts, b.weight([-1], np.int64), axis=0)
    y = b.node("Tanh", b.node("Reshape", b.node("Exp", "x"), shape, name="reshape"))
    made = b.done({"x": ["N", "M", "K"], "s": ["N", "M"]}, y)  # type: ignore[list-item]
    rng = np.random.default_rng(0)
    return made, {"x": rng.random((2, 3, 4)).astype(np.float32), "s": np.zeros((4, 3), np.float32)}


def dropout() -> onnx.ModelProto:
    """A network that was exported while it was trained."""
    b = Builder()
    training = [b.layers("x", 2), b.weight(0.3), b.weight(True, bool)]
    b.nodes.append(onnx.helper.make_node("Dropout", training, ["dropped"], "drop"))
    return b.done({"x": [8, 32]}, b.layers("dropped", 2))


def drawn(op: str) -> onnx.ModelProto:
    """A network with a node that gives something else each time."""
    b = Builder()
    x = b.layers("x", 1)
    if op == "Multinomial":
        y = _as_float(b, b.node(op, x, name="random", dtype=onnx.TensorProto.INT32, sample_size=4))
    elif op == "BatchNormalization":
        values = [b.weight(np.full(32, v)) for v in (1, 0, 0, 1)]
        made = onnx.helper.make_node(op, [x, *values], ["y", "mean", "var"], "random", training_mode=1)
        b.nodes.append(made)
        y = "y"
    else:
        y = b.node(op, b.node("Sigmoid", x), name="random")
    return b.done({"x": [8, 32]}, b.node("Exp", y))


def infinite(op: str) -> onnx.ModelProto:
    """A network whose reference is NaN or Inf in every element."""
    b = Builder()
    x = b.layers("x", 1)
    zero = b.node("Sub", x, x)
    first = {
        "Div": lambda: b.node("Div", zero, zero, name="first"),
        "Sqrt": lambda: b.node("Sqrt", b.node("Sub", x, b.weight(2.0)), name="first"),
        "Exp": lambda: b.node("Exp", b.node("Add", x, b.weight(1000.0)), name="first"),
        "Softmax": lambda: b.node("Softmax", b.node("Add", x, b.weight(-np.inf)), name="first", axis=-1),
    }[op]()
    return b.done({"x": [8, 32]}, b.node("Neg", first))


def never_finite() -> onnx.ModelProto:
    """The logarithm of less than zero, in every element."""
    b = Builder()
    below = b.node("Sub", b.layers("x", 1), b.weight(2.0))
    return b.done({"x": [8, 32]}, b.layers(b.node("Log", below, name="log"), 1))


def _as_float(b: Builder, x: str) -> str:
    return b.node("Cast", x, to=onnx.TensorProto.FLOAT)


REAL = (
    Case("cubic resize", lambda: cases.convolutions("cubic"), OPENVINO, 1e-3, "culprit"),
    Case("maximum of regions", lambda: cases.convolutions("roi_align_max"), OPENVINO, 1e-3, "culprit"),
    Case("aspect ratio", lambda: cases.convolutions("keep_aspect_ratio"), OPENVINO, 1e-3, "culprit"),
    Case("order of ties", lambda: cases.two_branches(0), OPENVINO, None, "TopK"),
    Case("a wrong layer", cases.accumulating, "planted:node=layer5,fail=mismatch", None, "layer5"),
    Case("a layer gives NaN", cases.accumulating, "planted:node=layer5,fail=nan", None, "layer5"),
    Case("a wrong Add before a cancellation", raised, "planted:node=raise,fail=mismatch", None, "raise"),
    Case("a wrong Softmax", equal_logits, "planted:node=softmax,fail=mismatch", None, "softmax"),
    Case("masks of -3.4e38", cases.attention_mask, "emulate:fp16", None, "born"),
    Case("squares of 500", cases.layer_norm, "emulate:fp16", None, "born"),
    Case("e**14", cases.softmax, "emulate:fp16", None, "born"),
    Case("1 / 1e-7", cases.subnormal, "emulate:fp16", None, "born"),
    Case("fused across a Cast", lambda: reciprocal("Cast"), "ort:CPU", None, "divide"),
    Case("fused across a Dropout", lambda: reciprocal("Dropout"), "ort:CPU", None, "divide"),
    Case("a shape taken for another", reshaped, "ort:CPU", None, "reshape"),
)
"""Something is wrong, and it is not rounding."""

SENSITIVE = (
    Case("8192 added and taken away", raised, "emulate:fp16", None, "lower"),
    Case("a block between +8192 and -8192", normalised, "emulate:fp16", None, "centre"),
    Case("8192 in BF16", raised, "emulate:bf16", None, "lower"),
    Case("variance in one pass", variance_in_one_pass, OPENVINO, None, "difference"),
    Case("a chaotic map", chaos, OPENVINO),
    Case("division by a small difference", divided, OPENVINO, None, "difference"),
    Case("equal logits", equal_logits, OPENVINO, None, "softmax"),
    Case("close scores, ArgMax", lambda: decided("ArgMax"), "emulate:fp16", None, "decide"),
    Case("close scores, TopK", lambda: decided("TopK"), "emulate:fp16", None, "decide"),
    Case("close scores, a threshold", lambda: decided("Greater"), "emulate:fp16", None, "decide"),
    Case("close scores, NonZero", lambda: decided("NonZero"), "emulate:fp16"),
    Case("close scores, Round", lambda: decided("Round"), "emulate:fp16", None, "Sub7"),
    Case("steps of a Floor in TF32", lambda: decided("Floor"), "emulate:tf32", 1e-3),
    Case("close scores, quantised", lambda: decided("QuantizeLinear"), "emulate:bf16", None),
    Case("twelve rotations in TF32", cases.accumulating, "emulate:tf32", 1e-4),
    Case("twelve rotations in INT8", cases.accumulating, "emulate:int8", 1e-3),
    Case("twelve rotations in FP8", cases.accumulating, "emulate:fp8", 1e-2),
)
"""The target rounds, as it may, and the model makes that large."""

DOUBTFUL = (
    ("Dropout in training", dropout, "random"),
    ("Bernoulli", lambda: drawn("Bernoulli"), "random"),
    ("RandomNormalLike", lambda: drawn("RandomNormalLike"), "random"),
    ("Multinomial", lambda: drawn("Multinomial"), "random"),
    ("batch statistics", lambda: drawn("BatchNormalization"), "random"),
    ("log of less than 0", never_finite, "reference not finite"),
    ("0 / 0", lambda: infinite("Div"), "reference not finite"),
    ("root of less than 0", lambda: infinite("Sqrt"), "reference not finite"),
    ("e**1000", lambda: infinite("Exp"), "reference not finite"),
    ("all is masked", lambda: infinite("Softmax"), "reference not finite"),
)
"""Nothing can be said: `check` ends with exit code 3 and names the node, and nobody is blamed."""
