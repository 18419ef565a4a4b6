"""One failure that TensorRT-RTX tells in two ways: of bytes, and of a file that it reads itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import bisect_trt
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from support import model, tensor_type


def test_a_failure_in_two_wordings_is_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    inputs = [tensor_type("b", [1, 1, 4]), tensor_type("s", [1, 1, 1])]
    outputs = [tensor_type("y", [None, 3], TensorProto.INT64)]
    node = helper.make_node("NonMaxSuppression", ["b", "s"], ["y"], "nms")
    proto = model([node], inputs, outputs, opset=11)
    onnx.save(proto, tmp_path / "m.onnx")
    settings = Settings(TargetSettings("tensorrt-rtx"), RunSettings(repeats=1))
    result = bisect_trt.reduce(tmp_path / "m.onnx", settings, out=tmp_path / "out")
    if result.reworded is None:
        pytest.skip("this release has one wording")
    told, other = result.wanted.message, result.reworded.message
    assert "inherently negative length" in other and "inherently negative length" not in told
    issue = (result.out / "ISSUE.md").read_text()
    assert told in issue and other in issue

    place, script = 'HERE / "repro.onnx"', result.out / "repro.py"
    text = script.read_text()
    from_file = text.replace(f"parse(({place}).read_bytes(), str({place}))", f"parse_from_file(str({place}))")
    assert from_file != text
    for lines in (text, from_file):
        script.write_text(lines)
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        assert ("inherently negative length" in done.stdout) is (lines is from_file)

    report = json.loads((result.out / "report.json").read_text())
    report |= {"failure": report["reworded"], "reworded": report["failure"]}
    (result.out / "report.json").write_text(json.dumps(report))
    assert [found.status for found in bisect_trt.verify(result.out, repeats=1)] == ["same failure"]
