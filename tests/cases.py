"""Real failing models: an op that TensorRT-RTX 1.7.1 refuses, spliced into onnx's light models.

Each builder returns a `Case`: a whole model that ONNX Runtime runs and TensorRT-RTX refuses, and what is
known about the failure. The spliced nodes take a tensor of the trunk and give its shape back, so the rest of
the network goes on behind them. `base(name)` without a splice builds. `CASES` holds one of each kind;
the builders take the name of the light model: `squeezenet` (66 nodes, 0.4 s to build; the 39 generators of
weights are not counted), `resnet50` (176 nodes, 2 s), `densenet121` (910 nodes, 8 s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
# A tensor in the middle of each trunk, with its shape.
MIDDLE = {
    "squeezenet": ("r34", (1, 48, 13, 13)),
    "resnet50": ("r89", (1, 1024, 14, 14)),
    "densenet121": ("r456", (1, 128, 14, 14)),
}


@dataclass(frozen=True)
class Case:
    """A failing model and what has to come out of it.

    `message` is a part of the target's first message, `op` the op it blames.
    `also` is what the target may say instead in a smaller model (`two_branch_reshape` tells why).
    `culprits` is the smallest selection known to fail the same way when its inputs are fed by value; `fewest`
    their number. `feeds` are the values of inputs that cannot be random.
    """

    model: onnx.ModelProto
    stage: str
    message: str
    op: str
    culprits: tuple[str, ...]
    also: str = ""
    feeds: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def fewest(self) -> int:
        return len(self.culprits)

    def inputs(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Values for every input of the model: seeded random numbers unless given in `feeds`."""
        rng = np.random.default_rng(seed)
        values = {}
        for i in self.model.graph.input:
            shape = [d.dim_value for d in i.type.tensor_type.shape.dim]
            given = self.feeds.get(i.name)
            values[i.name] = np.array(given, np.float32) if given else rng.random(shape, np.float32)
        return values


@dataclass
class Splice:
    """Nodes to put between a tensor of the trunk and its consumers; names start with `splice/`."""

    model: onnx.ModelProto
    tensor: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def const(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        full = f"splice/{name}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), full))
        return full

    def node(self, op: str, name: str, inputs: Iterable[str], **attrs: Any) -> str:
        full = f"splice/{name}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{full}_out"], full, **attrs))
        return f"{full}_out"

    def finish(self, result: str) -> onnx.ModelProto:
        """Insert the nodes behind the producer of the tensor and rewire its consumers to `result`."""
        graph = self.model.graph
        at = next(i for i, n in enumerate(graph.node) if self.tensor in n.output) + 1
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name == self.tensor:
                    node.input[i] = result
        rest = list(graph.node[at:])
        del graph.node[at:]
        graph.node.extend([*self.nodes, *rest])
        onnx.checker.check_model(self.model)
        return self.model


@cache
def _base_bytes(name: str, opset: int) -> bytes:
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    if opset != model.opset_import[0].version:
        model = version_converter.convert_version(model, opset)
    model.ir_version = 10  # initializers need not be graph inputs any more
    weights = {t.name for t in model.graph.initializer}
    real = [i for i in model.graph.input if i.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(real)
    return model.SerializeToString()


def base(name: str, opset: int = 9) -> onnx.ModelProto:
    """The light model without a splice, with weights that are not graph inputs."""
    return onnx.load_model_from_string(_base_bytes(name, opset))


def _splice(name: str, opset: int) -> Splice:
    return Splice(base(name, opset), *MIDDLE[name])


def splice_resize_antialias(name: str = "squeezenet") -> Case:
    s = _splice(name, 18)
    n, c, h, w = s.shape
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    down = s.const("down_sizes", [n, c, h // 2, w // 2])
    small = s.node("Resize", "Down", [s.tensor, "", "", down], antialias=1, **linear)
    up = s.node("Resize", "Up", [small, "", "", s.const("up_sizes", s.shape)], **linear)
    return Case(s.finish(up), "parse", "Antialiasing is not supported", "Resize", ("splice/Down",))


def splice_roialign(name: str = "squeezenet") -> Case:
    s = _splice(name, 16)
    _, _, h, w = s.shape
    rois, batch = s.const("rois", [[0, 0, w - 1, h - 1]], np.float32), s.const("batch", [0])
    out = s.node("RoiAlign", "RoiAlign", [s.tensor, rois, batch], output_height=h, output_width=w)
    # One roi gives (1, C, H, W) again.
    return Case(s.finish(out), "parse", "ROIAlign plugin was not found", "RoiAlign", ("splice/RoiAlign",))


def splice_scatternd_add(name: str = "squeezenet") -> Case:
    s = _splice(name, 16)
    _, _, h, w = s.shape
    updates = s.const("updates", np.ones((2, h, w)), np.float32)
    inputs = [s.tensor, s.const("indices", [[0, 1], [0, 3]]), updates]
    out = s.node("ScatterND", "ScatterND", inputs, reduction="add")
    message = "ScatterND with reduction is not supported"
    return Case(s.finish(out), "parse", message, "ScatterND", ("splice/ScatterND",))


def _attention(name: str, kv_heads: int, gated: bool = True) -> onnx.ModelProto:
    """Self-attention over the pixels: (1, C, H, W) as (1, 4, H*W, C/4); K = V is `gated` or is Q itself."""
    s = _splice(name, 23)
    _, c, h, w = s.shape
    heads, dim = 4, c // 4
    pixels = s.node("Reshape", "ToHeads", [s.tensor, s.const("heads_shape", [1, heads, dim, h * w])])
    q = kv = s.node("Transpose", "Pixels", [pixels], perm=[0, 1, 3, 2])
    if kv_heads < heads:
        bounds = [s.const("start", [0]), s.const("end", [kv_heads]), s.const("axis", [1])]
        kv = s.node("Slice", "KeyValue", [kv, *bounds])
    if gated:
        kv = s.node("Sigmoid", "Gate", [kv])
    out = s.node("Attention", "Attention", [q, kv, kv])
    back = s.node("Transpose", "FromHeads", [out], perm=[0, 1, 3, 2])
    result = s.node("Reshape", "ToTrunk", [back, s.const("trunk_shape", s.shape)])
    return s.finish(result)


NOT_DECOMPOSABLE = "CHECK(composite_op->is_decomposable()) failed"


def splice_attention_gqa(name: str = "squeezenet") -> Case:
    """Two heads of K and V for four of Q."""
    model = _attention(name, kv_heads=2)
    return Case(model, "build", NOT_DECOMPOSABLE, "Attention", ("splice/Attention",))


def splice_attention_fp32(name: str = "squeezenet") -> Case:
    """As many heads of K and V as of Q; no dedicated kernel for float32 either."""
    model = _attention(name, kv_heads=4)
    return Case(model, "build", NOT_DECOMPOSABLE, "Attention", ("splice/Attention",))


def splice_nms(name: str = "squeezenet") -> Case:
    """Boxes and scores from the trunk; the number of boxes found is added to it, times zero."""
    s = _splice(name, 18)
    _, c, h, w = s.shape
    boxes = s.node("Reshape", "Boxes", [s.tensor, s.const("boxes_shape", [1, c * h * w // 4, 4])])
    peak = s.node("ReduceMax", "Peak", [boxes, s.const("last", [2])], keepdims=0)
    scores = s.node("Unsqueeze", "Scores", [peak, s.const("one", [1])])
    limits = [s.const("most", [5]), s.const("iou", [0.5], np.float32), s.const("score", [0.0], np.float32)]
    found = s.node("NonMaxSuppression", "NonMaxSuppression", [boxes, scores, *limits])
    floats = s.node("Cast", "Floats", [found], to=TensorProto.FLOAT)
    total = s.node("ReduceSum", "Total", [floats], keepdims=0)
    nothing = s.node("Mul", "Nothing", [total, s.const("zero", 0, np.float32)])
    out = s.node("Add", "Add", [s.tensor, nothing])
    message = "has no runners that implement it"
    return Case(s.finish(out), "build", message, "NonMaxSuppression", ("splice/NonMaxSuppression",))


IN_FLIGHT = "Assertion !isInFlight(p.second.symbolicRep) failed"


def two_branch_reshape(name: str = "densenet121") -> Case:
    """The trunk meets a shape that is computed from a second, float graph input.

    `grid` (6.5, 6.5) -> Floor -> Cast to int64 -> Add 1 -> Mul 2 -> Concat behind (1, C) -> Reshape of the
    trunk. All from Cast on are needed: an edge between them is an integer one, which builders accept.
    TensorRT-RTX 1.7.1 words this failure in two ways: networks of up to about 20 tensors before the Reshape
    get a sanity check of its shape analysis, which trips over the half-done analysis before the real reason
    can be told. So the five nodes by themselves are refused at the same node with the text in `also`.
    """
    s = _splice(name, 9)
    n, c, _, _ = s.shape
    s.model.graph.input.append(helper.make_tensor_value_info("grid", TensorProto.FLOAT, [2]))
    cells = s.node("Cast", "Cells", [s.node("Floor", "Floor", ["grid"])], to=TensorProto.INT64)
    more = s.node("Add", "More", [cells, s.const("one", [1])])
    size = s.node("Mul", "Size", [more, s.const("two", [2])])
    shape = s.node("Concat", "Shape", [s.const("front", [n, c]), size], axis=0)
    out = s.node("Reshape", "Reshape", [s.tensor, shape])
    message = "is a shape tensor and must have type Int32 or Int64"
    culprits = tuple(f"splice/{n}" for n in ("Cells", "More", "Size", "Shape", "Reshape"))
    feeds = {"grid": (6.5, 6.5)}
    return Case(s.finish(out), "parse", message, "Reshape", culprits, also=IN_FLIGHT, feeds=feeds)


CASES: dict[str, Callable[[], Case]] = {
    "resize_antialias": splice_resize_antialias,
    "roialign": splice_roialign,
    "scatternd_add": splice_scatternd_add,
    "attention_gqa": splice_attention_gqa,
    "attention_fp32": splice_attention_fp32,
    "nms": splice_nms,
    "two_branch_reshape": two_branch_reshape,
}

# The models of `models/` that fail: stage, message, op, smallest selection known.
SMALL: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "attention_gqa": ("build", NOT_DECOMPOSABLE, "Attention", ("/layers.1/attn/Attention",)),
    "averagepool_dilated": (
        "parse",
        "does not support dilations other than 1",
        "AveragePool",
        ("/context/pool/AveragePool",),
    ),
    "nms": (
        "build",
        "has no runners that implement it",
        "NonMaxSuppression",
        ("/head/nms/NonMaxSuppression",),
    ),
    "resize_antialias": ("parse", "Antialiasing is not supported", "Resize", ("/neck/down/Resize",)),
    "roialign": ("parse", "ROIAlign plugin was not found", "RoiAlign", ("/roi_head/RoiAlign",)),
    "scatternd_add": (
        "parse",
        "ScatterND with reduction is not supported",
        "ScatterND",
        ("/pillars/scatter/ScatterND",),
    ),
    "shape_from_float": (
        "parse",
        IN_FLIGHT,
        "Reshape",
        ("/resize/to/Cast", "/resize/rows/Mul", "/resize/shape/Concat", "/resize/Reshape"),
    ),
}


def small(name: str) -> Case:
    """`models/NAME.onnx` with what is known about it."""
    stage, message, op, culprits = SMALL[name]
    feeds = {"ratio": (4.0,)} if name == "shape_from_float" else {}
    model = onnx.load(Path(__file__).parents[1] / "models" / f"{name}.onnx")
    return Case(model, stage, message, op, culprits, feeds=feeds)
