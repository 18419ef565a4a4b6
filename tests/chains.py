"""Small models for tests of the search: a chain with side branches, quick to make and to run."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from support import model, tensor_type

OPS = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs")


def chain(length: int = 40) -> onnx.ModelProto:
    """`n0` .. of one input each; every seventh adds what was four nodes before."""
    nodes, before = [], "x"
    for k in range(length):
        side = f"t{k - 4}" if k % 7 == 6 else ""
        inputs = [before, side] if side else [before]
        nodes.append(helper.make_node("Add" if side else OPS[k % 5], inputs, [f"t{k}"], f"n{k}"))
        before = f"t{k}"
    return model(nodes, [tensor_type("x", [2, 3])], [tensor_type(before, [2, 3])])


def saved(folder: Path, length: int = 40) -> Path:
    """The chain as a file."""
    path = folder / "model.onnx"
    onnx.save(chain(length), path)
    return path
