"""Made-up inputs: small pieces at a time, and never more than a machine has room for."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.inputs import generate as module
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.generate import generate
from bisect_trt.session.check import check
from bisect_trt.settings import Settings, TargetSettings


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 31, 1 << 31, 1 << 31], [400_000_000]])
def test_a_huge_input_is_a_wrong_use_and_takes_no_time(shape: list[int], tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    began = time.process_time()
    with pytest.raises(UsageError, match="the input x of shape") as caught:
        check(tmp_path / "m.onnx", Settings(TargetSettings("tensorrt-rtx")))
    assert "--shapes x:" in caught.value.hint
    assert time.process_time() - began < 30  # an array of it would take longer, where it could be made


def test_values_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    item = GraphInput("x", TensorProto.FLOAT16, (3, 5, 7))
    whole = generate([item], 0, {})["x"]
    monkeypatch.setattr(module, "_PIECE", 4)
    np.testing.assert_array_equal(generate([item], 0, {})["x"], whole)
