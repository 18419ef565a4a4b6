"""Models that fail on TensorRT 8.6, each with one cause amid a longer network; `CASES` lists them.

Weights and inputs are seeded. Nothing here is out of a model of anybody's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, F16, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


class Net:
    """A network that grows node by node; names of nodes say where they are."""

    def __init__(self, seed: int = 7, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.values: dict[str, np.ndarray[Any, Any]] = {}
        self.opset = opset

    def input(self, name: str, value: np.ndarray[Any, Any], elem: int = F) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, elem, list(value.shape)))
        self.values[name] = value
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def random(self, *shape: int, scale: float = 1.0) -> str:
        return self.const(self.rng.standard_normal(shape) * scale)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def dense(self, x: str, into: int, out: int) -> str:
        product = self.node("MatMul", x, self.random(into, out, scale=into**-0.5))
        return self.node("Tanh", self.node("Add", product, self.random(out, scale=0.1)))

    def layers(self, x: str, width: int, count: int) -> str:
        for _ in range(count):
            x = self.dense(x, width, width)
        return x

    def model(self, output: str, shape: list[Any], elem: int = F) -> onnx.ModelProto:
        y = helper.make_tensor_value_info(output, elem, shape)
        graph = helper.make_graph(self.nodes, "net", self.inputs, [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


Made = tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]


@dataclass(frozen=True)
class Case:
    """A model, what fails in it, and the options with which it does."""

    make: Callable[[], Made]
    kind: str
    options: tuple[str, ...] = field(default=("--no-tf32",))


def _between(op: Callable[[Net, str], str], opset: int = 17, width: int = 64, rows: int = 8) -> Made:
    """Four layers, the operator, four layers; it takes and gives [rows, width]."""
    net = Net(opset=opset)
    x = net.input("x", net.rng.standard_normal((rows, width)).astype(np.float32))
    y = net.layers(op(net, net.layers(x, width, 4)), width, 4)
    return net.model(y, [rows, width]), net.values


def det() -> Made:
    def op(net: Net, x: str) -> str:
        square = net.node("Reshape", x, net.const([8, 8, 8], np.int64))
        value = net.node("Reshape", net.node("Det", square), net.const([8, 1], np.int64))
        return net.node("Mul", x, value)

    return _between(op)


def int32_bias() -> Made:
    """A bias as quantisers write it: int32 with a scale."""

    def op(net: Net, x: str) -> str:
        bias = net.const(np.arange(64), np.int32)
        return net.node("Add", x, net.node("DequantizeLinear", bias, net.const(0.01)))

    return _between(op)


def scatter_add() -> Made:
    def op(net: Net, x: str) -> str:
        rows = net.const([[0], [2], [2]], np.int64)
        return net.node("ScatterND", x, rows, net.random(3, 64), reduction="add")

    return _between(op, 18)


def topk_4000() -> Made:
    """More than TensorRT's 3840 best."""
    net = Net()
    x = net.input("x", net.rng.standard_normal((1, 8192)).astype(np.float32))
    x = net.node("Tanh", net.node("Mul", x, net.random(8192)))
    x = net.node("Sigmoid", net.node("Add", x, net.random(8192)))
    best = "best"
    net.nodes.append(helper.make_node("TopK", [x, net.const([4000], np.int64)], [best, "at"], "topk"))
    y = net.node("Exp", net.node("Neg", best))
    y = net.node("Mul", y, net.const(2.0))
    return net.model(y, [1, 4000]), net.values


def resize_antialias() -> Made:
    net = Net(opset=18)
    x = net.input("x", net.rng.standard_normal((1, 3, 32, 32)).astype(np.float32))
    for wide in (8, 8, 8):
        into = 3 if x == "x" else 8
        x = net.node("Conv", x, net.random(wide, into, 3, 3, scale=0.2), pads=[1, 1, 1, 1])
        x = net.node("Relu", x)
    scales = net.const([1, 1, 0.5, 0.5])
    x = net.node("Resize", x, "", scales, mode="linear", antialias=1)
    for _ in range(3):
        x = net.node("Conv", x, net.random(8, 8, 3, 3, scale=0.2), pads=[1, 1, 1, 1])
        x = net.node("Relu", x)
    return net.model(x, [1, 8, 16, 16]), net.values


def log_sum_exp() -> Made:
    """exp(100) is beyond float32; the logarithm of a sum of such is not."""

    def op(net: Net, x: str) -> str:
        large = net.node("Mul", x, net.const(150.0))
        total = net.node("ReduceLogSumExp", large, axes=[1], keepdims=1)
        return net.node("Div", x, net.node("Add", total, net.const(1.0)))

    return _between(op)


def wide_int64() -> Made:
    """Ids beyond 2^31: TensorRT 8.6 makes int32 of int64."""
    net = Net()
    ids = net.input("ids", np.arange(8, dtype=np.int64).reshape(8, 1) + 2**33, I64)
    x = net.input("x", net.rng.standard_normal((8, 64)).astype(np.float32))
    x = net.layers(x, 64, 3)
    small = net.node("Sub", ids, net.const(2**33, np.int64))
    x = net.node("Mul", x, net.node("Cast", small, to=F))
    return net.model(net.layers(x, 64, 3), [8, 64]), net.values


def upper_triangle() -> Made:
    """What lies above the diagonal, as masks of attention are made; `upper` is left out, its default is 1."""

    def op(net: Net, x: str) -> str:
        large = net.node("Mul", x, net.const(100.0))
        whole = net.node("Reshape", net.node("Cast", large, to=I64), net.const([8, 8, 8], np.int64))
        above = net.node("Cast", net.node("Trilu", whole), to=F)
        return net.node("Mul", net.node("Reshape", above, net.const([8, 64], np.int64)), net.const(0.01))

    return _between(op)


def scatter_elements() -> Made:
    def op(net: Net, x: str) -> str:
        places = net.const(np.tile([0, 2, 2], (8, 1)), np.int64)
        return net.node("ScatterElements", x, places, net.random(8, 3), axis=1, reduction="add")

    return _between(op, 18)


def pool_that_starts_outside() -> Made:
    """With ceil_mode a window that would start behind the input is left out."""
    net = Net(opset=19)
    x = net.input("x", net.rng.standard_normal((1, 8, 8, 8)).astype(np.float32))
    for _ in range(3):
        x = net.node("Conv", x, net.random(8, 8, 3, 3, scale=0.2), pads=[1, 1, 1, 1])
        x = net.node("Relu", x)
    x = net.node("MaxPool", x, kernel_shape=[1, 1], strides=[2, 2], ceil_mode=1)
    return net.model(net.node("Sigmoid", net.node("Neg", x)), [1, 8, 4, 4]), net.values


def mean_of_rows() -> Made:
    """From operator set 18 on the axes are an input."""

    def op(net: Net, x: str) -> str:
        mean = net.node("ReduceMean", x, net.const([1], np.int64), keepdims=1)
        return net.node("Sub", x, mean)

    return _between(op, 18)


def plain_softmax() -> Made:
    """Softmax as it is written out, the largest of each row taken off: rows of very different size."""

    def op(net: Net, x: str) -> str:
        rows = net.const(np.linspace(1, 4000, 8).reshape(8, 1))
        axis = net.const([1], np.int64)
        x = net.node("Add", x, rows)
        above = net.node("Exp", net.node("Sub", x, net.node("ReduceMax", x, axis, keepdims=1)))
        return net.node("Div", above, net.node("ReduceSum", above, axis, keepdims=1))

    return _between(op, 18)


def grid_sample() -> Made:
    def op(net: Net, x: str) -> str:
        image = net.node("Reshape", x, net.const([8, 1, 8, 8], np.int64))
        grid = net.const(net.rng.uniform(-1.2, 1.2, (8, 8, 8, 2)))
        taken = net.node("GridSample", image, grid, mode="linear", padding_mode="zeros", align_corners=0)
        return net.node("Reshape", taken, net.const([8, 64], np.int64))

    return _between(op, 20)


def uneven_split() -> Made:
    """64 columns in five parts: 13, 13, 13, 13 and 12."""

    def op(net: Net, x: str) -> str:
        parts = [f"part{k}" for k in range(5)]
        net.nodes.append(helper.make_node("Split", [x], parts, "split", axis=1, num_outputs=5))
        return net.node("Concat", *reversed(parts), axis=1)

    return _between(op, 18)


def stack() -> Made:
    """24 MatMul and Tanh, 1024 wide: TF32 is TensorRT's default."""
    net = Net()
    x = net.input("x", net.rng.standard_normal((32, 1024)).astype(np.float32))
    for _ in range(24):
        x = net.node("Tanh", net.node("MatMul", x, net.random(1024, 1024, scale=1 / 32)))
    return net.model(x, [32, 1024]), net.values


def _norm(net: Net, x: str, width: int) -> str:
    """RMSNorm as exporters write it."""
    square = net.node("Pow", x, net.const(2.0))
    mean = net.node("ReduceMean", square, axes=[-1], keepdims=1)
    root = net.node("Sqrt", net.node("Add", mean, net.const(1e-5)))
    return net.node("Mul", net.node("Div", x, root), net.const(np.ones(width)))


def _heads(net: Net, x: str, width: int, heads: int, tokens: int, scale: float) -> str:
    y = net.node("MatMul", x, net.random(width, width, scale=scale * width**-0.5))
    y = net.node("Reshape", y, net.const([1, tokens, heads, width // heads], np.int64))
    return net.node("Transpose", y, perm=[0, 2, 1, 3])


def _turned(net: Net, x: str, tokens: int, size: int) -> str:
    """Rotary positions."""
    angle = np.outer(np.arange(tokens), 1e4 ** (-np.arange(0, size, 2) / size)).repeat(2, -1)
    half = [net.const([0], np.int64), net.const([size // 2], np.int64), net.const([size], np.int64)]
    axis = net.const([3], np.int64)
    first = net.node("Slice", x, half[0], half[1], axis)
    second = net.node("Slice", x, half[1], half[2], axis)
    other = net.node("Concat", net.node("Neg", second), first, axis=-1)
    left = net.node("Mul", x, net.const(np.cos(angle)))
    return net.node("Add", left, net.node("Mul", other, net.const(np.sin(angle))))


def _attention(net: Net, x: str, width: int, heads: int, tokens: int, scale: float = 1.0) -> str:
    size = width // heads
    q, k, v = (_heads(net, x, width, heads, tokens, s) for s in (scale, scale, 1.0))
    q, k = (_turned(net, one, tokens, size) for one in (q, k))
    scores = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 1, 3, 2]))
    weights = net.node("Softmax", net.node("Div", scores, net.const(size**0.5)), axis=-1)
    y = net.node("Transpose", net.node("MatMul", weights, v), perm=[0, 2, 1, 3])
    y = net.node("Reshape", y, net.const([1, tokens, width], np.int64))
    return net.node("MatMul", y, net.random(width, width, scale=width**-0.5))


def llama(layers: int = 2, loud: float = 600.0, scale: float = 1.0) -> Made:
    """Decoder layers of a Llama, 256 wide, 8 heads, 32 tokens; `loud` inputs have squares beyond float16."""
    net, width, tokens = Net(), 256, 32
    x = net.input("x", (net.rng.standard_normal((1, tokens, width)) * loud).astype(np.float32))
    for _ in range(layers):
        x = net.node("Add", x, _attention(net, _norm(net, x, width), width, 8, tokens, scale))
        y = _norm(net, x, width)
        gate = net.node("MatMul", y, net.random(width, 512, scale=width**-0.5))
        gate = net.node("Mul", gate, net.node("Sigmoid", gate))
        up = net.node("MatMul", y, net.random(width, 512, scale=width**-0.5))
        down = net.node("MatMul", net.node("Mul", gate, up), net.random(512, width, scale=512**-0.5))
        x = net.node("Add", x, down)
    x = _norm(net, x, width)
    y = net.node("MatMul", x, net.random(width, 128, scale=1 / 16))
    return net.model(y, [1, tokens, 128]), net.values


def loud_attention() -> Made:
    """Products of queries and keys beyond float16, before they are divided."""
    return llama(1, 1.0, 40.0)


def four_tebibytes() -> Made:
    net = Net()
    side = 1 << 20
    a = net.input("a", np.ones((side, 1), np.float32))
    b = net.input("b", np.ones((1, side), np.float32))
    x = net.node("Tanh", net.node("MatMul", net.node("Neg", a), net.node("Abs", b)))
    return net.model(net.node("ReduceMax", x, axes=[0, 1], keepdims=0), []), net.values


def rows_alike() -> Made:
    """The same row 33 times through convolutions: is each answered alike?"""
    net = Net()
    x = net.input("x", net.rng.standard_normal((33, 256)).astype(np.float32))
    return net.model(net.layers(x, 256, 6), [33, 256]), net.values


def einsum_of_rows(rows: int) -> Made:
    """Each row by itself, times a matrix: TensorRT computes one row in FP32 and eight or more in TF32."""
    net = Net()
    x = net.input("x", np.random.default_rng(3).standard_normal((rows, 64)).astype(np.float32))
    for _ in range(3):
        x = net.node("Tanh", net.node("Mul", x, net.random(64)))
    x = net.node("Einsum", x, net.random(64, 16), equation="bi,ij->bj")
    for _ in range(3):
        x = net.node("Neg", net.node("Add", x, net.random(16)))
    return net.model(x, [rows, 16]), net.values


QUICK = ("--no-tf32", "--opt-level", "0")
STRICT = ("--rtol", "1e-4", "--opt-level", "0")
HALF = ("--precision", "fp16", "--opt-level", "0")
CASES: dict[str, Case] = {
    "llama-fp16": Case(lambda: llama(1), "FP16 overflow", HALF),
    "attention-fp16": Case(loud_attention, "fused attention in FP16", HALF),
    "log-sum-exp": Case(log_sum_exp, "wrong result"),
    "mean-of-rows": Case(mean_of_rows, "wrong result, operator set 18", QUICK),
    "plain-softmax": Case(plain_softmax, "not finite, operator set 18", QUICK),
    "upper-triangle": Case(upper_triangle, "wrong result", QUICK),
    "scatter-elements": Case(scatter_elements, "wrong result, an attribute ignored", QUICK),
    "pool-outside": Case(pool_that_starts_outside, "wrong shape", QUICK),
    "wide-int64": Case(wide_int64, "wrong result, int64", QUICK),
    "grid-sample": Case(grid_sample, "wrong result, operator set 20", QUICK),
    "uneven-split": Case(uneven_split, "wrong shape, operator set 18", QUICK),
    "scatter-add": Case(scatter_add, "wrong result, an attribute ignored", QUICK),
    "resize-antialias": Case(resize_antialias, "wrong result, an attribute ignored", QUICK),
    "rows-alike": Case(rows_alike, "batch", ("--reference", "self", "--precision", "fp16")),
    "batch-64": Case(lambda: einsum_of_rows(64), "batch", STRICT),
    "batch-1": Case(lambda: einsum_of_rows(1), "none: one row is right", STRICT),
    "det": Case(det, "parse, no such operator", QUICK),
    "int32-bias": Case(int32_bias, "parse, quantisation", QUICK),
    "topk-4000": Case(topk_4000, "build, a limit", QUICK),
    "four-tebibytes": Case(four_tebibytes, "parse, a tensor that is too large", QUICK),
    "stack": Case(stack, "TF32", ("--rtol", "1e-4")),
    "llama": Case(llama, "TF32", ("--rtol", "1e-4")),
}


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a case's model and inputs; their files."""
    model, values = CASES[name].make()
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", **values)
    return folder / f"{name}.onnx", folder / f"{name}.npz"
