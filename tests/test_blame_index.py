"""`blame` with the real package index: real releases, and what is known of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from bisect_trt.accuracy.tolerance import OTHER_KIND
from bisect_trt.blaming.blame import Asking, Blame, blame
from bisect_trt.blaming.words import answer

pytestmark = pytest.mark.long

RESHAPE = """<ir_version: 8, opset_import: ["" : 18]> g (float[N, M, K] x, float[N, M] s) => (y) {
    h = Shape(s) i0 = Constant<value = int64 {0}>() i1 = Constant<value = int64 {1}>()
    t = Constant<value = int64[1] {0}>() g0 = Gather<axis = 0>(h, i0) g1 = Gather<axis = 0>(h, i1)
    d0 = Unsqueeze(g0, t) d1 = Unsqueeze(g1, t) m = Constant<value = int64[1] {-1}>()
    c = Concat<axis = 0>(d0, d1, m) y = Reshape(x, c) }"""
SWISH = '<ir_version: 11, opset_import: ["" : 24]> g (float[3] x) => (float[3] y) { y = Swish(x) }'


def asked(tmp_path: Path, model: str, report: dict[str, object], releases: str, *, every: bool) -> Blame:
    place = tmp_path / "model-repro"
    place.mkdir(exist_ok=True)
    made = onnx.parser.parse_model(model)
    if not made.graph.output[0].type.HasField("tensor_type"):
        made.graph.output[0].type.CopyFrom(onnx.helper.make_tensor_type_proto(1, None))
    (place / "repro.onnx").write_bytes(made.SerializeToString())
    (place / "report.json").write_text(json.dumps(report))
    out = tmp_path / f"out-{every}"
    return blame(place, Asking(releases=releases, sweep=every), out=out)


@pytest.mark.parametrize("every", [False, True])
def test_a_fusion_bug_came_in_onnx_runtime_1_29(tmp_path: Path, every: bool) -> None:
    place = tmp_path / "model-repro"
    place.mkdir()
    x = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    np.savez(place / "inputs.npz", x=x, s=np.ones((2, 3), np.float32))
    np.savez(place / "expected.npz", y=x.reshape(2, 3, 4))
    failure = {"stage": "compare", "symptom": "mismatch", "signature": OTHER_KIND, "message": "y differs"}
    report: dict[str, object] = {"failure": failure, "settings": {"target": {"spec": "ort:CPU"}}}
    found = asked(tmp_path, RESHAPE, report, "onnxruntime>=1.26,<1.32", every=every).releases
    assert found is not None
    assert answer(found).startswith("fails since 1.29.0 (1.28.0 is fine); still in ")


def test_swish_came_in_tensorrt_rtx_1_5(tmp_path: Path) -> None:
    message = "Op type Swish is not supported in TensorRT-RTX."
    failure = {"stage": "parse", "symptom": "error", "signature": message, "message": message}
    report: dict[str, object] = {"failure": failure, "settings": {"target": {"spec": "tensorrt-rtx"}}}
    found = asked(tmp_path, SWISH, report, "tensorrt-rtx<=1.6.1.120", every=False).releases
    assert found is not None
    assert answer(found).startswith("gone since 1.5.0.114 (1.4.0.76 still fails)")


def test_the_norm_of_a_zero_row_was_mended_in_openvino_2026_2(tmp_path: Path) -> None:
    place = tmp_path / "model-repro"
    place.mkdir()
    head = '<ir_version: 8, opset_import: ["" : 19]>'
    text = f"{head} g (float[2, 3] x) => (float[2, 3] y) {{ y = LpNormalization(x) }}"
    x = np.array([[0, 0, 0], [0, 3, 4]], np.float32)
    np.savez(place / "inputs.npz", x=x)
    np.savez(place / "expected.npz", y=x / np.array([[1], [5]], np.float32))
    (place / "repro.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    failure = {"stage": "compare", "symptom": "not finite", "signature": OTHER_KIND, "message": "y is NaN"}
    report = {"failure": failure, "settings": {"target": {"spec": "ort:OpenVINO"}}}
    (place / "report.json").write_text(json.dumps(report))
    asking = Asking(releases="openvino>=2026.0,<2026.4")
    found = blame(place, asking, out=tmp_path / "out").releases
    assert found is not None
    assert answer(found).startswith("gone since 2026.2.0 (2026.1.0 still fails)")
