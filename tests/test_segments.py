"""Many segments in one model: nothing connects them, and each gives what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.cutting.segments import Merged, Segment, merge, segments
from bisect_trt.model.graph import Graph, consumed
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from support import LIGHT, Record, assert_replays, model, random_feeds, record_all, tensor_type

node = helper.make_node


class Bench:
    def __init__(self, proto: onnx.ModelProto, folder: Path) -> None:
        self.proto = normalise(proto)
        self.store = Store(folder)
        self.store.adopt(self.proto, folder)
        self.graph = Graph(self.proto)
        samples = [random_feeds(self.proto, seed) for seed in (0, 1)]
        self.record = record_all(self.proto, samples, self.store)
        self.cutter = Cutter(self.graph, self.store, self.record)

    def parts(self, *names: str) -> list[Segment]:
        return segments(self.graph, self.cutter, self.record, names or self.graph.order)

    def merged(self, *names: str) -> Merged:
        """Merged, and found to be disconnected and to replay."""
        made = merge(self.parts(*names))
        proto = onnx.load_model_from_string(made.candidate.model)
        owner = {t: n.name for n in proto.graph.node for t in n.output}
        mine = set(made.candidate.nodes)
        for reader in proto.graph.node:
            for t in consumed(reader):
                if owner.get(t) in mine:
                    together = next(p for p in self.parts(*names) if reader.name in p.nodes)
                    assert owner[t] in together.nodes
        assert_replays(made.candidate, self.store, _Renamed(self.record, made))
        return made


class _Renamed(Record):
    """The record under the names of a merged model."""

    def __init__(self, record: Record, made: Merged) -> None:
        self._record = record
        self._names = {name: name.partition("/")[2] for sample in made.candidate.feeds for name in sample}
        self._names |= made.names

    def elem_type(self, tensor: str) -> int:
        return self._record.elem_type(self._names[tensor])


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_light_model_in_one_piece(name: str, tmp_path: Path) -> None:
    bench = Bench(onnx.load(LIGHT / f"light_{name}.onnx"), tmp_path)
    made = bench.merged()
    assert set(made.candidate.nodes) == set(bench.graph.order)
    made_by_nodes = {t for n in bench.graph.order for t in bench.graph.outputs_of(n)}
    read = {*bench.graph.consumers, *bench.graph.graph_outputs}
    assert set(made.names.values()) == made_by_nodes & read
    assert len(made.candidate.feeds) == 2


def branches() -> onnx.ModelProto:
    """An If whose branches take tensors from outside, one of them inside a nested If."""
    x, y = tensor_type("x", [2, 3]), tensor_type("y", [2, 3])
    inner = helper.make_graph([node("Neg", ["a"], ["n"])], "inner", [], [tensor_type("n", None)])
    other = helper.make_graph([node("Abs", ["b"], ["m"])], "other", [], [tensor_type("m", None)])
    then = helper.make_graph(
        [node("If", ["c"], ["t"], name="nested", then_branch=inner, else_branch=other)],
        "then", [], [tensor_type("t", None)],
    )  # fmt: skip
    otherwise = helper.make_graph([node("Add", ["a", "b"], ["e"])], "else", [], [tensor_type("e", None)])
    nodes = [
        node("Relu", ["x"], ["a"], name="relu"),
        node("Sigmoid", ["x"], ["b"], name="sigmoid"),
        node("ReduceSum", ["x"], ["s"], name="sum", keepdims=0),
        node("Greater", ["s", "zero"], ["c"], name="greater"),
        node("If", ["c"], ["z"], name="if", then_branch=then, else_branch=otherwise),
        node("Mul", ["z", "a"], ["y"], name="mul"),
    ]
    return model(nodes, [x], [y], [numpy_helper.from_array(np.float32(0), "zero")])


def test_bodies_take_their_own_copies(tmp_path: Path) -> None:
    made = Bench(branches(), tmp_path).merged()
    (branch,) = [n for n in onnx.load_model_from_string(made.candidate.model).graph.node if n.name == "if"]
    assert all("/" in t for t in consumed(branch) if t != "c")


def test_what_cannot_be_cut_is_one_segment(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"], name="relu"),
        node("SplitToSequence", ["a"], ["q"], name="split", axis=0),
        node("ConcatFromSequence", ["q"], ["b"], name="concat", axis=0),
        node("Neg", ["b"], ["y"], name="neg"),
    ]
    bench = Bench(model(nodes, [tensor_type("x", [2, 3])], [tensor_type("y", [2, 3])]), tmp_path)
    bench.merged()
    assert [p.nodes for p in bench.parts()] == [("relu",), ("split", "concat"), ("neg",)]
    assert [p.nodes for p in bench.parts("concat", "split")] == [("split", "concat")]


def test_quantised_tensors_do_not_become_inputs(tmp_path: Path) -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantise"),
        node("Relu", ["d"], ["y"], name="relu"),
    ]
    made = model(nodes, [tensor_type("x", [2, 3])], [tensor_type("y", [2, 3])], [scale, zero])
    bench = Bench(made, tmp_path)
    parts = bench.parts()
    assert [p.nodes for p in parts] == [("quantise", "dequantise"), ("relu",)]
    kinds = onnx.load_model_from_string(bench.merged().candidate.model).graph
    assert {v.type.tensor_type.elem_type for v in (*kinds.input, *kinds.output)} == {TensorProto.FLOAT}


def test_weights_whose_names_look_like_ours_stay_apart(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(np.full(3, k, np.float32), n) for k, n in enumerate(("s0/x", "s1/a"))]
    nodes = [node("Add", ["x", "s1/a"], ["a"], name="one"), node("Add", ["a", "s0/x"], ["y"], name="two")]
    made = Bench(model(nodes, [tensor_type("x", [3])], [tensor_type("y", [3])], weights), tmp_path)
    assert len(made.merged().names) == 2


def test_a_segment_without_recorded_values_says_so(tmp_path: Path) -> None:
    bench = Bench(branches(), tmp_path)
    for sample in bench.record._paths:
        del sample["a"]
    del bench.record._types["a"]
    assert {p.nodes[0] for p in bench.parts() if not p.fed} == {"if", "mul"}
