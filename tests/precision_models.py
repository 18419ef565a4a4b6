"""Small models that are wrong in FP16, each for another reason; made by numpy, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
F32, I64 = TensorProto.FLOAT, TensorProto.INT64


class Builder:
    """Adds nodes one by one; `w` makes weights, everything else an operator."""

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, Array] = {}
        self.scope = ""

    def input(self, name: str, value: Array) -> str:
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
        self.feeds[name] = value
        return name

    def w(self, value: Any, name: str = "", dtype: Any = np.float32) -> str:
        name = name or f"{self.scope}w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def i(self, *value: int) -> str:
        return self.w(list(value), dtype=np.int64)

    def randn(self, *shape: int, scale: float | None = None) -> str:
        scale = scale if scale is not None else 1 / np.sqrt(shape[0] if len(shape) > 1 else 1)
        return self.w(self.rng.standard_normal(shape) * scale)

    def __call__(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        name = f"{self.scope}{op}_{len(self.nodes)}"
        made = [f"{name}_out{k}" if outputs > 1 else f"{name}_out" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, name, **attributes))
        return made[0] if outputs == 1 else made

    def model(self, **outputs: str) -> onnx.ModelProto:
        given = []
        for name, tensor in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name], f"out_{name}"))
            given.append(helper.make_tensor_value_info(name, F32, None))
        graph = helper.make_graph(self.nodes, "g", self.inputs, given, self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(made, data_prop=True)
        types = {v.name: v for v in inferred.graph.output}
        for value in made.graph.output:
            value.CopyFrom(types[value.name])
        onnx.checker.check_model(made)
        return made

    # Blocks

    def linear(self, x: str, n: int, m: int) -> str:
        bias = self.w(self.rng.standard_normal(m) * 0.1)
        return str(self("Add", self("MatMul", x, self.randn(n, m)), bias))

    def layer_norm(self, x: str, n: int, eps: float = 1e-5) -> str:
        centred = self("Sub", x, self("ReduceMean", x, axes=[-1]))
        square = self("Pow", centred, self.w(2.0))
        deviation = self("Sqrt", self("Add", self("ReduceMean", square, axes=[-1]), self.w(eps)))
        normal = self("Div", centred, deviation)
        gain = self.w(1 + 0.1 * self.rng.standard_normal(n))
        return str(self("Add", self("Mul", normal, gain), self.w(0.1 * self.rng.standard_normal(n))))

    def rms_norm(self, x: str, n: int) -> str:
        square = self("Pow", x, self.w(2.0))
        mean = self("ReduceMean", square, axes=[-1])
        inverse = self("Reciprocal", self("Sqrt", self("Add", mean, self.w(1e-6))))
        gain = self.w(1 + 0.1 * self.rng.standard_normal(n))
        return str(self("Mul", gain, self("Mul", x, inverse)))

    def gelu(self, x: str) -> str:
        erf = self("Erf", self("Div", x, self.w(np.sqrt(2.0))))
        return str(self("Mul", self("Mul", x, self("Add", erf, self.w(1.0))), self.w(0.5)))

    def silu(self, x: str) -> str:
        return str(self("Mul", x, self("Sigmoid", x)))

    def attention(self, x: str, length: int, n: int, heads: int, mask: str = "") -> str:
        size = n // heads
        split = self.i(1, length, heads, size)
        q, k, v = (self("Reshape", self.linear(x, n, n), split) for _ in range(3))
        q, v = (self("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = self("Transpose", k, perm=[0, 2, 3, 1])
        scores = self("Div", self("MatMul", q, k), self.w(np.sqrt(size)))
        if mask:
            scores = self("Add", scores, mask)
        mixed = self("MatMul", self("Softmax", scores, axis=-1), v)
        mixed = self("Reshape", self("Transpose", mixed, perm=[0, 2, 1, 3]), self.i(1, length, n))
        return self.linear(mixed, n, n)

    def conv(self, x: str, a: int, b: int, k: int = 3, **more: Any) -> str:
        weight = self.w(self.rng.standard_normal((b, a, k, k)) / np.sqrt(a * k * k))
        return str(self("Conv", x, weight, self.randn(b, scale=0.1), pads=[k // 2] * 4, **more))


Made = tuple[onnx.ModelProto, dict[str, Array]]


def keywords() -> Made:
    """A keyword classifier; the squares of one LayerNorm overflow."""
    b = Builder(1)
    x = b.input("audio", b.rng.standard_normal((1, 16, 40)).astype(np.float32))
    h = b.linear(x, 40, 32)
    for k in range(3):
        b.scope = f"/block{k}/"
        scale = b.w(4000.0 if k == 1 else 1.0)
        normal = b.layer_norm(b("Mul", h, scale), 32)
        h = b("Add", h, b.linear(b.gelu(b.linear(normal, 32, 64)), 64, 32))
    b.scope = "/head/"
    pooled = b("ReduceMean", h, axes=[1], keepdims=0)
    return b.model(scores=b("Softmax", b.linear(pooled, 32, 12), axis=-1)), b.feeds


def masked(filler: float = -3.0e38, seed: int = 2) -> Made:
    """A translator; positions that are masked get a filler that FP16 has not."""
    b = Builder(seed)
    x = b.input("x", b.rng.standard_normal((1, 12, 32)).astype(np.float32))
    mask = b.input("mask", (np.arange(12) < 9).astype(np.float32)[None, None, None])
    bias = b("Mul", b("Sub", b.w(1.0), mask), b.w(filler))
    h = x
    for k in range(2):
        b.scope = f"/layer{k}/"
        h = b.layer_norm(b("Add", h, b.attention(h, 12, 32, 4, bias)), 32)
        h = b.layer_norm(b("Add", h, b.linear(b("Relu", b.linear(h, 32, 64)), 64, 32)), 32)
    return b.model(logits=b("Mul", b.linear(h, 32, 20), b.w(0.2))), b.feeds


def squeezed() -> Made:
    """A SqueezeNet whose middle is too large for FP16 from the first convolution of it to the last."""
    b = Builder(3)
    x = b.input("image", b.rng.standard_normal((1, 3, 32, 32)).astype(np.float32))
    h = b("MaxPool", b("Relu", b.conv(x, 3, 16)), kernel_shape=[2, 2], strides=[2, 2])

    def fire(h: str, a: int) -> str:
        s = b("Relu", b.conv(h, a, 8, 1))
        one, three = b("Relu", b.conv(s, 8, 16, 1)), b("Relu", b.conv(s, 8, 16))
        return str(b("Concat", one, three, axis=1))

    h = fire(fire(h, 16), 32)
    h = b("Mul", h, b.w(2.0e5))
    h = fire(fire(h, 32), 32)
    h = b("Mul", h, b.w(1.0 / 2.0e5))
    h = fire(fire(h, 32), 32)
    pooled = b("GlobalAveragePool", b.conv(h, 32, 10, 1))
    return b.model(y=b("Softmax", b("Flatten", pooled), axis=1)), b.feeds


def llama(layers: int = 4, grow: float = 700.0, length: int = 8, n: int = 32) -> Made:
    """A decoder with RMSNorm and rotary positions; the stream is large from the second layer on."""
    b = Builder(4)
    heads = 4
    x = b.input("x", b.rng.standard_normal((1, length, n)).astype(np.float32))
    causal = b.w(np.triu(np.full((length, length), -1e4), 1)[None, None])
    size = n // heads
    angle = np.arange(length)[:, None] / 100 ** (np.arange(size // 2) / (size // 2))
    cos, sin = b.w(np.cos(np.concatenate([angle] * 2, 1))), b.w(np.sin(np.concatenate([angle] * 2, 1)))

    def rotated(t: str) -> str:
        one, two = b("Split", t, outputs=2, axis=-1)
        turned = b("Concat", b("Neg", two), one, axis=-1)
        return str(b("Add", b("Mul", t, cos), b("Mul", turned, sin)))

    h = x
    for k in range(layers):
        b.scope = f"/layers.{k}/"
        if k == layers // 2:
            h = b("Mul", h, b.w(grow))
        t = b.rms_norm(h, n)
        split = b.i(1, length, heads, size)
        q, key, v = (
            b("Transpose", b("Reshape", b("MatMul", t, b.randn(n, n)), split), perm=[0, 2, 1, 3])
            for _ in range(3)
        )
        scores = b("MatMul", rotated(q), b("Transpose", rotated(key), perm=[0, 1, 3, 2]))
        scores = b("Add", b("Mul", scores, b.w(1 / np.sqrt(size))), causal)
        mixed = b("Transpose", b("MatMul", b("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        out = b("MatMul", b("Reshape", mixed, b.i(1, length, n)), b.randn(n, n))
        h = b("Add", h, out)
        t = b.rms_norm(h, n)
        up = b("Mul", b.silu(b("MatMul", t, b.randn(n, 2 * n))), b("MatMul", t, b.randn(n, 2 * n)))
        h = b("Add", h, b("MatMul", up, b.randn(2 * n, n)))
    b.scope = "/head/"
    return b.model(logits=b("MatMul", b.rms_norm(h, n), b.randn(n, 24, scale=0.02))), b.feeds


def gpt_cancelling() -> Made:
    """A GPT-2 in which a large offset is added and taken away again."""
    b = Builder(5)
    x = b.input("x", b.rng.standard_normal((1, 10, 32)).astype(np.float32))
    h = x
    for k in range(3):
        b.scope = f"/h.{k}/"
        h = b("Add", h, b.attention(b.layer_norm(h, 32), 10, 32, 4))
        if k == 1:
            h = b("Sub", b("Add", h, b.w(4096.0)), b.w(4096.0))
        h = b("Add", h, b.linear(b.gelu(b.linear(b.layer_norm(h, 32), 32, 64)), 64, 32))
    logits = b("MatMul", b.layer_norm(h, 32), b.randn(32, 24, scale=0.02))
    return b.model(logits=logits), b.feeds


def bert() -> Made:
    """An encoder with two LayerNorms whose variance overflows."""
    b = Builder(6)
    ids = b.input("ids", np.arange(12, dtype=np.int64)[None])
    table = b.randn(30, 32, scale=1.0)
    h = b.layer_norm(b("Gather", table, ids), 32)
    for k in range(4):
        b.scope = f"/encoder/{k}/"
        total = b("Add", h, b.attention(h, 12, 32, 4))
        h = b.layer_norm(b("Mul", total, b.w(900.0)) if k in (1, 2) else total, 32)
        h = b.layer_norm(b("Add", h, b.linear(b.gelu(b.linear(h, 32, 64)), 64, 32)), 32)
    pooled = b("Tanh", b.linear(b("Gather", h, b.w(0, dtype=np.int64), axis=1), 32, 32))
    return b.model(span=b("MatMul", h, b.randn(32, 2, scale=0.01)), pooled=pooled), b.feeds


def gpt_rms() -> Made:
    """A GPT with RMSNorm everywhere and a stream that is large from the start."""
    b = Builder(7)
    x = b.input("x", b.rng.standard_normal((1, 8, 32)).astype(np.float32))
    h = b("Mul", x, b.w(1500.0))
    for k in range(4):
        b.scope = f"/blocks.{k}/"
        h = b("Add", h, b.attention(b.rms_norm(h, 32), 8, 32, 4))
        h = b("Add", h, b.linear(b.gelu(b.linear(b.rms_norm(h, 32), 32, 64)), 64, 32))
    return b.model(logits=b.linear(b.rms_norm(h, 32), 32, 24)), b.feeds


def cnn() -> Made:
    """Convolutions with a normalisation by hand: sums over many pixels overflow."""
    b = Builder(8)
    x = b.input("image", (b.rng.random((1, 3, 24, 24)) * 255).astype(np.float32))
    h = b("Relu", b.conv(x, 3, 16))
    square = b("ReduceSum", b("Mul", h, h), b.i(1, 2, 3))
    h = b("Div", h, b("Sqrt", square))
    h = b("Mul", h, b.w(10.0))
    for k in range(4):
        b.scope = f"/stage{k}/"
        h = b("Relu", b.conv(h, 16, 16, strides=[1 + k % 2] * 2))
    pooled = b("Flatten", b("GlobalAveragePool", h))
    return b.model(y=b.linear(pooled, 16, 5)), b.feeds


def vit(filler: float = -1e9) -> Made:
    """A vision transformer with a mask and one LayerNorm of large values."""
    b = Builder(9)
    x = b.input("image", b.rng.standard_normal((1, 3, 16, 16)).astype(np.float32))
    mask = b.input("mask", (np.arange(16) < 13).astype(np.float32)[None, None, None])
    patches = b("Conv", x, b.randn(32, 3, 4, 4, scale=0.15), strides=[4, 4])
    h = b("Transpose", b("Reshape", patches, b.i(1, 32, 16)), perm=[0, 2, 1])
    h = b("Add", h, b.randn(1, 16, 32, scale=0.1))
    bias = b("Mul", b("Sub", b.w(1.0), mask), b.w(filler))
    for k in range(2):
        b.scope = f"/blocks/{k}/"
        h = b("Add", h, b.attention(b.layer_norm(h, 32), 16, 32, 4, bias))
        large = b("Mul", h, b.w(800.0)) if k == 1 else h
        h = b("Add", h, b.linear(b.gelu(b.linear(b.layer_norm(large, 32), 32, 64)), 64, 32))
    return b.model(y=b.linear(b("ReduceMean", h, axes=[1], keepdims=0), 32, 10)), b.feeds


def audio() -> Made:
    """A spectrum whose quiet parts underflow before their logarithm is taken."""
    b = Builder(10)
    x = b.input("wave", (b.rng.standard_normal((1, 1, 256)) * 2e-5).astype(np.float32))
    t = np.arange(32)
    basis = np.stack([np.cos(2 * np.pi * k * t / 32) for k in range(16)])[:, None] * np.hanning(32)
    real = b("Conv", x, b.w(basis), strides=[8])
    basis = np.stack([np.sin(2 * np.pi * k * t / 32) for k in range(16)])[:, None] * np.hanning(32)
    imaginary = b("Conv", x, b.w(basis), strides=[8])
    power = b("Add", b("Mul", real, real), b("Mul", imaginary, imaginary))
    mel = b("MatMul", b.w(np.abs(b.rng.standard_normal((12, 16))) / 16), power)
    log = b("Log", b("Add", mel, b.w(1e-11)))
    h = b("Div", b("Add", log, b.w(20.0)), b.w(4.0))
    for k in range(3):
        b.scope = f"/conv{k}/"
        weight = b.w(b.rng.standard_normal((12, 12, 3)) / 6)
        h = b("Relu", b("Conv", h, weight, pads=[1, 1]))
        h = b.layer_norm(h, 29)
    return b.model(y=b("ReduceMean", h, axes=[2], keepdims=0)), b.feeds


def gru() -> Made:
    """A recurrent net with an exponential that overflows before a logarithm, and a Softplus."""
    b = Builder(11)
    x = b.input("x", b.rng.standard_normal((10, 1, 8)).astype(np.float32))
    w, r = b.randn(1, 48, 8, scale=0.3), b.randn(1, 48, 16, scale=0.25)
    h = b("Squeeze", b("GRU", x, w, r, outputs=2, hidden_size=16)[0], b.i(1))
    rate = b("Mul", b("Softplus", b.linear(h, 16, 16)), b.w(25.0))
    total = b("ReduceSum", b("Exp", rate), b.i(-1))
    return b.model(y=b("Log", total), z=b.linear(h, 16, 4)), b.feeds


def diffusion() -> Made:
    """A small U-Net with group normalisation and attention whose scores overflow before they are scaled."""
    b = Builder(12)
    x = b.input("x", b.rng.standard_normal((1, 4, 16, 16)).astype(np.float32))
    time = b.input("t", np.float32([[500.0]]))
    angle = b("Mul", time, b.w(np.exp(-np.arange(8))[None]))
    t = b("Concat", b("Sin", angle), b("Cos", angle), axis=-1)
    shift = b("Unsqueeze", b.linear(b.silu(b.linear(t, 16, 16)), 16, 16), b.i(2, 3))

    def group_norm(h: str, size: int) -> str:
        flat = b("Reshape", h, b.i(1, 4, -1))
        one, zero = b.w(np.ones(4)), b.w(np.zeros(4))
        normal = b("Reshape", b("InstanceNormalization", flat, one, zero), b.i(1, 16, size, size))
        return str(b("Mul", normal, b.w(1 + 0.1 * b.rng.standard_normal((16, 1, 1)))))

    first = b.conv(x, 4, 16)
    h = b("Add", b.conv(b.silu(group_norm(first, 16)), 16, 16), shift)
    down = b.conv(b.silu(group_norm(h, 16)), 16, 16, strides=[2, 2])
    flat = b("Transpose", b("Reshape", down, b.i(1, 16, 64)), perm=[0, 2, 1])
    q, k = (b("Mul", b.linear(flat, 16, 16), b.w(120.0)) for _ in range(2))
    scores = b("MatMul", q, b("Transpose", k, perm=[0, 2, 1]))
    scores = b("Mul", scores, b.w(1 / (4 * 120.0**2)))
    mixed = b("MatMul", b("Softmax", scores, axis=-1), b.linear(flat, 16, 16))
    middle = b("Add", down, b("Reshape", b("Transpose", mixed, perm=[0, 2, 1]), b.i(1, 16, 8, 8)))
    up = b("Resize", middle, "", b.w([1, 1, 2, 2]), mode="nearest")
    h = b.conv(b.silu(group_norm(b("Add", b.conv(up, 16, 16), h), 16)), 16, 4)
    return b.model(noise=h), b.feeds


def detector() -> Made:
    """A detection head: box areas in pixels overflow, and an intersection over union is their quotient."""
    b = Builder(13)
    x = b.input("features", b.rng.standard_normal((1, 16, 8, 8)).astype(np.float32))
    h = b("Relu", b.conv(b("Relu", b.conv(x, 16, 16)), 16, 16))
    boxes = b("Reshape", b("Transpose", b.conv(h, 16, 4, 1), perm=[0, 2, 3, 1]), b.i(64, 4))
    scaled = b("Mul", b("Sigmoid", boxes), b.w(640.0))
    one, two = b("Split", scaled, outputs=2, axis=1)
    size = b("Add", b("Abs", b("Sub", two, one)), b.w(200.0))
    w, hgt = b("Split", size, outputs=2, axis=1)
    area = b("Mul", w, hgt)
    smaller = b("Mul", b("Min", w, b.w(300.0)), b("Min", hgt, b.w(300.0)))
    union = b("Sub", b("Add", area, b.w(90000.0)), smaller)
    overlap = b("Div", smaller, union)
    scores = b("Sigmoid", b("Reshape", b.conv(h, 16, 1, 1), b.i(64, 1)))
    return b.model(boxes=scaled, scores=b("Mul", scores, overlap)), b.feeds


def quantised() -> Made:
    """Some QuantizeLinear and DequantizeLinear around a convolution, and a LayerNorm that overflows."""
    b = Builder(14)
    x = b.input("image", b.rng.standard_normal((1, 3, 12, 12)).astype(np.float32))

    def qdq(t: str, scale: float) -> str:
        s, z = b.w(scale), b.w(0, dtype=np.int8)
        return str(b("DequantizeLinear", b("QuantizeLinear", t, s, z), s, z))

    h = b("Relu", b("Conv", qdq(x, 0.03), qdq(b.randn(8, 3, 3, 3, scale=0.2), 0.01)))
    h = b("Reshape", b("Mul", h, b.w(2000.0)), b.i(1, 8, 100))
    h = b.layer_norm(h, 100)
    return b.model(y=b.linear(b("ReduceMean", h, axes=[1], keepdims=0), 100, 6)), b.feeds


MODELS: dict[str, Callable[[], Made]] = {
    "keywords": keywords,
    "masked": masked,
    "squeezed": squeezed,
    "llama": llama,
    "gpt_cancelling": gpt_cancelling,
    "bert": bert,
    "gpt_rms": gpt_rms,
    "cnn": cnn,
    "vit": vit,
    "audio": audio,
    "gru": gru,
    "diffusion": diffusion,
    "detector": detector,
    "quantised": quantised,
}
