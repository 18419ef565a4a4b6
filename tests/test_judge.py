"""Judging at the model's outputs: the rest of the model, gaps, tolerances by output, metrics, top-k."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec.structs import replace

import accuracy_cases as cases
from bisect_trt.accuracy.compare import compare
from bisect_trt.accuracy.tolerance import best_agree, differences, failures, only_for
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.continuation import Rests
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Measured, Outcome, Stage, Symptom, Verdict
from bisect_trt.reduction.at_outputs import Hybrid
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.workers import comparing, continue_rest
from support import record_all

Array = np.ndarray[Any, Any]


class Setup:
    """A model of 12 layers, recorded; candidates are run in ONNX Runtime with an error of our choice."""

    def __init__(self, folder: Path, width: int = 16) -> None:
        proto, self.feeds = cases.accumulating(layers=12, width=width)
        store = Store(folder)
        proto = normalise(proto)
        store.adopt(proto, folder)
        self.graph = Graph(proto)
        self.record = record_all(proto, self.feeds, store)
        self.store = store
        self.rests = Rests(self.graph, Cutter(self.graph, store, self.record), self.record)
        self.cutter = Cutter(self.graph, store, self.record)

    def candidate(self, *layers: int) -> Candidate:
        return self.rests.attach(self.cutter.cut(frozenset(f"layer{k}" for k in layers)))

    def recorded(self, tensor: str) -> Array:
        return self.store.load(self.record.path(0, tensor), self.record.elem_type(tensor))

    def at_outputs(self, candidate: Candidate, errors: dict[str, Array]) -> tuple[Array, Array]:
        """Expected and hybrid output when the candidate's outputs are off by `errors`."""
        own = [{name: self.recorded(name) for name in candidate.expected[0]}]
        given_ = [{name: value + errors.get(name, np.float32(0)) for name, value in own[0].items()}]
        expected, actual, why = continue_rest.finish(candidate, own, given_)
        assert not why
        return expected[0]["layer11_o"], actual[0]["layer11_o"]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("store"))


def error(seed: int) -> Array:
    return (np.random.default_rng(seed).standard_normal((8, 16)) * 1e-2).astype(np.float32)


def test_an_error_goes_through_the_rest(setup: Setup) -> None:
    """Rotations keep lengths: what is put in at layer 3 comes out turned, and of the same size."""
    wanted, got = setup.at_outputs(setup.candidate(3), {"layer3_o": error(0)})
    assert np.linalg.norm(got - wanted) == pytest.approx(np.linalg.norm(error(0)), rel=1e-3)
    assert not np.allclose(got - wanted, error(0), atol=1e-3)


def test_the_last_node_needs_no_rest(setup: Setup) -> None:
    candidate = setup.candidate(11)
    assert candidate.rest is not None and candidate.rest.model == b""
    wanted, got = setup.at_outputs(candidate, {"layer11_o": error(1)})
    np.testing.assert_allclose(got - wanted, error(1), atol=1e-6)


def test_the_rest_is_only_what_lies_behind(setup: Setup) -> None:
    candidate = setup.candidate(4, 5)
    assert candidate.rest is not None
    names = [node.name for node in onnx.load_model_from_string(candidate.rest.model).graph.node]
    assert names == [f"layer{k}" for k in range(6, 12)]


@given(st.sets(st.integers(0, 11), min_size=1, max_size=5), st.integers(0, 100))
def test_errors_add_up_across_gaps(setup: Setup, layers: set[int], seed: int) -> None:
    """A linear model: the error of several layers is the sum of their errors, whatever lies between."""
    candidate = setup.candidate(*layers)
    errors = {name: error(seed + k) for k, name in enumerate(candidate.expected[0])}
    wanted, got = setup.at_outputs(candidate, errors)
    total = np.zeros_like(wanted)
    for name, value in errors.items():
        alone = setup.candidate(int(name.removeprefix("layer").removesuffix("_o")))
        one, other = setup.at_outputs(alone, {name: value})
        total += other - one
    np.testing.assert_allclose(got - wanted, total, atol=2e-5)


def test_equal_bits_need_no_run(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    from bisect_trt.references import ort

    monkeypatch.setattr(ort, "run", lambda *_: pytest.fail("the rest was run"))
    wanted, got = setup.at_outputs(setup.candidate(2), {})
    np.testing.assert_array_equal(wanted, got)


def test_a_candidate_with_its_rest_is_another_question(setup: Setup) -> None:
    bare = setup.cutter.cut(frozenset({"layer3"}))
    assert setup.candidate(3).digest != bare.digest


def outcome(name: str, damage: float, symptom: Symptom = Symptom.MISMATCH) -> Outcome:
    failure = Failure(Stage.COMPARE, symptom, f"output {name} differs", "")
    return Outcome((failure,), measured=Measured(1, damage={name: damage}))


def test_the_same_output_has_to_fail_and_by_enough(setup: Setup) -> None:
    judge = Hybrid(setup.rests, "y", 0.5, AccuracySettings())
    wanted = outcome("y", 0.5).failures[0]
    assert judge.judge(outcome("y", 0.1), wanted) is Verdict.REPRODUCES
    assert judge.judge(outcome("y", 1e-7), wanted) is Verdict.VANISHES
    assert judge.judge(outcome("z", 0.5), wanted) is Verdict.UNRESOLVED
    assert judge.judge(Outcome(), wanted) is Verdict.VANISHES


def test_a_part_is_compared_by_itself_at_the_users_tolerance() -> None:
    """That of the output that fails, whatever the part's own outputs are called; never another one."""
    accuracy = AccuracySettings(
        rtol=(("", 1e-6), ("y", 1e-3)), atol=(("z", 0.5),), metric="rms", ignore=("i",), topk=(("z", 5),),
        custom_ops=(Path("ops.so"),),
    )  # fmt: skip
    y, z = only_for(accuracy, "y"), only_for(accuracy, "z")
    assert (y.rtol, y.atol, y.metric, y.ignore, y.topk) == ((("", 1e-3),), (), "rms", (), ())
    assert (z.rtol, z.atol) == ((("", 1e-6),), (("", 0.5),))
    assert y.custom_ops == (Path("ops.so"),)  # fresh processes need the library, too
    assert only_for(AccuracySettings(), "y") == AccuracySettings(judge="local")


def test_what_must_fail_by_itself_needs_both(setup: Setup) -> None:
    judge = Hybrid(setup.rests, "y", 0.5, AccuracySettings())
    seen = outcome("y", 0.5)
    own = {"": [{"ok": True}]}
    hidden = Outcome(seen.failures, measured=replace(seen.measured, own={**own, "y": [{"ok": True}]}))
    shown = Outcome(seen.failures, measured=replace(seen.measured, own={**own, "y": [{"ok": False}]}))
    assert judge.judge(hidden, seen.failures[0]) is Verdict.REPRODUCES
    judge = replace(judge, by_itself=True)
    assert judge.judge(hidden, seen.failures[0]) is Verdict.VANISHES
    assert judge.judge(shown, seen.failures[0]) is Verdict.REPRODUCES
    assert judge.judge(Outcome(measured=shown.measured), seen.failures[0]) is Verdict.VANISHES


def test_tolerances_by_output_and_ignored_ones() -> None:
    one, two = (
        {"a": np.float32([1.0]), "b": np.float32([1.0])},
        {"a": np.float32([1.1]), "b": np.float32([1.1])},
    )

    def bad(**given_: Any) -> set[str]:
        found = differences([one], [two], AccuracySettings(**given_))
        return {diff.name for diff in found if not diff.ok}

    assert bad() == {"a", "b"}
    assert bad(rtol=(("", 0.2),)) == set()
    assert bad(rtol=(("", 0.2), ("a", 0.01))) == {"a"}
    assert bad(atol=(("b", 0.2),)) == {"a"}
    assert bad(ignore=("a",)) == {"b"}
    assert [diff.name for diff in differences([one], [two], AccuracySettings(ignore=("a",)))] == ["b"]


def test_failures_name_the_output_of_the_model() -> None:
    bad = differences(
        [{"a": np.float32([1, 2]), "b": np.float32([1])}],
        [{"a": np.float32([1, np.nan]), "b": np.float32([3])}],
        AccuracySettings(),
    )
    assert {f.signature for f in failures(bad, by_name=True)} == {
        "output a is not finite",
        "output b differs",
    }
    assert {f.signature for f in failures(bad, by_name=False)} == {"outputs are not finite", "outputs differ"}
    [shape] = failures(
        differences(
            [{"a": np.zeros((2, 3), np.float32)}], [{"a": np.zeros((3, 2), np.float32)}], AccuracySettings()
        ),
        by_name=False,
    )
    assert shape.signature == "outputs differ in shape or type"


@pytest.mark.parametrize(
    ("metric", "rtol", "ok"),
    [
        ("max", 0.4, False), ("max", 0.6, True),
        ("mean", 0.004, False), ("mean", 0.006, True),
        ("rms", 0.04, False), ("rms", 0.06, True),
        ("cosine", 1e-4, False), ("cosine", 2e-3, True),
        ("quantile:0.99", 0.1, True), ("quantile:0.995", 0.1, False),
    ],
)  # fmt: skip
def test_metrics(metric: str, rtol: float, ok: bool) -> None:
    """One of 100 elements is off by a half: mean error 0.005, RMS error 0.05."""
    reference = np.ones(100, np.float32)
    target = reference.copy()
    target[42] = 1.5
    diff = compare("y", reference, target, rtol=rtol, atol=0.0, metric=metric)
    assert diff.ok is ok and diff.metric == metric
    if diff.mismatches:
        assert [(e.index, e.reference, e.target, e.error) for e in diff.worst] == [((42,), 1.0, 1.5, 0.5)]


@pytest.mark.parametrize("metric", ["max", "mean", "rms", "cosine", "quantile:0.5"])
def test_no_metric_accepts_a_nan(metric: str) -> None:
    target = np.ones(100, np.float32)
    target[3] = np.nan
    diff = compare("y", np.ones(100, np.float32), target, rtol=10.0, metric=metric)
    assert not diff.ok and diff.symptom is Symptom.NOT_FINITE and diff.worst[0].index == (3,)


@given(hnp.arrays(np.float32, 20, elements=st.floats(-100, 100, width=32)), st.integers(0, 99))
def test_agrees_at_is_where_it_begins_to_agree(reference: Array, seed: int) -> None:
    target = reference + np.random.default_rng(seed).standard_normal(20).astype(np.float32)
    at = compare("y", reference, target).agrees_at
    if math.isfinite(at) and at > 0:
        assert compare("y", reference, target, rtol=at * 1.001).ok
        assert not compare("y", reference, target, rtol=at * 0.999).ok


def test_top_k_of_scores_and_of_indices() -> None:
    scores = np.float32([[0.1, 0.9, 0.5, 0.5, 0.2]])
    swapped = np.float32([[0.1, 0.6, 0.7, 0.5, 0.2]])
    other = np.float32([[0.8, 0.9, 0.5, 0.5, 0.2]])
    tie = np.float32([[0.1, 0.9, 0.4, 0.5, 0.2]])
    assert best_agree("y", scores, swapped, 2).ok
    assert best_agree("y", scores, tie, 2).ok  # either of the equal ones may be second
    assert not best_agree("y", scores, other, 2).ok and best_agree("y", scores, other, 1).ok
    assert best_agree("y", np.int64([[3, 1, 7]]), np.int64([[1, 3, 9]]), 2).ok
    assert not best_agree("y", np.int64([[3, 1, 7]]), np.int64([[1, 3, 9]]), 3).ok
    wrong = np.float32([[0.1, np.nan, 0.5, 0.5, 0.2]])
    assert not best_agree("y", scores, wrong, 1).ok


def test_equal_outputs_are_compared_once(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of another part, at another tolerance, or once a recorded value was replaced."""
    looked: list[int] = []
    compared = comparing.Comparison._compared
    monkeypatch.setattr(
        comparing.Comparison, "_compared", lambda *given: (looked.append(1), compared(*given))[1]
    )

    def looked_at(candidate: Candidate, error: float, rtol: float = 1e-2) -> bool:
        outputs = [{name: setup.recorded(name) + np.float32(error) for name in candidate.expected[0]}]
        accuracy, before = AccuracySettings(rtol=(("", rtol),)), len(looked)
        how = comparing.Comparison(TargetSettings("ort:CPU"), candidate, accuracy, lambda other: None, False)
        assert bool(how.compare(outputs, [], None)[0]) == (error > 0)
        return len(looked) > before

    part = setup.candidate(3)
    assert [looked_at(part, error) for error in (0.0, 0.0, 0.5, 0.5)] == [True, False, True, False]
    assert looked_at(part, 0.5, 1e-3) and looked_at(setup.candidate(4), 0.5) and looked_at(part, 0.5)
    setup.store.put_at(setup.record.path(0, "layer3_o").stem, setup.recorded("layer3_o"))
    assert looked_at(part, 0.5) and not looked_at(part, 0.5)
