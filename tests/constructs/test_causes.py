"""Failures that belong to no single node: the result names what they hang on, and what removes them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from making import (
    ANTIALIAS,
    FLOAT,
    INT64,
    SCALES,
    bad_resize,
    chain,
    const,
    graph,
    model,
    node,
    reduced,
    value,
)
from onnx import helper

import bisect_trt
from bisect_trt.model.candidate import Form
from bisect_trt.model.variants import variants
from bisect_trt.reproducer.issue import elsewhere
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings


def told(notes: tuple[str, ...]) -> list[str]:
    start = "No node is to blame but "
    return [note.removeprefix(start).partition(":")[0] for note in notes if note.startswith(start)]


def test_equal_names_of_unequal_dimensions_and_their_profile(tmp_path: Path) -> None:
    nodes = [node("Relu", "a", "a1"), node("Abs", "a1", "ya")]
    nodes += [node("Relu", "b", "b1"), node("Neg", "b1", "yb")]
    inputs = [value("a", ("N", 2)), value("b", ("N", 2))]
    made = model(graph(nodes, inputs, [value("ya", None), value("yb", None)]))
    low, high = (("a", (1, 2)), ("b", (5, 2))), (("a", (4, 2)), ("b", (5, 2)))
    result = reduced(made, tmp_path, min_shapes=low, max_shapes=high)
    assert "dimensions with this name" in result.wanted.message
    assert told(result.notes) == ["the optimisation profile", "the names of dimensions"]
    assert len(result.best.nodes) == 2 and result.verified == 1
    assert not any("disagrees" in note for note in result.notes), "repro.py carries the profile"


def test_dynamic_dimensions(tmp_path: Path) -> None:
    head, x = chain("h", "x", ["Relu", "Sigmoid", "Abs"])
    nodes = [*head, node("EyeLike", x, "e", "eye"), node("Add", f"{x} e", "m"), node("Tanh", "m", "y")]
    made = model(graph(nodes, [value("x", ("N", "M"))], [value("y", None)]))
    result = reduced(made, tmp_path, feeds={"x": np.ones((4, 4), np.float32)})
    assert told(result.notes) == ["dynamic dimensions"]
    assert [n.op_type for n in onnx.load(tmp_path / "out" / "repro.onnx").graph.node] == ["EyeLike"]
    assert result.verified == 1


@pytest.mark.parametrize("then_another", [False, True])
def test_sparse_weights(then_another: bool, tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "r"), node("MatMul", "r w", "m", "mm")]
    nodes.append(bad_resize("m", "y") if then_another else node("Tanh", "m", "y"))
    made = model(graph(nodes, [value("x")], [value("y", None)], [SCALES] if then_another else []))
    sparse = helper.make_sparse_tensor(const("w", [1.0, 2.0]), const("i", [0, 9], np.int64), [8, 8])
    made.graph.sparse_initializer.append(sparse)
    result = reduced(made, tmp_path)
    if then_another:
        (cause,) = result.causes
        assert cause.startswith("With the sparse initializers written as dense ones it fails in another way")
        assert ANTIALIAS in cause
    else:
        assert told(result.notes) == ["sparse weights"]
    assert result.best.form is Form.ORIGINAL and result.verified == 1
    assert "ONNX Runtime" in elsewhere(result) and elsewhere(result).startswith("yes")


def test_outputs_without_a_type_and_nothing_that_comes_with_it(tmp_path: Path) -> None:
    """ONNX's converter declares types on the way: the version is not to blame, nor an attribute."""
    nodes = [node("Relu", "x", "r"), node("LeakyRelu", "r", "y", "leaky", alpha=0.5)]
    made = model(graph(nodes, [value("x")], [onnx.ValueInfoProto(name="y")]))
    result = reduced(made, tmp_path)
    assert "Failed to convert" in result.wanted.message
    assert told(result.notes) == ["outputs without a declared type"]
    assert result.best.form is Form.ORIGINAL and not (tmp_path / "out" / "passing.onnx").exists()


@pytest.mark.parametrize(
    ("refused", "cause"),
    [
        ("data[1] > 9", "the IR version"),  # a file begins with it
        (r"b'\x10\x12' in data[-8:]", "the operator set version"),  # and ends with that one
        ("b'idx' in data", "the input idx (int64[2])"),
        ("True", "a model that only hands on its inputs fails so as well"),
    ],
)
def test_a_part_is_not_to_blame_for_its_versions_and_inputs(
    refused: str, cause: str, tmp_path: Path
) -> None:
    nodes = [node("Relu", "x", "a"), node("Tanh", "a", "b"), node("Gather", "b idx", "y", "gather")]
    inputs = [value("x", ("N", 4)), value("idx", ("K",), INT64)]
    script = tmp_path / "refuses.py"
    script.write_text(f"import sys\ndata = open(sys.argv[1], 'rb').read()\nsys.exit({refused})\n")
    feeds = {"x": np.ones((3, 4), np.float32), "idx": np.array([0, 1])}
    command = f"command:{sys.executable} -S -E {script} {{model}}"
    made = model(graph(nodes, inputs, [value("y", None)]))
    result = reduced(made, tmp_path, command, feeds, {"simplify": False})
    (told_of,) = result.causes
    assert told_of.startswith("No node is to blame") and cause in told_of
    assert len(result.best.nodes) == 1 and result.verified == 1


def test_a_plain_failure_of_a_node_has_no_such_cause(tmp_path: Path) -> None:
    made = model(graph([node("Relu", "x", "r"), node("Tanh", "r", "y")], [value("x")], [value("y")]))
    assert told(reduced(made, tmp_path, "planted:op=Tanh,fail=error,stage=build").notes) == []


def test_variants_are_sound_and_leave_the_model_alone() -> None:
    square = ("N", "N")
    nodes = [node("Relu", "a", "b", "twin"), node("Relu", "b", "y", "twin")]
    made = model(graph(nodes, [value("a", square)], [value("y", square)]), opset=17, ir=3)
    made.graph.initializer.append(const("w", [1.0]))
    made.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [1]))
    before = made.SerializeToString()
    found = list(variants(made, {"a": (2, 2)}))
    assert made.SerializeToString() == before
    causes = [variant.cause for variant in found]
    first = ["the names of dimensions", "equal names of nodes", "weights that are inputs", "declared shapes"]
    assert causes[:4] == first
    assert {"the IR version", "dynamic dimensions", "the operator set version"} <= set(causes)
    for variant in found:
        assert variant.model.SerializeToString() != before
        assert onnx.load_model_from_string(variant.model.SerializeToString()).graph.node


def test_a_wrong_type_that_is_declared(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "r"), node("Tanh", "r", "y")]
    made = model(graph(nodes, [value("x")], [value("y", kind=INT64)]))
    onnx.save(made, tmp_path / "m.onnx")
    accuracy = AccuracySettings(reference="self", judge="local")
    settings = Settings(TargetSettings("ort:CPU"), RunSettings(repeats=1, simplify=False), accuracy)
    result = bisect_trt.reduce(tmp_path / "m.onnx", settings, out=tmp_path / "out")
    assert told(result.notes) == ["a wrong type that is declared"]
    made.graph.output[0].type.tensor_type.elem_type = FLOAT
    assert "a wrong type that is declared" not in {v.cause for v in variants(made, {})}


def test_outputs_without_a_declared_shape(tmp_path: Path) -> None:
    """As OpenVINO's provider refuses what ONNX Runtime infers no shape of: seen with GroupNormalization."""
    nodes = [node("Relu", "x", "r"), node("Exp", "r", "e"), node("Tanh", "e", "y")]
    script = tmp_path / "refuses.py"
    script.write_text(
        "import sys\ndata = open(sys.argv[1], 'rb').read()\n"
        r"bare = b'\x12\x04\n\x02\x08\x01' in data  # a type of nothing but float" + "\n"
        "sys.exit('error: unknown rank' if bare and b'Exp' in data else 0)\n"
    )
    made = model(graph(nodes, [value("x")], [value("y", None)]))
    result = reduced(made, tmp_path, f"command:{sys.executable} -S -E {script} {{model}}")
    assert told(result.notes) == ["outputs without a declared shape"]
    assert len(result.best.nodes) == 1 and result.verified == 1
    assert not onnx.load(tmp_path / "out/repro.onnx").graph.output[0].type.tensor_type.HasField("shape")
