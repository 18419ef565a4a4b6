"""The models of the benchmark, made on the spot; spliced ones come from the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import accuracy_cases
import openvino_cpu
from cases import CASES, IN_FLIGHT, NOT_DECOMPOSABLE

ANTIALIAS = "Antialiasing is not supported"
SCATTER = "ScatterND with reduction is not supported"
SHAPE_TENSOR = "is a shape tensor and must have type"
WIDE = 14_500  # 16 weights of 100 MB
DEEP = 10_000


@dataclass(frozen=True)
class Bench:
    """A case: `make` writes the model (and inputs) into a folder and says which files."""

    make: Callable[[Path], Path]
    messages: tuple[str, ...] = ()  # of TensorRT-RTX; none: an accuracy failure on OpenVINO
    rtol: float = 1e-4
    sanitize: bool = False
    single: bool = True  # one culprit
    options: tuple[str, ...] = field(default=())

    def check(self, folder: Path) -> list[str]:
        """Arguments of check.py behind the model."""
        if self.messages:
            return ["rtx", *self.messages]
        libraries = openvino_cpu.libraries(folder)
        library = libraries[0][1] if libraries else openvino_cpu.plugin()
        return ["openvino", str(library), str(self.rtol)]

    def target(self, folder: Path) -> list[str]:
        """The same target as arguments of bisect-trt."""
        if self.messages:
            return ["--target", "tensorrt-rtx", *self.options]
        found = ["--target", openvino_cpu.SPEC, "--rtol", str(self.rtol), *self.options]
        for name, library in openvino_cpu.libraries(folder):
            found += ["--ep-library", f"{name}={library}"]
        return found


def spliced(case: str, light: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        made = CASES[case](light)
        onnx.save(made.model, folder / "model.onnx")
        np.savez(folder / "inputs.npz", **made.inputs())
        return folder / "model.onnx"

    return make


def cubic(folder: Path) -> Path:
    onnx.save(accuracy_cases.resnet50_cubic(), folder / "model.onnx")
    return folder / "model.onnx"


def ties(folder: Path) -> Path:
    proto, feeds = accuracy_cases.two_branches(0)
    onnx.save(proto, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **feeds)
    return folder / "model.onnx"


def _scatter(source: str, made: str) -> onnx.NodeProto:
    """What TensorRT-RTX's parser refuses; without omitted inputs, on which Polygraphy aborts."""
    return helper.make_node("ScatterND", [source, "at", "ones"], [made], "culprit", reduction="add")


def _constants(shape: list[int]) -> list[TensorProto]:
    ones = np.ones(shape, np.float32).ravel().tolist()
    at = helper.make_tensor("at", TensorProto.INT64, [1, 1], [0])
    return [at, helper.make_tensor("ones", TensorProto.FLOAT, shape, ones)]


def _saved(graph: onnx.GraphProto, folder: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def deep(folder: Path) -> Path:
    """10,000 small nodes, the culprit two thirds of the way."""
    shape, nodes, before = [1, 4, 8, 8], [], "x"
    for k in range(DEEP):
        made = f"t{k}"
        ops = ("Relu", "Sigmoid", "Neg", "Tanh", "Abs")
        one = helper.make_node(ops[k % 5], [before], [made], f"n{k}")
        nodes.append(_scatter(before, made) if k == 2 * DEEP // 3 else one)
        before = made
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "deep", [value("x", 1, shape)], [value(before, 1, shape)], _constants(shape)
    )
    return _saved(graph, folder)


def wide(folder: Path) -> Path:
    """1.6 GB of weights in a file beside the model."""
    rows, nodes, weights, before = 1725, [], [], "x"
    rng, offset = np.random.default_rng(0), 0
    with (folder / "weights.bin").open("wb") as file:
        for k in range(16):
            shape = [rows, WIDE] if k % 2 == 0 else [WIDE, rows]
            data = (rng.standard_normal(1 << 20, np.float32) / 100).tobytes()
            size = rows * WIDE * 4
            file.write((data * (size // len(data) + 1))[:size])
            weight = TensorProto(name=f"w{k}", data_type=TensorProto.FLOAT, dims=shape)
            weight.data_location = TensorProto.EXTERNAL
            for key, text in (("location", "weights.bin"), ("offset", offset), ("length", size)):
                weight.external_data.add(key=key, value=str(text))
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [before, f"w{k}"], [f"m{k}"], f"matmul{k}"))
            nodes.append(helper.make_node("Tanh", [f"m{k}"], [f"t{k}"], f"tanh{k}"))
            before, offset = f"t{k}", offset + size
    at = 2 * 11 + 2  # behind t11, 1725 wide
    weights += _constants([1, rows])
    nodes[at].input[0] = "added"
    nodes.insert(at, _scatter("t11", "added"))
    value = helper.make_tensor_value_info
    ends = [[value(name, 1, [1, rows])] for name in ("x", before)]
    return _saved(helper.make_graph(nodes, "wide", *ends, weights), folder)


SHAPES = (SHAPE_TENSOR, IN_FLIGHT)
BENCHES: dict[str, Bench] = {
    "parse-densenet121": Bench(spliced("scatternd_add", "densenet121"), (SCATTER,)),
    "parse-densenet121-sanitized": Bench(
        spliced("scatternd_add", "densenet121"), (SCATTER,), sanitize=True
    ),
    "omitted-inputs-densenet121": Bench(
        spliced("resize_antialias", "densenet121"), (ANTIALIAS,)
    ),
    "build-densenet121": Bench(spliced("attention_gqa", "densenet121"), (NOT_DECOMPOSABLE,)),
    "build-densenet121-sanitized": Bench(
        spliced("attention_gqa", "densenet121"), (NOT_DECOMPOSABLE,), sanitize=True
    ),
    "accuracy-resnet50": Bench(cubic),
    "accuracy-resnet50-sanitized": Bench(cubic, sanitize=True),
    "two-branches-densenet121": Bench(
        spliced("two_branch_reshape", "densenet121"), SHAPES, single=False
    ),
    "round-floor-topk": Bench(ties, rtol=1e-3, single=False),
    "10000-nodes": Bench(deep, (SCATTER,)),
    "1.6-GB-of-weights": Bench(wide, (SCATTER,)),
}
