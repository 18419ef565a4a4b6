"""Casts put in by onnx-graphsurgeon: what it would lose is still there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from bisect_trt.model.external import embedded
from bisect_trt.model.patch import key_of, lowered, narrow_copy
from bisect_trt.targets.roles import flat, roles

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[2,4] x, bool c) => (float[2,4] y, int64[2] s) <float k = {3.0}> {
    a = Mul (x, k)
    b = If (c) <then_branch = t () => (float[2,4] u) { u = Neg (a) }, else_branch = e () => (float[2,4] v)
        { v = Identity (x) }>
    d = Add (b, a)
    s = Shape (d)
    y = Relu (d)
}
"""


def made() -> onnx.ModelProto:
    """With everything that onnx-graphsurgeon 0.6 forgets."""
    model = parser.parse_model(TEXT)
    model.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, []))  # a default value
    model.metadata_props.add(key="author", value="somebody")
    model.doc_string = "a model"
    model.graph.doc_string = "a graph"
    model.graph.node[0].metadata_props.add(key="namespace", value="net.layer")
    model.graph.node[0].doc_string = "scales"
    model.graph.node[0].name = "scale"
    model.graph.node[3].attribute.extend([helper.make_attribute("start", 0)])
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "unread")
    model.graph.initializer.append(tensor)
    return model


def patched(keep: tuple[str, ...] = (), model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    model = flat(model or made())
    known = roles(model, "fp16")
    slots = {key: some for key, some in known.slots.items() if key not in keep}
    return lowered(model, slots, "fp16").model


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def test_surgeon_alone_loses_what_is_kept_here() -> None:
    """If it no longer does, `_mended` can go."""
    model = made()
    lost = gs.export_onnx(gs.import_onnx(model))
    assert not lost.graph.node[0].metadata_props and not lost.graph.node[0].doc_string
    kept = patched(("a", "d", "y"))
    assert kept.graph.node[0] == model.graph.node[0]


def test_nothing_is_lost() -> None:
    model, given = made(), patched()
    onnx.checker.check_model(given, full_check=True)
    assert list(given.graph.input) == list(model.graph.input)
    assert list(given.graph.output) == list(model.graph.output)
    assert list(given.metadata_props) == list(model.metadata_props) and given.doc_string == "a model"
    scale = next(node for node in given.graph.node if node.name == "scale")
    assert scale.metadata_props[0].value == "net.layer" and scale.doc_string == "scales"
    x = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
    for c in (True, False):
        feeds = {"x": x, "c": np.array(c)}
        for one, two in zip(run(model, feeds), run(given, feeds), strict=True):
            assert one.dtype == two.dtype and np.allclose(one, two, rtol=1e-2)
    other = {"x": x, "c": np.array(True), "k": np.array(0.5, np.float32)}
    assert np.allclose(run(model, other)[0], run(given, other)[0], rtol=1e-2), (
        "the default cannot be replaced"
    )


def test_casts_stand_at_the_edges_only_and_are_shared() -> None:
    given = patched(("d",))
    casts = [node for node in given.graph.node if node.op_type == "Cast"]
    assert len({node.input[0] for node in casts}) == len(casts)
    kinds = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(given).graph.value_info
    }
    by_key = {key_of(node): node for node in given.graph.node}
    assert "d" in by_key and kinds["a__fp16"] == TensorProto.FLOAT16
    everything = patched(tuple(roles(flat(made()), "fp16").slots))
    assert not [node for node in everything.graph.node if node.op_type == "Cast"]


def test_a_name_that_looks_like_a_twin_is_left_alone() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y)
        { a__fp16 = Relu (x) a = Neg (a__fp16) y = Abs (a) }"""
    model = parser.parse_model(text)
    given = patched(model=model)
    onnx.checker.check_model(given, full_check=True)
    x = np.arange(4, dtype=np.float32)
    assert np.array_equal(run(given, {"x": x})[0], run(model, {"x": x})[0])


def test_types_that_numpy_has_not_and_texts_that_are_none_stay() -> None:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 19, "odd" : 1]> g (float[4] x) => (float[4] y)
        { a = Relu (x) y = Neg (a) }"""
    )
    odd = helper.make_node("Odd", ["e"], ["z"], domain="odd")
    odd.attribute.append(helper.make_attribute("text", b"\xff\xfe"))
    model.graph.node.append(odd)
    model.graph.initializer.append(helper.make_tensor("e", TensorProto.FLOAT8E4M3FN, [2], [1.0, 2.0]))
    given = patched(model=model)
    assert next(n for n in given.graph.node if n.op_type == "Odd") == odd
    assert next(t for t in given.graph.initializer if t.name == "e") == model.graph.initializer[0]


def test_no_node_has_the_name_of_another() -> None:
    """A Cast beside a Cast of the user's, and one whose name is taken already."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (bool[4] x) => (float[4] y)
        { a = Cast <to=1> (x) b = Neg (a) c = Abs (a) y = Add (b, c) }"""
    model = parser.parse_model(text)
    for node, name in zip(model.graph.node, ("cast", "b__fp16_cast__fp16", "b_cast__fp16", ""), strict=True):
        node.name = name
    for keep in (("b",), ("c", "y"), ("y",)):
        given = patched(keep, model)
        names = [node.name for node in given.graph.node if node.name]
        assert len(set(names)) == len(names)
        x = np.array([True, False, True, True])
        assert np.array_equal(run(given, {"x": x})[0], run(model, {"x": x})[0])


def test_the_value_of_a_constant_node_may_lie_in_a_file(tmp_path: Path) -> None:
    """As exports of PaddlePaddle have their weights: here they lie in the user's own file."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y)
        { k = Constant <value = float[4] {1.0, 2.0, 3.0, 4.0}> () y = Mul (x, k) }"""
    inside = parser.parse_model(text)
    outside = onnx.ModelProto.FromString(inside.SerializeToString())
    value = outside.graph.node[0].attribute[0].t
    (tmp_path / "weights").write_bytes(np.arange(1, 5, dtype=np.float32).tobytes())
    value.CopyFrom(TensorProto(data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL))
    value.external_data.add(key="location", value="weights")
    slots = roles(flat(inside), "fp16").slots
    given = lowered(outside, slots, "fp16", lambda t, *to: narrow_copy(embedded(t, tmp_path), *to)).model
    x = np.linspace(-2, 2, 4, dtype=np.float32)
    assert np.array_equal(run(given, {"x": x})[0], run(patched(model=inside), {"x": x})[0])
    assert {node.op_type for node in given.graph.node} == {"Mul", "Cast"}


OVERLOADS = """
<ir_version: 10, opset_import: ["" : 17, "l" : 1]>
g (float[2,4] x) => (float[2,4] y) { a = l.f:one (x) b = l.f:two (a) y = Relu (b) }
<domain: "l", overload: "one", opset_import: ["" : 17]> f (v) => (o) { o = Neg (v) }
<domain: "l", overload: "two", opset_import: ["" : 17]> f (v) => (o) { o = Exp (v) }
"""


def test_overloads_of_a_function_are_not_taken_for_one_another() -> None:
    """onnx-graphsurgeon finds a function by its name alone: they are inlined before it sees the model."""
    model = parser.parse_model(OVERLOADS)
    x = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
    given = patched(model=model)
    assert not given.functions and {"Neg", "Exp"} <= {node.op_type for node in given.graph.node}
    assert np.allclose(run(given, {"x": x})[0], np.maximum(np.exp(-x), 0), rtol=1e-2)
    assert len(model.functions) == 2


def test_weights_that_may_be_given_are_cast_and_not_frozen() -> None:
    """Such a weight has a default value, and a user's program may feed another one."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[4] x, float[4] w) => (float[4] y)
        <float[4] w = {1.0, 2.0, 3.0, 4.0}> { y = Mul (x, w) }"""
    given = patched(model=parser.parse_model(text))
    assert [value.name for value in given.graph.input] == ["x", "w"]
    x = np.ones(4, np.float32)
    assert run(given, {"x": x})[0].tolist() == [1, 2, 3, 4]
    assert run(given, {"x": x, "w": 5 * x})[0].tolist() == [5, 5, 5, 5]


NORM = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,8] x) => (float[2,8] y)
<float two = {2.0}, float tiny = {0.001}, float[8] gain = {1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0}>
{
    a = Neg (x)  m = ReduceMean <axes = [-1]> (a)  d = Sub (a, m)  s = Pow (d, two)
    v = ReduceMean <axes = [-1]> (s)  e = Add (v, tiny)  r = Sqrt (e)  n = Div (d, r)  y = Mul (n, gain)
}"""


WHOLE = ("m", "d", "s", "v", "e", "r", "n", "y")


@pytest.mark.parametrize("keep", [WHOLE, WHOLE[3:], ("a",), ("m", "d"), ("y",), ("n", "y")])
def test_a_norm_over_a_cast_is_one_that_onnx_runtime_takes(keep: tuple[str, ...]) -> None:
    """Its fusion at the default level makes a LayerNormalization of two types of it, and refuses that."""
    given = patched(keep, parser.parse_model(NORM))
    session = ort.InferenceSession(given.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.linspace(-2, 2, 16, dtype=np.float32).reshape(2, 8)})
    assert np.all(np.isfinite(y))
    count = sum(node.op_type == "Sum" for node in given.graph.node)
    assert count == (keep != ("m", "d")), "over two casts the types are one"
