"""Metrics beside elements: decibels, and rows as a set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import bisect_trt
from bisect_trt.accuracy.boxes import in_order
from bisect_trt.accuracy.compare import compare
from bisect_trt.accuracy.tolerance import differences
from bisect_trt.cli.app import main
from bisect_trt.reproducer.script import environment
from bisect_trt.reproducer.script_values import agreement
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(8, 4), (1, 8, 4), (3, 8, 4), (1, 8), (8,)])
def test_boxes_are_a_set(shape: tuple[int, ...]) -> None:
    boxes = RNG.uniform(0, 100, shape).astype(np.float32)
    axis = -2 if len(shape) > 1 and shape != (1, 8) else -1
    mixed = np.take(boxes, RNG.permutation(8), axis) + np.float32(1e-3)
    accuracy = AccuracySettings(metric="boxes", rtol=(("", 1e-3),))
    assert differences([{"y": boxes}], [{"y": mixed}], accuracy)[0].ok
    assert not differences([{"y": boxes}], [{"y": mixed}], AccuracySettings(rtol=(("", 1e-3),)))[0].ok
    moved = mixed.copy()
    moved.reshape(-1)[0] += 50
    (diff,) = differences([{"y": boxes}], [{"y": moved}], accuracy)
    assert not diff.ok and diff.mismatches <= 4, "one box has no partner"


def test_labels_have_to_be_equal_and_none_may_be_missing() -> None:
    accuracy = AccuracySettings(metric="boxes")
    labels = np.array([[3, 1, 2]])
    assert differences([{"y": labels}], [{"y": labels[:, ::-1]}], accuracy)[0].ok
    assert not differences([{"y": labels}], [{"y": np.array([[3, 1, 1]])}], accuracy)[0].ok
    assert not differences([{"y": labels}], [{"y": labels[:, :2]}], accuracy)[0].ok


def test_a_near_partner_is_given_up_for_another_row() -> None:
    """The first row fits both, the second only the one that is nearest to the first."""
    found = in_order(np.array([[0.0], [1.0]]), np.array([[0.6], [-0.6]]), 0.0, 0.7)
    assert found.tolist() == [[-0.6], [0.6]]


@given(st.permutations(range(7)), st.integers(0, 2**31))
def test_any_order_has_partners(order: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 3, (7, 2)).astype(np.float64)
    assert np.array_equal(in_order(rows, rows[order], 0.0, 0.0), rows)


@pytest.mark.parametrize("metric", ["snr", "psnr"])
def test_decibels(metric: str) -> None:
    one = RNG.standard_normal(1000)
    other = one + 0.01 * RNG.standard_normal(1000)
    signal = np.mean(one**2) if metric == "snr" else np.max(np.abs(one)) ** 2
    found = 10 * math.log10(signal / np.mean((other - one) ** 2))
    assert compare("y", one, other, metric=f"{metric}:{found - 0.01}").ok
    assert not compare("y", one, other, metric=f"{metric}:{found + 0.01}").ok
    assert compare("y", one, one, metric=f"{metric}:200").ok
    assert not compare("y", one, np.full(1000, np.nan), metric=f"{metric}:1").ok


def test_saved_outputs_are_judged_again(
    tmp_path: Path, models_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", str(models_dir / "ok.onnx"), "--target", "emulate:bf16", "--rtol", "1e-9"]
    assert main([*words, "--save-outputs", str(tmp_path / "both")]) == 1
    again = [*words[:-2], "--judge-again", str(tmp_path / "both")]
    capsys.readouterr()
    assert main(again) == 0 and "Fine        scores agrees" in capsys.readouterr().out
    assert main([*again, "--rtol", "1e-9"]) == 1
    assert "Differs     scores: [" in capsys.readouterr().out
    assert main([*words, "--judge-again", str(tmp_path)]) == 2
    assert "holds no reference.npz" in capsys.readouterr().err


METRICS = ("quantile:0.9", "mean", "rms", "cosine", "snr:30", "psnr:30")


@given(st.sampled_from(METRICS), st.integers(0, 9999), st.floats(-6, 1), st.sampled_from(["", "zero", "nan"]))
def test_the_script_agrees_with_the_comparison(metric: str, seed: int, power: float, odd: str) -> None:
    """`repro.py` has one expression for each metric; whatever is compared, both say the same."""
    rng = np.random.default_rng(seed)
    one = rng.standard_normal(30) * (odd != "zero")
    other = one + rng.standard_normal(30) * 10**power
    if odd == "nan":
        other[3] = np.nan
    for name, value in (("max", metric), ("other", "max")):
        accuracy = replace(AccuracySettings(), metric=value, rtol=(("", 0.03),), atol=(("", 1e-3),))
        script = environment().get_template("compare.py.j2").render(
            ignored=(), raw={}, unordered={}, agrees=agreement(value), metric=value
        )
        space: dict[str, Any] = {"np": np, "BOUNDS": {"y": (0.03, 1e-3)}, "EXACT": [], "Failed": ValueError}
        exec(script, space)
        wanted = differences([{"y": one}], [{"y": other}], accuracy)[0].ok
        try:
            space["compare"]("y", one, other)
            found = True
        except ValueError:
            found = False
        assert found is wanted, name


def test_a_reproducer_of_a_metric_stands_alone(tmp_path: Path, models_dir: Path) -> None:
    accuracy = AccuracySettings(metric="cosine", rtol=(("", 1e-8),))
    settings = Settings(TargetSettings("emulate:int8"), RunSettings(repeats=1, simplify=False), accuracy)
    result = bisect_trt.reduce(models_dir / "ok.onnx", settings, out=tmp_path / "out")
    text = (result.out / "repro.py").read_text()
    assert result.verified == 1 and not result.script_objection
    assert "bisect_trt" not in text and "cosine" in text
