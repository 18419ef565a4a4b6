"""Times, their intervals, cliffs, layers: measured with clocks of our own, where the answer is known."""

from __future__ import annotations

import csv
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

import bisect_trt
from bisect_trt.cli.app import main
from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store, shape_of
from bisect_trt.options import kinds
from bisect_trt.profiling import hand_over, timing
from bisect_trt.profiling.cliffs import Edge, Found, bound, search
from bisect_trt.profiling.explain import Part, explain, groups
from bisect_trt.profiling.journaled import Work
from bisect_trt.profiling.other import Other, other_side
from bisect_trt.profiling.released import Scripted
from bisect_trt.profiling.result import Profile
from bisect_trt.profiling.rounds import Ratio, in_turns
from bisect_trt.profiling.sizes import sizes
from bisect_trt.profiling.versus import Duel
from bisect_trt.profiling.write import write
from bisect_trt.session.journal import Journal
from bisect_trt.session.prepare import load_for, prepare
from bisect_trt.session.prober import Budget
from bisect_trt.session.samples import read_samples
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.ort.timed import kernel_times, owned
from bisect_trt.targets.timed import FailedError, Layer, Layers, Opened, typical_layers

# Intervals and the rule that stops


@pytest.mark.parametrize("count", [1, 5, 7, 8, 9, 20, 101, 1000])
def test_the_rank_is_the_largest_with_its_confidence(count: int) -> None:
    def below(rank: int) -> float:
        return sum(math.comb(count, k) for k in range(rank)) / 2**count

    rank = timing.rank(count)
    assert below(rank) <= 0.005
    assert below(rank + 1) > 0.005 or rank == count // 2


def draw(kind: str, rng: random.Random) -> float:
    if kind == "two modes":
        return rng.gauss(1, 0.02) if rng.random() < 0.7 else rng.gauss(2, 0.05)
    return rng.lognormvariate(0, 0.1) if kind == "skewed" else rng.gauss(1, 0.05)


@pytest.mark.parametrize("kind, true", [("even", 1.0), ("skewed", 1.0), ("two modes", None)])
def test_where_it_stops_the_median_is_in_its_interval(kind: str, true: float | None) -> None:
    many = random.Random(0)
    truth = true or sorted(draw(kind, many) for _ in range(40_001))[20_000]
    rng, inside = random.Random(1), 0
    for _ in range(150):
        found: list[float] = []
        while not timing.enough(found, 0.02, sum(found), 2000.0):
            found += [draw(kind, rng) for _ in range(10)]
        low, high = timing.interval(found)
        inside += low <= truth <= high
    assert inside >= 0.95 * 150


@given(st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=300), st.floats(0.001, 0.5))
def test_what_times_tell_holds_for_any_times(values: list[float], precision: float) -> None:
    told = timing.times(values, precision)
    assert told.least <= told.low <= told.median <= told.high <= max(values)
    assert (told.p99 is None) == (len(values) < 100)
    assert not told.settled or told.width <= precision
    assert timing.enough(values, precision, 25.0, 5.0)


def test_few_runs_are_never_enough_before_the_time_is_over() -> None:
    assert not timing.enough([1.0] * 29, 0.02, 1.0, 5.0)
    assert timing.enough([1.0] * 30, 0.02, 1.0, 5.0)
    assert not timing.enough([], 0.02, 90.0, 5.0)
    assert not timing.enough([3.0, 3.0], 0.02, 6.0, 5.0) and timing.enough([3.0] * 3, 0.02, 9.0, 5.0)


def test_a_machine_that_changes_its_speed_is_told_of() -> None:
    rng = random.Random(3)
    steady = [rng.gauss(1, 0.02) for _ in range(200)]
    assert timing.drift(steady) == 1.0
    assert timing.drift([*steady, *(1.3 * value for value in steady)]) == pytest.approx(1.3, abs=0.02)


# Two sides in turns


def clock(seconds: float, rng: random.Random, machine: list[float]) -> Callable[[float], list[float]]:
    """A side whose runs take so long, on a machine whose speed wanders and that others use, too."""

    def block(least: float) -> list[float]:
        found: list[float] = []
        while not found or sum(found) < least:
            machine[0] = min(3.0, max(1.0, machine[0] * rng.uniform(0.97, 1.03)))
            hit = rng.expovariate(20) if rng.random() < 0.2 else 0.0
            found.append(seconds * machine[0] * rng.uniform(1, 1.05) + hit * seconds)
        return found

    return block


@pytest.mark.parametrize("seconds", [0.001, 0.015, 0.1])
def test_a_side_against_itself_is_never_an_alarm(seconds: float) -> None:
    for seed in range(60):
        rng, machine = random.Random(seed), [1.0]
        sides = clock(seconds, rng, machine), clock(seconds, rng, machine)
        assert not in_turns(*sides, 0.02, 10.0).beyond(0.05), seed


@pytest.mark.parametrize("factor", [0.5, 1.2, 3.0])
def test_a_slower_side_is_found_with_its_ratio(factor: float) -> None:
    for seed in range(20):
        rng, machine = random.Random(seed), [1.0]
        found = in_turns(clock(0.01, rng, machine), clock(0.01 * factor, rng, machine), 0.02, 10.0)
        assert found.beyond(0.05), seed
        assert found.ratio == pytest.approx(factor, rel=0.04), seed


# Cliffs


def look(low: int, high: int, true: Callable[[int], float], noise: float, seed: int) -> Found:
    """Search with a clock that is off by up to `noise` each time."""
    rng = random.Random(seed)

    def measure(size: int) -> float:
        return true(size) * (1 + rng.uniform(-noise, noise))

    def compare(a: int, b: int) -> Edge:
        ratios = sorted(measure(b) / measure(a) for _ in range(12))
        return Edge(true(a), true(b), ratios[6], ratios[0], ratios[-1])

    return search(low, high, measure, compare)


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_a_planted_cliff_is_found_exactly_and_in_few_measurements(data: st.DataObject) -> None:
    low = data.draw(st.sampled_from([1, 2, 7, 100]))
    high = data.draw(st.integers(low + 8, low + 4000))
    at = data.draw(st.integers(max(low + 1, 8), high))
    jump, fixed = data.draw(st.floats(1.5, 4)), data.draw(st.floats(0, 50))
    noise, seed = data.draw(st.sampled_from([0.0, 0.02])), data.draw(st.integers(0, 1 << 30))
    found = look(low, high, lambda size: (fixed + size) * (jump if size >= at else 1), noise, seed)
    assert [cliff.size for cliff in found.cliffs] == [at]
    assert found.measured <= bound(low, high) <= 2 * math.ceil(math.log2(high - low + 1)) + 6
    assert found.cliffs[0].low <= found.cliffs[0].jump <= found.cliffs[0].high


@settings(deadline=None, max_examples=120)
@given(st.integers(2, 4000), st.floats(0, 2), st.floats(0, 100), st.integers(0, 1 << 30))
def test_what_grows_smoothly_has_no_cliff(high: int, power: float, fixed: float, seed: int) -> None:
    found = look(1, high, lambda size: fixed + size**power, 0.04, seed)
    assert not found.cliffs
    assert found.measured <= 3 * bound(1, high)


def test_a_machine_that_answers_at_random_gives_no_cliff_and_ends() -> None:
    for seed in range(30):
        found = look(1, 512, lambda size: float(size), 0.9, seed)
        assert not found.cliffs
        assert found.measured <= 3 * bound(1, 512)


def test_a_jump_that_is_not_certain_is_no_cliff_and_is_told() -> None:
    def true(size: int) -> float:
        return size * (1.5 if size >= 23 else 1.0)

    found = search(1, 64, true, lambda a, b: Edge(true(a), true(b), true(b) / true(a), 0.9, 2.0))
    assert not found.cliffs and [cliff.size for cliff in found.likely] == [23]
    assert not found.denied


def test_a_step_that_is_gone_at_the_next_power_is_found_behind_a_power() -> None:
    found = look(1, 512, lambda size: math.ceil(size / 256) * 256.0 + size / 100, 0.0, 0)
    assert [cliff.size for cliff in found.cliffs] == [257]


def test_two_cliffs_and_a_size_that_fails() -> None:
    def true(size: int) -> float:
        return size * (2.0 if size >= 40 else 1.0) * (1.7 if size >= 700 else 1.0)

    found = look(1, 1024, true, 0.01, 5)
    assert [cliff.size for cliff in found.cliffs] == [40, 700]
    part = search(1, 64, lambda size: None if size > 32 else float(size), lambda a, b: None)
    assert not part.cliffs and part.seconds[64] is None


def test_once_misled_a_rise_is_measured_in_turns_before_it_is_looked_into() -> None:
    asked: list[tuple[int, int]] = []

    def compare(a: int, b: int) -> Edge:
        asked.append((a, b))
        return Edge(float(a), float(b), b / a, b / a, b / a)

    wrong = {64: 100.0, 256: 600.0}
    found = search(1, 512, lambda size: wrong.get(size, float(size)), compare)
    assert asked == [(255, 256), (32, 64)] and found.denied == [256]
    assert not found.cliffs and found.measured <= bound(1, 512)


# Layers


def test_layers_of_a_typical_run_add_up_although_each_is_interrupted_now_and_then() -> None:
    runs = [[("a", 1.0), ("b", 1.0)], [("a", 9.0), ("b", 1.0)], [("a", 1.0), ("b", 9.0)]] * 8
    assert sum(typical_layers(runs).values()) == pytest.approx(10, rel=0.2)
    looped = [[("body", 1.0), ("body", 2.0)]]
    assert typical_layers(looped) == {"body": 3.0}


def test_events_of_a_profile_are_cut_into_runs() -> None:
    def event(name: str, took: int, kind: str = "Node") -> dict[str, object]:
        return {"cat": kind, "name": name, "dur": took, "args": {"op_name": "Conv"}}

    run = [event("c_kernel_time", 5), event("c_fence_before", 1), event("model_run", 9, "Session")]
    assert kernel_times([event("session_initialization", 3, "Session"), *run, *run], 1) == [
        [("c", "Conv", pytest.approx(5e-6))]
    ]


def model(path: Path, *, slow: int = 512) -> Path:
    """MatMul and Relu three times, the middle one through `slow` channels; any batch."""
    rng, nodes, weights, x = np.random.default_rng(0), [], [], "x"
    for k, (rows, columns) in enumerate([(16, 16), (16, slow), (slow, 16)]):
        value = rng.standard_normal((rows, columns)).astype(np.float32)
        weights.append(numpy_helper.from_array(value, f"w{k}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{k}"], [f"m{k}"], f"matmul{k}"))
        nodes.append(helper.make_node("Relu", [f"m{k}"], [f"r{k}"], f"relu{k}"))
        x = f"r{k}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 16]) for name in ("x", x)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_fused_nodes_are_given_to_the_layer_that_computes_them() -> None:
    def node(op: str, inputs: str, outputs: str, name: str) -> onnx.NodeProto:
        return helper.make_node(op, inputs.split(), outputs.split(), name)

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xz"]
    plain = [node("Conv", "x w", "c", "conv"), node("Relu", "c", "r", "relu"), node("Neg", "r", "z", "neg")]
    plain.insert(0, node("Neg", "v", "w", "folded"))
    weight = [numpy_helper.from_array(np.ones(1, np.float32), "v")]
    before = helper.make_graph(plain, "g", value[:1], value[1:], weight)
    made = [node("Conv", "x w", "token", "r_nchwc"), node("ReorderOutput", "token", "r", "reorder")]
    made.append(node("Neg", "r", "z", "neg"))
    after = helper.make_graph(made, "g", value[:1], value[1:])
    assert owned(before, after) == {"r_nchwc": ("conv", "relu"), "reorder": (), "neg": ("neg",)}
    # As ONNX Runtime computes a float16 model in float32: casts are no nodes of the model.
    cast = "InsertedPrecisionFreeCast_"
    made[0] = node("Conv", "x__fp16 w", "token", f"{cast}r__fp16_nchwc")
    made[1:2] = [node("ReorderOutput", "token", f"{cast}r__fp16", "reorder")]
    made.insert(2, node("Cast", f"{cast}r__fp16", "r__fp16", "cast"))
    after = helper.make_graph(made, "g", value[:1], value[1:])
    assert owned(before, after) == {
        f"{cast}r__fp16_nchwc": ("conv", "relu"),
        **{"reorder": (), "neg": ("neg",)},
    }


# The command


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> bisect_trt.Profile:
    folder = tmp_path_factory.mktemp("profile")
    place = model(folder / "m.onnx")
    return bisect_trt.profile(
        place, target="ort:CPU", shapes="x:1..4x16", precision_of_time=0.9, out=folder / "out"
    )


def test_a_profile_has_points_layers_and_files(profiled: bisect_trt.Profile) -> None:
    assert profiled.finished and profiled.unit == "batch"
    assert {1, 2, 4} <= {point.size for point in profiled.points}
    assert all(point.times and point.times.runs >= 30 and point.throughput for point in profiled.points)
    assert profiled.opened.clock == "host" and profiled.opened.build_seconds > 0
    assert profiled.layers is not None
    nodes = {name for layer in profiled.layers.layers for name in layer.nodes}
    assert nodes == {f"{op}{k}" for op in ("matmul", "relu") for k in range(3)}
    data = json.loads((profiled.out / "profile.json").read_text())
    assert data["concurrency"] == 1 and data["points"][0]["shapes"] == {"x": [1, 16]}
    rows = list(csv.DictReader((profiled.out / "profile.csv").open()))
    assert [int(row["size"]) for row in rows] == [point.size for point in profiled.points]
    assert float(rows[0]["median_ms"]) > 0
    for name in ("latency.svg", "cost.svg", "throughput.svg"):
        text = (profiled.out / name).read_text()
        assert text.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in text
        assert "prefers-color-scheme: dark" in text
    assert not (profiled.out / "work").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--shapes", "x:4..1x16"], "'4..1' is not LEAST..LARGEST"),
        (["--shapes", "y:1x16"], "the model has no input y"),
        (["--shapes", "x:1..4x17"], "does not fit the model, which declares batchx16"),
        (["--shapes", "x:1..4x1..16"], "--shapes has two ranges"),
        (["--shapes", "x:0..4x16"], "a range of sizes begins at 1"),
        (["--precision-of-time", "0"], "is not a percentage"),
        (["--target", "emulate:fp16"], "emulate:fp16 computes what a precision does, not how fast"),
        (["--cuda-graph"], "--cuda-graph is for TensorRT"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = model(tmp_path / "m.onnx")
    target = [] if "--target" in words else ["--target", "ort:CPU"]
    assert main(["profile", str(place), *target, *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) <= 2


def test_shapes_with_ranges_are_read_and_written() -> None:
    spans = kinds.SPANS.read(["x:1..64x3,y:[2,1..8]"])
    assert spans == (("x", ((1, 64), (3, 3))), ("y", ((2, 2), (1, 8))))
    assert kinds.SPANS.read(kinds.SPANS.texts(spans)) == spans
    with pytest.raises(kinds.Unreadable):
        kinds.SHAPES.read(["x:1..64x3"])
    with pytest.raises(UsageError, match="shapes"):
        bisect_trt.profile("m.onnx", target="ort:CPU", shapes="x:a")


# One side against the other


def part_of(seconds: dict[str, float], together: float = 0.0) -> Callable[[tuple[str, ...]], Part | None]:
    """A measure of parts: nodes take so much longer, and all of them at once `together` more."""

    def measure(nodes: tuple[str, ...]) -> Part:
        more = sum(seconds.get(node, 0.0) for node in nodes)
        more += together if len(nodes) == 64 else 0.0
        base = 0.01 * len(nodes)
        ratio = (base + more) / base
        told = Ratio(20, base, base + more, (base, base + more), ratio, ratio, ratio, more, True)
        return Part(nodes, told, more)

    return measure


ORDER = tuple(f"n{k}" for k in range(64))


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(ORDER), st.floats(0.1, 3.0), min_size=1, max_size=3), st.booleans()
)
def test_planted_slow_nodes_explain_the_difference(slow: dict[str, float], told: bool) -> None:
    total = sum(slow.values())
    ranked = sorted(slow.values(), reverse=True)
    # Where some of them explain four fifths to the last bit, one more or one less is right as well.
    assume(all(abs(sum(ranked[:k]) - 0.8 * total) > 1e-6 for k in range(1, 4)))
    hints = sorted((((name,), more) for name, more in slow.items()), key=lambda hint: -hint[1])
    found = explain(ORDER, hints if told else [], total, part_of(slow), 0.05)
    assert found.part >= 0.8
    chosen = [name for part in found.parts for name in part.nodes]
    fewest = next(k for k in range(1, 4) if sum(ranked[:k]) >= 0.8 * total)
    assert set(chosen) <= set(slow) and len(chosen) == fewest
    assert found.measured <= (fewest if told else 40)


def test_a_difference_of_the_whole_alone_is_not_pinned_on_nodes() -> None:
    found = explain(ORDER, [], 1.0, part_of({}, together=1.0), 0.05)
    assert not found.parts and found.part == 0
    refused = explain(ORDER, [(("n3",), 1.0)], 1.0, lambda nodes: None, 0.05)
    assert not refused.parts


def test_a_part_of_which_nothing_can_be_told_is_no_reason() -> None:
    """On a machine that is busy its interval reaches over the limit, to either side."""
    sure = part_of({"n3": 1.0})

    def measure(nodes: tuple[str, ...]) -> Part | None:
        part = sure(nodes)
        return part and replace(part, ratio=replace(part.ratio, low=0.5, high=9.0))

    found = explain(ORDER, [(("n3",), 1.0)], 1.0, measure, 0.05)
    assert not found.parts and found.part == 0 and found.untold > 0


def test_a_hint_that_is_wrong_by_itself_is_not_taken() -> None:
    found = explain(ORDER, [(("n3",), 0.9), (("n9",), 0.1)], 1.0, part_of({"n50": 1.0}), 0.05)
    assert [part.nodes for part in found.parts] == [("n50",)]


def test_what_layers_explain_stays_and_the_rest_is_halved() -> None:
    """Times of the slow side alone bound what a node can differ by; `n5` takes long on both sides."""
    hints = [(("n5",), 3.0), (("n3",), 0.5), *(((f"n{k}",), 0.2) for k in range(10, 30))]
    found = explain(ORDER, hints, 1.0, part_of({"n3": 0.5, "n50": 0.5}), 0.05)
    assert {part.nodes for part in found.parts} == {("n3",), ("n50",)} and found.part == pytest.approx(1)
    assert found.measured <= 2 + 8 + 2 * 6


def test_layers_of_both_sides_make_groups() -> None:
    slow = [Layer("a", "Conv", ("c1",), 3.0), Layer("b", "Relu", ("r1",), 1.0), Layer("copy", "", (), 9.0)]
    fast = [Layer("ab", "Conv", ("c1", "r1"), 1.0), Layer("c", "Conv", ("c2",), 1.0)]
    assert groups(["c1", "r1", "c2"], slow, fast) == [(("c1", "r1"), 3.0), (("c2",), -1.0)]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("--precision fp16", TargetSettings("ort:CPU", precision="fp16", opt_level=3)),
        ("cpu", TargetSettings("ort:CPU")),
        ("tensorrt-rtx --no-tf32 --opt-level=1", TargetSettings("tensorrt-rtx", tf32=False, opt_level=1)),
        ('ort:X?a={"b": "c d"} --precision bf16', TargetSettings('ort:X?a={"b": "c d"}', precision="bf16")),
        ("command:./run --fast {model}", TargetSettings("command:./run --fast {model}")),
    ],
)
def test_the_other_side_is_read_as_the_command_line_is(text: str, wanted: TargetSettings) -> None:
    assert other_side(text, TargetSettings("ort:CPU", opt_level=3)) == Other(wanted)


@pytest.mark.parametrize(
    "text",
    ["", "'", "--seed 3", "--precision", "--precision fp12", "onnxruntime==1.2 --x", "x", "--opt-level 3"],
)
def test_no_other_side_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"--against|--precision|target"):
        other_side(text, TargetSettings("ort:CPU"))


class Planted:
    """Two sides that are told what to answer; as `meter.Side`, with a clock of its own."""

    def __init__(self, slow: dict[str, float]) -> None:
        self.target, self.slow, self.opened = TargetSettings("ort:CPU"), slow, 0
        self.python = None
        self.now = 0.0

    def open(self, candidate: Candidate) -> None:
        self.opened += 1
        names = {node.name for node in onnx.load_model_from_string(candidate.model).graph.node}
        self.now = 0.001 * len(names) + sum(more for name, more in self.slow.items() if name in names)

    def warm_up(self, feeds: object) -> None: ...

    def close(self) -> None: ...

    def measure(self, feeds: object, seconds: float) -> list[float]:
        return [self.now] * 3

    def layers(self, feeds: object, runs: int) -> None: ...


def duel(folder: Path, slow: dict[str, float], journal: Journal) -> Duel:
    chosen = Settings(TargetSettings("ort:CPU", shapes=(("x", (2, 16)),)))
    loaded = load_for(model(folder / "m.onnx"), chosen)
    session = prepare(loaded, read_samples(loaded, chosen), folder / "work")
    info = TargetInfo("ort:CPUExecutionProvider", "ONNX Runtime", can_run=True)
    sides: Any = (Planted({}), Planted(slow))
    return Duel(
        sides=sides,
        infos=(info, info),
        session=session,
        settings=chosen,
        feeds=session.feeds[0],
        size=1,
        journal=journal,
        budget=Budget(),
        precision=0.02,
        limit=0.05,
        out=folder,
        logs=folder / "logs",
        tell=lambda text: None,
    )


def test_a_planted_slow_node_ends_in_a_folder_and_a_second_run_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over, "MEASURING", "0.1")
    ends = []
    for _ in range(2):
        with Journal.open(tmp_path / "journal.jsonl", {}) as journal:
            run = duel(tmp_path, {"matmul1": 0.05}, journal)
            found = run.run()
        assert found.differs and found.explained is not None
        assert [part.nodes for part in found.explained.parts] == [("matmul1",)]
        ends.append(found.end)
        monkeypatch.setattr(hand_over, "tried", lambda place: None)
    assert run.sides[1].opened == 1  # type: ignore[attr-defined]
    slow = onnx.load(str(tmp_path / "slow" / "slow.onnx"))
    assert [node.name for node in slow.graph.node] == ["matmul1"]
    assert np.load(tmp_path / "slow" / "inputs.npz")["r0"].shape == (2, 16)
    # The planted sides are none that a script knows: it measures the provider that both name.
    assert ends[0] is not None and ends[0].code in (0, 1, 2), ends
    assert "times as long as ONNX Runtime" in ends[0].said and "the limit of 5 %" in ends[0].said


def test_sides_that_take_the_same_time_end_there(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.jsonl", {}) as journal:
        found = duel(tmp_path, {}, journal).run()
    assert not found.differs and found.explained is None and "no difference" in found.verdict()


def test_another_side_that_fails_is_told_and_so_are_all_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And sizes that fail leave the others, at the largest of which the sides are compared."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in ("x", "b", "y")]
    nodes = [helper.make_node("Reshape", ["x", "s"], ["t"], "r"), helper.make_node("Add", ["t", "b"], ["y"])]
    value[1].type.tensor_type.shape.dim[0].dim_param = "m"
    shape = numpy_helper.from_array(np.array([-1, 4, 2]), "s")
    graph = helper.make_graph(nodes, "g", value[:2], [helper.make_tensor_value_info("y", 1, None)], [shape])
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "m.onnx")
    out, words = tmp_path / "out", ["profile", str(tmp_path / "m.onnx"), "--target", "ort:CPU"]
    words += ["--shapes", "x:2..9x2", "--precision-of-time", "90%", "--out", str(out)]
    assert main([*words, "--against", "command:/bin/false {model}"]) == 2
    told = capsys.readouterr().out
    assert "x:2..9x2, b:1x2" in told and "so b is 1x2 (the model says mx2)" in told
    assert "not compared: the model fails on command /bin/false" in told
    data = json.loads((out / "profile.json").read_text())
    ran = [point["size"] for point in data["points"] if point["times"]]
    assert ran == [4, 8] and "Reshape" in data["points"][0]["error"] and data["layers"]["size"] == 8


# Stopped and gone on with


class Stops:
    """A side that is interrupted at its fifth block; as `meter.Side`."""

    def __init__(self, at: int) -> None:
        self.left, self.measured = at, 0

    def open(self, candidate: Candidate) -> None: ...

    def warm_up(self, feeds: object) -> None: ...

    def measure(self, feeds: dict[str, Path], seconds: float) -> list[float]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left, self.measured = self.left - 1, self.measured + 1
        return [0.001 * shape_of(feeds["x"])[0]] * 40

    def layers(self, feeds: object, runs: int) -> Layers:
        return Layers((Layer("a", "MatMul", ("matmul0",), 0.001),), 0.001)


def work(folder: Path, side: Any, journal: Journal) -> Profile:
    chosen = Settings(TargetSettings("ort:CPU"))
    loaded = load_for(model(folder / "m.onnx"), chosen)
    asked = sizes(loaded, chosen, (("x", ((1, 64), (16, 16))),))
    session = prepare(loaded, [*asked.samples(64), *asked.samples(1)], folder / "work")
    info = TargetInfo("ort:CPUExecutionProvider", "ONNX Runtime", can_run=True)
    empty = Profile(folder / "m.onnx", folder, chosen, info, Opened("host", 0.1), 0.02, asked.unit)
    return Work(side, session, asked, journal, Budget(), 0.02, lambda step: None, empty).run()


def test_what_was_measured_stays_and_is_not_measured_again(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.jsonl", {}) as journal:
        first = work(tmp_path, Stops(4), journal)
    assert not first.finished and first.stop_reason == "interrupted"
    assert [point.size for point in first.points] == [1, 2, 4, 8]
    write(first)
    assert json.loads((tmp_path / "profile.json").read_text())["finished"] is False
    side = Stops(100)
    with Journal.open(tmp_path / "journal.jsonl", {}) as journal:
        second = work(tmp_path, side, journal)
    assert second.finished and all(point in second.points for point in first.points)
    assert {1, 2, 4, 8, 16, 32, 64} <= {point.size for point in second.points}
    assert side.measured == len(second.points) - 4


def test_a_budget_that_is_used_up_before_anything_ends_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(model(tmp_path / "m.onnx"))
    words = ["profile", place, "--target", "ort:CPU", "--out", str(tmp_path / "out")]
    assert main([*words, "--budget", "0.001"]) == 6
    assert "error: --budget used up" in capsys.readouterr().err


def test_a_model_that_fails_ends_with_the_line_that_finds_out_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy"]
    node = helper.make_node("Reshape", ["x", "s"], ["y"], "r")
    shape = numpy_helper.from_array(np.array([3, 3]), "s")
    graph = helper.make_graph([node], "g", value[:1], value[1:], [shape])
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "bad.onnx")
    words = ["profile", str(tmp_path / "bad.onnx"), "--target", "ort:CPU", "--out", str(tmp_path / "out")]
    code = main(words)
    told = capsys.readouterr().err
    assert code == 2 and "the model fails on ONNX Runtime" in told and "hint: bisect-trt reduce" in told


def scripted(place: Path) -> Scripted:
    info = TargetInfo("ort:CPUExecutionProvider", "ONNX Runtime", can_run=True)
    return Scripted(TargetSettings("ort:CPU"), info, place, Path(sys.executable))


def test_the_script_measures_for_another_interpreter_and_says_why_it_cannot(tmp_path: Path) -> None:
    feeds = {"x": Store(tmp_path / "store").put("x", np.ones((2, 16), np.float32))}
    good = Candidate(model(tmp_path / "m.onnx").read_bytes(), tmp_path / "store", (), (feeds,))
    side = scripted(tmp_path / "logs")
    try:
        side.open(good)
        assert all(0 < taken < 60 for taken in side.measure(feeds, 0.01))
        bad = onnx.load_model_from_string(good.model)
        bad.graph.node[0].op_type = "NoSuch"
        with pytest.raises(FailedError, match="NoSuch"):
            side.open(replace(good, content=bad.SerializeToString()))
    finally:
        side.close()


def test_a_release_of_another_package_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(model(tmp_path / "m.onnx"))
    words = ["profile", place, "--target", "ort:CPU", "--out", str(tmp_path / "out")]
    assert main([*words, "--against", "tensorrt-rtx==1.7.1"]) == 2
    told = capsys.readouterr().err
    assert "error: --against tensorrt-rtx: it says nothing of the target ort:CPU" in told
