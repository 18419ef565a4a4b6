"""Does a failure hang on the tactic that the builder chose? On a target that has the answers written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Built, Failure, Outcome, Stage, Symptom, Verdict
from bisect_trt.reduction.passes.tactics import by_tactic
from bisect_trt.settings import TargetSettings

WANTED = Failure(Stage.COMPARE, Symptom.MISMATCH, "mismatch", "y: 3 of 4 differ")
TF32, FP32, LAST = "0x1", "0x2", "0x3"
NAMES = {TF32: "gemm_tf32f32", FP32: "gemm_f32f32", LAST: "gemm_f32f32_splitk"}


class Prober:
    """Takes the first tactic that is not left out; with those of `failing` the output is wrong."""

    def __init__(self, failing: set[str], target: TargetSettings, *, chooses: bool = True) -> None:
        self.failing, self.chooses = failing, chooses
        self.oracle = SimpleNamespace(target=target)
        self.asked: list[TargetSettings] = []

    def observe(
        self, candidate: Candidate, run: int = 0, *, target: TargetSettings | None = None
    ) -> Outcome:
        assert candidate.form is Form.WRITTEN
        used = target or self.oracle.target
        self.asked.append(used)
        if used.without_tactics and not self.chooses:
            raise UsageError("no algorithm selector", "")
        left = [t for t in NAMES if t not in used.without_tactics] or list(NAMES)
        taken = FP32 if used.timing_cache is None else left[0]
        layers = ({"number": taken, "tactic": NAMES[taken]}, {"number": ""})
        wrong = (WANTED,) if taken in self.failing else ()
        return Outcome(wrong, built=Built(engine={"layers": 2, "shown": layers, "types": {}}))


def problem(prober: Prober, wanted: Failure = WANTED, nodes: int = 1) -> Any:
    return SimpleNamespace(
        best=Candidate(b"", Path(), tuple(map(str, range(nodes)))),
        wanted=wanted,
        outcomes={},
        prober=prober,
        judge=lambda outcome: Verdict.REPRODUCES if outcome.failures else Verdict.VANISHES,
    )


SETTINGS = TargetSettings(spec="tensorrt", timing_cache=Path("timing.cache"))


def test_both_tactics_are_told() -> None:
    (told,) = by_tactic(problem(Prober({TF32}, SETTINGS)))
    assert "fails with gemm_tf32f32 and passes with gemm_f32f32." in told and "timing.cache" in told


def test_all_that_fail_are_left_out_until_one_passes() -> None:
    prober = Prober({TF32, FP32}, SETTINGS)
    (told,) = by_tactic(problem(prober))
    assert "passes with gemm_f32f32_splitk" in told
    assert [t.without_tactics for t in prober.asked] == [(), (TF32,), (TF32, FP32)]


def test_a_failure_of_every_tactic_hangs_on_none() -> None:
    prober = Prober(set(NAMES), SETTINGS)
    assert by_tactic(problem(prober)) == []
    assert len(prober.asked) == 4  # the last one had no other tactic to take


def test_where_nobody_may_choose_builds_measure_anew() -> None:
    prober = Prober({TF32}, SETTINGS, chooses=False)
    (told,) = by_tactic(problem(prober))
    assert "passes with gemm_f32f32" in told and prober.asked[-1].timing_cache is None


@pytest.mark.parametrize("stage", [Stage.PARSE, Stage.BUILD])
def test_what_has_no_engine_has_no_tactic(stage: Stage) -> None:
    prober = Prober({TF32}, SETTINGS)
    assert by_tactic(problem(prober, replace(WANTED, stage=stage))) == [] and not prober.asked


def test_it_is_asked_of_small_parts_on_tensorrt_only() -> None:
    large, other = Prober({TF32}, SETTINGS), Prober({TF32}, replace(SETTINGS, spec="tensorrt-rtx"))
    assert by_tactic(problem(large, nodes=9)) == by_tactic(problem(other)) == []
    assert not large.asked and not other.asked
