"""Does a failure hang on the tactic that the builder chose? On a target that has the answers written down."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Built, Failure, Outcome, Stage, Symptom, Verdict
from bisect_trt.reduction.passes.tactics import MOST_TRIES, Kept, by_tactic, kept
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.tensorrt.timing import OTHER

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
        allowed = used.with_tactics if used.with_tactics and self.chooses else NAMES
        allowed = (LAST,) if used.tf32 is False else allowed
        left = [t for t in allowed if t not in used.without_tactics] or list(NAMES)
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


def test_tactics_that_are_taken_with_options_that_help_are_tried_first() -> None:
    prober, helps = Prober({TF32, FP32}, SETTINGS), replace(SETTINGS, tf32=False)
    (told,) = by_tactic(problem(prober), passing=[helps])
    assert "passes with gemm_f32f32_splitk" in told
    assert [(t.tf32, t.with_tactics) for t in prober.asked] == [(None, ()), (False, ()), (None, (LAST,))]


def test_where_those_are_no_others_more_are_looked_for() -> None:
    prober = Prober({TF32, FP32}, SETTINGS)
    (told,) = by_tactic(problem(prober), passing=[replace(SETTINGS, opt_level=1)])  # takes the same
    assert "passes with gemm_f32f32_splitk" in told
    assert [t.without_tactics for t in prober.asked] == [(), (), (TF32,), (TF32, FP32)]


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


class Measuring:
    """A build with an empty cache draws a tactic; one with a file takes the file's, if it can be read.

    The algorithm selector takes what it is told, except what is `fused`. The cache of the run makes it fail
    everywhere where it `run_holds`, and in the worker that wrote it where it does `here`.
    """

    def __init__(
        self, draws: list[str], *, run_holds: bool = False, readable: bool = True, fused: bool = False,
        here: bool = False,
    ) -> None:  # fmt: skip
        self.draws, self.run_holds, self.readable, self.fused = draws, run_holds, readable, fused
        self.here = here
        self.oracle = SimpleNamespace(target=SETTINGS)
        self.builds = 0

    def observe(
        self, candidate: Candidate, run: int = 0, *, target: TargetSettings | None = None
    ) -> Outcome:
        self.builds += 1
        if target is None:
            fails, lost = self.run_holds or self.here, not self.run_holds
            told = Built(engine={"shown": ({"number": TF32, "tactic": NAMES[TF32]},)})
            return Outcome((WANTED,) if fails else (), log=OTHER if lost else "", built=told)
        assert target.timing_cache is not None
        log, taken = "", self.draws[run % len(self.draws)]
        if target.with_tactics:
            taken = FP32 if self.fused else target.with_tactics[0]
        elif candidate.form is Form.WRITTEN:
            taken, log = target.timing_cache.read_text(), "" if self.readable else OTHER
        else:
            assert not target.timing_cache.exists()
            target.timing_cache.write_text(taken)
        told = Built(engine={"shown": ({"number": taken, "tactic": NAMES[taken]},)})
        return Outcome((WANTED,) if taken == TF32 else (), log=log, seconds=0.1, built=told)


def flaky(prober: Measuring, runs: int = 21) -> Any:
    return SimpleNamespace(**vars(problem(prober)), runs=runs)  # type: ignore[arg-type]


@pytest.mark.parametrize("runs", [1, 21])
def test_the_tactics_with_which_it_fails_are_kept_for_the_files(runs: int, tmp_path: Path) -> None:
    found = kept(flaky(Measuring([FP32, FP32, TF32, LAST]), runs), tmp_path)
    assert found is not None and found.cache is not None and found.cache.read_text() == TF32
    assert list(tmp_path.iterdir()) == [found.cache]  # those of the builds that passed are gone


def test_where_no_file_can_be_read_back_the_builder_is_told_the_numbers(tmp_path: Path) -> None:
    found = kept(flaky(Measuring([FP32, TF32], readable=False)), tmp_path)
    assert found == Kept(numbers=(TF32,)) and not list(tmp_path.iterdir())
    assert kept(flaky(Measuring([TF32], readable=False, fused=True)), tmp_path) is None


def test_a_cache_that_does_is_the_one_of_the_run(tmp_path: Path) -> None:
    prober = Measuring([TF32], run_holds=True)
    assert kept(flaky(prober, 1), tmp_path) == Kept() and prober.builds == 1


def test_what_only_this_process_can_read_is_kept_by_number(tmp_path: Path) -> None:
    prober = Measuring([FP32], here=True)
    assert kept(flaky(prober, 1), tmp_path) == Kept(numbers=(TF32,)) and prober.builds == 2


def test_where_the_numbers_do_not_make_it_fail_it_is_measured_anew(tmp_path: Path) -> None:
    found = kept(flaky(Measuring([FP32, TF32], here=True, fused=True), 1), tmp_path)
    assert found is not None and found.cache is not None and found.cache.read_text() == TF32


def test_what_never_fails_anew_has_no_tactics_to_keep(tmp_path: Path) -> None:
    prober = Measuring([FP32])
    assert kept(flaky(prober), tmp_path) is None
    assert prober.builds == MOST_TRIES and not list(tmp_path.iterdir())


def test_where_the_tactics_are_is_told() -> None:
    class Unreadable(Prober):
        def observe(self, *args: Any, **more: Any) -> Outcome:
            return replace(super().observe(*args, **more), log=OTHER)

    (told,) = by_tactic(problem(Unreadable({TF32}, SETTINGS)))
    assert "cannot keep it" in told and "timing.cache" not in told
    (told,) = by_tactic(problem(Prober({TF32}, SETTINGS)), Kept(numbers=(TF32,)))
    assert "have the builder take the first" in told and "timing.cache" not in told
