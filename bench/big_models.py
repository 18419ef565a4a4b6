"""Large models, made by a script: a long chain, and a transformer with its weights in one external file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEADS = 16
SEQUENCE = 16
VOCABULARY = 8192


def elementwise(path: Path, nodes: int, weight_bytes: int) -> Path:
    """A chain of `nodes` operators with a branch at each tenth; `weight_bytes` of embedded weights."""
    rng = np.random.default_rng(0)
    per_weight = max(1, weight_bytes // 4 // max(1, nodes // 10) // 64)
    made, weights, last = [], [], "x"
    for k in range(nodes):
        if len(made) >= nodes:
            break
        out = f"t{k}"
        if k % 10 == 9:
            name = f"w{k}"
            data = rng.standard_normal((per_weight, 64)).astype(np.float32)
            weights.append(numpy_helper.from_array(data, name))
            made.append(helper.make_node("ReduceMean", [name, "axes"], [f"m{k}"], f"mean{k}", keepdims=1))
            made.append(helper.make_node("Add", [last, f"m{k}"], [out], f"add{k}"))
        else:
            made.append(helper.make_node(("Relu", "Sigmoid", "Tanh")[k % 3], [last], [out], f"block.{k}/op"))
        last = out
    weights.append(numpy_helper.from_array(np.array([0]), "axes"))
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(proto.SerializeToString())
    return path


class Weights:
    """Random numbers appended to one file, as external data."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("wb")
        self.rng = np.random.default_rng(0)
        self.tensors: list[TensorProto] = []

    def add(self, name: str, *shape: int) -> str:
        data = self.rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
        start = self.file.tell()
        data.tofile(self.file)
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.path.name), ("offset", start), ("length", data.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        return name


def transformer(path: Path, layers: int, width: int) -> Path:
    """Pre-norm decoder blocks behind an embedding that is tied to the head; 12 * width**2 weights a layer."""
    weights = Weights(path.with_suffix(".data"))
    small = {
        "split": np.array([1, SEQUENCE, HEADS, width // HEADS]),
        "join": np.array([1, SEQUENCE, width]),
        "scale": np.float32(1 / np.sqrt(width // HEADS)),
        "ones": np.ones(width, np.float32),
    }
    nodes: list[onnx.NodeProto] = []

    def node(op: str, inputs: str, name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs.split(), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    embedding = weights.add("embedding", VOCABULARY, width)
    x = node("Gather", f"{embedding} tokens", "embed")
    for k in range(layers):
        x = _layer(node, weights, x, f"layer{k}", width)
    head = node("Transpose", embedding, "head/tied", perm=[1, 0])
    logits = node("MatMul", f"{x} {head}", "head/logits")
    weights.file.close()
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, SEQUENCE])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, [1, SEQUENCE, VOCABULARY])],
        [*weights.tensors, *(numpy_helper.from_array(np.asarray(v), k) for k, v in small.items())],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(proto.SerializeToString())
    return path


def _layer(node, weights: Weights, x: str, name: str, width: int) -> str:  # type: ignore[no-untyped-def]
    normed = node("LayerNormalization", f"{x} ones", f"{name}/norm1")
    heads = {}
    for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        flat = node("MatMul", f"{normed} {weights.add(f'{name}/w{part}', width, width)}", f"{name}/{part}")
        split = node("Reshape", f"{flat} split", f"{name}/{part}/split")
        heads[part] = node("Transpose", split, f"{name}/{part}/t", perm=perm)
    raw = node("MatMul", f"{heads['q']} {heads['k']}", f"{name}/qk")
    scores = node("Mul", f"{raw} scale", f"{name}/scaled")
    soft = node("Softmax", scores, f"{name}/softmax", axis=-1)
    mixed = node("MatMul", f"{soft} {heads['v']}", f"{name}/mix")
    back = node("Transpose", mixed, f"{name}/back", perm=[0, 2, 1, 3])
    flat = node("Reshape", f"{back} join", f"{name}/join")
    out = node("MatMul", f"{flat} {weights.add(f'{name}/wo', width, width)}", f"{name}/o")
    x = node("Add", f"{x} {out}", f"{name}/add1")
    normed = node("LayerNormalization", f"{x} ones", f"{name}/norm2")
    up = node("MatMul", f"{normed} {weights.add(f'{name}/w1', width, 4 * width)}", f"{name}/up")
    down = f"{node('Tanh', up, f'{name}/act')} {weights.add(f'{name}/w2', 4 * width, width)}"
    return node("Add", f"{x} {node('MatMul', down, f'{name}/down')}", f"{name}/add2")


if __name__ == "__main__":
    elementwise(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
