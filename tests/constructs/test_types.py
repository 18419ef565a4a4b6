"""Element types, names and forms that models come with, around one failing Resize."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from making import ANTIALIAS, INT64, SCALES, bad_resize, chain, const, graph, model, node, reduced, value
from onnx import TensorProto, helper

from bisect_trt.errors import BisectError
from bisect_trt.model.candidate import Form
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.outcome import Stage
from bisect_trt.references.recorder import record

X = np.linspace(-1, 1, 128, dtype=np.float32).reshape(1, 2, 8, 8)
Made = tuple[onnx.ModelProto, dict[str, Any]]
T = TensorProto


def ends(source: str) -> list[onnx.NodeProto]:
    return [bad_resize(source, "z"), node("Relu", "z", "y", "last")]


def plain(
    middle: list[onnx.NodeProto], source: str, *weights: TensorProto, **options: Any
) -> onnx.ModelProto:
    """x -> Relu -> Sigmoid (h1) -> middle -> Resize -> y."""
    head, _ = chain("h", "x", ["Relu", "Sigmoid"])
    kind = options.pop("kind", T.FLOAT)
    inputs = [value("x", options.pop("shape", (1, 2, 8, 8)), kind), *options.pop("inputs", [])]
    outputs = [*options.pop("outputs", []), value("y", None, kind)]
    return model(graph([*head, *middle, *ends(source)], inputs, outputs, [SCALES, *weights]), **options)


def quantized(kind: int, channels: int = 0, block: int = 0) -> Made:
    """A Q/DQ pair: per tensor, per channel, or blocked."""
    shape = (1, 2, 8 // block, 8) if block else (channels,) if channels else ()
    zero = helper.make_tensor("zp", kind, shape, [0] * max(1, int(np.prod(shape))))
    options = {"axis": 2, "block_size": block} if block else {"axis": 1}
    pair = [node("QuantizeLinear", "h1 sc zp", "q", "q", **options)]
    pair += [node("DequantizeLinear", "q sc zp", "dq", "dq", **options)]
    return plain(pair, "dq", const("sc", np.full(shape, 0.1)), zero, opset=21), {}


def halves() -> Made:
    return plain([node("Add", "h1 h1", "m", "add")], "m", kind=T.FLOAT16), {}


def names() -> Made:
    """Duplicate, empty, very long and odd names; unsorted; an input that nobody reads."""
    long = "n" * 500
    nodes = [
        helper.make_node("Relu", ["x"], ["a b:0"], "twice"),
        helper.make_node("Sigmoid", ["a b:0"], ["ü/你"], "twice"),
        helper.make_node("Abs", ["ü/你"], [long], long),
        helper.make_node("Neg", [long], ["q 1"], ""),
        helper.make_node("Resize", ["q 1", "", "scales"], ["z"], "bad/é :1", antialias=1, mode="linear"),
        helper.make_node("Relu", ["z"], ["y"], ""),
    ]
    inputs = [value("x"), value("unused", ("a", 3))]
    return model(graph(nodes[::-1], inputs, [value("y", None)], [SCALES])), {}


def functions() -> Made:
    """A local function in a local function, with an attribute that is passed on."""
    domain = [helper.make_opsetid("", 18), helper.make_opsetid("loc", 1)]
    resize = helper.make_node("Resize", ["t", "", "sc"], ["b"], antialias=1, mode="linear")
    inner = [helper.make_node("Abs", ["a"], ["t"]), resize]
    leaky = helper.make_node("LeakyRelu", ["t"], ["b"])
    passed_on = onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    leaky.attribute.append(passed_on)
    outer = [helper.make_node("Inner", ["a", "sc"], ["t"], domain="loc"), leaky]
    call = node("Outer", "x scales", "z", "call", domain="loc", alpha=0.3)
    made = model(graph([call, node("Relu", "z", "y")], [value("x")], [value("y", None)], [SCALES]), loc=1)
    made.functions.append(helper.make_function("loc", "Inner", ["a", "sc"], ["b"], inner, domain[:1]))
    made.functions.append(helper.make_function("loc", "Outer", ["a", "sc"], ["b"], outer, domain, ["alpha"]))
    return made, {}


def outputs_that_are_given() -> Made:
    return plain([], "h1", outputs=[value("x"), value("scales", (4,))]), {}


def computed_shape() -> Made:
    """Symbolic batch and sequence; Shape -> Gather -> Concat -> Reshape; a profile."""
    nodes = [node("Shape", "h1", "s", "shape")]
    nodes += [node("Gather", "s zero", "n", "g0"), node("Gather", "s two", "l", "g2")]
    nodes += [node("Unsqueeze", "n ax", "nu", "u0"), node("Unsqueeze", "l ax", "lu", "u2")]
    nodes += [node("Concat", "nu c2 lu c8", "to", "concat", axis=0), node("Reshape", "h1 to", "r", "reshape")]
    values = {"zero": 0, "two": 2, "ax": [0], "c2": [2], "c8": [8]}
    weights = [const(name, number, np.int64) for name, number in values.items()]
    sizes = {"min_shapes": (1, 2, 4, 8), "opt_shapes": (2, 2, 8, 8), "max_shapes": (4, 2, 16, 8)}
    options = {name: (("x", shape),) for name, shape in sizes.items()}
    return plain(nodes, "r", *weights, shape=("batch", 2, "seq", 8)), options


def shape_as_input() -> Made:
    made = plain([node("Reshape", "h1 to", "r", "reshape")], "r", inputs=[value("to", (4,), INT64)])
    return made, {"feeds": {"x": np.ones((1, 2, 8, 8), np.float32), "to": np.array([1, 2, 8, 8])}}


CASES: dict[str, Callable[[], Made]] = {
    "int8": lambda: quantized(T.INT8),
    "int8 per channel": lambda: quantized(T.INT8, channels=2),
    "uint8": lambda: quantized(T.UINT8),
    "float8": lambda: quantized(T.FLOAT8E4M3FN),
    "int4 blocked": lambda: quantized(T.INT4, block=4),
    "float16": halves,
    "names": names,
    "functions": functions,
    "outputs that are given": outputs_that_are_given,
    "computed shape": computed_shape,
    "shape as input": shape_as_input,
}


@pytest.mark.parametrize("case", CASES)
def test_the_culprit_alone_comes_out(case: str, tmp_path: Path) -> None:
    made, options = CASES[case]()
    result = reduced(made, tmp_path, **options)
    assert [n.op_type for n in onnx.load(tmp_path / "out" / "repro.onnx").graph.node] == ["Resize"]
    assert ANTIALIAS in result.wanted.message
    assert result.verified == 1 and result.one_minimal


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("tensorrt-rtx", {"SplitToSequence"}),  # its output is one of the model then
        ("planted:op=SequenceAt,fail=error", {"SplitToSequence", "SequenceAt"}),
        ("planted:op=SequenceInsert,fail=error", {"SplitToSequence", "SequenceInsert"}),
    ],
)
def test_sequences_are_no_inputs_of_a_cut(target: str, left: set[str], tmp_path: Path) -> None:
    nodes = [node("SplitToSequence", "h1 sizes", "s", axis=3), node("SequenceAt", "s at", "e")]
    nodes += [node("Abs", "e", "f"), node("SequenceInsert", "s f", "t"), node("SequenceLength", "t", "n")]
    nodes.append(node("ConcatFromSequence", "t", "c", axis=3))
    weights = const("at", 0, np.int64), const("sizes", [4, 4], np.int64)
    result = reduced(plain(nodes, "c", *weights, outputs=[value("n", (), INT64)]), tmp_path, target)
    assert {n.op_type for n in onnx.load(tmp_path / "out" / "repro.onnx").graph.node} == left
    assert result.verified == 1 and result.one_minimal


def test_maps_are_outputs(tmp_path: Path) -> None:
    kind = helper.make_map_type_proto(T.INT64, helper.make_tensor_type_proto(T.FLOAT, []))
    zipped = helper.make_value_info("m", helper.make_sequence_type_proto(kind))
    made = graph(
        [
            node("Softmax", "x", "p"),
            node("ZipMap", "p", "m", "zip", domain="ai.onnx.ml", classlabels_int64s=[3, 4]),
            node("Neg", "p", "y"),
        ],
        [value("x", ("N", 2))],
        [zipped, value("y", None)],
    )
    result = reduced(model(made, opset=15, ai_onnx_ml=3), tmp_path, "planted:op=ZipMap,fail=error")
    assert result.nodes == ("zip",) and result.verified == 1


def test_equal_names_of_nodes_do_not_hide_other_failures(tmp_path: Path) -> None:
    """ONNX Runtime refuses them, so what imitates a target on it must not show them to it."""
    feeds = {"x": X, "unused": X[0, 0, :2, :3]}
    result = reduced(names()[0], tmp_path, "planted:op=Resize,fail=mismatch", feeds=feeds)
    assert len(result.best.nodes) == 1 and result.wanted.stage is Stage.COMPARE and result.verified == 1


def test_training_leftovers_and_omitted_outputs(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "a"), node("BatchNormalization", "a w w w w", "c m v", "bn", training_mode=1)]
    nodes += [node("Dropout", "c ratio train", "d _", "dropout"), node("Sigmoid", "d", "y")]
    weights = [const("w", [1, 1]), const("ratio", 0.5), const("train", True, bool)]
    result = reduced(model(graph(nodes, [value("x")], [value("y")], weights), opset=17), tmp_path)
    assert result.nodes == ("bn",) and "training_mode" in result.wanted.message
    assert result.verified == 1


@pytest.mark.parametrize("opset", [7, 23])
def test_weights_that_are_inputs_and_old_and_new_opsets(opset: int, tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "a", "r"), node("BatchNormalization", "a w w w w", "b", "bn")]
    nodes.append(node("Tanh", "b", "y", "t"))
    inputs = [value("x"), value("w", (2,))]
    main = graph(nodes, inputs, [value("y")], [const("w", [1, 1])])
    made = model(main, opset=opset, ir=3 if opset == 7 else 11)
    result = reduced(made, tmp_path, "planted:op=BatchNormalization,fail=error,stage=build")
    assert result.nodes == ("bn",) and result.verified == 1


@pytest.mark.parametrize("kind", [T.UINT8, T.INT4, T.FLOAT8E4M3FN])
def test_types_that_builders_do_not_take_at_a_boundary_stay_inside(kind: int, tmp_path: Path) -> None:
    proto = normalise(quantized(kind)[0])
    store = Store(tmp_path)
    store.adopt(proto, tmp_path)
    graph_of = Graph(proto)
    feeds = {"x": store.put("x", np.ones((1, 2, 8, 8), np.float32))}
    cutter = Cutter(graph_of, store, record(proto.SerializeToString(), tmp_path, [feeds]))
    for name in ("q", "dq"):
        assert cutter.cut(frozenset({name})).nodes == ("q", "dq")
        assert cutter.cut(frozenset({name}), Form.NARROW).nodes == (name,)


def test_a_failure_of_the_quantization_itself_gets_smaller_than_the_pair(tmp_path: Path) -> None:
    made, _ = quantized(T.UINT8)
    result = reduced(made, tmp_path, "planted:op=DequantizeLinear,fail=error,stage=build")
    assert result.nodes == ("dq",) and result.verified == 1


def test_a_dimension_called_question_mark_has_no_known_size() -> None:
    """As PaddlePaddle's exporter writes it: two of them need not be equal."""
    assert GraphInput.from_value_info(value("x", ("?", 3, "?"))).dims == (None, 3, None)


def exotic(kind: str) -> onnx.ModelProto:
    made = plain([], "h1")
    if kind == "sequence input":
        made.graph.input.append(helper.make_tensor_sequence_value_info("s", T.FLOAT, None))
        made.graph.node.append(node("SequenceLength", "s", "n"))
        made.graph.output.append(value("n", (), INT64))
    elif kind == "optional input":
        inner = helper.make_tensor_type_proto(T.FLOAT, [2])
        made.graph.input.append(helper.make_value_info("o", helper.make_optional_type_proto(inner)))
        made.graph.node.append(node("OptionalHasElement", "o", "n"))
        made.graph.output.append(value("n", (), T.BOOL))
    elif kind == "IR version":
        made.ir_version = 99
    elif kind == "operator set":
        made.opset_import[0].version = 99
    elif kind == "unknown type":
        made.graph.input[0].type.tensor_type.elem_type = 77
    elif kind == "no rank":
        made.graph.input[0].type.tensor_type.ClearField("shape")
    return made


KINDS = ("sequence input", "optional input", "IR version", "operator set", "unknown type", "no rank")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_supported_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BisectError) as caught:
        reduced(exotic(kind), tmp_path)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message and len(caught.value.message) > 20
    assert not (tmp_path / "out").exists()
