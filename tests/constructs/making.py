"""Small models around one failing op, and their reduction, for tests of hard constructs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import bisect_trt
from bisect_trt.results import Reduction
from bisect_trt.settings import RunSettings, Settings, TargetSettings

Array = npt.NDArray[Any]
Dim = int | str | None

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
ANTIALIAS = "Antialiasing is not supported"


def value(name: str, shape: Sequence[Dim] | None = (1, 2, 8, 8), kind: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape if shape is None else list(shape))


def const(name: str, data: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(data, dtype), name)


def node(op: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> NodeProto:
    """A node; inputs and outputs are separated by blanks, `_` is an omitted one."""
    split = [["" if word == "_" else word for word in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *split, name=name, **attributes)


def graph(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Sequence[TensorProto] = (),
    name: str = "g",
) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(weights))


def model(main: onnx.GraphProto, opset: int = 18, ir: int = 10, **domains: int) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(name.replace("_", "."), version) for name, version in domains.items()]
    return helper.make_model(main, ir_version=ir, opset_imports=imports)


def bad_resize(source: str, result: str, name: str = "culprit") -> NodeProto:
    """What TensorRT-RTX 1.7.1 refuses in its parser; needs the weight `scales`. Halves height and width."""
    return node("Resize", f"{source} _ scales", result, name, antialias=1, mode="linear")


SCALES = const("scales", [1, 1, 0.5, 0.5])


def chain(prefix: str, source: str, ops: Sequence[str]) -> tuple[list[NodeProto], str]:
    """Unary nodes one behind the other; the nodes and the last tensor."""
    nodes = []
    for k, op in enumerate(ops):
        nodes.append(node(op, source, f"{prefix}{k}", f"{prefix}/{op}{k}"))
        source = f"{prefix}{k}"
    return nodes, source


def reduced(
    made: onnx.ModelProto,
    folder: Path,
    target: str = "tensorrt-rtx",
    feeds: Mapping[str, Array] | None = None,
    run: Mapping[str, Any] | None = None,
    **options: Any,
) -> Reduction:
    """`reduce` of a model; `options` are those of `TargetSettings`."""
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    kept = dict(run or {})
    if feeds is not None:
        np.savez(folder / "in.npz", **feeds)
        kept["inputs"] = folder / "in.npz"
    settings = Settings(TargetSettings(target, **options), RunSettings(**{"repeats": 1, **kept}))
    return bisect_trt.reduce(path, settings, out=folder / "out")
