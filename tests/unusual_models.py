"""Models of many kinds that make rounding large, each with a way in which a target may compute it wrongly.

A case is a model with its input. Alone, on a target that only rounds, nobody is to blame for what differs;
with its `fault` in the target, an operator is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from accuracy_cases import Builder
from support import tensor_type

Array = np.ndarray[Any, Any]
Made = tuple[onnx.ModelProto, dict[str, Array]]
Edit = Callable[[onnx.NodeProto], None]


@dataclass(frozen=True)
class Fault:
    """What a target does wrongly with all nodes of an operator."""

    op: str
    attributes: tuple[tuple[str, Any], ...] = ()
    scale: float = 1.0  # what the first output is multiplied with
    without: int = 0  # an optional input that is ignored
    becomes: str = ""  # another operator that is computed instead

    def put_into(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """The model as the faulty target computes it."""
        found = onnx.ModelProto()
        found.CopyFrom(proto)
        nodes = []
        for node in found.graph.node:
            nodes.append(node)
            if node.op_type != self.op:
                continue
            kept = [a for a in node.attribute if a.name not in dict(self.attributes)]
            del node.attribute[:]
            node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in self.attributes)])
            if self.without and self.without < len(node.input):
                node.input[self.without] = ""
            node.op_type = self.becomes or node.op_type
            if self.scale != 1.0:
                out = node.output[0]
                node.output[0] = f"{out}#"
                found.graph.initializer.append(helper.make_tensor(f"{out}#k", 1, [], [self.scale]))
                nodes.append(helper.make_node("Mul", [f"{out}#", f"{out}#k"], [out]))
        held = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del found.graph.node[:]
        found.graph.node.extend(held)
        return found


@dataclass(frozen=True)
class Unusual:
    """A model, and the fault that a target may have with it."""

    name: str
    make: Callable[[], Made]
    fault: Fault
    rounds: str = "emulate:fp16"  # a target on which rounding shows
    faulty: str = "emulate:tf32"  # a target on which the fault shows


def floats(seed: int, *shape: int, scale: float = 1.0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def as_float(b: Builder, x: str) -> str:
    return b.node("Cast", x, to=TensorProto.FLOAT)


def recurrent(op: str) -> Made:
    """A long recurrence with gates, and the small difference of its last two states."""
    b = Builder()
    gates, hidden, size = {"GRU": 3, "LSTM": 4}[op], 16, 8
    w = b.weight(floats(1, 1, gates * hidden, size, scale=1.5))
    r = b.weight(floats(2, 1, gates * hidden, hidden, scale=1.2))
    bias = b.weight(floats(3, 1, 2 * gates * hidden))
    y = b.node(op, "x", w, r, bias, name="recurrent", hidden_size=hidden)
    y = b.node("Squeeze", y, b.weight([1], np.int64))
    one, other = (b.node("Gather", y, b.weight([k], np.int64), axis=0) for k in (38, 39))
    small = b.node("Sub", one, other, name="difference")
    squares = b.node("ReduceSum", b.node("Mul", small, small), b.weight([-1], np.int64), keepdims=1)
    return b.done({"x": [40, 2, 8]}, b.node("Div", small, squares)), {"x": floats(0, 40, 2, 8)}


def diffusion_block() -> Made:
    """GroupNorm, SiLU, Conv of a latent whose groups are nearly constant, on a large skip connection."""
    b = Builder()
    base = b.node("Add", b.node("Mul", "x", b.weight(0.02)), b.weight(40.0), name="latent")
    x = base
    for _ in range(2):
        flat = b.node("Reshape", x, b.weight([1, 4, -1], np.int64))
        one, zero = b.weight(np.ones(4)), b.weight(np.zeros(4))
        norm = b.node("InstanceNormalization", flat, one, zero, epsilon=1e-6)
        norm = b.node("Reshape", norm, b.weight([1, 16, 8, 8], np.int64))
        act = b.node("Mul", norm, b.node("Sigmoid", norm))
        w = b.weight(floats(4, 16, 16, 3, 3, scale=0.02))
        x = b.node("Add", x, b.node("Conv", act, w, pads=[1] * 4))
    return b.done({"x": [1, 16, 8, 8]}, b.node("Sub", x, base, name="residual")), {
        "x": floats(0, 1, 16, 8, 8)
    }


def detection_head() -> Made:
    """Scores that lie close together decide which boxes TopK takes."""
    b = Builder()
    scores = b.node(
        "Sigmoid", b.node("Mul", b.node("MatMul", "x", b.weight(floats(1, 32, 1))), b.weight(0.004))
    )
    flat = b.node("Reshape", scores, b.weight([-1], np.int64))
    b.nodes.append(helper.make_node("TopK", [flat, b.weight([10], np.int64)], ["best", "which"], "top"))
    boxes = b.node("MatMul", "x", b.weight(floats(2, 32, 4)))
    return b.done({"x": [200, 32]}, b.node("Gather", boxes, "which", axis=0)), {"x": floats(0, 200, 32)}


def suppressed_boxes() -> Made:
    """Boxes that overlap by about as much as the threshold."""
    b = Builder()
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 1, (1, 40, 2))
    near = corner[:, rng.integers(0, 5, 40)] + rng.normal(0, 1e-3, (1, 40, 2))
    boxes = np.concatenate([near, near + 0.5 + rng.normal(0, 0.05, (1, 40, 2))], -1).astype(np.float32)
    moved = b.node("Add", b.node("Mul", "x", b.weight(1.0 / 3)), b.weight(0.1))
    scores = b.weight(rng.permutation(40).reshape(1, 1, 40) / 40 + 0.01)
    limits = b.weight([40], np.int64), b.weight([0.8]), b.weight([0.0])
    kept = b.node("NonMaxSuppression", moved, scores, *limits, name="nms")
    return b.done({"x": [1, 40, 4]}, as_float(b, kept)), {"x": boxes * 3}


def quantised() -> Made:
    """Two layers with QDQ, and scales so fine that half a step is what FP16 rounds."""
    b = Builder()
    x, zero = "x", b.weight(3, np.int8)
    for k in range(2):
        x = b.node("QuantizeLinear", x, b.weight(0.03), zero, name=f"quantise{k}")
        x = b.node("DequantizeLinear", x, b.weight(0.03), zero)
        w = b.node(
            "DequantizeLinear", b.weight(np.round(floats(k, 32, 32, scale=20)), np.int8), b.weight(0.01)
        )
        x = b.node("MatMul", x, w)
    return b.done({"x": [4, 32]}, x), {"x": floats(0, 4, 32)}


def masked_attention(low: float) -> Made:
    """Attention with logits of some hundreds, and a mask of -Inf or -1e9."""
    b = Builder()
    q, k, v = (b.node("MatMul", "x", b.weight(floats(n, 16, 16))) for n in (1, 2, 3))
    scores = b.node("Mul", b.node("MatMul", q, b.node("Transpose", k, perm=[1, 0])), b.weight(2.0))
    keep = b.weight(np.tril(np.ones((12, 12), bool)), bool)
    soft = b.node("Softmax", b.node("Where", keep, scores, b.weight(low)), name="softmax", axis=-1)
    return b.done({"x": [12, 16]}, b.node("MatMul", soft, v)), {"x": floats(0, 12, 16)}


def log_sum_exp() -> Made:
    """How much a log-likelihood of -200 changes: log-sum-exp of one thing less that of another."""
    b = Builder()
    logits = b.node("Add", b.node("MatMul", "x", b.weight(floats(1, 16, 64))), b.weight(200.0))
    one = b.node("ReduceLogSumExp", logits, b.weight([-1], np.int64), keepdims=1, name="first")
    moved = b.node("Add", logits, b.weight(floats(2, 64, scale=1e-3)))
    other = b.node("ReduceLogSumExp", moved, b.weight([-1], np.int64), keepdims=1)
    return b.done({"x": [4, 16]}, b.node("Sub", other, one, name="gain")), {"x": floats(0, 4, 16, scale=0.3)}


def mixture_of_experts() -> Made:
    """The expert is the one with the largest of a few gates that are nearly equal."""
    b = Builder()
    gates = b.node("Mul", b.node("MatMul", "x", b.weight(floats(1, 32, 8))), b.weight(0.001))
    soft = b.node("Softmax", gates, axis=-1)
    chosen = b.node("ArgMax", soft, axis=-1, keepdims=0, name="route")
    experts = b.weight(floats(2, 8, 32, 16))
    mine = b.node("Gather", experts, chosen, axis=0)
    y = b.node("MatMul", b.node("Unsqueeze", "x", b.weight([1], np.int64)), mine)
    return b.done({"x": [64, 32]}, b.node("Squeeze", y, b.weight([1], np.int64))), {"x": floats(0, 64, 32)}


def running_sums() -> Made:
    """A moving average over 8 of 4096 steps as the difference of two running sums."""
    b = Builder()
    total = b.node("CumSum", b.node("Add", "x", b.weight(5.0)), b.weight(1, np.int64), name="cumsum")
    axis = b.weight([1], np.int64)
    late, early = (
        b.node("Slice", total, b.weight([k], np.int64), b.weight([4088 + k], np.int64), axis) for k in (8, 0)
    )
    return b.done({"x": [1, 4096]}, b.node("Sub", late, early, name="window")), {"x": floats(0, 1, 4096)}


def time_stamps() -> Made:
    """Seconds since 1970, from which the phase of a day is made."""
    b = Builder()
    hours = b.node("Div", b.node("Sub", "x", b.weight(1.7e9), name="since"), b.weight(86400.0))
    phase = b.node("Sin", b.node("Mul", hours, b.weight(6.2831853)), name="phase")
    stamps = (1.7e9 + np.arange(64) * 3601).astype(np.float32).reshape(1, 64)
    return b.done({"x": [1, 64]}, b.node("MatMul", phase, b.weight(floats(1, 64, 8)))), {"x": stamps}


def cosine_similarity() -> Made:
    """The angle between vectors that are almost zero."""
    b = Builder()
    axis = b.weight([-1], np.int64)
    one = b.node(
        "Sub",
        b.node("MatMul", "x", b.weight(floats(1, 16, 16))),
        b.node("MatMul", "x", b.weight(floats(1, 16, 16) + floats(5, 16, 16, scale=1e-5))),
        name="difference",
    )
    other = b.node("MatMul", "x", b.weight(floats(2, 16, 16)))
    dot = b.node("ReduceSum", b.node("Mul", one, other), axis, keepdims=1)
    sizes = [b.node("ReduceL2", v, axis, keepdims=1) for v in (one, other)]
    bottom = b.node("Max", b.node("Mul", *sizes), b.weight(1e-12))
    return b.done({"x": [8, 16]}, b.node("Div", dot, bottom, name="cosine")), {"x": floats(0, 8, 16)}


def nearest_resize() -> Made:
    """A grid that is read between two cells, of an image with sharp edges."""
    b = Builder()
    image = b.node("Mul", b.node("Conv", "x", b.weight(floats(1, 2, 2, 3, 3)), pads=[1] * 4), b.weight(50.0))
    grid = b.node("Add", "grid", b.weight(0.0))
    y = b.node("GridSample", image, grid, mode="bilinear", align_corners=0, name="sample")
    places = np.random.default_rng(1).uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32)
    made = b.done({"x": [1, 2, 128, 128], "grid": [1, 8, 8, 2]}, y)
    return made, {"x": floats(0, 1, 2, 128, 128), "grid": places}


def linear_resize() -> Made:
    """An image that is made larger, of which a mean is taken away."""
    b = Builder()
    scales = b.weight([1, 1, 2.5, 2.5])
    large = b.node("Resize", b.node("Add", "x", b.weight(100.0)), "", scales, mode="linear", name="resize")
    return b.done({"x": [1, 2, 12, 12]}, b.node("Sub", large, b.weight(100.0), name="centre")), {
        "x": floats(0, 1, 2, 12, 12, scale=0.1)
    }


def einsum() -> Made:
    """A bilinear form whose terms cancel."""
    b = Builder()
    half = floats(1, 32, 32)
    odd = b.weight(half - half.T + 1e-3 * np.eye(32))
    y = b.node("Einsum", "x", odd, "x", equation="bi,ij,bj->b", name="einsum")
    return b.done({"x": [8, 32]}, y), {"x": floats(0, 8, 32)}


def rotary() -> Made:
    """Angles of positions around 30,000."""
    b = Builder()
    angle = b.node("Mul", "x", b.weight(1.0 / 10 ** np.linspace(0, 4, 16)), name="angle")
    parts = [b.node(op, angle) for op in ("Sin", "Cos")]
    return b.done({"x": [8, 1]}, b.node("Concat", *parts, axis=1)), {
        "x": (30000 + np.arange(8) * 17.3).astype(np.float32).reshape(8, 1)
    }


def constant_rows() -> Made:
    """LayerNormalization of rows that hardly vary."""
    b = Builder()
    rows = b.node("Add", b.node("Mul", "x", b.weight(1e-3)), b.weight(4.0), name="rows")
    y = b.node(
        "LayerNormalization", rows, b.weight(np.ones(32)), b.weight(np.zeros(32)), name="norm", epsilon=1e-9
    )
    return b.done({"x": [4, 32]}, b.linear(y)), {"x": floats(0, 4, 32)}


def spiking() -> Made:
    """Integrate and fire: each step adds, and takes away what is above a threshold."""
    b = Builder()
    drive = b.node("MatMul", "x", b.weight(floats(1, 16, 16, scale=0.3)))
    state, total = b.weight(np.zeros((4, 16))), b.weight(np.zeros((4, 16)))
    for k in range(10):
        state = b.node("Add", b.node("Mul", state, b.weight(0.95)), drive)
        fires = as_float(b, b.node("Greater", state, b.weight(1.0), name=f"fire{k}"))
        state, total = b.node("Sub", state, fires), b.node("Add", total, fires)
    return b.done({"x": [4, 16]}, total), {"x": floats(0, 4, 16)}


def inverse() -> Made:
    """Newton's iteration for the inverse of a nearly singular matrix."""
    b = Builder()
    u, _ = np.linalg.qr(floats(1, 8, 8))
    v, _ = np.linalg.qr(floats(2, 8, 8))
    a = b.node("Add", "x", b.weight(u @ np.diag(10.0 ** -np.linspace(0, 2.5, 8)) @ v))
    y = b.node("Mul", b.node("Transpose", a, perm=[1, 0]), b.weight(0.9))
    for k in range(16):
        inner = b.node("Sub", b.weight(2 * np.eye(8)), b.node("MatMul", a, y), name=f"rest{k}")
        y = b.node("MatMul", y, inner, name=f"newton{k}")
    return b.done({"x": [8, 8]}, y), {"x": floats(0, 8, 8, scale=1e-5)}


def loop() -> Made:
    """The logistic map in the body of a Loop."""
    b = Builder()
    body = helper.make_graph(
        [
            helper.make_node("Sub", ["one", "z"], ["rest"]),
            helper.make_node("Mul", ["z", "rest"], ["zr"]),
            helper.make_node("Mul", ["zr", "rate"], ["next"]),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [tensor_type("i", [], 7), tensor_type("go", [], 9), tensor_type("z", [4, 16])],
        [tensor_type("still", [], 9), tensor_type("next", [4, 16])],
        [helper.make_tensor("one", 1, [], [1.0]), helper.make_tensor("rate", 1, [], [3.97])],
    )
    start = b.node("Sigmoid", "x")
    y = b.node("Loop", b.weight(20, np.int64), b.weight(True, bool), start, name="loop", body=body)
    return b.done({"x": [4, 16]}, y), {"x": floats(0, 4, 16)}


def branches() -> Made:
    """An If whose condition is a threshold that a sum lies close to."""
    b = Builder()
    mean = b.node(
        "ReduceMean", b.node("Tanh", b.node("MatMul", "x", b.weight(floats(1, 16, 16)))), keepdims=0
    )
    limit = 0.0
    yes = helper.make_graph([helper.make_node("Exp", ["x"], ["a"])], "yes", [], [tensor_type("a", [4, 16])])
    no = helper.make_graph([helper.make_node("Neg", ["x"], ["c"])], "no", [], [tensor_type("c", [4, 16])])
    x = floats(0, 4, 16)
    w = np.frombuffer(b.weights[0].raw_data, np.float32).reshape(16, 16)
    limit = float(np.mean(np.tanh(x.astype(np.float64) @ w))) + 1e-6
    more = b.node("Greater", mean, b.weight(limit), name="decide")
    return b.done({"x": [4, 16]}, b.node("If", more, name="branch", then_branch=yes, else_branch=no)), {
        "x": x
    }


def dynamic_quantisation() -> Made:
    """Scale and zero point follow from the data."""
    b = Builder()
    h = b.node("Tanh", b.node("MatMul", "x", b.weight(floats(1, 32, 32))))
    b.nodes.append(helper.make_node("DynamicQuantizeLinear", [h], ["q", "s", "z"], "quantise"))
    w = b.weight(np.random.default_rng(2).integers(-100, 100, (32, 32)), np.int8)
    total = as_float(b, b.node("MatMulInteger", "q", w, "z"))
    return b.done({"x": [4, 32]}, b.node("Mul", b.node("Mul", total, "s"), b.weight(0.01))), {
        "x": floats(0, 4, 32)
    }


def angles() -> Made:
    """Which way round an angle near a whole turn is: Mod of it."""
    b = Builder()
    turns = b.node("Add", b.node("MatMul", "x", b.weight(floats(1, 16, 16, scale=1e-3))), b.weight(3.0))
    part = b.node("Sub", turns, b.node("Floor", turns, name="whole"))
    return b.done({"x": [8, 16]}, b.node("Mul", part, b.weight(360.0))), {"x": floats(0, 8, 16)}


def depth() -> Made:
    """Depth from disparity: the reciprocal of a small difference."""
    b = Builder()
    left, right = (
        b.node("Conv", "x", b.weight(w), pads=[1] * 4)
        for w in (floats(1, 1, 2, 3, 3), floats(1, 1, 2, 3, 3) + floats(3, 1, 2, 3, 3, scale=2e-4))
    )
    gap = b.node("Sub", left, right, name="disparity")
    safe = b.node("Add", b.node("Abs", gap), b.weight(1e-6))
    return b.done({"x": [1, 2, 12, 12]}, b.node("Div", b.weight(1.0), safe, name="depth")), {
        "x": floats(0, 1, 2, 12, 12) + 3
    }


def spectrum() -> Made:
    """Log-magnitudes of a Fourier transform: one strong tone, and what is left of it elsewhere."""
    b = Builder()
    b.nodes.append(helper.make_node("Unsqueeze", ["x", b.weight([-1], np.int64)], ["signal"], "as_signal"))
    f = b.node("DFT", "signal", axis=1, onesided=1, name="fourier")
    power = b.node("ReduceSumSquare", f, b.weight([-1], np.int64), keepdims=0)
    tone = np.sin(2 * np.pi * 8 * np.arange(128) / 128).astype(np.float32)[None]
    return b.done({"x": [1, 128]}, b.node("Log", b.node("Add", power, b.weight(1e-20)), name="log")), {
        "x": tone + floats(0, 1, 128, scale=1e-6)
    }


def whitening() -> Made:
    """Softmax with a temperature of 0.01, and the log of what it gives."""
    b = Builder()
    sharp = b.node("Div", b.node("MatMul", "x", b.weight(floats(1, 16, 16, scale=0.2))), b.weight(0.02))
    return b.done({"x": [8, 16]}, b.node("LogSoftmax", sharp, axis=-1, name="soft")), {"x": floats(0, 8, 16)}


UNUSUAL = (
    Unusual("GRU", lambda: recurrent("GRU"), Fault("GRU", (("linear_before_reset", 1),))),
    Unusual("LSTM", lambda: recurrent("LSTM"), Fault("LSTM", (("input_forget", 1),))),
    Unusual("diffusion block", diffusion_block, Fault("InstanceNormalization", (("epsilon", 1e-3),))),
    Unusual("detection head", detection_head, Fault("TopK", (("largest", 0),))),
    Unusual("boxes that overlap", suppressed_boxes, Fault("NonMaxSuppression", (("center_point_box", 1),))),
    Unusual("QDQ", quantised, Fault("DequantizeLinear", without=2)),
    Unusual("mask of -Inf", lambda: masked_attention(-np.inf), Fault("Softmax", (("axis", 0),))),
    Unusual("mask of -1e9", lambda: masked_attention(-1e9), Fault("Softmax", scale=1.1)),
    Unusual("log-sum-exp", log_sum_exp, Fault("ReduceLogSumExp", scale=0.9)),
    Unusual("mixture of experts", mixture_of_experts, Fault("ArgMax", becomes="ArgMin")),
    Unusual("running sums", running_sums, Fault("CumSum", (("exclusive", 1), ("reverse", 1)))),
    Unusual("time stamps", time_stamps, Fault("Sin", scale=-1.0), rounds="emulate:bf16"),
    Unusual("cosine similarity", cosine_similarity, Fault("ReduceL2", scale=1.5), rounds="emulate:bf16"),
    Unusual("grid sample", nearest_resize, Fault("GridSample", (("align_corners", 1),))),
    Unusual(
        "linear resize", linear_resize, Fault("Resize", (("coordinate_transformation_mode", "asymmetric"),))
    ),
    Unusual("einsum", einsum, Fault("Einsum", scale=5.0), faulty="ort:CPU"),
    Unusual("rotary", rotary, Fault("Cos", scale=-1.0)),
    Unusual("constant rows", constant_rows, Fault("LayerNormalization", (("epsilon", 1e-2),))),
    Unusual("spiking", spiking, Fault("MatMul", scale=1.3)),
    Unusual("inverse", inverse, Fault("Sub", scale=0.9)),
    Unusual("Loop", loop, Fault("Sigmoid", scale=0.5)),
    Unusual("If", branches, Fault("Tanh", scale=0.5)),
    Unusual(
        "dynamic quantisation", dynamic_quantisation, Fault("MatMulInteger", without=2), rounds="emulate:bf16"
    ),
    Unusual("angles", angles, Fault("Floor", scale=2.0)),
    Unusual("depth", depth, Fault("Abs", scale=2.0), rounds="emulate:bf16"),
    Unusual("spectrum", spectrum, Fault("DFT", scale=2.0), rounds="emulate:bf16"),
    Unusual("sharp softmax", whitening, Fault("LogSoftmax", (("axis", 0),))),
)
