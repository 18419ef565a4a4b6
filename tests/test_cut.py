"""Cut models are valid and replay the recorded values, whatever is selected."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import INLINE_LIMIT, Store, external_info
from cases import SMALL, small
from support import LIGHT, Record, assert_replays, check, model, random_feeds, record_all, run, tensor_type

node = helper.make_node
STYLES = [form for form in Form if form.is_cut]
Feeds = list[dict[str, np.ndarray]]


class Bench:
    """A normalised model with its record, ready to be cut."""

    def __init__(self, proto: onnx.ModelProto, folder: Path, feeds: Feeds | None = None) -> None:
        self.proto = normalise(proto)
        self.store = Store(folder)
        self.store.adopt(self.proto, folder)
        self.graph = Graph(self.proto)
        self.record = record_all(self.proto, feeds or [random_feeds(self.proto, 0)], self.store)
        self.cutter = Cutter(self.graph, self.store, self.record)

    def cut(self, names: object, style: Form = Form.DEFAULT) -> Candidate:
        return self.cutter.cut(frozenset(names), style)  # type: ignore[call-overload]

    def replay(self, candidate: Candidate) -> onnx.ModelProto:
        assert_replays(candidate, self.store, self.record)
        return onnx.ModelProto.FromString(candidate.model)


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


# Properties


@cache
def light(name: str) -> tuple[Bench, TemporaryDirectory[str]]:
    place = TemporaryDirectory()
    return Bench(onnx.load(LIGHT / f"light_{name}.onnx"), Path(place.name)), place


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["squeezenet", "shufflenet"]), st.sampled_from(STYLES), st.randoms(use_true_random=False)
)
def test_selections_of_light_models_replay(name: str, style: Form, random: object) -> None:
    bench, _ = light(name)
    order = bench.graph.order
    count = random.choice([1, 2, 5, len(order) // 3])  # type: ignore[attr-defined]
    start = random.randrange(len(order))  # type: ignore[attr-defined]
    scattered = random.sample(order, count)  # type: ignore[attr-defined]
    candidate = bench.cut(random.choice([scattered, order[start : start + count]]), style)  # type: ignore[attr-defined]
    bench.replay(candidate)


@pytest.mark.parametrize("seed", [1, 2])
def test_selections_of_densenet_replay(seed: int) -> None:
    bench, _ = light("densenet121")
    names = np.random.default_rng(seed).choice(bench.graph.order, 200, replace=False)
    bench.replay(bench.cut(map(str, names), STYLES[seed]))


OURS = sorted((Path(__file__).parents[1] / "models").glob("*.onnx"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_selections_of_our_models_replay(path: Path, folder: Path) -> None:
    feeds = small(path.stem).inputs() if path.stem in SMALL else None
    bench = Bench(onnx.load(path), folder, feeds and [feeds])
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, len(bench.graph.order) // 2):
        for style in STYLES:
            names = rng.choice(bench.graph.order, count, replace=False)
            bench.replay(bench.cut(map(str, names), style))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bvlc_alexnet", "inception_v1", "inception_v2", "resnet50", "vgg19", "zfnet512"]
)
def test_selections_of_the_larger_light_models_replay(name: str, folder: Path) -> None:
    bench = Bench(onnx.load(LIGHT / f"light_{name}.onnx"), folder)
    rng = np.random.default_rng(0)
    for count in (1, 5, len(bench.graph.order) // 3):
        bench.replay(bench.cut(map(str, rng.choice(bench.graph.order, count, replace=False))))


SHAPE = [2, 3, 4]


class Builder:
    """Random small models; every float tensor has the shape 2x3x4."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.floats = ["x", "z"]
        self.weights = [
            numpy_helper.from_array(np.float32(1), "top"),
            numpy_helper.from_array(np.linspace(-1, 1, 24, dtype=np.float32).reshape(SHAPE), "w"),
            numpy_helper.from_array(np.array([4]), "four"),
            numpy_helper.from_array(np.array(1), "one"),
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.array(SHAPE), "shape"),
            numpy_helper.from_array(np.zeros(1, np.int64), "zero"),
            numpy_helper.from_array(np.array([4, 3, 2]), "turned"),
        ]

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes: object) -> list[str]:
        k = len(self.nodes)
        names = [f"t{k}" if not i else f"t{k}_{i}" for i in range(outputs)]
        name = self.draw(st.sampled_from(["", f"n{k}", "same"]))
        self.nodes.append(node(op, inputs, names, name, **attributes))
        return names

    def any(self) -> str:
        return str(self.draw(st.sampled_from(self.floats)))

    def unary(self) -> str:
        return self.add(self.draw(st.sampled_from(["Relu", "Tanh", "Neg", "Sigmoid"])), [self.any()])[0]

    def binary(self) -> str:
        return self.add(self.draw(st.sampled_from(["Add", "Sub", "Max"])), [self.any(), self.any()])[0]

    def omitted_input(self) -> str:
        return self.add("Clip", [self.any(), "", "top"])[0]

    def weight(self) -> str:
        return self.add("Add", [self.any(), "w"])[0]

    def constant_chain(self) -> str:
        made = self.add("Sin", ["w"])[0]
        self.floats.append(made)
        return self.add("Mul", [made, self.any()])[0]

    def generator(self) -> str:
        made = self.add("ConstantOfShape", ["shape"], value=helper.make_tensor("v", 1, [1], [0.5]))[0]
        return self.add("Add", [self.any(), made])[0]

    def many_outputs(self) -> str:
        values, places = self.add("TopK", [self.any(), "four"], 2, axis=2)
        if self.draw(st.booleans()):
            return values
        return self.add("GatherElements", [self.any(), places], axis=2)[0]

    def split(self) -> str:
        parts = self.add("Split", [self.any()], 2, axis=0)
        return self.add("Concat", parts[::-1], axis=0)[0]

    def shape_chain(self) -> str:
        shape = self.add("Shape", [self.any()])[0]
        last = self.add("Gather", [shape, "one"])[0]
        rows = self.add("Unsqueeze", [last, "zero"])[0]
        rest = self.add("Concat", [self.add("Sub", ["zero", "four"])[0]], axis=0)[0]
        rest = self.add("Div", [rest, "four"])[0]  # -1
        flat = self.add("Reshape", [self.any(), self.add("Concat", [rows, rest], axis=0)[0]])[0]
        return self.add("Reshape", [flat, shape])[0]

    def float_shape(self) -> str:
        """A shape that hangs on the values of a tensor."""
        total = self.add("ReduceMax", [self.add("Abs", [self.any()])[0]], keepdims=0)[0]
        none = self.add("Cast", [self.add("Sub", [total, total])[0]], to=TensorProto.INT64)[0]
        turned = self.add("Reshape", [self.any(), self.add("Add", ["turned", none])[0]])[0]
        return self.add("Transpose", [turned], perm=[2, 1, 0])[0]

    def condition(self) -> str:
        total = self.add("ReduceSum", [self.any()], keepdims=0)[0]
        flag = self.add("Greater", [total, "top"])[0]
        k = len(self.nodes)

        def body(name: str, *nodes: tuple[str, list[str], str]) -> onnx.GraphProto:
            made = [node(op, inputs, [out], "same") for op, inputs, out in nodes]
            return helper.make_graph(made, name, [], [tensor_type(nodes[-1][2], None)])

        then = body("then", ("Neg", [self.any()], f"a{k}"), ("Add", [f"a{k}", self.any()], f"b{k}"))
        other = body("else", ("Add", [self.any(), "w"], f"c{k}"))
        return self.add("If", [flag], then_branch=then, else_branch=other)[0]

    def loop(self) -> str:
        k = len(self.nodes)
        inputs = [tensor_type(f"i{k}", [], 7), tensor_type(f"go{k}", [], 9), tensor_type(f"s{k}", SHAPE)]
        nodes = [node("Identity", [f"go{k}"], [f"o{k}"]), node("Add", [f"s{k}", self.any()], [f"p{k}"])]
        body = helper.make_graph(
            nodes, "body", inputs, [tensor_type(f"o{k}", [], 9), tensor_type(f"p{k}", SHAPE)]
        )
        return self.add("Loop", ["one", "true", self.any()], body=body)[0]

    def sequence(self) -> str:
        several = self.add("SequenceConstruct", [self.any(), self.any()])[0]
        return self.add("SequenceAt", [several, "one"])[0]

    def model(self) -> onnx.ModelProto:
        kinds = [
            self.unary, self.binary, self.omitted_input, self.weight, self.constant_chain, self.generator,
            self.many_outputs, self.split, self.shape_chain, self.float_shape, self.condition, self.loop,
            self.sequence,
        ]  # fmt: skip
        for make in self.draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=9)):
            self.floats.append(make())
        outputs = {self.floats[-1], self.any()} - {"x", "z"}
        return model(
            self.nodes,
            [tensor_type("x", ["N", 3, 4]), tensor_type("z", ["N", 3, 4])],
            [tensor_type(name, None) for name in sorted(outputs)],
            self.weights,
        )


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    return Builder(draw).model()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(models(), st.data())
def test_selections_of_random_models_replay(proto: onnx.ModelProto, data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        samples = [random_feeds(proto, seed) for seed in range(data.draw(st.integers(1, 2)))]
        bench = Bench(proto, Path(name), samples)
        bench.replay(bench.cutter.whole())
        order = bench.graph.order
        for style in STYLES:
            selection = data.draw(st.sets(st.sampled_from(order), min_size=1))
            candidate = bench.cut(selection, style)
            bench.replay(candidate)
            assert selection <= set(candidate.nodes) <= set(order)
            assert list(candidate.nodes) == bench.graph.sorted(candidate.nodes)
            assert bench.cut(selection, style) == candidate
        everything = bench.cut(order)
        assert everything.nodes == order and bench.replay(everything)


# Rules


def chain(folder: Path, feeds: Feeds | None = None) -> Bench:
    """`y = Reshape(Relu(x), Concat(Shape(x)[0], -1))`, and a side output from the middle."""
    nodes = [
        node("Relu", ["x"], ["r"], "relu"),
        node("Shape", ["r"], ["s"], "shape"),
        node("Slice", ["s", "zero", "one"], ["rows"], "slice"),
        node("Concat", ["rows", "rest"], ["target"], "concat", axis=0),
        node("Reshape", ["r", "target"], ["flat"], "reshape"),
        node("Neg", ["flat"], ["y"], "neg"),
        node("Sin", ["r"], ["side"], "sin"),
    ]
    weights = [
        numpy_helper.from_array(np.array([value]), name)
        for name, value in (("zero", 0), ("one", 1), ("rest", -1))
    ]
    outputs = [tensor_type("side", ["N", 2, 3]), tensor_type("y", ["N", 6])]
    return Bench(model(nodes, [tensor_type("x", ["N", 2, 3])], outputs, weights), folder, feeds)


def inputs_of(proto: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        i.name: [
            d.dim_value if d.HasField("dim_value") else d.dim_param for d in i.type.tensor_type.shape.dim
        ]
        for i in proto.graph.input
    }


def test_shape_like_values_are_frozen_and_shapes_are_static(folder: Path) -> None:
    bench = chain(folder)
    proto = bench.replay(bench.cut(["reshape"]))
    assert inputs_of(proto) == {"r": [2, 2, 3]}
    (frozen,) = proto.graph.initializer
    assert frozen.name == "target" and numpy_helper.to_array(frozen).tolist() == [2, -1]
    assert "dim_param" not in str(proto)


def test_unfrozen_keeps_them_as_inputs(folder: Path) -> None:
    bench = chain(folder)
    candidate = bench.cut(["reshape"], Form.UNFROZEN)
    assert list(inputs_of(bench.replay(candidate))) == ["r", "target"]
    assert candidate.form is Form.UNFROZEN


def test_dynamic_keeps_symbols(folder: Path) -> None:
    bench = chain(folder)
    assert inputs_of(bench.replay(bench.cut(["relu"], Form.DYNAMIC))) == {"x": ["N", 2, 3]}
    assert inputs_of(bench.replay(bench.cut(["sin"], Form.DYNAMIC))) == {"r": ["N", 2, 3]}
    assert inputs_of(bench.replay(bench.cut(["relu"]))) == {"x": [2, 2, 3]}
    assert inputs_of(bench.replay(bench.cutter.whole())) == {"x": ["N", 2, 3]}
    assert inputs_of(bench.replay(bench.cutter.whole(Form.DEFAULT))) == {"x": [2, 2, 3]}


def test_hidden_does_not_expose_what_is_read_inside(folder: Path) -> None:
    bench = chain(folder)
    names = ["relu", "reshape"]
    shown = bench.replay(bench.cut(names))
    hidden = bench.replay(bench.cut(names, Form.HIDDEN))
    assert [o.name for o in shown.graph.output] == ["r", "flat"]
    assert [o.name for o in hidden.graph.output] == ["flat"]
    both = bench.replay(bench.cut(["relu", "sin", "reshape"], Form.HIDDEN))
    assert [o.name for o in both.graph.output] == ["side", "flat"]  # each node is needed by an output


def test_hidden_still_exposes_what_the_model_exposes(folder: Path) -> None:
    proto = model(
        [node("Relu", ["x"], ["t"], "relu"), node("Neg", ["t"], ["y"], "neg")],
        [tensor_type("x", [2])],
        [tensor_type("y", [2]), tensor_type("t", [2])],
    )
    bench = Bench(proto, folder)
    for style in STYLES:
        assert [o.name for o in bench.replay(bench.cut(["relu", "neg"], style)).graph.output] == ["y", "t"]


def test_values_that_differ_between_samples_are_not_frozen(folder: Path) -> None:
    feeds = [{"x": np.ones((n, 2, 3), np.float32)} for n in (2, 5)]
    bench = chain(folder, feeds)
    candidate = bench.cut(["reshape"])
    assert inputs_of(bench.replay(candidate)) == {"r": ["", 2, 3], "target": [2]}
    assert len(candidate.feeds) == len(candidate.expected) == 2
    same = chain(folder / "same", [feeds[0], {"x": feeds[0]["x"] * 2}])
    assert list(inputs_of(same.replay(same.cut(["reshape"])))) == ["r"]


def test_inputs_of_the_model_are_never_frozen(folder: Path) -> None:
    proto = model(
        [node("Reshape", ["x", "to"], ["y"], "r")],
        [tensor_type("x", [4]), tensor_type("to", [2], TensorProto.INT64)],
        [tensor_type("y", None)],
    )
    bench = Bench(proto, folder, [{"x": np.ones(4, np.float32), "to": np.array([2, 2])}])
    assert list(inputs_of(bench.replay(bench.cut(["r"])))) == ["x", "to"]


def test_constants_are_frozen_whatever_their_size_and_type(folder: Path) -> None:
    weights = [numpy_helper.from_array(np.linspace(0, 1, 4000, dtype=np.float32), "w")]
    proto = model(
        [
            node("Sin", ["w"], ["big"], "sin"),
            node("Cast", ["big"], ["half"], "cast", to=TensorProto.BFLOAT16),
            node("Cast", ["half"], ["back"], "uncast", to=TensorProto.FLOAT),
            node("Add", ["back", "x"], ["a"], "add"),
            node("Add", ["a", "big"], ["y"], "last"),
        ],
        [tensor_type("x", [4000])],
        [tensor_type("y", None)],
        weights,
    )
    bench = Bench(proto, folder, [{"x": np.ones(4000, np.float32)}])
    for style in STYLES:
        candidate = bench.cut(["last", "uncast"], style)
        proto = bench.replay(candidate)
        assert list(inputs_of(proto)) == ["a"]
        stored = {t.name: t for t in proto.graph.initializer}
        assert set(stored) == {"big", "half"} and len(candidate.model) < INLINE_LIMIT
        assert stored["half"].data_type == TensorProto.BFLOAT16
        assert external_info(stored["half"])["location"].endswith(".npy")
        assert candidate.bytes == 4000 * 6


@pytest.mark.parametrize(
    ("op", "shape", "frozen"),
    [
        ("Cast", [64], True),
        ("Cast", [65], False),
        ("Cast", [2, 2], False),
        ("Cast", [], True),
        ("Identity", [3], False),
    ],
)
def test_what_looks_like_a_shape(folder: Path, op: str, shape: list[int], frozen: bool) -> None:
    attributes = {"to": TensorProto.INT32} if op == "Cast" else {}
    proto = model(
        [node(op, ["x"], ["t"], "make", **attributes), node("Neg", ["t"], ["y"], "use")],
        [tensor_type("x", shape)],
        [tensor_type("y", None, TensorProto.INT32 if op == "Cast" else TensorProto.FLOAT)],
    )
    bench = Bench(proto, folder)
    assert (not inputs_of(bench.replay(bench.cut(["use"])))) is frozen


def test_float_values_in_build_time_slots_are_frozen(folder: Path) -> None:
    proto = model(
        [
            node("Abs", ["scale_in"], ["scales"], "abs"),
            node("Resize", ["x", "", "scales"], ["big"], "resize"),
            node("Mul", ["scales", "scales"], ["y"], "mul"),
        ],
        [tensor_type("x", [1, 1, 2, 2]), tensor_type("scale_in", [4])],
        [tensor_type("y", None), tensor_type("big", None)],
    )
    feeds = {"x": np.ones((1, 1, 2, 2), np.float32), "scale_in": np.float32([1, 1, -2, 2])}
    bench = Bench(proto, folder, [feeds])
    assert list(inputs_of(bench.replay(bench.cut(["resize"])))) == ["x"]
    assert list(inputs_of(bench.replay(bench.cut(["mul"])))) == ["scales"]
    assert list(inputs_of(bench.replay(bench.cut(["resize"], Form.UNFROZEN)))) == ["x", "scales"]


def test_sequences_and_strings_are_not_cut(folder: Path) -> None:
    proto = model(
        [
            node("Relu", ["x"], ["r"], "relu"),
            node("SequenceConstruct", ["r", "x"], ["s"], "pack"),
            node("SequenceInsert", ["s", "x"], ["s2"], "insert"),
            node("SequenceAt", ["s2", "at"], ["a"], "at"),
            node("SequenceLength", ["s"], ["n"], "length"),
            node("Neg", ["a"], ["y"], "neg"),
            node("Cast", ["x"], ["text"], "write", to=TensorProto.STRING),
            node("Cast", ["text"], ["z"], "read", to=TensorProto.FLOAT),
        ],
        [tensor_type("x", [2])],
        [tensor_type("y", None), tensor_type("n", [], TensorProto.INT64), tensor_type("z", [2])],
        [numpy_helper.from_array(np.array(1), "at")],
    )
    bench = Bench(proto, folder)
    for start in ("pack", "insert", "at", "length"):
        candidate = bench.cut([start])
        assert set(candidate.nodes) == {"pack", "insert", "at", "length"}
        bench.replay(candidate)
    assert bench.cut(["neg"]).nodes == ("neg",)
    for start in ("write", "read"):
        assert bench.cut([start]).nodes == ("write", "read")


def test_weights_and_generators_travel_with_their_consumers(folder: Path) -> None:
    bench, _ = light("squeezenet")
    graph = bench.graph
    conv = next(name for name in graph.order if graph.node(name).op_type == "Conv")
    candidate = bench.cut([conv])
    proto = bench.replay(candidate)
    assert candidate.nodes == (conv,)
    assert [n.op_type for n in proto.graph.node][-1] == "Conv"
    assert len(proto.graph.node) == 1 + sum(
        graph.producer.get(t) in graph.generators for t in graph.inputs_of(conv)
    )


def test_names_metadata_opsets_and_head_are_kept(folder: Path) -> None:
    relu = node("Relu", ["x"], ["t"], "my relu")
    relu.metadata_props.add(key="source", value="net.py:7")
    proto = model(
        [relu, node("Gelu", ["t"], ["y"], "gelu", domain="com.microsoft")],
        [tensor_type("x", [2])],
        [tensor_type("y", [2])],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        producer_name="exporter",
    )
    bench = Bench(proto, folder)
    cut = bench.replay(bench.cut(["my relu"]))
    assert cut.graph.node[0] == relu and cut.opset_import == bench.proto.opset_import
    assert (cut.producer_name, cut.ir_version, cut.graph.name) == ("exporter", 9, "g")
    assert bench.replay(bench.cut(["gelu"])).graph.node[0].domain == "com.microsoft"


def test_interior_types_are_inferred_ones_without_symbols(folder: Path) -> None:
    bench = chain(folder)
    proto = bench.replay(bench.cut(["relu", "shape", "slice", "concat", "reshape", "neg", "sin"]))
    types = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.value_info}
    assert types["r"] == [0, 2, 3] and types["flat"] == [0, 0] and types["target"] == [2]  # 0: open
    assert "dim_param" not in str(proto)
    assert not {"y", "side", "x"} & set(types)


def test_what_was_not_recorded_has_seeded_values_and_none_to_compare_with(folder: Path) -> None:
    bench = chain(folder)
    nothing = Cutter(bench.graph, bench.store, Record(bench.store))
    candidate = nothing.cut(frozenset(["sin"]))
    assert candidate.feeds == () and candidate.expected == ()
    assert inputs_of(check(candidate)) == {"r": ["", 2, 3]}  # declared N, of no known size
    partly = Record(bench.store)
    partly.add({"x": np.ones((2, 2, 3), np.float32)})
    candidate = Cutter(bench.graph, bench.store, partly).cut(frozenset(["reshape", "relu"]))
    assert [list(f) for f in candidate.feeds] == [["x", "target"]] and candidate.expected == ({},)
    assert inputs_of(check(candidate)) == {"x": [2, 2, 3], "target": [2]}
    assert np.load(candidate.feeds[0]["target"]).shape == (2,)
    again = Cutter(bench.graph, bench.store, partly).cut(frozenset(["reshape", "relu"]))
    assert again.digest == candidate.digest  # as in a run that is resumed
    ends = Record(bench.store)
    ends.add({"side": np.ones((2, 2, 3), np.float32)})  # which an outside reference gave, say
    candidate = Cutter(bench.graph, bench.store, ends).cut(frozenset(["sin"]))
    assert [list(f) for f in candidate.feeds] == [["r"]] and candidate.expected == ({},)


def test_a_result_that_nobody_reads_is_an_output(folder: Path) -> None:
    proto = model(
        [node("TopK", ["x", "k"], ["v", "i"], "top"), node("Neg", ["v"], ["y"], "neg")],
        [tensor_type("x", [4])], [tensor_type("y", None)], [numpy_helper.from_array(np.array([2]), "k")],
    )  # fmt: skip
    bench = Bench(proto, folder)
    assert [o.name for o in bench.replay(bench.cut(["top"])).graph.output] == ["v"]
    dead = onnx.ModelProto.FromString(bench.proto.SerializeToString())
    dead.graph.node.append(node("Abs", ["x"], ["unread"], "dead"))
    graph = Graph(dead)
    record = record_all(dead, random_feeds(dead, 0), bench.store)
    candidate = Cutter(graph, bench.store, record).cut(frozenset(["dead"]))
    assert_replays(candidate, bench.store, record)
    assert set(candidate.expected[0]) == {"unread"}


def test_selections_that_make_no_sense(folder: Path) -> None:
    bench = chain(folder)
    with pytest.raises(ValueError, match="nothing"):
        bench.cut([])
    with pytest.raises(KeyError):
        bench.cut(["nobody"])


def test_bfloat16_edges_are_fed(folder: Path) -> None:
    """A type that numpy does not know survives record, feed and declaration."""
    proto = model(
        [
            node("Cast", ["x"], ["t"], "cast", to=TensorProto.BFLOAT16),
            node("Cast", ["t"], ["y"], "back", to=TensorProto.FLOAT),
        ],
        [tensor_type("x", [600])],
        [tensor_type("y", [600])],
    )
    bench = Bench(proto, folder)
    candidate = bench.cut(["back"])
    cut = bench.replay(candidate)
    assert cut.graph.input[0].type.tensor_type.elem_type == TensorProto.BFLOAT16
    value = bench.store.load(candidate.feeds[0]["t"], TensorProto.BFLOAT16, (600,))
    assert value.dtype == ml_dtypes.bfloat16
    x = bench.store.load(bench.record.path(0, "x"), TensorProto.FLOAT)
    np.testing.assert_array_equal(value, x.astype(ml_dtypes.bfloat16))


def test_digests_tell_cuts_apart(folder: Path) -> None:
    bench = chain(folder)
    cuts = [bench.cut([name]) for name in bench.graph.order]
    assert len({c.digest for c in cuts}) == len(cuts)
    assert bench.cut(["relu"]).digest == bench.cut(["relu"]).digest
    assert bench.cut(["relu"]).size < bench.cut(["relu", "sin"]).size


def test_a_model_is_run_from_bytes_alone(folder: Path) -> None:
    bench = chain(folder)
    before = sorted(p.name for p in folder.iterdir())
    candidate = bench.cut(["relu", "sin"])
    x = np.ones((2, 2, 3), np.float32)
    assert run(candidate.model, candidate.folder, {"x": x})["side"].shape == (2, 2, 3)
    assert sorted(p.name for p in folder.iterdir()) == before
