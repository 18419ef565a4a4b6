"""What rounding explains, against runs in float64, and planted faults against the bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from accuracy_cases import Builder
from bisect_trt.accuracy.amplifiers import amplifier
from bisect_trt.accuracy.arithmetic import BF16, FP8, FP16, FP32, INT8, TF32, Arithmetic, arithmetic_of
from bisect_trt.accuracy.operators import sum_length
from bisect_trt.accuracy.rounding_bounds import rounding
from bisect_trt.references import ort
from bisect_trt.references.inner_values import inner_values
from bisect_trt.references.noise import Noise
from bisect_trt.references.noise_places import Places
from bisect_trt.settings import TargetSettings

Array = np.ndarray[Any, Any]
HERE = Path(__file__).parent
ALL = (FP32, TF32, BF16, FP16, FP8, INT8)


def product(n: int, spread: float, seed: int) -> tuple[ModelProto, dict[str, Array], Array]:
    """A matrix product of n terms whose sizes differ by 10**spread, and its value in float64."""
    rng = np.random.default_rng(seed)
    b = Builder(seed)
    scale = 10.0 ** rng.uniform(-spread, spread, n)
    x = (rng.standard_normal((4, n)) * scale).astype(np.float32)
    w = (rng.standard_normal((n, 8)) / np.sqrt(n)).astype(np.float32)
    proto = b.done({"x": [4, n]}, b.node("MatMul", "x", b.weight(w), name="mm"))
    return proto, {"x": x}, x.astype(np.float64) @ w.astype(np.float64)


def bound_of(proto: ModelProto, feeds: dict[str, Array], arithmetic: Arithmetic, tensor: str) -> Any:
    look = Noise(arithmetic)
    look.prepare(proto, HERE, feeds)
    look.run()
    return look.spreads[tensor]


@given(st.sampled_from([3, 64, 700]), st.floats(0, 2), st.integers(0, 1000), st.sampled_from(ALL))
@settings(max_examples=40, deadline=None)
def test_products_in_float64_are_within_the_bound(
    n: int, spread: float, seed: int, arithmetic: Arithmetic
) -> None:
    """What the target computes, rounded as it rounds and summed in float64, and in float32 one by one."""
    proto, feeds, exact = product(n, spread, seed)
    w = np.frombuffer(proto.graph.initializer[0].raw_data, np.float32).reshape(n, 8).astype(np.float64)
    x = feeds["x"].astype(np.float64)
    unit = arithmetic.products or arithmetic.unit
    if arithmetic is not FP32:
        x, w = (value + rounding(arithmetic, value, unit) for value in (x, w))
    total = np.zeros((4, 8), np.float32)
    for k in range(n):  # the worst order of all
        total = (total + (x[:, k, None] * w[k]).astype(np.float32)).astype(np.float32)
    given_ = total.astype(np.float64)
    if arithmetic.narrow:
        given_ = given_ + rounding(arithmetic, given_, arithmetic.unit)
    found = bound_of(proto, feeds, arithmetic, "mm_o")
    assert np.all(np.abs(found.reference - exact) <= found.bound)
    assert found.explains(given_)


@given(st.integers(0, 10_000), st.sampled_from([16, 300]), st.sampled_from(ALL), st.integers(0, 31))
@settings(max_examples=40, deadline=None)
def test_planted_faults_against_the_bound(seed: int, n: int, arithmetic: Arithmetic, place: int) -> None:
    """A fault of 4 bounds beside rounding is seen; one that stays within with it is not."""
    proto, feeds, exact = product(n, 0.0, seed)
    found = bound_of(proto, feeds, arithmetic, "mm_o")
    noise = np.random.default_rng(seed).uniform(-0.25, 0.25, exact.shape) * found.bound
    for times, seen in ((4.0, True), (0.5, False)):
        target = found.reference + noise
        target.flat[place] += times * found.bound.flat[place]
        assert found.explains(target) is not seen


@pytest.mark.parametrize(
    ("op", "clear", "runs"), [("Tanh", True, 4), ("Tanh", False, 16), ("Floor", True, 16)]
)
def test_few_runs_are_enough_where_more_cannot_matter(op: str, clear: bool, runs: int) -> None:
    """A threshold may be crossed in one run of many, however far off the outputs are in the first."""
    b = Builder(0)
    proto = b.done({"x": [4, 8]}, b.node(op, b.node("Sigmoid", "x", name="s"), name="n"))
    look = Noise(FP32)
    look.prepare(proto, HERE, {"x": np.ones((4, 8), np.float32)})
    look.run(lambda: clear)
    assert look.spreads["n_o"].runs == runs


def test_the_bound_says_something() -> None:
    """Of the size of |A||B| it is some hundred roundoffs, not thousands."""
    proto, feeds, _ = product(700, 0.0, 0)
    w = np.frombuffer(proto.graph.initializer[0].raw_data, np.float32).reshape(700, 8)
    size = np.abs(feeds["x"]).astype(np.float64) @ np.abs(w).astype(np.float64)
    for arithmetic in (FP32, TF32, FP16, BF16):
        found = bound_of(proto, feeds, arithmetic, "mm_o")
        assert np.max(found.bound / size) < 10 * np.sqrt(700) * arithmetic.roundoff


def test_what_is_exact_has_no_bound() -> None:
    """Integers are added exactly as long as they fit; moved values are never rounded."""
    b = Builder()
    total = b.node("Add", "x", b.weight(np.arange(8)), name="sum")
    proto = b.done({"x": [4, 8]}, b.node("Transpose", total, perm=[1, 0], name="moved"))
    whole = {"x": np.arange(32, dtype=np.float32).reshape(4, 8)}
    for arithmetic in (FP32, FP16):
        found = bound_of(proto, whole, arithmetic, "moved_o")
        assert np.max(found.bound) < 1e-30
        assert not found.explains(found.reference + np.float32(1e-3))
    found = bound_of(proto, {"x": whole["x"] + np.float32(0.1)}, FP16, "moved_o")
    assert np.max(found.bound) > 1e-2


@pytest.mark.parametrize(
    ("target", "arithmetic"),
    [
        (TargetSettings("emulate:fp16"), "FP16"),
        (TargetSettings("emulate:int8"), "INT8"),
        (TargetSettings("tensorrt"), "TF32"),
        (TargetSettings("tensorrt", tf32=False), "FP32"),
        (TargetSettings("tensorrt", precision="bf16"), "BF16"),
        (TargetSettings("ort:CPU"), "FP32"),
        (TargetSettings("ort:CUDA"), "TF32"),
        (TargetSettings("ort:CUDA?use_tf32=0"), "FP32"),
        (TargetSettings('ort:OpenVINO?load_config={"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}'), "FP32"),
        (TargetSettings('ort:OpenVINO?load_config={"CPU":{"INFERENCE_PRECISION_HINT":"bf16"}}'), "BF16"),
        (TargetSettings("planted:node=x"), "FP32"),
    ],
)
def test_which_arithmetic_applies(target: TargetSettings, arithmetic: str) -> None:
    assert arithmetic_of(target).name == arithmetic


def test_sums_are_as_long_as_they_are() -> None:
    assert sum_length("Conv", [(1, 16, 8, 8), (4, 16, 3, 3)], (1, 4, 8, 8), {}) == 144
    assert sum_length("Gemm", [(7, 5), (7, 3)], (5, 3), {"transA": 1}) == 7
    assert sum_length("ReduceMean", [(2, 3, 50)], (2, 3, 1), {}) == 50
    assert sum_length("LayerNormalization", [(2, 3, 50)], (2, 3, 50), {"axis": 1}) == 150
    assert sum_length("Relu", [(2, 3)], (2, 3), {}) == 1


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("Sub", "cancellation"),
        ("Softmax", "exponent"),
        ("Div", "division"),
        ("ArgMax", "threshold"),
        ("MatMul", "cancel"),
        ("Sin", "steep"),
    ],
)
def test_amplifiers_are_named_by_what_they_do(op: str, why: str) -> None:
    found = amplifier("n", op, 1e-4, 1e-1)
    assert why in found.why and found.advice and found.growth == pytest.approx(1000)


@pytest.mark.parametrize(("arithmetic", "nodes"), [(FP32, ["Add"]), (FP16, ["Add", "MatMul", "Add"])])
def test_what_no_error_reaches_is_not_run_again(arithmetic: Arithmetic, nodes: list[str]) -> None:
    """In FP32 the first error is behind the product, whose weight no noisy run reads then."""
    proto, feeds, _ = product(16, 0.0, 0)
    seen = inner_values(proto, HERE, feeds, arithmetic)
    noisy, before = Places(proto, seen, arithmetic).model(["mm_o"])
    assert [node.op_type for node in noisy.graph.node] == nodes
    assert len(noisy.graph.initializer) == len(nodes) // 2 and len(before) == (arithmetic is FP32)
    assert np.any(bound_of(proto, feeds, arithmetic, "mm_o").largest)


@pytest.mark.parametrize("least", [0.0, -1.0])
def test_what_is_not_negative_is_its_own_magnitude(least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cubic Resize has weights below 0; that of a picture need not run twice."""
    b = Builder()
    resize = b.node("Resize", "x", "", b.weight([1, 1, 2, 2]), name="r", mode="cubic")
    proto = b.done({"x": [1, 1, 8, 8]}, resize)
    feeds = {"x": np.random.default_rng(0).uniform(least, 1, (1, 1, 8, 8)).astype(np.float32)}
    ran: list[int] = []
    run = ort.run
    monkeypatch.setattr(ort, "run", lambda m, *rest: (ran.append(m.count(b"Resize")), run(m, *rest))[1])
    seen = inner_values(proto, HERE, feeds, FP32)
    [positive] = run(proto.SerializeToString(), HERE, [{"x": np.abs(feeds["x"])}])
    np.testing.assert_array_equal(seen["r_o#magnitude"], positive["r_o"])
    assert ran == [1 if least == 0 else 2]


def test_what_the_reference_just_gave_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the output of a node that moves values is seen; a product's magnitudes have to be run."""
    b = Builder()
    moved = b.done({"x": [4, 8]}, b.node("Transpose", "x", perm=[1, 0], name="moved"))
    proto, feeds, _ = product(8, 0.0, 0)
    given_ = [ort.run(m.SerializeToString(), HERE, [feeds])[0] for m in (moved, proto)]
    ran: list[int] = []
    run = ort.run
    monkeypatch.setattr(ort, "run", lambda *rest: (ran.append(1), run(*rest))[1])
    for one, known, runs in ((moved, given_[0], 0), (proto, given_[1], 1), (moved, None, 1)):
        del ran[:]
        seen = inner_values(one, HERE, feeds, FP32, known)
        assert len(ran) == runs
        fresh = inner_values(one, HERE, feeds, FP32)
        assert seen.keys() == fresh.keys() and all(np.array_equal(seen[t], fresh[t]) for t in seen)
