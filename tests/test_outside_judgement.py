"""Nothing is said that was not seen: a wrong weight is no rounding, a build is no comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper

import bisect_trt
from bisect_trt.accuracy.arithmetic import arithmetic_of
from bisect_trt.cli.app import main
from bisect_trt.reduction.judgement import _lost
from bisect_trt.results import Finding
from bisect_trt.settings import TargetSettings

MODEL = """<ir_version: 8, opset_import: ["" : 18]> g (float[2, 16] x) => (float[2, 16] y) {
    m = MatMul(x, w) n = LayerNormalization(m, s) t = Tanh(n) y = Softmax(t) }"""

ONE = '<ir_version: 8, opset_import: ["" : 18]> g (float[2, 4] x) => (float[2, 4] y) { y = Exp(x) }'


def test_a_wrong_weight_is_not_explained_by_right_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    model, x = onnx.parser.parse_model(MODEL), rng.standard_normal((2, 16)).astype(np.float32)
    weight, scale = rng.standard_normal((16, 16)).astype(np.float32), np.ones(16, np.float32)
    model.graph.initializer.extend(
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(scale, "s")]
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.savez(tmp_path / "right.npz", y=session.run(None, {"x": x})[0])
    np.savez(tmp_path / "x.npz", x=x)
    scale[3] = -3
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(scale, "s"))
    onnx.save(model, tmp_path / "wrong.onnx")
    found = bisect_trt.reduce(
        tmp_path / "wrong.onnx",
        target="ort:CPU",
        inputs=tmp_path / "x.npz",
        reference=f"outputs:{tmp_path / 'right.npz'}",
        out=tmp_path / "out",
        repeats=1,
    )
    assert found.judgement.kind is Finding.WRONG
    assert found.judgement.error > 1000 * found.judgement.bound
    assert found.judgement.told[0].startswith("The export is wrong")


def test_an_overflow_in_the_models_own_type_names_that_limit() -> None:
    typed, half = (arithmetic_of(TargetSettings(f"emulate:{to}")) for to in ("typed", "fp16"))
    assert "65504 where the model says FP16" in _lost(typed, ["overflow"], ("a",)).told[0]
    assert "beyond 65504, the largest of FP16" in _lost(half, ["overflow"], ("a",)).told[0]


def test_nothing_is_proven_on_a_target_that_only_builds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("a GPU is here")
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.parser.parse_model(ONE), tmp_path / "one.onnx")
    assert main(["precision", "one.onnx", "--target", "tensorrt-rtx"]) == 3
    assert "cannot run here" in capsys.readouterr().err
    assert not (tmp_path / "one-precision").exists()


def test_a_reference_that_cannot_run_the_model_proves_nothing_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No kernel for bfloat16 on the CPU: `check` and `precision` end alike."""
    text = ONE.replace("float[", "bfloat16[").replace("Exp", "Acos")
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    words = [str(tmp_path / "m.onnx"), "--target", "emulate:fp16"]
    assert [main([command, *words]) for command in ("check", "precision")] == [3, 3], capsys.readouterr()
