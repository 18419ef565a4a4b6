"""Models of kinds that nobody tuned anything to: rounding is not accused, and a wrong operator is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace

import unusual_models as models
from accuracy_cases import Builder
from bisect_trt.accuracy.tolerance import differences, only_for, precision_rtol
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.outcome import Symptom
from bisect_trt.references import ort
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.targets.registry import open_target
from bisect_trt.workers import rounding

Change = Callable[[onnx.ModelProto], onnx.ModelProto]


def said(made: models.Made, spec: str, folder: Path, change: Change = lambda proto: proto) -> dict[str, Any]:
    """What is said of a model on a target that computes another one; empty where the outputs agree."""
    proto, feeds = made
    proto = normalise(proto)
    store = Store(folder)
    given = {name: store.put(name, value) for name, value in feeds.items()}
    names = tuple(node.name for node in proto.graph.node)
    candidate = Candidate(proto.SerializeToString(), folder, names, (given,))
    expected: Any = ort.run(candidate.model, folder, [feeds])
    settings = TargetSettings(spec)
    target, accuracy, least = (
        open_target(settings),
        only_for(AccuracySettings(), ""),
        precision_rtol(settings),
    )

    def run(other: Candidate) -> Any:
        changed = change(onnx.load_model_from_string(other.model))
        return target.run(replace(other, content=changed.SerializeToString())).outputs

    outputs = run(candidate)
    assert outputs is not None
    worst = differences(expected, outputs, accuracy, least)[0]
    if worst.ok or worst.symptom is not Symptom.MISMATCH:
        return {} if worst.ok else {"explained": False}
    return rounding.explain(settings, candidate, accuracy, least, expected, outputs, run)


@pytest.mark.parametrize("case", models.UNUSUAL, ids=lambda case: case.name)
def test_rounding_is_not_accused(case: models.Unusual, tmp_path: Path) -> None:
    found = said(case.make(), case.rounds, tmp_path)
    assert not found or found.get("explained"), found


@pytest.mark.parametrize("case", models.UNUSUAL, ids=lambda case: case.name)
def test_a_wrong_operator_is_accused(case: models.Unusual, tmp_path: Path) -> None:
    """Also where what rounding does to the outputs would be enough to explain them."""
    found = said(case.make(), case.faulty, tmp_path, case.fault.put_into)
    assert found and found.get("explained") is False, found


@pytest.mark.parametrize("name", ["diffusion block", "detection head", "log-sum-exp", "constant rows", "If"])
def test_a_fault_is_not_excused_by_an_ill_conditioned_model(name: str, tmp_path: Path) -> None:
    """In FP16 rounding alone explains outputs that are off by so much; the step that is wrong is told."""
    case = next(case for case in models.UNUSUAL if case.name == name)
    spec = "emulate:bf16" if name == "detection head" else "emulate:fp16"
    found = said(case.make(), spec, tmp_path, case.fault.put_into)
    ops = {node.name: node.op_type for node in normalise(case.make()[0]).graph.node}
    assert found["explained"] is False and {ops[node] for node in found["beyond"]} == {case.fault.op}


def test_a_mask_that_overflows_is_no_fault(tmp_path: Path) -> None:
    """-1e9 becomes -Inf in FP16, and a Softmax makes 0 of both: what cancels behind it is told instead."""
    b = Builder()
    keep = b.weight(np.tril(np.ones((8, 8), bool)), bool)
    scores = b.node("Where", keep, "x", b.weight(-1e9))
    up = b.node("Add", b.node("Softmax", scores, axis=-1), b.weight(4096.0))
    proto = b.done({"x": [8, 8]}, b.node("Sub", up, b.weight(4096.0), name="lower"))
    found = said((proto, {"x": models.floats(0, 8, 8)}), "emulate:fp16", tmp_path)
    assert found["explained"] and "overflows" not in found and found["steps"][0]["node"] == "lower"
    wrong = said(
        (proto, {"x": models.floats(0, 8, 8)}),
        "emulate:tf32",
        tmp_path,
        models.Fault("Softmax", scale=1.2).put_into,
    )
    assert wrong["explained"] is False


def test_what_a_body_does_is_not_judged(tmp_path: Path) -> None:
    """A chaotic map in a Loop: its output is anything, and nobody looked inside."""
    proto, feeds = models.loop()
    del proto.graph.node[0]
    proto.graph.node[0].input[2] = "x"
    start = {"x": (1 / (1 + np.exp(-feeds["x"]))).astype(np.float16).astype(np.float32)}
    assert "body of loop (Loop)" in said((proto, start), "emulate:fp16", tmp_path)["unknown"]
