"""Write the small models of this folder again, byte for byte: `python models/make_models.py [FOLDER]`.

Each looks like a small part of what users export (scoped names, 15 to 40 nodes) and holds one thing that
TensorRT-RTX 1.7.1 refuses, without a GPU; `ok.onnx` holds none. README.md beside this file has the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]


class Net:
    """A graph that grows node by node; names are paths such as `/backbone/layer1/conv/Conv`."""

    def __init__(self, name: str, opset: int = 18) -> None:
        self.name, self.opset = name, opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Shape, elem_type: int = TensorProto.FLOAT) -> str:
        """Declare a graph input."""
        self.inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def const(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        """An initializer with the values given."""
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, name: str, shape: Sequence[int]) -> str:
        """An initializer with values in -0.1 .. 0.1 that depend on name and shape only."""
        # Plain arithmetic: NumPy does not promise the same random numbers in every release.
        start = sum(ord(c) * (i + 1) for i, c in enumerate(name))
        steps = (np.arange(int(np.prod(shape))) * 7919 + start) % 2003
        return self.const(name, (steps / 10015 - 0.1).reshape(shape), np.float32)

    def node(self, op: str, path: str, inputs: Sequence[str], **attrs: Any) -> str:
        """Add a node called `/path/Op`; gives the name of its output."""
        name = f"/{path}/{op}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_output_0"], name, **attrs))
        return f"{name}_output_0"

    def conv(self, path: str, x: str, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> str:
        """Convolution with bias, padded to keep the size at stride 1."""
        module = path.replace("/", ".")
        w = self.weight(f"{module}.weight", (cout, cin, kernel, kernel))
        attrs = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return self.node("Conv", path, [x, w, self.weight(f"{module}.bias", (cout,))], **attrs)

    def linear(self, path: str, x: str, cin: int, cout: int) -> str:
        """MatMul and Add."""
        module = path.replace("/", ".")
        y = self.node("MatMul", path, [x, self.weight(f"{module}.weight", (cin, cout))])
        return self.node("Add", path, [y, self.weight(f"{module}.bias", (cout,))])

    def norm(self, path: str, x: str, width: int) -> str:
        """LayerNormalization over the last axis."""
        module = path.replace("/", ".")
        scale, bias = self.weight(f"{module}.weight", (width,)), self.weight(f"{module}.bias", (width,))
        return self.node("LayerNormalization", path, [x, scale, bias], axis=-1)

    def block(self, path: str, x: str, width: int) -> str:
        """Residual block of two convolutions: six nodes."""
        y = self.node("Relu", f"{path}/act1", [self.conv(f"{path}/conv1", x, width, width)])
        y = self.conv(f"{path}/conv2", y, width, width)
        return self.node("Relu", f"{path}/act2", [self.node("Add", path, [x, y])])

    def backbone(self, x: str, width: int = 8, blocks: int = 2) -> str:
        """Stem at stride 2 and residual blocks: (1, 3, H, W) to (1, width, H/2, W/2)."""
        x = self.node("Relu", "backbone/stem/act", [self.conv("backbone/stem/conv", x, 3, width, stride=2)])
        for i in range(1, blocks + 1):
            x = self.block(f"backbone/layer{i}", x, width)
        return x

    def classifier(self, x: str, width: int, classes: int = 10) -> str:
        """Global pooling, one linear layer, softmax."""
        x = self.node("GlobalAveragePool", "head/pool", [x])
        x = self.node("Flatten", "head/flatten", [x], axis=1)
        return self.node("Softmax", "head/softmax", [self.linear("head/fc", x, width, classes)], axis=-1)

    def finish(self, *outputs: tuple[str, str, Shape, int]) -> onnx.ModelProto:
        """The checked model; each output is (tensor, name to give it, shape, element type)."""
        made = []
        for tensor, name, shape, elem_type in outputs:
            for node in self.nodes:
                node.input[:] = [name if i == tensor else i for i in node.input]
                node.output[:] = [name if o == tensor else o for o in node.output]
            made.append(helper.make_tensor_value_info(name, elem_type, shape))
        graph = helper.make_graph(self.nodes, self.name, self.inputs, made, self.weights)
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="bisect-trt")
        onnx.checker.check_model(model, full_check=True)
        return model


def scores(tensor: str, classes: int = 10) -> tuple[str, str, Shape, int]:
    """The usual output of the classifiers here."""
    return tensor, "scores", (1, classes), TensorProto.FLOAT


def ok() -> onnx.ModelProto:
    """Residual classifier that builds."""
    net = Net("ok")
    x = net.backbone(net.input("image", (1, 3, 32, 32)))
    return net.finish(scores(net.classifier(x, 8)))


def resize_antialias() -> onnx.ModelProto:
    """Feature pyramid that shrinks a map with an antialiased Resize."""
    net = Net("resize_antialias")
    fine = net.backbone(net.input("image", (1, 3, 32, 32)))
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    coarse = net.node("Resize", "neck/down", [fine, "", "", net.const("neck.down.sizes", [1, 8, 8, 8])],
                      antialias=1, **linear)  # fmt: skip
    coarse = net.block("neck/lateral", coarse, 8)
    up = net.node("Resize", "neck/up", [coarse, "", "", net.const("neck.up.sizes", [1, 8, 16, 16])], **linear)
    both = net.node("Concat", "neck/concat", [fine, up], axis=1)
    return net.finish(scores(net.classifier(net.conv("neck/fuse", both, 16, 8, kernel=1), 8)))


def roialign() -> onnx.ModelProto:
    """Second stage of a detector: features cut out of the backbone with RoiAlign."""
    net = Net("roialign")
    x = net.backbone(net.input("image", (1, 3, 32, 32)))
    rois = net.const("roi_head.rois", [[0, 0, 15, 15], [2, 2, 9, 9]], np.float32)
    x = net.node("RoiAlign", "roi_head", [x, rois, net.const("roi_head.batch", [0, 0])],
                 output_height=4, output_width=4, sampling_ratio=2, spatial_scale=1.0)  # fmt: skip
    x = net.node("Flatten", "roi_head/flatten", [x], axis=1)
    x = net.node("Relu", "roi_head/act", [net.linear("roi_head/fc1", x, 128, 16)])
    x = net.node("Softmax", "roi_head/softmax", [net.linear("roi_head/fc2", x, 16, 10)], axis=-1)
    return net.finish((x, "scores", (2, 10), TensorProto.FLOAT))


def scatternd_add() -> onnx.ModelProto:
    """Point pillars: features of points are added up on a grid with ScatterND, then convolved."""
    net = Net("scatternd_add")
    points = net.input("points", (12, 4))
    x = net.node("Relu", "pillars/act1", [net.linear("pillars/fc1", points, 4, 8)])
    x = net.node("Relu", "pillars/act2", [net.linear("pillars/fc2", x, 8, 8)])
    cells = [[i * 5 % 64] for i in range(12)]
    canvas = net.const("pillars.canvas", np.zeros((64, 8)), np.float32)
    x = net.node("ScatterND", "pillars/scatter", [canvas, net.const("pillars.cells", cells), x],
                 reduction="add")  # fmt: skip
    x = net.node("Transpose", "pillars/transpose", [x], perm=[1, 0])
    x = net.node("Reshape", "pillars/grid", [x, net.const("pillars.grid.shape", [1, 8, 8, 8])])
    x = net.block("backbone/layer2", net.block("backbone/layer1", x, 8), 8)
    return net.finish(scores(net.classifier(x, 8)))


def averagepool_dilated() -> onnx.ModelProto:
    """Context module that pools with dilation."""
    net = Net("averagepool_dilated", opset=19)
    x = net.backbone(net.input("image", (1, 3, 32, 32)))
    pooled = net.node("AveragePool", "context/pool", [x],
                      kernel_shape=[3, 3], dilations=[2, 2], pads=[2, 2, 2, 2])  # fmt: skip
    gate = net.node("Sigmoid", "context/gate", [net.conv("context/conv", pooled, 8, 8, kernel=1)])
    x = net.node("Mul", "context", [x, gate])
    return net.finish(scores(net.classifier(x, 8)))


def _heads(net: Net, path: str, x: str, heads: int) -> str:
    """(1, 16, heads*8) as (1, heads, 16, 8)."""
    shape = net.const(f"{path.replace('/', '.')}.shape", [1, 16, heads, 8])
    return net.node("Transpose", path, [net.node("Reshape", path, [x, shape])], perm=[0, 2, 1, 3])


def _feed_forward(net: Net, path: str, x: str) -> str:
    """Norm, linear, Gelu, linear and the residual."""
    y = net.linear(f"{path}/fc1", net.norm(f"{path}/norm", x, 32), 32, 64)
    y = net.linear(f"{path}/fc2", net.node("Gelu", f"{path}/act", [y]), 64, 32)
    return net.node("Add", path, [x, y])


def _decoder(name: str, attention: Callable[[Net, str, str], str]) -> onnx.ModelProto:
    """Two transformer layers of width 32 over 16 tokens; the second one attends with `attention`."""
    net = Net(name, opset=23)
    x = net.linear("embed", net.input("tokens", (1, 16, 32)), 32, 32)
    x = _feed_forward(net, "layers.0/mlp", x)
    y = attention(net, "layers.1/attn", net.norm("layers.1/attn/norm", x, 32))
    y = net.node("Transpose", "layers.1/attn/merge", [y], perm=[0, 2, 1, 3])
    y = net.node("Reshape", "layers.1/attn/merge", [y, net.const("layers.1.attn.merge", [1, 16, 32])])
    x = net.node("Add", "layers.1/attn", [x, net.linear("layers.1/attn/out", y, 32, 32)])
    x = _feed_forward(net, "layers.1/mlp", x)
    x = net.linear("lm_head", net.norm("norm", x, 32), 32, 20)
    return net.finish((x, "logits", (1, 16, 20), TensorProto.FLOAT))


def attention_gqa() -> onnx.ModelProto:
    """Decoder with grouped-query attention: four heads of Q, two of K and V."""

    def grouped(net: Net, path: str, x: str) -> str:
        q, k, v = (
            _heads(net, f"{path}/{name}", net.linear(f"{path}/{name}", x, 32, heads * 8), heads)
            for name, heads in (("q", 4), ("k", 2), ("v", 2))
        )
        return net.node("Attention", path, [q, k, v])

    return _decoder("attention_gqa", grouped)


def nms() -> onnx.ModelProto:
    """One-stage detector that ends in NonMaxSuppression."""
    net = Net("nms")
    x = net.backbone(net.input("image", (1, 3, 32, 32)))
    boxes = net.node("Sigmoid", "head/boxes/act", [net.conv("head/boxes/conv", x, 8, 4, kernel=1)])
    boxes = net.node("Reshape", "head/boxes", [boxes, net.const("head.boxes.shape", [1, 4, 256])])
    boxes = net.node("Transpose", "head/boxes", [boxes], perm=[0, 2, 1])
    classes = net.node("Sigmoid", "head/classes/act", [net.conv("head/classes/conv", x, 8, 3, kernel=1)])
    classes = net.node("Reshape", "head/classes", [classes, net.const("head.classes.shape", [1, 3, 256])])
    limits = [net.const("head.nms.most", [20]), net.const("head.nms.iou", [0.5], np.float32),
              net.const("head.nms.score", [0.4], np.float32)]  # fmt: skip
    found = net.node("NonMaxSuppression", "head/nms", [boxes, classes, *limits])
    return net.finish((found, "detections", ("found", 3), TensorProto.INT64))


def shape_from_float() -> onnx.ModelProto:
    """Two branches: the shape of a mid-trunk Reshape is computed from a float input."""
    net = Net("shape_from_float")
    image = net.input("image", (1, 3, 16, 16))
    x = net.node("Relu", "backbone/stem/act", [net.conv("backbone/stem/conv", image, 3, 8, stride=2)])
    ratio = net.input("ratio", (1,))
    r = net.node("Floor", "resize/floor", [ratio])
    r = net.node("Cast", "resize/to", [r], to=TensorProto.INT64)
    r = net.node("Mul", "resize/rows", [r, net.const("resize.two", [2])])
    front, rest = net.const("resize.front", [1, 8]), net.const("resize.rest", [-1])
    shape = net.node("Concat", "resize/shape", [front, r, rest], axis=0)
    x = net.node("Reshape", "resize", [x, shape])
    x = net.block("backbone/layer2", net.block("backbone/layer1", x, 8), 8)
    return net.finish(scores(net.classifier(x, 8)))


MODELS: tuple[Callable[[], onnx.ModelProto], ...] = (
    attention_gqa,
    averagepool_dilated,
    nms,
    ok,
    resize_antialias,
    roialign,
    scatternd_add,
    shape_from_float,
)


def main(folder: Path) -> None:
    """Write every model into `folder`."""
    for make in MODELS:
        data = make().SerializeToString(deterministic=True)
        (folder / f"{make.__name__}.onnx").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
