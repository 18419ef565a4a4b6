"""Other domains, strings, trees, shapes that depend on data: a failure beside them is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from making import INT64, chain, const, graph, model, node, reduced, value
from onnx import TensorProto, helper

Case = tuple[onnx.ModelProto, Mapping[str, Any], str, set[str]]
"""Model, feeds, what is planted, names of the nodes that are left."""

RNG = np.random.default_rng(0)


def weight(name: str, *shape: int) -> TensorProto:
    return const(name, RNG.standard_normal(shape) / 4)


def contrib() -> Case:
    """A block of a transformer as ONNX Runtime's optimizer writes it."""
    nodes = [
        node("Gather", "table ids", "e", "embed"),
        node("Attention", "e aw ab", "at", "attention", domain="com.microsoft", num_heads=2),
        node("SkipLayerNormalization", "at e ones zeros", "sl", "norm", domain="com.microsoft"),
        node("FusedMatMul", "sl w", "fm", "up", domain="com.microsoft", alpha=0.5),
        node("BiasGelu", "fm ab", "bg", "act", domain="com.microsoft"),
        node("Softmax", "bg", "y", "softmax"),
    ]
    weights = [weight("table", 20, 8), weight("aw", 8, 24), weight("ab", 24), weight("w", 8, 24)]
    weights += [const("ones", np.ones(8)), const("zeros", np.zeros(8))]
    made = graph(nodes, [value("ids", ("batch", "seq"), INT64)], [value("y", None)], weights)
    feeds = {"ids": RNG.integers(0, 20, (2, 5))}
    return model(made, opset=17, com_microsoft=1), feeds, "node=act,fail=mismatch", {"act"}


def data_dependent() -> Case:
    """NonZero, a TopK whose k is computed, an empty tensor, scalars."""
    nodes = [
        node("Greater", "x half", "more", "more"),
        node("NonZero", "more", "places", "places"),
        node("Transpose", "places", "rows", "rows"),
        node("Shape", "rows", "extent", "extent"),
        node("Gather", "extent zero", "count", "count"),
        node("Min", "count five", "few", "few"),
        node("Unsqueeze", "few axis", "k", "k"),
        node("Reshape", "x flat", "line", "line"),
        node("TopK", "line k", "top at", "top"),
        node("Slice", "line axis axis", "empty", "empty"),
        node("Concat", "empty top", "all", "all", axis=0),
        node("ReduceMean", "all", "mean", "mean", keepdims=0),
        node("Mul", "mean half", "y", "scaled"),
    ]
    numbers = {"zero": 0, "five": 5, "axis": [0], "flat": [-1]}
    weights = [const("half", 0.5), *(const(name, number, np.int64) for name, number in numbers.items())]
    outputs = [value("y", None), value("at", None, INT64), value("empty", None)]
    made = graph(nodes, [value("x", ("batch", "n"))], outputs, weights)
    feeds = {"x": RNG.standard_normal((2, 9), np.float32)}
    return model(made), feeds, "node=top,fail=mismatch", {"top"}


def optionals() -> Case:
    head, x = chain("h", "x", ["Relu", "Sigmoid"])
    nodes = [*head, node("Optional", x, "o", "wrap"), node("OptionalHasElement", "o", "there", "there")]
    nodes += [node("OptionalGetElement", "o", "e", "unwrap"), node("Exp", "e", "y", "exp")]
    made = graph(nodes, [value("x")], [value("y", None), value("there", (), TensorProto.BOOL)])
    return model(made), {"x": np.ones((1, 2, 8, 8), np.float32)}, "node=unwrap,fail=error", {"wrap", "unwrap"}


def trees() -> Case:
    """A pipeline as converters of scikit-learn write it."""
    kinds: dict[str, Any] = {"domain": "ai.onnx.ml"}
    tree = {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.1, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "class_treeids": [0, 0],
        "class_nodeids": [1, 2], "class_ids": [0, 1], "class_weights": [1.0, 1.0],
        "classlabels_int64s": [0, 1], "post_transform": "NONE",
    }  # fmt: skip
    nodes = [
        node("Scaler", "x", "s", "scaler", offset=[0.1] * 4, scale=[2.0] * 4, **kinds),
        node("TreeEnsembleClassifier", "s", "label p", "trees", **tree, **kinds),
        node("Neg", "p", "y", "neg"),
    ]
    made = graph(nodes, [value("x", ("N", 4))], [value("y", None), value("label", None, INT64)])
    feeds = {"x": RNG.standard_normal((3, 4), np.float32)}
    return model(made, opset=15, ai_onnx_ml=3), feeds, "node=trees,fail=error", {"trees"}


def strings() -> Case:
    """Text to numbers: nothing is cut between strings."""
    labels = {"keys_strings": ["a!", "b!"], "values_int64s": [1, 2], "default_int64": 0}
    nodes = [
        node("StringConcat", "text mark", "marked", "concat"),
        node("LabelEncoder", "marked", "ids", "labels", domain="ai.onnx.ml", **labels),
        node("Gather", "table ids", "e", "embed"),
        node("Softmax", "e", "y", "softmax"),
    ]
    mark = helper.make_tensor("mark", TensorProto.STRING, (1,), [b"!"])
    inputs = [value("text", ("N",), TensorProto.STRING)]
    made = graph(nodes, inputs, [value("y", None)], [mark, weight("table", 3, 4)])
    feeds = {"text": np.array(["a", "b", "c"])}
    return model(made, opset=20, ai_onnx_ml=4), feeds, "node=labels,fail=error", {"concat", "labels"}


CASES: tuple[Callable[[], Case], ...] = (contrib, data_dependent, optionals, trees, strings)


@pytest.mark.parametrize("case", CASES)
def test_what_is_planted_comes_out(case: Callable[[], Case], tmp_path: Path) -> None:
    made, feeds, planted, left = case()
    result = reduced(made, tmp_path, f"planted:{planted}", feeds, {"simplify": False})
    assert set(result.best.nodes) == left and result.verified == 1 and result.one_minimal
