"""Reducing mismatches on targets that really differ: FP16 emulated, and OpenVINO where it can be had."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

import accuracy_cases as cases
import bisect_trt
import openvino_cpu
from bisect_trt.cli.output.console import show_reduction
from bisect_trt.errors import ModelDoesNotFail
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.results import Finding, Reduction
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings


@pytest.fixture(scope="module")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> TargetSettings:
    libraries = openvino_cpu.libraries(tmp_path_factory.mktemp("openvino"))
    return TargetSettings(openvino_cpu.SPEC, ep_libraries=libraries)


def reduced(
    proto: onnx.ModelProto,
    feeds: dict[str, Any] | None,
    target: TargetSettings,
    folder: Path,
    accuracy: AccuracySettings = AccuracySettings(),  # noqa: B008 - frozen
    **run: Any,
) -> Reduction:
    onnx.save(proto, folder / "model.onnx")
    inputs = folder / "in.npz" if feeds else None
    if feeds:
        np.savez(folder / "in.npz", **feeds)
    how = {"repeats": 1, "simplify": False, **run}
    settings = Settings(target, RunSettings(inputs=inputs, **how), accuracy)
    return bisect_trt.reduce(folder / "model.onnx", settings, out=folder / "out")


@pytest.fixture(scope="module")
def layer_norm(tmp_path_factory: pytest.TempPathFactory) -> Reduction:
    """Two tests look at it."""
    return reduced(*cases.layer_norm(), TargetSettings("emulate:fp16"), tmp_path_factory.mktemp("layer_norm"))


@pytest.mark.parametrize("name", cases.BORN)
def test_an_overflow_ends_where_it_is_born(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if name == "layer_norm":
        result = request.getfixturevalue(name)
    else:
        result = reduced(*cases.BORN[name](), TargetSettings("emulate:fp16"), tmp_path)
    assert result.best.nodes == ("born",)
    assert (result.wanted.stage, result.wanted.symptom) == (Stage.COMPARE, Symptom.NOT_FINITE)
    assert result.verified == 1 and result.one_minimal


def test_what_was_wanted_is_told_of_the_whole_model(layer_norm: Reduction) -> None:
    """Divided by infinity is zero: the whole model shows a mismatch where the part shows an Inf."""
    result = layer_norm
    assert result.original_failure is not None and result.original_failure.symptom is Symptom.MISMATCH
    report = json.loads((result.out / "report.json").read_text())
    [tensor] = report["accuracy"]["tensors"]
    worst = tensor["worst"][0]
    assert worst["error"] == pytest.approx(abs(worst["target"] - worst["reference"]))
    assert worst["error"] > tensor["atol"] + tensor["rtol"] * abs(worst["reference"])
    paper, page = ((result.out / name).read_text() for name in ("ISSUE.md", "report.md"))
    told = " | ".join(f"{worst[key]:.9g}" for key in ("reference", "target", "error"))
    assert "| index | reference | target | error |" in paper and f"| {told} |" in paper
    assert "| index | reference | target | error |" in page


def test_an_error_that_accumulates_is_blamed_on_nobody(tmp_path: Path) -> None:
    rtol = 1e-3
    accuracy = AccuracySettings(metric="rms", rtol=(("", rtol),), atol=(("", 0.0),))
    result = reduced(*cases.accumulating(), TargetSettings("emulate:fp16"), tmp_path, accuracy)
    parts, together = result.accuracy["accumulated"], result.accuracy["together"]
    errors = [part["error"] for part in parts]
    assert len(parts) == 12 and errors == sorted(errors, reverse=True)
    assert 0 < errors[0] < rtol and errors[0] < 2 * errors[-1]  # nobody's fault, all much alike
    assert 1 < len(together) <= len(result.best.nodes)
    assert result.verified == 1
    assert any("accumulates" in note for note in result.notes)
    ranked = f"| {parts[0]['nodes'][0]} | {errors[0]:.3g} |\n| {parts[1]['nodes'][0]} | {errors[1]:.3g} |"
    assert ranked in (result.out / "report.md").read_text()
    assert "What each part contributes" in (result.out / "report.html").read_text()
    page = Console(record=True, width=80, file=io.StringIO())
    show_reduction(result, result.archive or tmp_path, page)
    assert "Where       no node: the error accumulates" in page.export_text()


def test_of_errors_that_add_up_one_beyond_rounding_is_handed_over(tmp_path: Path) -> None:
    """Each block is wrong in the same way, and too little for the model's output."""
    settings = AccuracySettings(metric="rms", rtol=(("", 0.1),), atol=(("", 0.0),))
    target = TargetSettings("planted:op=Tanh,fail=mismatch")
    result = reduced(*cases.equal_blocks(), target, tmp_path, settings)
    [node] = result.best.nodes
    assert node.startswith("tanh") and result.one_minimal and result.verified == 1
    assert result.judgement.kind is Finding.WRONG and len(result.accuracy["together"]) > 1
    assert any(f"What is written is {node}" in note for note in result.notes)


def test_what_becomes_of_an_error_is_told_in_sizes_of_errors(tmp_path: Path) -> None:
    """Not in how many elements are beyond the tolerance: Neg makes no error any larger."""
    settings = AccuracySettings(rtol=(("", 2e-4),), atol=(("", 0.0),))
    result = reduced(*cases.negated(), TargetSettings("emulate:fp16"), tmp_path, settings)
    [passage] = result.accuracy["way"]
    assert result.best.nodes == ("product",) and passage["node"] == "negative"
    assert passage["behind"] == pytest.approx(passage["before"], rel=0.1)


def test_one_layer_far_worse_than_the_others_is_to_blame(tmp_path: Path) -> None:
    proto, feeds = cases.accumulating()
    settings = AccuracySettings(metric="rms", rtol=(("", 1e-1),), atol=(("", 0.0),))
    result = reduced(proto, feeds, TargetSettings("planted:node=layer5,fail=mismatch"), tmp_path, settings)
    assert result.best.nodes == ("layer5",) and not result.accuracy["accumulated"]


@pytest.mark.parametrize("seed", range(2))
def test_ties_of_two_branches_keep_the_topk(seed: int, openvino: TargetSettings, tmp_path: Path) -> None:
    proto, feeds = cases.two_branches(seed)
    result = reduced(proto, feeds, openvino, tmp_path)
    assert "TopK" in result.best.nodes and len(result.best.nodes) <= 4
    assert result.original_failure is not None and "indices" in result.original_failure.signature


@pytest.mark.parametrize("kind", ["cubic", "roi_align_max"])
def test_openvino_alone_with_its_culprit(kind: str, openvino: TargetSettings, tmp_path: Path) -> None:
    accuracy = AccuracySettings(rtol=(("", 1e-3),))
    result = reduced(*cases.convolutions(kind), openvino, tmp_path, accuracy)
    assert result.best.nodes == ("culprit",) and result.verified == 1 and result.one_minimal


def test_a_shape_that_openvino_gets_wrong(openvino: TargetSettings, tmp_path: Path) -> None:
    """It stretches. By itself the culprit is refused for its declared output shape: another failure."""
    accuracy = AccuracySettings(rtol=(("", 1e-3),))
    result = reduced(*cases.convolutions("keep_aspect_ratio"), openvino, tmp_path, accuracy)
    assert "culprit" in result.best.nodes and len(result.best.nodes) <= 2 and result.verified == 1
    assert result.wanted.stage is Stage.COMPARE and result.one_minimal
    if len(result.best.nodes) == 2:
        [other] = result.also_seen
        assert (other.stage, other.nodes) == (Stage.BUILD, ("culprit",)) and "size mismatch" in other.message


@pytest.mark.long
def test_a_cubic_resize_in_resnet50(openvino: TargetSettings, tmp_path: Path) -> None:
    accuracy = AccuracySettings(rtol=(("", 1e-4),))
    result = reduced(cases.resnet50_cubic(), None, openvino, tmp_path, accuracy)
    assert result.best.nodes == ("splice/culprit",) and result.verified == 1
    assert result.counts["nodes_built"] <= 4 * result.original_nodes


def test_a_tolerance_that_accepts_it(tmp_path: Path) -> None:
    proto, feeds = cases.accumulating(layers=3)
    with pytest.raises(ModelDoesNotFail, match="agrees"):
        reduced(proto, feeds, TargetSettings("emulate:fp16"), tmp_path)


def test_only_the_failing_samples_are_used(tmp_path: Path) -> None:
    proto, feeds = cases.softmax()
    folder = tmp_path / "several"
    folder.mkdir()
    for k, scale in enumerate((0.0, 1.0, 0.0)):
        np.savez(folder / f"{k}.npz", x=feeds["x"] * np.float32(scale))
    onnx.save(proto, tmp_path / "model.onnx")
    run = RunSettings(inputs=folder, repeats=1, simplify=False)
    result = bisect_trt.reduce(
        tmp_path / "model.onnx", Settings(TargetSettings("emulate:fp16"), run), out=tmp_path / "out"
    )
    assert result.best.nodes == ("born",) and len(result.best.feeds) == 1
    assert any("Of 3 samples 1 fail (from 0: 1)" in note for note in result.notes)
