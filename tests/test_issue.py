"""ISSUE.md: the fields of each tracker's template, honest words, and command lines that real tools take."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.origin import Origin
from bisect_trt.outcome import End, Ended, Failure, Stage, Symptom
from bisect_trt.reproducer import document, issue
from bisect_trt.reproducer.command_lines import recipes
from bisect_trt.reproducer.markdown import prose
from bisect_trt.reproducer.picture import MOST_NODES, mermaid, picture
from bisect_trt.reproducer.trackers import STYLES
from bisect_trt.results import Reduction
from bisect_trt.settings import ReportSettings, Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo
from test_bundle import ANTIALIAS, MACHINE, NASTY, candidate, make_model, reduction, resize, write

TENSORRT = TargetInfo("tensorrt", "TensorRT 11.4.0", True, (), {"tensorrt": "11.4.0", "GPU": "RTX 4090"})
MISMATCH = Failure(Stage.COMPARE, Symptom.MISMATCH, "outputs differ", "y: 3 of 6 elements differ")
FIELDS = {
    "tensorrt": [
        "TensorRT Version", "NVIDIA GPU", "NVIDIA Driver Version", "CUDA Version", "CUDNN Version",
        "Operating System", "Python Version", "Tensorflow Version", "PyTorch Version",
        "Baremetal or Container", "## Description", "## Environment", "## Relevant Files", "Model link",
        "## Steps To Reproduce", "Commands or scripts", "Have you tried",
        "API Capture tool", "Can this model run on other frameworks?",
    ],
    "tensorrt-rtx": [
        "**Describe the bug**", "**Steps to reproduce**", "**Expected behavior**", "**Environment**",
        "TensorRT-RTX version:", "GPU:", "Operating system:", "CUDA version:", "CPU architecture:",
        "**Screenshots**", "**Additional context**", "NVIDIA/TensorRT-RTX/issues",
    ],
    "onnxruntime": [
        "### Describe the issue", "### To reproduce", "### Urgency", "### Platform", "### OS Version",
        "### ONNX Runtime Installation", "### ONNX Runtime Version or Commit ID", "### ONNX Runtime API",
        "### Architecture", "### Execution Provider", "microsoft/onnxruntime/issues",
    ],
    "openvino": [
        "### OpenVINO Version", "### Operating System", "### Device used for inference", "### Framework",
        "### Model used", "### Issue description", "### Step by step reproduction",
        "### Relevant log output", "### Issue submission checklist", "openvinotoolkit/openvino/issues",
    ],
    "plain": ["## How to reproduce", "## Environment"],
}  # fmt: skip


@pytest.fixture
def failing(tmp_path: Path) -> Candidate:
    store = tmp_path / "work"
    store.mkdir()
    ones = np.ones((1, 1, 8, 8), np.float32)
    return candidate(resize(1), store, ones, ones[:, :, ::2, ::2])


def text_of(found: Reduction) -> str:
    return issue.render(found, document.report(found, MACHINE), "a.zip")


def styled(failing: Candidate, out: Path, style: str, **more: Any) -> Reduction:
    settings = Settings(TargetSettings(spec="tensorrt-rtx"), report=ReportSettings(style=style))
    return reduction(failing, out, settings=settings, **more)


@pytest.mark.parametrize("style", list(STYLES))
def test_every_tracker_gets_its_own_fields(failing: Candidate, tmp_path: Path, style: str) -> None:
    text = text_of(styled(failing, tmp_path, style))
    for field in FIELDS[style]:
        assert field in text, field
    for told in (
        "a model of 910 nodes to 1 node", "1-minimal", "3 of 3 runs", "Outputs were not compared",
        "python repro.py", "a.zip", "<details>", "```mermaid", "| nodes | 910 | 1 |",
        "Antialiasing is not supported", "tensorrt_rtx --onnx=repro.onnx --skipInference --verbose",
        "POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy run repro.onnx --onnxrt --trt", "bisect-trt verify .",
    ):  # fmt: skip
        assert told in text, told
    assert ("not present" in text) == (style != "openvino")  # that asks for no GPU
    assert "{{" not in text and "\n\n\n" not in text


def test_titles_follow_the_pattern_of_the_tracker(failing: Candidate, tmp_path: Path) -> None:
    rtx = text_of(styled(failing, tmp_path, "")).splitlines()[0]
    assert rtx == (
        "# [BUG] ONNX parser failure of TensorRT-RTX 1.7.1.116 when parsing Resize (1 node) without a GPU"
    )
    found = reduction(failing, tmp_path, MISMATCH, target=TENSORRT)
    title = text_of(found).splitlines()[0]
    assert title == "# Accuracy failure of TensorRT 11.4.0 when running Resize (1 node) on GPU RTX 4090"


@pytest.mark.parametrize(
    ("target", "style"),
    [
        ("tensorrt", "tensorrt"),
        ("tensorrt-rtx", "tensorrt-rtx"),
        ("ort:CUDAExecutionProvider", "onnxruntime"),
        ("ort:OpenVINOExecutionProvider", "openvino"),
        ("emulate:fp16", "plain"),
    ],
)
def test_the_style_follows_the_target(failing: Candidate, tmp_path: Path, target: str, style: str) -> None:
    info = TargetInfo(target, target, True)
    found = reduction(failing, tmp_path, target=info, settings=Settings(TargetSettings(spec=target)))
    assert FIELDS[style][0] in text_of(found)


def test_an_unknown_style_is_refused(failing: Candidate, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such style"):
        text_of(styled(failing, tmp_path, "jira"))


def test_it_is_honest_about_what_was_not_done(failing: Candidate, tmp_path: Path) -> None:
    stopped = reduction(
        failing, tmp_path, end=End(Ended.INTERRUPTED, "interrupted"), one_minimal=False, verified=0
    )
    text = text_of(stopped)
    assert "Unverified" in text and "Not proved minimal (interrupted)" in text and "0 of 3" not in text
    assert "was not looked up, as bisect-trt asks no server" in text and "none was found on the way" in text
    flaky = reduction(failing, tmp_path, verified=1, workarounds=("Seen: something avoids it.",))
    assert "1 of 3 runs" in text_of(flaky) and "- Seen: something avoids it." in text_of(flaky)


def test_it_speaks_in_the_users_words(failing: Candidate, tmp_path: Path) -> None:
    origin = Origin("node_softmax", "/home/me/model.py", 6, "return torch.softmax(y*2, -1)", "M.attn")
    text = text_of(reduction(failing, tmp_path, origins=(origin,)))
    told = "`node_softmax`, from `model.py` line 6, in `M.attn`: `return torch.softmax(y*2, -1)`"
    assert told in text and "/home/me" not in text


def test_a_hostile_model_stays_text(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    ones = np.ones((1, 1, 8, 8), np.float32)
    evil = NASTY + "</details><script>alert(1)</script> | @everyone #1"
    best = candidate(resize(1, evil), tmp_path / "w", ones, ones)
    wanted = replace(ANTIALIAS, message=evil, nodes=(evil,))
    text = text_of(reduction(best, tmp_path, wanted, log=evil, notes=(evil,), also_seen=(wanted,)))
    outside = re.sub(r"(?s)^ *(`{3,})\w*\n.*?^ *\1$", "", text, flags=re.M)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<script>" not in outside and outside.count("</details>") == 1 and "@everyone" not in outside


@given(st.text())
def test_prose_opens_nothing(text: str) -> None:
    told = prose(text)
    assert "\n" not in told and "<" not in told
    assert not re.search(r"(?<!\\)[|`*_\[\]#~]", told.replace("\\\\", ""))


@given(st.text(min_size=1), st.text())
def test_a_drawing_holds_whatever_names_there_are(name: str, tensor: str) -> None:
    node = helper.make_node("Relu", ["x"], [tensor + "y"], name)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(tensor + "y", TensorProto.FLOAT, [1])],
    )
    lines = mermaid(picture(helper.make_model(graph).SerializeToString(), (name,))).splitlines()
    assert lines[0] == "flowchart TD"
    form = r'    (b\d+ ?(\(\[".*"\]\)|\[".*"\]|-- ".*" --> b\d+|--> b\d+)|classDef .*|class b1 blamed)'
    assert all(re.fullmatch(form, line) for line in lines[1:]), lines
    assert all(re.fullmatch(r'[^"]*', text) for text in re.findall(r'\["(.*?)"\]', "\n".join(lines)))


def test_a_large_graph_is_not_drawn() -> None:
    nodes = [helper.make_node("Relu", [f"t{k}"], [f"t{k + 1}"]) for k in range(MOST_NODES + 1)]
    graph = helper.make_graph(nodes, "g", [], [])
    assert mermaid(picture(helper.make_model(graph).SerializeToString())) == ""


def lines_of(found: Reduction, tool: str) -> list[str]:
    return [line for recipe in recipes(found) if recipe.tool == tool for line in recipe.lines]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As a person pastes it, with the tools of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("tools", [(), ("trtexec", "polygraphy")])
def test_the_polygraphy_line_shows_the_failure(
    failing: Candidate, tmp_path: Path, tools: tuple[str, ...]
) -> None:
    """Really run: ONNX Runtime takes it, TensorRT-RTX's builder does not."""
    settings = Settings(
        TargetSettings(spec="tensorrt-rtx", workspace=1 << 28, opt_level=1, tf32=False),
        report=ReportSettings(inputs_for=tools),
    )
    out = write(reduction(failing, tmp_path / "m-repro", settings=settings))
    lines = lines_of(reduction(failing, out, settings=settings), "polygraphy")
    assert len(lines) == (1 if tools else 2) and "--builder-optimization-level 1" in lines[-1]
    assert (out / "polygraphy-inputs.json").exists() == bool(tools)
    *before, last = [shell(line, out) for line in lines]
    assert all(done.returncode == 0 for done in before), before
    said = last.stdout + last.stderr
    assert last.returncode != 0 and "Antialiasing is not supported" in said, said
    assert "onnxrt-runner" in said and "unrecognized" not in said
    onnx.save(resize(0), out / "repro.onnx")
    fixed = shell(last.args, out)
    assert "Antialiasing" not in fixed.stdout + fixed.stderr


def test_raw_files_for_trtexec(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    node = helper.make_node("Neg", ["x"], ["y"], "n")
    best = candidate(make_model([node], ["N", 3], [2, 3]), tmp_path / "w", x, -x)  # type: ignore[list-item]
    settings = Settings(
        TargetSettings("tensorrt", (), *(((("x", (k, 3)),)) for k in (1, 2, 4))),
        report=ReportSettings(inputs_for=("trtexec",)),
    )
    found = reduction(best, tmp_path / "m-repro", MISMATCH, target=TENSORRT, settings=settings)
    out = write(found)
    [line] = lines_of(found, "trtexec")
    assert "--minShapes=x:1x3 --optShapes=x:2x3 --maxShapes=x:4x3" in line
    assert "--loadInputs=x:trtexec-input0.raw --loadRefOutputs=y:trtexec-expected0.raw" in line
    assert "--rtol=0.01 --atol=0.0303 --accuracyThreshold" in line and "--skipInference" not in line
    np.testing.assert_array_equal(np.fromfile(out / "trtexec-input0.raw", np.float32), x.ravel())
    np.testing.assert_array_equal(np.fromfile(out / "trtexec-expected0.raw", np.float32), -x.ravel())
    # Without --with, the first line makes the same files from the archives.
    for raw in out.glob("trtexec-*.raw"):
        raw.unlink()
    plain = replace(found, settings=replace(settings, report=ReportSettings()))
    make, _ = lines_of(plain, "trtexec")
    assert shell(make, out).returncode == 0
    np.testing.assert_array_equal(np.fromfile(out / "trtexec-input0.raw", np.float32), x.ravel())


@pytest.mark.parametrize(
    ("release", "model", "flags"), [("10.9.0", "repro.onnx", " --fp16"), ("11.4.0", "repro-fp16.onnx", "")]
)
def test_the_lines_ask_for_the_precision(
    failing: Candidate, tmp_path: Path, release: str, model: str, flags: str
) -> None:
    info = replace(TENSORRT, versions={"tensorrt": release})
    settings = Settings(TargetSettings("tensorrt", precision="fp16"))
    found = reduction(failing, tmp_path, MISMATCH, target=info, settings=settings)
    assert f"trtexec --onnx={model}{flags} " in lines_of(found, "trtexec")[-1]
    *_, before, last = lines_of(found, "polygraphy")
    if flags:
        assert last.startswith("polygraphy run repro.onnx --onnxrt --trt --fp16 ")
    else:  # what ONNX Runtime gives in full precision is compared with what TensorRT gives in half
        assert before.startswith("polygraphy run repro.onnx --onnxrt ") and before.endswith(" cpu.json")
        assert last.startswith("polygraphy run repro-fp16.onnx --trt ") and "--load-outputs cpu.json" in last


def test_the_lines_for_a_provider_of_onnx_runtime(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    x = np.ones((2, 3), np.float32)
    neg = helper.make_node("Neg", ["x"], ["y"], "n")
    best = candidate(make_model([neg], [2, 3], [2, 3]), tmp_path / "w", x, -x)
    info = TargetInfo("ort:CPUExecutionProvider", "ONNX Runtime's CPU", True)
    settings = Settings(TargetSettings("ort:CPU"))
    found = reduction(best, tmp_path / "m-repro", MISMATCH, target=info, settings=settings)
    out = write(found)
    # Polygraphy's own tolerances would call anything a failure; absolute ones follow the expected values.
    assert lines_of(found, "polygraphy")[-1].endswith("--rtol y:0.01 --atol y:0.01")
    for line in lines_of(found, "polygraphy"):
        done = shell(line, out)
        assert done.returncode == 0, done.stdout + done.stderr
    # Polygraphy knows neither options of a provider nor libraries with one.
    for target in (TargetSettings("ort:CPU?x=1"), TargetSettings("ort:CPU", ep_libraries=(("X", out),))):
        assert not lines_of(replace(found, settings=Settings(target)), "polygraphy")
