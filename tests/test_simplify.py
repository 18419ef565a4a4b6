"""Simplification: every pass, the order that decides, and dimensions against brute force."""

from __future__ import annotations

import itertools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.machine import native
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.model.editing.dimensions import Net
from bisect_trt.model.editing.draft import close_draft, open_draft
from bisect_trt.model.editing.inference import Invalid
from bisect_trt.model.editing.simplicity import Odd, level
from bisect_trt.model.editing.ties import Var
from bisect_trt.model.seeded_values import Recipe, is_uniform, parse, ramp, resembling
from bisect_trt.outcome import Ended, Symptom
from bisect_trt.reduction.menu import SIMPLIFY
from bisect_trt.reduction.reduce import reduce
from bisect_trt.reduction.reduce import simplify as simplify_model
from bisect_trt.reduction.simplify import attributes, types
from bisect_trt.reduction.simplify.dimensions import sizes_below
from bisect_trt.reduction.simplify.propose import attempt, best_draft
from bisect_trt.reduction.simplify.run import simplify
from bisect_trt.reduction.state import Simplifying
from bisect_trt.reproducer.archive import too_big
from bisect_trt.session.oracle import outcome_of
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.base import STAGE_MARK
from bisect_trt.workers import reference
from bisect_trt.workers.pool import Death, Reply
from simplify_bench import ints, loaded, node, problem_of, shapes, simplified, value_of, weight
from support import model

FLOAT = TensorProto.FLOAT


def tensor(name: str, *dims: int | str, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def has(proto: onnx.ModelProto, op: str) -> bool:
    return any(n.op_type == op for n in proto.graph.node)


def find(proto: onnx.ModelProto, op: str) -> onnx.NodeProto:
    return next(n for n in proto.graph.node if n.op_type == op)


def random(seed: int = 0, **dims: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in dims.items()}


# Dimensions against brute force


def trunk(n: int, c: int, h: int, m: int, p: int) -> onnx.ModelProto:
    """Conv, Relu, Reshape to (n, m, h*h), MatMul with (h*h, p), Add of (p)."""
    nodes = [
        node("Conv", ["x", "k", "b"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Reshape", ["r", "s"], ["f"]),
        node("MatMul", ["f", "w"], ["g"]),
        node("Add", ["g", "v"], ["y"]),
    ]
    weights = [weight("k", (m, c, 3, 3)), weight("b", (m,)), ints("s", n, m, h * h)]
    weights += [weight("w", (h * h, p)), weight("v", (p,))]
    return model(nodes, [tensor("x", n, c, h, h)], [tensor("y", n, m, p)], weights)


def trunk_sizes(proto: onnx.ModelProto) -> tuple[int, int, int, int, int] | None:
    """(n, c, h, m, p) of what is left of a trunk; None when a node is missing."""
    if not all(has(proto, op) for op in ("Conv", "Reshape", "MatMul")):
        return None
    known = shapes(proto)
    conv, reshape, matmul = find(proto, "Conv"), find(proto, "Reshape"), find(proto, "MatMul")
    if not {conv.input[0], conv.input[1], matmul.input[1]} <= known.keys():
        return None
    n, c, h, _ = known[conv.input[0]]
    target = value_of(proto, reshape.input[1])
    if target[0] != n:
        return None
    return n, c, h, known[conv.input[1]][0], known[matmul.input[1]][1]


START = (2, 3, 3, 4, 3)


@pytest.mark.parametrize("least", [(1, 1, 1, 1, 1), (2, 1, 1, 2, 1), (1, 2, 1, 2, 3), (1, 1, 2, 3, 2)])
def test_dimensions_are_the_smallest_that_still_fail(least: tuple[int, ...], tmp_path: Path) -> None:
    """The failure needs certain sizes; brute force over all smaller trunks finds the same ones."""

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        sizes = trunk_sizes(proto)
        return sizes is not None and all(a >= b for a, b in zip(sizes, least, strict=True))

    left, _, _ = simplified(trunk(*START), random(x=(2, 3, 3, 3)), fails, tmp_path)
    smaller = itertools.product(*(range(1, size + 1) for size in START))
    failing = [sizes for sizes in smaller if fails(trunk(*sizes), [])]
    assert trunk_sizes(left) == min(failing, key=sum)


def heads(b: int, s: int, h: int, d: int) -> onnx.ModelProto:
    """Queries and keys of `h` heads of size `d` out of one tensor."""
    nodes = [
        node("Reshape", ["x", "s"], ["r"]),
        node("Transpose", ["r"], ["q"], "to_q", perm=[0, 2, 1, 3]),
        node("Transpose", ["r"], ["k"], "to_k", perm=[0, 2, 3, 1]),
        node("MatMul", ["q", "k"], ["y"]),
    ]
    return model(nodes, [tensor("x", b, s, h * d)], [tensor("y", b, h, s, s)], [ints("s", b, s, h, d)])


def heads_sizes(proto: onnx.ModelProto) -> tuple[int, ...] | None:
    kept = sorted(n.op_type for n in proto.graph.node)
    if kept != ["MatMul", "Reshape", "Transpose", "Transpose"]:
        return None
    return tuple(value_of(proto, find(proto, "Reshape").input[1]).tolist())


def grouped(b: int, g: int, c: int, o: int, p: int) -> onnx.ModelProto:
    """A Conv of `g` groups, `c` to `o` channels each, and a Gemm to `p`."""
    nodes = [
        node("Conv", ["x", "k"], ["a"], group=g, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["a"], ["m"]),
        node("Flatten", ["m"], ["f"]),
        node("Gemm", ["f", "w", "v"], ["y"], transB=1),
    ]
    weights = [weight("k", (g * o, c, 3, 3)), weight("w", (p, g * o)), weight("v", (p,))]
    return model(nodes, [tensor("x", b, g * c, 4, 4)], [tensor("y", b, p)], weights)


def grouped_sizes(proto: onnx.ModelProto) -> tuple[int, ...] | None:
    if not all(has(proto, op) for op in ("Conv", "GlobalAveragePool", "Gemm")):
        return None
    conv, gemm, known = find(proto, "Conv"), find(proto, "Gemm"), shapes(proto)
    if not {conv.input[0], conv.input[1], gemm.input[1]} <= known.keys():
        return None
    group = next((a.i for a in conv.attribute if a.name == "group"), 1)
    kernel, last = known[conv.input[1]], known[gemm.input[1]]
    swapped = any(a.name == "transB" and a.i for a in gemm.attribute)
    return known[conv.input[0]][0], group, kernel[1], kernel[0] // group, last[0 if swapped else 1]


@pytest.mark.parametrize(
    ("make", "sizes", "least"),
    [
        (heads, heads_sizes, (1, 2, 3, 2)),
        (heads, heads_sizes, (2, 3, 1, 4)),
        (grouped, grouped_sizes, (1, 2, 2, 2, 3)),
        (grouped, grouped_sizes, (2, 3, 1, 4, 2)),
    ],
)
def test_heads_groups_and_channels_are_the_fewest_that_still_fail(
    make: Any, sizes: Any, least: tuple[int, ...], tmp_path: Path
) -> None:
    start = (2, 3, 4, 4) if make is heads else (2, 3, 2, 4, 3)

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        now = sizes(proto)
        return now is not None and all(a >= b for a, b in zip(now, least, strict=True))

    proto = make(*start)
    dims = tuple(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim)
    left, _, _ = simplified(proto, random(x=dims), fails, tmp_path)
    smaller = itertools.product(*(range(1, size + 1) for size in start))
    failing = [some for some in smaller if fails(make(*some), [])]
    assert sizes(left) == min(failing, key=sum) == least


@pytest.mark.parametrize("odd", [2, 3])
def test_dimensions_need_not_fail_monotonously(odd: int, tmp_path: Path) -> None:
    """Only multiples of a size fail: halving alone would miss the smallest."""
    proto = model([node("Relu", ["x"], ["y"])], [tensor("x", 12)], [tensor("y", 12)])

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        return shapes(proto)[proto.graph.input[0].name][0] % odd == 0

    left, _, _ = simplified(proto, random(x=(12,)), fails, tmp_path)
    assert shapes(left)["x0"] == (odd,)


CHANGES = {
    "Concat": ([node("Concat", ["x", "x"], ["y"], axis=1)], [], (2, 3), (2, 6)),
    "Transpose": (
        [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Relu", ["t"], ["y"])],
        [],
        (2, 3),
        (3, 2),
    ),
    "Slice": (
        [node("Slice", ["x", "s", "e", "a"], ["t"]), node("Add", ["t", "w"], ["y"])],
        [ints("s", 0), ints("e", 2), ints("a", 1), weight("w", (2,))],
        (2, 6),
        (2, 2),
    ),
    "Gather": ([node("Gather", ["x", "i"], ["y"], axis=1)], [ints("i", 5, 3)], (2, 6), (2, 2)),
    "Gemm": (
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        [weight("w", (5, 6)), weight("b", (5,))],
        (2, 6),
        (2, 5),
    ),
    "LayerNormalization": (
        [node("LayerNormalization", ["x", "w"], ["y"])],
        [weight("w", (6,))],
        (2, 6),
        (2, 6),
    ),
    "ReduceSum": ([node("ReduceSum", ["x", "a"], ["y"], keepdims=0)], [ints("a", 0)], (4, 6), (6,)),
    "Expand": ([node("Expand", ["x", "s"], ["y"])], [ints("s", 4, 6)], (1, 6), (4, 6)),
    "Tile": ([node("Tile", ["x", "s"], ["y"])], [ints("s", 3, 1)], (2, 6), (6, 6)),
    "Split": ([node("Split", ["x"], ["a", "b"], axis=1), node("Add", ["a", "b"], ["y"])], [], (2, 6), (2, 3)),
    "ScatterND": (
        [node("ScatterND", ["x", "i", "u"], ["y"])],
        [numpy_helper.from_array(np.array([[3], [1]], np.int64), "i"), weight("u", (2, 6))],
        (4, 6),
        (4, 6),
    ),
    "Einsum": (
        [node("Einsum", ["x", "w"], ["y"], equation="ij,kj->ik")],
        [weight("w", (5, 6))],
        (2, 6),
        (2, 5),
    ),
    "Unsqueeze": ([node("Unsqueeze", ["x", "a"], ["y"])], [ints("a", 1)], (2, 6), (2, 1, 6)),
    "DepthToSpace": ([node("DepthToSpace", ["x"], ["y"], blocksize=2)], [], (2, 8, 2, 2), (2, 2, 4, 4)),
}


@pytest.mark.parametrize("op", CHANGES)
def test_dimensions_change_together(op: str, tmp_path: Path) -> None:
    """Whatever rule the operator has, what can be 1 is 1, and ONNX Runtime runs it."""
    nodes, weights, shape, out = CHANGES[op]
    proto = model(nodes, [tensor("x", *shape)], [tensor("y", *out)], weights, opset=17)
    left, _, _ = simplified(proto, random(x=shape), lambda p, _: has(p, op), tmp_path)
    stays = {"DepthToSpace": 4, "Split": 2}.get(op, 1)
    assert max(shapes(left)["x0"], default=1) <= stays, onnx.printer.to_text(left)


def test_depthwise_convolution_keeps_its_group(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "k"], ["y"], group=4, kernel_shape=[1, 1])]
    proto = model(nodes, [tensor("x", 1, 4, 5, 5)], [tensor("y", 1, 8, 5, 5)], [weight("k", (8, 1, 1, 1))])

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        return any(a.name == "group" and a.i > 1 for a in find(proto, "Conv").attribute)

    left, _, _ = simplified(proto, random(x=(1, 4, 5, 5)), fails, tmp_path)
    assert shapes(left)["x0"] == (1, 2, 1, 1)


def test_unknown_operators_tie_equal_sizes(tmp_path: Path) -> None:
    nodes, out = [node("Secret", ["x", "w"], ["y"], domain="own")], [tensor("y", 7)]
    proto = model(nodes, [tensor("x", 7, 5)], out, [weight("w", (5, 3))])
    proto.opset_import.add(domain="own", version=1)
    problem_draft = open_draft(candidate_of(proto, tmp_path))
    net = Net(problem_draft)
    assert net.ties.find(Var("axis", "x", 1)) == net.ties.find(Var("axis", "w", 0))
    assert net.ties.find(Var("axis", "x", 0)) != net.ties.find(Var("axis", "x", 1))


def test_a_loop_with_fewer_outputs_than_its_body_has_states(tmp_path: Path) -> None:
    """Its trailing outputs may be left out in practice, as ONNX Runtime takes them to be optional."""
    steps = [node("Identity", ["go"], ["on"]), node("Relu", ["p"], ["p2"]), node("Neg", ["q"], ["q2"])]
    flag = onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, [])
    still = onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])
    count = onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [])
    inside, ends = [tensor("p", 4), tensor("q", 6)], [tensor("p2", 4), tensor("q2", 6)]
    body = onnx.helper.make_graph(steps, "body", [count, flag, *inside], [still, *ends])
    nodes = [node("Loop", ["", "", "x", "z"], ["y"], body=body)]
    proto = model(nodes, [tensor("x", 4), tensor("z", 6)], [tensor("y", 4)])
    net = Net(open_draft(candidate_of(proto, tmp_path)))
    assert net.ties.find(Var("axis", "x", 0)) == net.ties.find(Var("axis", "p", 0))
    assert net.ties.find(Var("axis", "x", 0)) != net.ties.find(Var("axis", "z", 0))


def candidate_of(proto: onnx.ModelProto, folder: Path):  # type: ignore[no-untyped-def]
    from bisect_trt.model.candidate import Candidate

    return Candidate(proto.SerializeToString(), folder, tuple(n.name for n in proto.graph.node))


def test_sizes_below_are_all_up_to_sixteen() -> None:
    assert list(sizes_below(5)) == [1, 2, 3, 4]
    large = list(sizes_below(1000))
    assert large[:16] == list(range(1, 17)) and max(large) == 999 and len(large) < 40
    assert large == sorted(large)
    assert len(set(large)) == len(large)


# Values


def test_a_weight_that_does_not_matter_is_zeros_and_travels_as_nothing(tmp_path: Path) -> None:
    proto = model(
        [node("Gemm", ["x", "w"], ["y"])],
        [tensor("x", 4, 300)],
        [tensor("y", 4, 300)],
        [weight("w", (300, 300))],
    )

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        gemm = find(proto, "Gemm")
        made = [n for n in proto.graph.node if n.op_type == "ConstantOfShape"]
        return bool(made) or shapes(proto).get(gemm.input[1]) == (300, 300)

    _, samples, problem = simplified(proto, random(x=(4, 300)), fails, tmp_path)
    assert problem.best is not None and len(problem.best.model) < 500
    assert not np.any(samples[0]["x0"])


@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("op", ["QuantizeLinear", "Div"])
def test_nothing_is_divided_by_a_zero_that_was_not_there(op: str, fed: bool, tmp_path: Path) -> None:
    """What a target makes of x / 0 is another question than why its numbers are off."""
    kind = TensorProto.UINT8 if op == "QuantizeLinear" else FLOAT
    values = {"x": np.float32([1, 2, 3]), "s": np.float32([0.125, 0.125, 0.25])[: 1 if fed else 3]}
    proto = model(
        [helper.make_node(op, ["x", "s"], ["y"], "divides")],
        [tensor("x", 3), *([tensor("s", 1)] if fed else [])],
        [tensor("y", 3, kind=kind)],
        [] if fed else [numpy_helper.from_array(values["s"][:1], "s")],
    )
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", x=values["x"], **({"s": values["s"]} if fed else {}))
    target = TargetSettings(f"planted:op={op},fail=mismatch")
    run = RunSettings(inputs=tmp_path / "i.npz", repeats=1)
    reduce(tmp_path / "m.onnx", Settings(target, run), out=tmp_path / "out")
    left = onnx.load(tmp_path / "out" / "repro.onnx")
    divisor = left.graph.node[-1].input[1]
    weights = {t.name: numpy_helper.to_array(t) for t in left.graph.initializer}
    inputs = tmp_path / "out" / "inputs.npz"
    assert np.all({**(dict(np.load(inputs)) if inputs.exists() else {}), **weights}[divisor])


def test_random_values_have_the_recorded_mean_and_deviation(tmp_path: Path) -> None:
    """The failure needs spread: no single value does, seeded random numbers do."""
    proto = model(
        [node("Add", ["x", "w"], ["y"])], [tensor("x", 50)], [tensor("y", 50)], [weight("w", (50,))]
    )

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        values = [numpy_helper.to_array(t) for t in proto.graph.initializer]
        return any(v.dtype == np.float32 and v.size == 50 and v.std() > 0.5 for v in values)

    left, _, _ = simplified(proto, random(x=(50,)), fails, tmp_path)
    made = next(t for t in left.graph.initializer if t.data_type == FLOAT and t.doc_string)
    recipe = parse(made.doc_string)
    original = numpy_helper.to_array(weight("w", (50,)))
    assert recipe is not None and recipe.deviation == pytest.approx(original.std(), rel=1e-2)
    np.testing.assert_array_equal(numpy_helper.to_array(made), recipe.make((50,), np.dtype(np.float32)))


def test_only_the_elements_that_matter_are_left(tmp_path: Path) -> None:
    proto = model([node("Relu", ["x"], ["y"])], [tensor("x", 20)], [tensor("y", 20)])
    feeds = random(3, x=(20,))
    secret = feeds["x"][[4, 11]].copy()

    def fails(proto: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> bool:
        x = samples[0]["x0" if "x0" in samples[0] else "x"]
        return x.size == 20 and bool(np.all(x[[4, 11]] == secret))

    _, samples, _ = simplified(proto, feeds, fails, tmp_path)
    assert np.flatnonzero(samples[0]["x0"]).tolist() == [4, 11]


def test_generator_has_golden_values() -> None:
    """repro.py on another machine has to make the same bits."""
    made = Recipe(1, 0.5, 2.0).make((4,), np.dtype(np.float32))
    again = Recipe(1, 0.5, 2.0).make((2, 2), np.dtype(np.float32)).reshape(-1)
    np.testing.assert_array_equal(made, again)
    assert [float(v).hex() for v in made[:2]] == GOLDEN


GOLDEN = ["-0x1.a06ab00000000p-3", "0x1.14c7cc0000000p+0"]


@given(
    st.integers(0, 99),
    st.floats(-9, 9),
    st.floats(0.1, 9),
    st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=5).map(lambda v: tuple(sorted(v))) | st.just(()),
)
def test_recipes_are_told_in_full(
    seed: int, mean: float, deviation: float, points: tuple[float, ...]
) -> None:
    recipe = Recipe(seed, mean, deviation, points)
    assert parse(recipe.text) == recipe
    values = recipe.make((4000,), np.dtype(np.float64))
    if points:
        assert points[0] <= values.min() and values.max() <= points[-1]
    else:
        assert values.mean() == pytest.approx(mean, abs=deviation / 10)
        assert values.std() == pytest.approx(deviation, rel=0.1)


def test_levels_of_values() -> None:
    dtype = np.dtype(np.float32)
    arrays = [np.zeros(8, dtype), np.ones(8, dtype), np.full(8, 3, dtype), ramp((8,), dtype)]
    assert [level(a, None)[1] for a in arrays] == [Odd.ZEROS, Odd.ONES, Odd.SHORT, Odd.RAMP]
    assert all(level(a, None)[0] == 0 for a in arrays)
    real = np.random.default_rng(0).standard_normal(8).astype(dtype)
    assert level(real, None) == (32, Odd.ANY)
    assert level(real.astype(np.float16).astype(dtype), None)[1] is Odd.ROUNDED
    assert level(np.eye(4, dtype=dtype)[:1] * real[0], None) == (4, Odd.SPARSE)
    assert level(real[:1], None) == (0, Odd.ONE)
    assert resembling(np.array([np.inf, 1.0]), 0) is None
    assert is_uniform(np.full(3, np.nan)) and not is_uniform(np.zeros(0))


# Nodes, inputs, outputs, attributes, types, names


def test_nodes_that_only_pass_something_on_are_left_out(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Softmax", ["a"], ["b"]),
        node("Sigmoid", ["b"], ["c"]),
        node("Erf", ["c"], ["y"]),
    ]
    proto = model(nodes, [tensor("x", 2, 3)], [tensor("y", 2, 3)])
    left, _, _ = simplified(
        proto, random(x=(2, 3)), lambda p, _: has(p, "Erf") and has(p, "Softmax"), tmp_path
    )
    assert sorted(n.op_type for n in left.graph.node) == ["Erf", "Softmax"]


def test_a_chain_of_layout_operators_is_one(tmp_path: Path) -> None:
    nodes = [
        node("Unsqueeze", ["x", "one"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[2, 1, 0]),
        node("Reshape", ["b", "s"], ["c"]),
        node("Softmax", ["c"], ["y"]),
    ]
    proto = model(nodes, [tensor("x", 2, 3)], [tensor("y", 6)], [ints("one", 1), ints("s", 6)])

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        return has(proto, "Softmax") and len(proto.graph.node) > 1 and len(find(proto, "Softmax").input) == 1

    left, _, _ = simplified(proto, random(x=(2, 3)), fails, tmp_path)
    assert len(left.graph.node) == 2


def test_outputs_samples_and_inputs_get_fewer(tmp_path: Path) -> None:
    nodes = [node("Add", ["a", "b"], ["s"]), node("Mul", ["a", "b"], ["p"])]
    proto = model(nodes, [tensor("a", 3), tensor("b", 3)], [tensor("s", 3), tensor("p", 3)])
    left, _, _ = simplified(proto, random(a=(3,), b=(3,)), lambda p, _: has(p, "Mul"), tmp_path)
    assert len(left.graph.output) == 1 and len(left.graph.node) == 1
    assert len(left.graph.input) == 1  # one stays: a model without inputs is a constant


def test_attributes_go_to_their_defaults(tmp_path: Path) -> None:
    nodes = [node("LeakyRelu", ["x"], ["t"], alpha=0.3), node("Softmax", ["t"], ["y"], axis=0)]
    proto = model(nodes, [tensor("x", 2, 3)], [tensor("y", 2, 3)])

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        return has(proto, "Softmax") and any(a.name == "axis" for a in find(proto, "Softmax").attribute)

    left, _, _ = simplified(proto, random(x=(2, 3)), fails, tmp_path)
    (softmax,) = left.graph.node
    assert [(a.name, a.i) for a in softmax.attribute] == [("axis", 0)]


def test_types_and_operator_set_get_smaller(tmp_path: Path) -> None:
    nodes = [node("Gather", ["x", "i"], ["y"])]
    inputs = [tensor("x", 3, kind=TensorProto.DOUBLE), tensor("i", 2, kind=TensorProto.INT64)]
    proto = model(nodes, inputs, [tensor("y", 2, kind=TensorProto.DOUBLE)], opset=20)
    feeds = {"x": np.arange(3.0), "i": np.array([1, 2])}
    left, _, _ = simplified(proto, feeds, lambda p, _: has(p, "Gather"), tmp_path)
    kinds = {i.type.tensor_type.elem_type for i in left.graph.input} | {
        t.data_type for t in left.graph.initializer
    }
    assert kinds <= {TensorProto.FLOAT, TensorProto.INT32}
    assert left.opset_import[0].version == 13  # Gather is the same since then


def test_the_converter_is_asked_of_steps_that_change_an_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ScatterND changed with 13, 16 and 18; one that adds cannot be told in 15."""
    adds = node("ScatterND", ["x", "i", "u"], ["y"], reduction="add")
    inputs = [tensor("x", 4), tensor("i", 1, 1, kind=TensorProto.INT64), tensor("u", 1)]
    proto = model([adds], inputs, [tensor("y", 4)], opset=18)
    asked: list[int] = []

    def convert(given: onnx.ModelProto, version: int) -> onnx.ModelProto:
        asked.append(version)
        try:
            return onnx.version_converter.convert_version(given, version)
        except Exception as error:
            raise native.RefusedError(str(error)) from error

    monkeypatch.setattr(native, "convert_version", convert)
    draft = open_draft(Candidate(proto.SerializeToString(), tmp_path, ("n",)))
    assert list(types._versions(draft)) == [16, 17]
    assert sorted(asked) == [13, 16]


def test_names_and_texts_tell_nothing(tmp_path: Path) -> None:
    first = node("Conv", ["secret/x", "secret/w"], ["secret/a"], name="secret/conv")
    first.metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "/home/someone/net.py", line 7')
    first.doc_string = "secret"
    proto = model(
        [first, node("Relu", ["secret/a"], ["secret/y"], name="secret/relu")],
        [tensor("secret/x", "batch_secret", 1, 2, 2)],
        [tensor("secret/y", "batch_secret", 1, 2, 2)],
        [weight("secret/w", (1, 1, 1, 1))],
        producer_name="secret",
        doc_string="secret",
    )
    proto.metadata_props.add(key="secret", value="secret")
    proto.opset_import.add(domain="secret.domain", version=1)
    feeds = {"secret/x": np.ones((1, 1, 2, 2), np.float32)}
    left, _, _ = simplified(proto, feeds, lambda p, _: has(p, "Conv") and has(p, "Relu"), tmp_path)
    assert b"secret" not in left.SerializeToString() and b"net.py" not in left.SerializeToString()
    assert [n.name for n in left.graph.node] == ["conv0", "relu0"]
    assert (left.graph.input[0].name, left.graph.output[0].name) == ("x0", "y0")
    assert len(left.opset_import) == 1


def test_short_names_are_no_better_than_plain_ones(tmp_path: Path) -> None:
    proto = model([node("Softmax", ["a"], ["b"], "nda")], [tensor("a", 4)], [tensor("b", 4)])

    def fails(proto: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> bool:
        return bool(next(iter(samples[0].values())).std())

    left, _, _ = simplified(proto, random(a=(4,)), fails, tmp_path)
    assert [left.graph.node[0].name, left.graph.input[0].name] == ["softmax0", "x0"]


def test_bodies_are_renamed_too(tmp_path: Path) -> None:
    """Names inside If change with those that they capture; nothing else does."""
    then = helper.make_graph(
        [node("Relu", ["secret/x"], ["secret/t"])], "secret/then", [], [tensor("secret/t", 2)]
    )
    other = helper.make_graph(
        [node("Neg", ["secret/x"], ["secret/t"])], "secret/else", [], [tensor("secret/t", 2)]
    )
    nodes = [node("If", ["secret/c"], ["secret/y"], then_branch=then, else_branch=other)]
    inputs = [tensor("secret/x", 2), tensor("secret/c", kind=TensorProto.BOOL)]
    proto = model(nodes, inputs, [tensor("secret/y", 2)])
    feeds = {"secret/x": np.ones(2, np.float32), "secret/c": np.array(True)}
    left, _, _ = simplified(proto, feeds, lambda p, _: has(p, "If"), tmp_path)
    assert b"secret" not in left.SerializeToString()


# The order, the budget, the judge


def test_the_order_is_strict_and_prefers_simplified(tmp_path: Path) -> None:
    proto = model([node("Relu", ["x"], ["y"])], [tensor("x", 4)], [tensor("y", 4)])
    problem = problem_of(proto, random(x=(4,)), lambda p, _: True, tmp_path)
    raw = problem.best
    assert raw is not None
    simplify(problem)
    assert problem.best is not None and problem.best.size < raw.size
    with pytest.raises(Invalid):
        draft = open_draft(problem.best)
        draft.graph.node[0].op_type = "MatMul"
        close_draft(draft)


def test_an_edit_that_does_not_fail_is_undone(tmp_path: Path) -> None:
    proto = model([node("Relu", ["x"], ["y"])], [tensor("x", 4)], [tensor("y", 4)])
    original = proto.SerializeToString()

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        return proto.graph.node[0].name == "the_Relu" and shapes(proto).get("x") == (4,)

    left, _, problem = simplified(proto, random(x=(4,)), fails, tmp_path)
    assert left.graph.node[0].name == "the_Relu" and proto.SerializeToString() == original
    tallies = problem.simplifying.tallies
    assert tallies["plain names"].tried > 1 and tallies["smaller dimensions"].kept == 0


def test_the_budget_ends_it_and_keeps_what_was_won(tmp_path: Path) -> None:
    proto = trunk(*START)
    problem = problem_of(proto, random(x=(2, 3, 3, 3)), lambda p, _: has(p, "Conv"), tmp_path)
    spent = problem.counts.asked_seconds
    problem.simplify_by(Simplifying(until=spent + 0.004))
    simplify(problem)
    assert problem.simplifying.end.how is Ended.SPENT
    assert problem.counts.asked_seconds - spent - problem.simplifying.looked <= 0.0041
    assert problem.best is not None and problem.best.form is Form.SIMPLIFIED


@pytest.mark.parametrize("least", [3, 5])
def test_a_busy_machine_does_not_end_it_before_its_least_questions(least: int, tmp_path: Path) -> None:
    proto = trunk(*START)
    problem = problem_of(proto, random(x=(2, 3, 3, 3)), lambda p, _: has(p, "Conv"), tmp_path)
    asked = problem.counts.asked
    problem.simplify_by(Simplifying(until=0.0, until_asked=asked + least))
    simplify(problem)
    assert problem.simplifying.end.how is Ended.SPENT
    assert problem.counts.asked == asked + least


def test_a_declared_shape_that_nothing_derives_is_kept_as_it_is_now(tmp_path: Path) -> None:
    """The failure needs it; what it is after an edit a run of the reference tells, and names get plain."""

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        tile = next((n for n in proto.graph.node if n.op_type == "Tile"), None)
        declared = {
            v.name: v.type.tensor_type.shape.dim for v in (*proto.graph.value_info, *proto.graph.output)
        }
        dims = [d.dim_value for d in declared.get(tile.output[0], ())] if tile else []
        return len(dims) == 3 and all(dims) and dims[1] >= 6

    nodes = [
        node("Tile", ["x", "n"], ["the_long_one"], name="the_tile"),
        node("Relu", ["the_long_one"], ["y"]),
    ]
    repeats = tensor("n", 3, kind=TensorProto.INT64)
    proto = model(nodes, [tensor("x", 2, 8, 4), repeats], [onnx.ValueInfoProto(name="y")], [])
    proto.graph.output[0].type.tensor_type.elem_type = FLOAT
    proto.graph.value_info.append(tensor("the_long_one", 2, 24, 4))
    feeds = random(x=(2, 8, 4)) | {"n": np.array([1, 3, 1])}
    problem = problem_of(proto, feeds, fails, tmp_path)
    problem.simplify_by(Simplifying(shapes=reference.shapes))
    simplify(problem)
    assert problem.best is not None and problem.best.form is Form.SIMPLIFIED
    left, _ = loaded(problem.best)
    assert fails(left, None) and "the_long_one" not in left.SerializeToString().decode(errors="replace")
    dims = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in left.graph.value_info}
    kept = dims.get(find(left, "Tile").output[0]) or list(shapes(left)[left.graph.output[0].name])
    assert kept[0] == kept[2] == 1 and 6 <= kept[1] < 24


def test_everything_at_once_spares_probes(tmp_path: Path) -> None:
    """What a parser refuses, whatever the values: one probe, a look at four sizes between, and a few more."""
    nodes = [node("Conv", ["x", "k", "b"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])]
    weights = [weight("k", (8, 4, 3, 3)), weight("b", (8,))]
    proto = model(nodes, [tensor("x", 2, 4, 16, 16)], [tensor("y", 2, 8, 8, 8)], weights, opset=18)
    proto.graph.node[0].output[0] = "y"
    problem = problem_of(proto, random(x=(2, 4, 16, 16)), lambda p, _: has(p, "Conv"), tmp_path)
    before = problem.counts.probes
    simplify(problem)
    left, _, _ = simplified(proto, random(x=(2, 4, 16, 16)), lambda p, _: has(p, "Conv"), tmp_path / "b")
    assert problem.counts.probes - before <= 3 + 4, problem.simplifying.tallies
    assert {name: dims for name, dims in shapes(left).items() if set(dims) != {1}} == {}
    [conv] = left.graph.node
    assert len(conv.input) == 2 and not conv.attribute and left.opset_import[0].version == 7


def test_numbers_in_attributes_are_values_too(tmp_path: Path) -> None:
    """80 offsets whose spread matters become seeded ones; a few are an option."""
    offset = np.random.default_rng(5).standard_normal(80).astype(np.float32)
    scaler = node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=offset.tolist(), scale=[0.1234567] * 80)
    proto = model([scaler], [tensor("x", 2, 80)], [tensor("y", 2, 80)])
    proto.opset_import.add(domain="ai.onnx.ml", version=1)

    def fails(proto: onnx.ModelProto, samples: object) -> bool:
        held = {a.name: np.array(a.floats) for a in find(proto, "Scaler").attribute}
        return "offset" in held and held["offset"].size == 80 and held["offset"].std() > 0.5

    left, _, _ = simplified(proto, random(x=(2, 80)), fails, tmp_path)
    kept = next(a for a in find(left, "Scaler").attribute if a.name == "offset")
    recipe = parse(kept.doc_string)
    assert recipe is not None and not np.isin(offset, kept.floats).any()
    np.testing.assert_array_equal(np.array(kept.floats, np.float32), recipe.make((80,), np.dtype(np.float32)))


def test_equal_runs_give_equal_candidates(tmp_path: Path) -> None:
    """The journal of a run that was stopped knows the candidates again."""
    digests = []
    for name in ("one", "two"):
        feeds = random(x=(2, 3, 3, 3))
        _, _, problem = simplified(trunk(*START), feeds, lambda p, _: has(p, "Conv"), tmp_path / name)
        digests.append(sorted(problem.verdicts))
    assert digests[0] == digests[1]


def test_offers_that_are_not_simpler_cost_no_probe(tmp_path: Path) -> None:
    proto = model([node("Relu", ["x"], ["y"])], [tensor("x", 4)], [tensor("y", 4)])
    _, _, problem = simplified(proto, random(x=(4,)), lambda p, _: True, tmp_path)
    probes = problem.counts.probes

    def longer(draft) -> str:  # type: ignore[no-untyped-def]
        draft.proto.doc_string = "long"
        return "longer"

    assert not attempt(problem, [longer]) and problem.counts.probes == probes
    assert best_draft(problem).graph.node[0].name == "relu0"


def test_a_reference_that_dies_blames_nobody() -> None:
    death = Death(Symptom.CRASH, "ended by SIGSEGV", "", f"{STAGE_MARK}reference\n")
    outcome = outcome_of(Reply(None, death, 1.0))
    assert not outcome.failures and "reference" in outcome.unresolved


def test_the_menu_is_what_the_documentation_tells() -> None:
    page = (Path(__file__).parents[1] / "docs/simplify.md").read_text()
    for one_pass in SIMPLIFY:
        assert one_pass.run.__name__.replace("_", " ") in page


# Real failures


REAL = ["nms", "resize_antialias", "averagepool_dilated"]


@pytest.mark.parametrize("name", REAL)
def test_real_reproducers_are_tiny(name: str, tmp_path: Path, models_dir: Path) -> None:
    """Under 10 KB with values and script, all dimensions 1 where they can be, and still the same failure."""
    run = RunSettings(repeats=1, simplify_budget=60)  # on a busy machine the search may be short by chance
    settings = Settings(TargetSettings(spec="tensorrt-rtx"), run)
    result = reduce(models_dir / f"{name}.onnx", settings, out=tmp_path / "out")
    assert result.verified == 1 and result.one_minimal and result.simplification is not None
    files = ("repro.onnx", "inputs.npz", "expected.npz", "repro.py")
    assert sum((result.out / file).stat().st_size for file in files) < 10_000
    left = onnx.load(result.out / "repro.onnx")
    assert all(set(dims[:2]) <= {1} for dims in shapes(left).values() if len(dims) == 4)
    assert result.nodes[0].startswith("/") and left.graph.node[0].name == f"{result.wanted.op.lower()}0"
    assert result.simplification.seconds <= result.simplification.budget and not result.simplification.end.why
    document = json.loads((result.out / "report.json").read_text())
    assert document["simplification"]["passes"] and document["nodes"] == list(result.nodes)
    assert "What was simplified" in (result.out / "ISSUE.md").read_text()


def test_simplify_alone(tmp_path: Path, models_dir: Path) -> None:
    """21 nodes: bypassed, cut off and shrunk until one is left."""
    settings = Settings(TargetSettings(spec="tensorrt-rtx"), RunSettings(repeats=1))
    result = simplify_model(models_dir / "averagepool_dilated.onnx", settings, out=tmp_path / "out")
    assert result.verified == 1 and len(result.best.nodes) == 1 and not result.simplification.end.why


def test_a_big_archive_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("a/repro.data", bytes(3000))
    assert too_big(archive) == ""
    monkeypatch.setattr("bisect_trt.reproducer.archive.ATTACHMENT_LIMIT", 1000)
    assert "repro.data" in too_big(archive)


def test_an_attribute_without_numbers_can_only_be_left_out() -> None:
    """Squeeze with axes=[], as onnx's converter writes it: a list of nothing has no simpler numbers."""
    empty = helper.make_attribute("axes", [], attr_type=onnx.AttributeProto.INTS)
    assert len(list(attributes._simpler("n", empty))) == 1
