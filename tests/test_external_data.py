"""A model with external data: it loads in every program meanwhile, and all options take it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.session.check import check
from bisect_trt.settings import AccuracySettings, Settings, TargetSettings

REFERENCE = """import os, onnx
from onnx.reference import ReferenceEvaluator
def run(inputs):
    model = onnx.load(os.path.join(os.path.dirname(__file__), "m.onnx"))
    return {"y": ReferenceEvaluator(model).run(None, inputs)[0]}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weight = (np.random.default_rng(0).standard_normal((64, 64)) / 8).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], "mm"), helper.make_node("Tanh", ["a"], ["y"], "t")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "m.onnx"
    onnx.save(made, path, save_as_external_data=True, location="m.data", size_threshold=100)
    return path


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_reads_external_weights(model: Path, precision: str) -> None:
    settings = Settings(TargetSettings("tensorrt-rtx", precision=precision))
    assert not check(model, settings).outcome.failures


def test_a_python_reference_loads_the_file_itself(model: Path) -> None:
    (model.parent / "mine.py").write_text(REFERENCE)
    accuracy = AccuracySettings(reference=f"python:{model.parent / 'mine.py'}:run")
    found = check(model, Settings(TargetSettings("emulate:fp16"), accuracy=accuracy))
    assert not found.outcome.failures
    assert any("agrees" in note for note in found.notes)


def test_the_model_loads_everywhere_while_it_is_reduced_and_after_a_kill(model: Path) -> None:
    slow = f"command:{sys.executable} -c 'import time; time.sleep(60)' {{model}}"
    line = [sys.executable, "-c", "from bisect_trt.cli import main; raise SystemExit(main())"]
    out = model.parent / "out"
    run = subprocess.Popen([*line, "reduce", str(model), "--target", slow, "--out", str(out)])
    try:
        end = time.monotonic() + 60
        while not list(out.glob("work/ext*m.data")) and time.monotonic() < end:
            time.sleep(0.05)
        onnx.load(model)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert list(out.glob("work/ext*m.data"))
    onnx.load(model)
    assert (model.parent / "m.data").stat().st_nlink == 1
