"""`emulate:PRECISION` against numpy and ml_dtypes, bit by bit; and the ways in which FP16 breaks models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.session.check import check
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.targets.emulate import graph
from bisect_trt.targets.emulate.backend import Emulate
from probing import candidate, reference
from support import LIGHT, model, random_feeds, tensor_type

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
F32, F16, F64, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16
MAX = np.finfo(np.float32).max
SCALABLE = float(MAX) * (1 - 2.0**-20)


# What each precision should do, written another way than in the product


def to_fp16(x: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(np.float16).astype(np.float32)


def to_bf16(x: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def to_tf32(x: Floats) -> Floats:
    """On the bits: add half of the last place, or a bit less where that keeps the last bit even."""
    bits = x.view(np.uint32)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), rounded.astype(np.uint32).view(np.float32), x)


def scaled(x: Floats, largest: float, onto_grid: Callable[[Floats], Floats]) -> Floats:
    known = np.abs(x[~np.isnan(x)])
    top = np.minimum(known.max(initial=0), SCALABLE).astype(np.float32)
    scale = np.maximum(top / np.float32(largest), np.finfo(np.float32).tiny).astype(np.float32)
    with np.errstate(all="ignore"):
        return (onto_grid(np.clip(x / scale, -largest, largest)) * scale).astype(np.float32)


def to_fp8(x: Floats) -> Floats:
    return scaled(x, 448.0, lambda q: q.astype(ml_dtypes.float8_e4m3fn).astype(np.float32))


def to_int8(x: Floats) -> Floats:
    return scaled(x, 127.0, np.rint)


ROUND = {"fp16": to_fp16, "bf16": to_bf16, "fp8": to_fp8, "int8": to_int8}


def same(a: Array, b: Array) -> bool:
    """Equal bits, except that one NaN is as good as another."""
    return bool(a.dtype == b.dtype and a.shape == b.shape and np.all(_bits_or_nan(a) == _bits_or_nan(b)))


def _bits_or_nan(a: Array) -> Array:
    bits: Array = a.view(f"u{a.dtype.itemsize}")
    return np.where(np.isnan(a), bits.dtype.type(0x7FFFFFFF), bits)


def emulate(precision: str, made: onnx.ModelProto, feeds: dict[str, Array], folder: Path) -> dict[str, Array]:
    result = Emulate(TargetSettings(spec=f"emulate:{precision}")).run(candidate(made, feeds, folder))
    assert not result.unresolved and not result.failures and "not_rounded" not in result.facts
    assert result.outputs is not None
    return dict(result.outputs[0])


def single(op: str, inputs: int, elem_type: int = F32, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    names = [f"x{k}" for k in range(inputs)]
    node = helper.make_node(op, names, ["y"], name="node", **attributes)
    values = [tensor_type(name, [None] * 2, elem_type) for name in names]
    return model([node], values, [tensor_type("y", [None] * 2, elem_type)], opset=opset)


@st.composite
def floats(draw: st.DrawFn) -> Floats:
    """4x4 values of any bit pattern, gathered around a few exponents: so that ties and overflows are met."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    exponents = draw(st.lists(st.integers(0, 255), min_size=1, max_size=3))
    bits = rng.integers(0, 2**23, 16, dtype=np.uint32)
    coarse = rng.choice(np.array([23, 13, 12, 16, 15, 20, 19]), 16).astype(np.uint32)
    bits = (bits >> coarse) << coarse | rng.choice(np.array([0, 0, 1], np.uint32), 16)
    bits |= rng.choice(np.array(exponents, np.uint32), 16) << np.uint32(23)
    bits |= rng.integers(0, 2, 16, dtype=np.uint32) << np.uint32(31)
    return bits.view(np.float32).reshape(4, 4)


EDGES = np.array(
    [
        [0.0, -0.0, np.inf, -np.inf],
        [np.nan, 65504, 65519.996, 65520],
        [1e-45, -6e-8, 2.98e-8, MAX],
        [1 + 2**-11, 1 + 3 * 2**-11, 1.1754944e-38, 3.3895314e38],
    ],
    np.float32,
)
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
OPS: dict[str, tuple[int, Callable[..., Floats]]] = {
    "Identity": (1, lambda a: a),
    "Add": (2, np.add),
    "Sub": (2, np.subtract),
    "Mul": (2, np.multiply),
    "Div": (2, np.divide),
    "Sqrt": (1, np.sqrt),
    "Reciprocal": (1, lambda a: np.float32(1) / a),
    "Neg": (1, np.negative),
    "Abs": (1, np.abs),
    "Floor": (1, np.floor),
}


@pytest.mark.parametrize("precision", ROUND)
@pytest.mark.parametrize("op", OPS)
@QUICK
@given(a=floats(), b=floats())
@example(a=EDGES, b=EDGES.T.copy())
def test_elementwise_ops_bit_by_bit(precision: str, op: str, a: Floats, b: Floats, tmp_path: Path) -> None:
    """Round what goes in, compute in FP32, round what comes out."""
    inputs, compute = OPS[op]
    values = [a, b][:inputs]
    rounded = ROUND[precision]
    with np.errstate(all="ignore"):
        wanted = rounded(compute(*map(rounded, values)).astype(np.float32))
    feeds = {f"x{k}": value for k, value in enumerate(values)}
    given = emulate(precision, single(op, inputs), feeds, tmp_path)["y"]
    assert same(given, wanted), (values, given, wanted)


@pytest.mark.parametrize("precision", ROUND)
@pytest.mark.parametrize("op", ["Softmax", "Tanh", "Exp", "Erf", "MatMul", "ReduceMean", "LogSoftmax"])
@QUICK
@given(a=floats(), b=floats())
def test_other_ops_as_onnx_runtime_in_fp32(
    precision: str, op: str, a: Floats, b: Floats, tmp_path: Path
) -> None:
    """The operator between is ONNX Runtime's own in FP32: reductions accumulate unrounded."""
    made = single(op, 2 if op == "MatMul" else 1)
    rounded = ROUND[precision]
    values = [rounded(a), rounded(b)][: len(made.graph.input)]
    probe = candidate(made, {f"x{k}": v for k, v in enumerate(values)}, tmp_path)
    (plain,) = reference(probe, {f"x{k}": v for k, v in enumerate(values)})
    feeds = {f"x{k}": v for k, v in enumerate([a, b][: len(values)])}
    given = emulate(precision, made, feeds, tmp_path)["y"]
    assert same(given, rounded(plain["y"]))


@QUICK
@given(a=floats(), b=floats())
@example(a=EDGES, b=np.eye(4, dtype=np.float32))
def test_tf32_rounds_what_is_multiplied(a: Floats, b: Floats, tmp_path: Path) -> None:
    """Bit by bit by a product with one non-zero term in each sum; nothing behind it is rounded."""
    made = single("MatMul", 2)
    values = {"x0": to_tf32(a), "x1": to_tf32(b)}
    (wanted,) = reference(candidate(made, values, tmp_path), values)
    assert same(emulate("tf32", made, {"x0": a, "x1": b}, tmp_path)["y"], wanted["y"])
    add = emulate("tf32", single("Add", 2), {"x0": a, "x1": b}, tmp_path)["y"]
    with np.errstate(all="ignore"):
        assert same(add, a + b)


def test_tf32_of_each_float_alone(tmp_path: Path) -> None:
    """A convolution by 1 in one channel gives its input back, rounded: 100,000 bit patterns and all edges."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    tails = np.uint32([0, 0xFFF, 0x1000, 0x1001, 0x3000, 0x7FFFFF])
    edges = np.arange(256, dtype=np.uint32)[:, None] << 23 | tails
    x = np.concatenate([bits, edges.ravel()]).view(np.float32)
    x = x[~np.isnan(x)]
    node = helper.make_node("Conv", ["x", "one"], ["y"], name="conv")
    one = numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "one")
    made = model([node], [tensor_type("x", [None, 1, 1])], [tensor_type("y", [None, 1, 1])], [one])
    given = emulate("tf32", made, {"x": x.reshape(-1, 1, 1)}, tmp_path)["y"].ravel()
    assert np.array_equal(given, to_tf32(x))  # the sign of zero is lost in the sum


def test_what_only_arithmetic_can_round_is_as_good_as_the_casts(tmp_path: Path) -> None:
    """Before opset 13 there is no Cast to bfloat16: both ways have to give the same bits."""
    bits = np.random.default_rng(1).integers(0, 2**32, 40_000, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([bits.view(np.float32), EDGES.ravel()])[:, None]
    old = emulate("bf16", single("Identity", 1, opset=9), {"x0": x}, tmp_path)["y"]
    assert same(old, to_bf16(x))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32", "fp8", "int8"])
@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21, 23])
def test_every_opset(precision: str, opset: int, tmp_path: Path) -> None:
    feeds = {"x0": EDGES[2:, :2].copy(), "x1": np.eye(2, dtype=np.float32)}
    made = single("MatMul", 2, opset=opset)
    assert emulate(precision, made, feeds, tmp_path)["y"].shape == (2, 2)


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_scaled_format_has_no_overflow(precision: str, tmp_path: Path) -> None:
    x = np.float32([[MAX, -MAX, 0, np.nan], [np.inf, -np.inf, 1, MAX / 2]])
    given = emulate(precision, single("Identity", 1), {"x0": x}, tmp_path)["y"]
    assert np.isfinite(given[:, :2]).all() and np.isnan(given[0, 3]) and np.isfinite(given[1]).all()


def test_an_opset_too_old_is_a_usage_error(tmp_path: Path) -> None:
    feeds = {"x0": np.ones((2, 2), np.float32)}
    assert emulate("fp16", single("Identity", 1, opset=7), feeds, tmp_path)["y"].all()
    with pytest.raises(UsageError, match="opset 9"):
        emulate("int8", single("Identity", 1, opset=7), feeds, tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8", "int8"])
def test_empty_tensors_and_scalars(precision: str, tmp_path: Path) -> None:
    made = single("Abs", 1)
    empty = np.zeros((0, 4), np.float32)
    assert emulate(precision, made, {"x0": empty}, tmp_path)["y"].shape == (0, 4)
    scalar = model(
        [helper.make_node("Abs", ["x"], ["y"], name="n")], [tensor_type("x", [])], [tensor_type("y", [])]
    )
    given = emulate(precision, scalar, {"x": np.float32(-1.0009765625)}, tmp_path)["y"]
    assert given.shape == () and given == np.abs(ROUND[precision](np.float32([-1.0009765625]))[0])


@pytest.mark.parametrize("precision", ROUND)
@QUICK
@given(x=floats())
def test_float64_goes_through_float32(precision: str, x: Floats, tmp_path: Path) -> None:
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64) * (1 + 2.0**-30)
        narrow = wide.astype(np.float32)
    given = emulate(precision, single("Identity", 1, F64), {"x0": wide}, tmp_path)["y"]
    assert same(given, ROUND[precision](narrow).astype(np.float64))


def scale_and_back(elem_type: int) -> onnx.ModelProto:
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["t"], name="up"),
        helper.make_node("Mul", ["t", "small"], ["y"], name="down"),
    ]
    weights = [
        numpy_helper.from_array(np.asarray(v, dtype), n) for n, v in (("big", 1000), ("small", 0.001))
    ]
    return model(nodes, [tensor_type("x", [1], elem_type)], [tensor_type("y", [1], elem_type)], weights)


@pytest.mark.parametrize("elem_type", [F32, F16])
def test_overflow_between_two_nodes_is_seen(elem_type: int, tmp_path: Path) -> None:
    """Also in a model that is FP16 already, where ONNX Runtime itself computes in FP32 and sees none."""
    made = scale_and_back(elem_type)
    x = np.array([1000], helper.tensor_dtype_to_np_dtype(elem_type))
    (plain,) = reference(candidate(made, {"x": x}, tmp_path), {"x": x})
    assert np.isfinite(plain["y"]).all()
    given = emulate("fp16", made, {"x": x}, tmp_path)["y"]
    assert given.dtype == x.dtype and np.isinf(given).all()


def test_operators_that_onnx_does_not_know_hide_no_overflow(tmp_path: Path) -> None:
    """Their types, and those of all that follows, come from ONNX Runtime itself."""
    made = scale_and_back(F32)
    gelu = helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft")
    made.graph.node[0].input[0] = "g"
    made.graph.node.insert(0, gelu)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert np.isinf(emulate("fp16", made, {"x": np.full((1,), 1000, np.float32)}, tmp_path)["y"]).all()


@pytest.mark.parametrize("elem_type", [F16, BF16])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_narrow_models_keep_their_types(elem_type: int, precision: str, tmp_path: Path) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    x = np.array([[1.7, -3.3], [0.01, 5]], np.float32)
    feeds = {"x0": x.astype(dtype), "x1": x.astype(dtype)}
    given = emulate(precision, single("Add", 2, elem_type), feeds, tmp_path)
    rounded = ROUND[precision]
    once = rounded(x.astype(dtype).astype(np.float32)).astype(dtype).astype(np.float32)
    assert given["y"].dtype == dtype
    assert np.array_equal(given["y"], rounded(once + once).astype(dtype))


def test_bodies_are_rounded_too(tmp_path: Path) -> None:
    """Mul and back inside a Loop and inside an If, with a weight of the body and a captured one."""
    inner = [
        helper.make_node("Mul", ["state", "thousand"], ["t"], name="up"),
        helper.make_node("Mul", ["t", "small"], ["next"], name="down"),
        helper.make_node("Identity", ["going"], ["on"], name="on"),
    ]
    going, on = (tensor_type(name, [], TensorProto.BOOL) for name in ("going", "on"))
    entering = [tensor_type("k", [], TensorProto.INT64), going, tensor_type("state", [1])]
    small = numpy_helper.from_array(np.float32([0.001]), "small")
    body = helper.make_graph(inner, "body", entering, [on, tensor_type("next", [1])], [small])
    there_and_back = [
        helper.make_node("Mul", ["v", "thousand"], ["a"], name="a"),
        helper.make_node("Div", ["a", "thousand"], ["b"], name="b"),
    ]
    then = helper.make_graph(there_and_back, "then", [], [tensor_type("b", [1])])
    negative = [helper.make_node("Neg", ["v"], ["c"], name="c")]
    other = helper.make_graph(negative, "else", [], [tensor_type("c", [1])])
    nodes = [
        helper.make_node("Loop", ["times", "yes", "x"], ["v"], name="loop", body=body),
        helper.make_node("If", ["yes"], ["y"], name="if", then_branch=then, else_branch=other),
    ]
    weights = [
        numpy_helper.from_array(np.int64(1), "times"),
        numpy_helper.from_array(np.bool_(True), "yes"),
        numpy_helper.from_array(np.float32([1000]), "thousand"),
    ]
    made = model(nodes, [tensor_type("x", [1])], [tensor_type("v", [1]), tensor_type("y", [1])], weights)
    big = emulate("fp16", made, {"x": np.float32([1000])}, tmp_path)
    assert np.isinf(big["v"]).all() and not np.isfinite(big["y"]).any()
    x = np.float32([12.345])
    given = emulate("fp16", made, {"x": x}, tmp_path)
    loop = to_fp16(to_fp16(to_fp16(x) * np.float32(1000)) * to_fp16(np.float32([0.001])))
    assert np.array_equal(given["v"], loop)
    assert np.array_equal(given["y"], to_fp16(to_fp16(loop * np.float32(1000)) / np.float32(1000)))


def test_shape_arithmetic_and_parameters_stay(tmp_path: Path) -> None:
    """4099 is no FP16 number, 0.7 neither: a Reshape and a Resize must not notice."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Cast", ["shape"], ["float"], name="float", to=F32),
        helper.make_node("Mul", ["float", "one"], ["same"], name="same"),
        helper.make_node("Cast", ["same"], ["back"], name="back", to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "back"], ["y"], name="reshape"),
        helper.make_node("Resize", ["x", "", "scales"], ["z"], name="resize", mode="nearest"),
    ]
    weights = [
        numpy_helper.from_array(np.float32([1]), "one"),
        numpy_helper.from_array(np.float32([1, 0.7]), "scales"),
    ]
    outputs = [tensor_type("y", None), tensor_type("z", None)]
    made = model(nodes, [tensor_type("x", [1, 4099])], outputs, weights)
    for precision in ROUND:
        given = emulate(precision, made, {"x": np.ones((1, 4099), np.float32)}, tmp_path)
        assert given["y"].shape == (1, 4099) and given["z"].shape == (1, int(4099 * 0.7))


def test_a_light_model_with_weights_outside(tmp_path: Path) -> None:
    whole = normalise(onnx.load(LIGHT / "light_squeezenet.onnx"))
    whole.graph.initializer.append(numpy_helper.from_array(np.full((64, 64), 1e5, np.float32), "big"))
    whole.graph.node.add(op_type="Identity", input=["big"], output=["copy"], name="copy")
    whole.graph.output.append(tensor_type("copy", [64, 64]))
    Store(tmp_path).adopt(whole, tmp_path)
    feeds = random_feeds(whole, 0)
    (plain,) = reference(candidate(whole, feeds, tmp_path), feeds)
    given = emulate("bf16", whole, feeds, tmp_path)
    assert np.array_equal(given["copy"], to_bf16(plain["copy"])) and given["copy"][0, 0] != 1e5
    for name, value in given.items():
        assert 0 < np.abs(value - plain[name]).max() / np.abs(plain[name]).max() < 1e-2


def test_a_default_value_of_an_input(tmp_path: Path) -> None:
    """IR version 3: every weight is an input as well."""
    made = scale_and_back(F32)
    made.ir_version = 3
    made.graph.input.extend(tensor_type(t.name, [], F32) for t in made.graph.initializer)
    assert np.isinf(emulate("fp16", made, {"x": np.float32([1000])}, tmp_path)["y"]).all()


# The ways in which FP16 breaks models; the reference is fine in each of them


def attention_mask() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A row that is masked as a whole: -3.4e38 becomes -Inf, and Softmax gives NaN for it."""
    nodes = [
        helper.make_node("Add", ["scores", "mask"], ["masked"], name="add"),
        helper.make_node("Softmax", ["masked"], ["y"], name="softmax", axis=-1),
    ]
    made = model(
        nodes, [tensor_type("scores", [2, 4]), tensor_type("mask", [2, 4])], [tensor_type("y", [2, 4])]
    )
    mask = np.zeros((2, 4), np.float32)
    mask[1] = np.finfo(np.float32).min
    return made, {"scores": np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32), "mask": mask}


def layer_norm() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Written out: the square of a deviation of 300 is beyond 65504, and Sqrt and Div make 0 of it."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", axes=[-1]),
        helper.make_node("Sub", ["x", "mean"], ["deviation"], name="sub"),
        helper.make_node("Pow", ["deviation", "two"], ["square"], name="pow"),
        helper.make_node("ReduceMean", ["square"], ["variance"], name="variance", axes=[-1]),
        helper.make_node("Sqrt", ["variance"], ["spread"], name="sqrt"),
        helper.make_node("Div", ["deviation", "spread"], ["y"], name="div"),
    ]
    weights = [numpy_helper.from_array(np.float32(2), "two")]
    made = model(nodes, [tensor_type("x", [2, 8])], [tensor_type("y", [2, 8])], weights)
    return made, {"x": (np.random.default_rng(0).standard_normal((2, 8)) * 400).astype(np.float32)}


def plain_softmax() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Without subtracting the maximum: exp(12) is beyond 65504, and Inf/Inf is NaN."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], name="exp"),
        helper.make_node("ReduceSum", ["e", "axes"], ["sum"], name="sum"),
        helper.make_node("Div", ["e", "sum"], ["y"], name="div"),
    ]
    weights = [numpy_helper.from_array(np.int64([-1]), "axes")]
    made = model(nodes, [tensor_type("x", [1, 4])], [tensor_type("y", [1, 4])], weights)
    return made, {"x": np.float32([[1, 2, 12, 3]])}


def reciprocal() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """1e-5 is a subnormal of FP16 and its reciprocal is beyond 65504; times x it is not 1."""
    nodes = [
        helper.make_node("Reciprocal", ["x"], ["r"], name="reciprocal"),
        helper.make_node("Mul", ["r", "x"], ["y"], name="mul"),
    ]
    made = model(nodes, [tensor_type("x", [1, 3])], [tensor_type("y", [1, 3])])
    return made, {"x": np.float32([[1e-5, 1, 2]])}


BROKEN: dict[str, tuple[Callable[[], tuple[onnx.ModelProto, dict[str, Array]]], str, float, str]] = {
    # Where Inf is born (the mask itself is Inf before), what is left of it at the output, and which
    # precisions are fine. The most negative float32 is beyond the largest bfloat16, too.
    "attention mask": (attention_mask, "masked", np.nan, "tf32"),
    "layer norm": (layer_norm, "square", 0.0, "bf16 tf32"),
    "softmax without maximum": (plain_softmax, "e", np.nan, "bf16 tf32"),
    "reciprocal of a subnormal": (reciprocal, "r", np.inf, "bf16 tf32"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_fp16_breaks_it_where_it_should(name: str, tmp_path: Path) -> None:
    build, born, left, fine = BROKEN[name]
    made, feeds = build()
    (plain,) = reference(candidate(made, feeds, tmp_path), feeds)
    assert np.isfinite(plain["y"]).all()
    exposed = onnx.ModelProto()
    exposed.CopyFrom(made)
    exposed.graph.output.extend(tensor_type(t, None) for node in made.graph.node[:-1] for t in node.output)
    given = emulate("fp16", exposed, feeds, tmp_path)
    first = next(t for n in made.graph.node for t in n.output if not np.isfinite(given[t]).all())
    assert first == born
    hit = np.isnan(given["y"]) if np.isnan(left) else given["y"] == left
    assert hit.any()
    for precision in ("bf16", "tf32"):
        healthy = np.isfinite(emulate(precision, made, feeds, tmp_path)["y"]).all()
        assert healthy == (precision in fine)


def test_unknown_precision() -> None:
    with pytest.raises(UsageError) as caught:
        Emulate(TargetSettings(spec="emulate:fp4"))
    assert "fp16" in caught.value.hint


def test_what_onnx_runtime_cannot_run_is_unresolved(tmp_path: Path) -> None:
    made = single("Nonsense", 1)
    result = Emulate(TargetSettings(spec="emulate:fp16")).run(
        candidate(made, {"x0": np.ones((1, 1), np.float32)}, tmp_path)
    )
    assert "Nonsense" in result.unresolved and result.outputs is None and not result.failures


@pytest.mark.parametrize("precision", [*ROUND, "tf32"])
def test_what_rounds_is_named_after_its_tensor(precision: str) -> None:
    """An error of ONNX Runtime there names the node, and so says which tensor of the model it is about."""
    made = graph.emulate(single("MatMul", 2), precision).model
    rounds = {node.name: node.output[0] for node in made.graph.node}
    wanted = {t for node in made.graph.node if node.name == "node" for t in node.input}
    wanted |= {"y"} if precision != "tf32" else set()
    assert wanted and all(rounds[f"rounded:{tensor}"] == tensor for tensor in wanted)


def test_info_says_that_it_is_an_emulation() -> None:
    info = Emulate(TargetSettings(spec="emulate:BF16")).info()
    assert info.name == "emulate:bf16" and info.can_run and "emulation" in info.notes[0]
    assert "scale" not in info.notes[0]
    scaled = Emulate(TargetSettings(spec="emulate:fp8")).info().notes[0]
    assert "rounded to FP8 by a scale of its own" in scaled, "no plain cast, in which 500 would be too large"


def test_a_sparse_weight_is_rounded_as_any_other(tmp_path: Path) -> None:
    """One that is an input as well is its default, as ONNX Runtime has it."""
    values, places = numpy_helper.from_array(np.float32([0.1]), "w"), numpy_helper.from_array(np.array([2]))
    ends = [tensor_type("x", [4]), tensor_type("w", [4])]
    proto = model([helper.make_node("Add", ["x", "w"], ["y"], "add")], ends, [tensor_type("y", [4])])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", x=np.zeros(4, np.float32))
    run = RunSettings(inputs=tmp_path / "i.npz", save_outputs=tmp_path / "o")
    found = check(tmp_path / "m.onnx", Settings(TargetSettings("emulate:fp16"), run))
    assert not found.outcome.unresolved
    given = np.load(tmp_path / "o/target.npz")["y"]
    assert given.tolist() == [0, 0, float(np.float16(0.1)), 0]
