"""Models whose outputs differ on a target that runs on any CPU, and what has to be found in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cases import MIDDLE, Splice, base
from support import model, tensor_type

Array = np.ndarray[Any, Any]


@dataclass
class Builder:
    """Nodes one after the other; a node's only output is its name with `_o` behind it."""

    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def weight(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_o"], name, **attributes))
        return f"{name}_o"

    def layers(self, x: str, count: int, width: int = 32) -> str:
        for _ in range(count):
            x = self.linear(x, width)
            x = self.node("Tanh", x)
        return x

    def linear(self, x: str, width: int = 32) -> str:
        w = self.weight(self.rng.standard_normal((width, width)) / np.sqrt(width))
        return self.node("Add", self.node("MatMul", x, w), self.weight(self.rng.standard_normal(width) / 10))

    def done(self, inputs: dict[str, list[int]], *outputs: str) -> onnx.ModelProto:
        ins = [tensor_type(name, shape) for name, shape in inputs.items()]
        outs = [
            tensor_type(o, None, TensorProto.INT64 if o == "indices" else TensorProto.FLOAT) for o in outputs
        ]
        return model(self.nodes, ins, outs, self.weights, opset=19)


def batch(width: int = 32, seed: int = 1) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((8, width)).astype(np.float32)}


# What overflows in FP16, and where it is born


def attention_mask() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """(1 - mask) * -3.4e38: -Inf in FP16, and -Inf * 0 is NaN where nothing is masked."""
    b = Builder()
    x = b.layers("x", 2)
    q, k, v = b.linear(x), b.linear(x), b.linear(x)
    scores = b.node("Mul", b.node("MatMul", q, b.node("Transpose", k, perm=[1, 0])), b.weight(0.17))
    hidden = b.node("Mul", b.node("Sub", b.weight(1.0), "mask"), b.weight(-3.4e38), name="born")
    y = b.node("MatMul", b.node("Softmax", b.node("Add", scores, hidden), axis=-1), v)
    mask = np.ones((8, 8), np.float32)
    mask[:, 5:] = 0
    return b.done({"x": [8, 32], "mask": [8, 8]}, b.layers(y, 2)), batch() | {"mask": mask}


def layer_norm() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Squares of values around 500: the mean is infinite, and what is divided by it is zero, not NaN."""
    b = Builder()
    x = b.node("Mul", b.layers("x", 2), b.weight(900.0))
    last = b.weight([-1], np.int64)
    centred = b.node("Sub", x, b.node("ReduceMean", x, last, keepdims=1))
    square = b.node("Pow", centred, b.weight(2.0), name="born")
    variance = b.node("Add", b.node("ReduceMean", square, last, keepdims=1), b.weight(1e-5))
    y = b.node("Div", centred, b.node("Sqrt", variance))
    return b.done({"x": [8, 32]}, b.layers(y, 2)), batch()


def softmax() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """e**x with x up to 14, without the maximum subtracted before."""
    b = Builder()
    e = b.node("Exp", b.node("Mul", b.layers("x", 2), b.weight(14.0)), name="born")
    y = b.node("Div", e, b.node("ReduceSum", e, b.weight([-1], np.int64), keepdims=1))
    return b.done({"x": [8, 32]}, b.layers(y, 2)), batch()


def subnormal() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """1/x of about 1e-7, which FP16 still holds; its reciprocal is too large."""
    b = Builder()
    small = b.node("Add", b.node("Mul", b.node("Abs", b.layers("x", 2)), b.weight(1e-7)), b.weight(2e-7))
    y = b.node("Mul", b.node("Reciprocal", small, name="born"), b.weight(1e-7))
    return b.done({"x": [8, 32]}, b.layers(y, 2)), batch()


BORN = {f.__name__: f for f in (attention_mask, layer_norm, softmax, subnormal)}


def accumulating(layers: int = 12, width: int = 64) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Rotations: each adds about as much error as any other, and none makes it larger."""
    b = Builder()
    x = "x"
    for k in range(layers):
        rotation, _ = np.linalg.qr(b.rng.standard_normal((width, width)))
        x = b.node("MatMul", x, b.weight(rotation), name=f"layer{k}")
    return b.done({"x": [8, width]}, x), batch(width)


def equal_blocks(blocks: int = 6, width: int = 8) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Residual blocks whose branches are scaled down: what one Tanh is off is too little for the output."""
    b = Builder()
    x = "x"
    for k in range(blocks):
        mixed = b.node("MatMul", x, b.weight(b.rng.standard_normal((width, width))))
        branch = b.node("Tanh", mixed, name=f"tanh{k}")
        x = b.node("Add", x, b.node("Mul", branch, b.weight(0.03)))
    return b.done({"x": [8, width]}, x), batch(width)


def negated(width: int = 64) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A product that is rounded, and a step that makes of its error what it was."""
    b = Builder()
    product = b.node("MatMul", "x", b.weight(b.rng.standard_normal((width, width))), name="product")
    return b.done({"x": [8, width]}, b.node("Neg", product, name="negative")), batch(width)


# What OpenVINO does otherwise


def two_branches(seed: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Round here and Floor there make ties, which TopK orders otherwise; Floor also magnifies noise."""
    b = Builder(seed)
    sides = []
    for activation, rounding in (("Tanh", "Round"), ("Sigmoid", "Floor")):
        x = "x"
        for _ in range(3):
            w = b.weight(b.rng.standard_normal((64, 64)) / 8)
            x = b.node(activation, b.node("MatMul", x, w))
        sides.append(b.node(rounding, b.node("Mul", x, b.weight(3.0)), name=rounding))
    total = b.node("Add", *sides, name="Add")
    top = helper.make_node("TopK", [total, b.weight([10], np.int64)], ["values", "indices"], "TopK")
    b.nodes.append(top)
    return b.done({"x": [8, 64]}, "values", "indices"), batch(64, seed + 1)


def convolutions(kind: str) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A few convolutions with one of OpenVINO's faults (see `culprit`) in the middle."""
    b = Builder()

    def conv(x: str, ins: int, outs: int) -> str:
        w = b.weight(b.rng.standard_normal((outs, ins, 3, 3)) / np.sqrt(9 * ins))
        return b.node("Relu", b.node("Conv", x, w, pads=[1, 1, 1, 1]))

    x = conv(conv("x", 3, 8), 8, 8)
    x = b.node("Slice", culprit(b, kind, x), *(b.weight(v, np.int64) for v in ([0, 0], [12, 12], [2, 3])))
    x = conv(conv(x, 8, 8), 8, 4)
    image = np.random.default_rng(3).standard_normal((1, 3, 16, 16)).astype(np.float32)
    return b.done({"x": [1, 3, 16, 16]}, x), {"x": image}


def culprit(b: Builder, kind: str, x: str) -> str:
    """The node that OpenVINO computes otherwise."""
    if kind == "roi_align_max":
        rois, index = b.weight([[0, 0, 15, 15]]), b.weight([0], np.int64)
        size = {"output_height": 16, "output_width": 16, "sampling_ratio": 2}
        return b.node("RoiAlign", x, rois, index, name="culprit", mode="max", **size)
    if kind == "keep_aspect_ratio":
        how = {"mode": "linear", "keep_aspect_ratio_policy": "not_larger", "axes": [2, 3]}
        return b.node("Resize", x, "", "", b.weight([20, 27], np.int64), name="culprit", **how)
    scales = b.weight([1, 1, 1.7, 1.7])
    return b.node(
        "Resize", x, "", scales, name="culprit", mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1
    )


def resnet50_cubic() -> onnx.ModelProto:
    """The light resnet50, with random weights, and a cubic Resize in its middle."""
    s = Splice(base("resnet50", 19), *MIDDLE["resnet50"])
    scales = s.const("scales", [1, 1, 1.7, 1.7], np.float32)
    how = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}
    large = s.node("Resize", "culprit", [s.tensor, "", scales], **how)
    corner = [s.const(name, value) for name, value in (("b", [0, 0]), ("e", [14, 14]), ("a", [2, 3]))]
    return random_weights(s.finish(s.node("Slice", "crop", [large, *corner])))


def random_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Instead of the constants of the light models, which make all classes equal whatever the input."""
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    kept = []
    for node in proto.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = shapes[node.input[0]].tolist()
        last = 3e-5 if len(shape) == 2 else 1.0  # small logits, so that no class wins outright
        spread = rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:]))) * last
        value = rng.uniform(0.5, 1.5, shape) if len(shape) < 2 else spread
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    weights = [t for t in proto.graph.initializer if t.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(weights)
    return proto
