"""Dynamic dimensions that nobody gave: what is chosen for them, and what is said where nothing fits."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from bisect_trt.cli.app import main
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.sizes import fitting_shapes
from bisect_trt.model.load import load
from bisect_trt.reduction.passes.strongest import _is_beyond
from bisect_trt.session.samples import read_samples
from bisect_trt.settings import Settings

HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
HALVED = f"""{HEAD} g (float[n, 3, h, w] x) => (float[n, 6, h, w] y) {{
    half = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
    scales = Constant<value = float[4] {{1.0, 1.0, 2.0, 2.0}}>()
    up = Resize<mode = "nearest">(half, , scales) y = Concat<axis = 1>(x, up) }}"""
FIXED = f"""{HEAD} g (float[s] x) => (float[s] y) {{
    five = Constant<value = float[5] {{1.0, 1.0, 1.0, 1.0, 1.0}}>() y = Concat<axis = 0>(x, five) }}"""
FIVE = f"""{HEAD} g (float[a, b] x, float[a, 3] z) => (float[2, 3] y) {{
    w = Constant<value = float[1, 3] {{1.0, 1.0, 1.0}}>() m = Concat<axis = 0>(w, z) t = Transpose(m)
    p = MatMul(x, t) y = MatMul(p, m) }}"""


def fitted(text: str, **given: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    proto = onnx.parser.parse_model(text)
    inputs = [GraphInput.from_value_info(v) for v in proto.graph.input]
    return dict(fitting_shapes(proto, inputs, given, lambda some: pytest.fail(f"inference tells of {some}")))


def test_a_size_is_chosen_that_can_be() -> None:
    assert fitted(HALVED) == {"x": (1, 3, 2, 2)}
    assert fitted(HALVED, x=(1, 3, 5, 5)) == {"x": (1, 3, 5, 5)}  # whoever gives a shape keeps it
    assert fitted(FIXED) == {}  # 1 is fine
    assert fitted(FIVE, z=(1, 3)) == {"z": (1, 3)}  # b has to be 3: none of the sizes fits


WINDOWS = f"""{HEAD} g (float[n, 3, h, w] x) => (float[n, 3, oh, ow] y) {{
    none = Constant<value = float[0] {{}}>() p = AveragePool<kernel_shape = [3, 2], strides = [3, 2]>(x)
    y = Conv<kernel_shape = [3, 3], dilations = [2, 2], pads = [1, 1, 1, 1]>(p, weight) }}"""
REFLECTED = f"""{HEAD} g (float[n, s] x, bool c) => (float[n, t] y) {{
    y = If<then_branch = yes () => (float[n, t] a) {{
        pads = Constant<value = int64[4] {{0, 20, 0, 0}}>() a = Pad<mode = "reflect">(x, pads) }},
      else_branch = no () => (float[n, t] b) {{ b = Identity(x) }}>(c) }}"""


def test_a_window_and_a_reflection_need_what_they_read() -> None:
    proto = onnx.parser.parse_model(WINDOWS)
    proto.graph.initializer.add(name="weight", data_type=1, dims=[3, 3, 3, 3], raw_data=bytes(324))
    inputs = [GraphInput.from_value_info(v) for v in proto.graph.input]
    assert dict(fitting_shapes(proto, inputs, {}, lambda some: None)) == {"x": (1, 3, 32, 32)}
    proto.graph.output[0].type.tensor_type.shape.dim[
        0
    ].dim_value = -1  # as Paddle writes what it does not know
    assert dict(fitting_shapes(proto, inputs, {}, lambda some: None)) == {"x": (1, 3, 32, 32)}
    assert fitted(REFLECTED) == {"x": (1, 32), "c": ()}


def test_where_inference_cannot_tell_onnx_runtime_is_asked(tmp_path: Path) -> None:
    behind = f"""{HEAD} g (float[n, s] x, int64[1] k) => (float[n, t] y) {{
        seven = Constant<value = int64[1] {{7}}>() zero = Constant<value = int64[3] {{0, 0, 0}}>()
        twenty = Constant<value = int64[1] {{20}}>()
        less = Mod(k, seven) long = Add(less, twenty) pads = Concat<axis = 0>(zero, long)
        y = Pad<mode = "reflect">(x, pads) }}"""
    model = tmp_path / "behind.onnx"
    onnx.save(onnx.parser.parse_model(behind), model)
    assert read_samples(load(model), Settings())[0]["x"].shape == (1, 32)


def test_a_check_uses_it_and_says_where_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = tmp_path / "halved.onnx"
    onnx.save(onnx.parser.parse_model(HALVED), model)
    assert main(["check", str(model), "--target", "tensorrt-rtx"]) == 0
    said = capsys.readouterr().out
    assert "x:1x3x2x2" in said and "reduce --repeats N if" in said
    assert main(["check", str(model), "--target", "tensorrt-rtx", "--shapes", "x:1x3x3x3"]) == 1
    assert "The reference cannot run it, either:" in capsys.readouterr().out


def test_half_precision_is_never_beyond_a_wider_type(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 65504], np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _is_beyond(tmp_path / "a.npy", 3e38)
        assert _is_beyond(tmp_path / "a.npy", 1000.0)
