"""What looks at every reproducer of the suite sees one that nobody should be sent."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from msgspec.structs import replace

import bisect_trt
import holding
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings


def test_what_passes_and_what_the_reference_refuses_is_seen(tmp_path: Path, models_dir: Path) -> None:
    target = TargetSettings("planted:op=Relu,fail=mismatch")
    settings = Settings(target, RunSettings(repeats=1, simplify=False))
    found = bisect_trt.reduce(models_dir / "ok.onnx", settings, out=tmp_path / "out")
    holding.require_held(found)
    wide = replace(found, settings=replace(settings, accuracy=AccuracySettings(rtol=(("", 1e9),))))
    before = holding.COUNTS.copy()
    with pytest.raises(pytest.fail.Exception, match="agree at the user's tolerance"):
        holding.require_held(wide)
    broken = shutil.copytree(found.out, tmp_path / "broken")
    proto = onnx.load(broken / "repro.onnx")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save(proto, broken / "repro.onnx")
    with pytest.raises(pytest.fail.Exception, match="the reference refuses"):
        holding.require_held(replace(found, out=broken))
    holding.COUNTS.clear()
    holding.COUNTS.update(before)
