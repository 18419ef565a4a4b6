"""Where a node comes from: read from a model that PyTorch's own exporter wrote, and from hostile text."""

from __future__ import annotations

from pathlib import Path

import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from bisect_trt.model.normalise import normalise
from bisect_trt.model.origin import Origin, origin_of, origins

EXPORTED = Path(__file__).parent / "data/torch_attention.onnx"
STACK = "pkg.torch.onnx.stack_trace"
OLD = (
    "/usr/lib/python3/dist-packages/torch/nn/modules/linear.py(134): forward\n"
    "/home/me/net.py(18): forward\n/home/me/net.py(40): <module>\n"
)


def node(name: str = "n", doc: str = "", **told: str) -> onnx.NodeProto:
    made = helper.make_node("Relu", ["x"], ["y"], name, doc_string=doc)
    for key, value in told.items():
        full = key if key == "namespace" else f"pkg.torch.onnx.{key}"
        made.metadata_props.add(key=full, value=value)
    return made


def found(made: onnx.NodeProto) -> Origin:
    origin = origin_of(made)
    assert origin is not None
    return origin


def test_every_node_of_a_real_export_is_told_in_the_users_words() -> None:
    told = {o.node: o.sentence(lambda text: f"`{text}`") for o in origins(onnx.load(EXPORTED).graph.node)}
    assert told == {
        "node_linear": "`node_linear`, from `model.py` line 18, in `Model.attn.project`: "
        "`y = self.project(x)`",
        "node_mul": "`node_mul`, from `model.py` line 19, in `Model.attn`: `return torch.softmax(y * 2, -1)`",
        "node_softmax": "`node_softmax`, from `model.py` line 19, in `Model.attn`: "
        "`return torch.softmax(y * 2, -1)`",
        "node_add": "`node_add`, from `model.py` line 28, in `Model`: `return self.attn(x) + x`",
    }


def test_normalising_keeps_it() -> None:
    model = onnx.load(EXPORTED)
    assert origins(normalise(model).graph.node) == origins(model.graph.node)


def test_inlining_a_function_keeps_it() -> None:
    inner, call = node("inner"), helper.make_node("Block", ["x"], ["y"], "call", domain="local")
    inner.metadata_props.add(key=STACK, value='File "net.py", line 7, in forward\n    return f(x)')
    opset = [helper.make_opsetid("", 19), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Block", ["x"], ["y"], [inner], opset)
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([call], "g", value[:1], value[1:])
    model = helper.make_model(graph, functions=[function], opset_imports=opset, ir_version=10)
    (origin,) = origins(normalise(model).graph.node)
    assert (origin.file, origin.line, origin.code) == ("net.py", 7, "return f(x)")


def test_a_library_is_named_only_where_there_is_nothing_else() -> None:
    library = 'File "/v/lib/python3.11/site-packages/torch/f.py", line 3, in f\n    g()'
    mine = 'File "C:\\me\\net.py", line 5, in forward\n    return f(x)\n  '
    both = found(node(stack_trace=mine + library))
    assert (both.short_file, both.line, both.code) == ("net.py", 5, "return f(x)")
    assert found(node(stack_trace=library)).short_file == "f.py"


def test_a_frame_without_its_source_line() -> None:
    trace = 'File "a.py", line 1, in forward\n  File "b.py", line 2, in forward'
    assert found(node(stack_trace=trace)) == Origin("n", "b.py", 2)


def test_older_exporters() -> None:
    old = found(node("/attn/MatMul", doc=OLD))
    assert old.sentence() == "/attn/MatMul, from net.py line 18, in attn"
    assert found(node("model/block.1/Conv")).module == "model.block.1"
    only = found(node(namespace=": net.M/attn: net.A/softmax: aten.softmax.int"))
    assert only.sentence() == "n, in M.attn"
    assert origin_of(node("Conv_3")) is None
    assert origin_of(node("/Add")) is None


def test_no_folder_of_the_user_is_in_the_json() -> None:
    assert "/tmp/" in found(onnx.load(EXPORTED).graph.node[0]).file
    assert "/tmp/" not in str(found(onnx.load(EXPORTED).graph.node[0]).to_json())


@given(st.text(), st.text(), st.text(), st.text())
def test_whatever_stands_there_does_no_harm(trace: str, classes: str, doc: str, name: str) -> None:
    origin = origin_of(
        node(name, doc, stack_trace=trace, class_hierarchy=classes, name_scopes=classes, namespace=trace)
    )
    assert origin is None or origin.sentence()


def test_a_long_trace_takes_no_time() -> None:
    evil = 'File "' * 50_000 + "\\" * 50_000
    assert origin_of(node(stack_trace=evil, class_hierarchy="'" + "\\" * 100_001, doc=evil)) is None
