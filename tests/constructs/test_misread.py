"""Parsers that take a model and make something else of it: seen in the parsed network, without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import const, graph, model, node, reduced, value
from onnx import TensorProto

import bisect_trt
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Stage, Symptom
from bisect_trt.reproducer.verify import Status
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.workers.network_outputs import wrong_outputs

RTX = Settings(TargetSettings("tensorrt-rtx"))


def pooled() -> onnx.ModelProto:
    """A window that begins in the padding behind the data: ONNX Runtime has 2 rows, the parser 3."""
    pool = node(
        "MaxPool", "a", "p", "pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, pads=[0, 0, 1, 1]
    )
    nodes = [node("Relu", "x", "a", "relu"), pool, node("Tanh", "p", "y", "tanh")]
    return model(graph(nodes, [value("x", (1, 1, 4, 4))], [value("y", (1, 1, 2, 2))]))


def batch_first() -> onnx.ModelProto:
    """An LSTM with layout=1, which ONNX Runtime's CPU provider does not run: ONNX's inference tells."""
    weights = [const("w", np.full((1, 20, 4), 0.1)), const("r", np.full((1, 20, 5), 0.1))]
    nodes = [
        node("Relu", "x", "a", "relu"),
        node("LSTM", "a w r", "s", "lstm", hidden_size=5, layout=1),
        node("Tanh", "s", "y", "tanh"),
    ]
    return model(graph(nodes, [value("x", (2, 3, 4))], [value("y", (2, 3, 1, 5))], weights))


@pytest.mark.parametrize(("made", "op"), [(pooled, "MaxPool"), (batch_first, "LSTM")])
def test_a_shape_that_the_parser_gets_wrong_is_reduced_to_its_node(made, op: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = reduced(made(), tmp_path)
    assert (result.wanted.stage, result.wanted.symptom) == (Stage.PARSE, Symptom.MISMATCH)
    assert [n.op_type for n in onnx.load(result.out / "repro.onnx").graph.node] == [op]
    done = subprocess.run([sys.executable, result.out / "repro.py"], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "of the network has shape" in done.stdout
    [checked] = bisect_trt.verify(result.out)
    assert checked.status is Status.SAME


def test_declared_shapes_of_the_user_do_not_accuse(tmp_path: Path) -> None:
    """The file declares 7 columns, ONNX Runtime and the network have 3."""
    wrong = model(graph([node("Relu", "x", "y", "relu")], [value("x", (2, 3))], [value("y", (2, 7))]))
    onnx.save(wrong, tmp_path / "m.onnx")
    assert not bisect_trt.check(tmp_path / "m.onnx", RTX).outcome.failures


def test_types_that_tensorrt_narrows_by_documentation_are_no_failure(tmp_path: Path) -> None:
    kind = TensorProto.DOUBLE
    made = model(graph([node("Relu", "x", "y", "r")], [value("x", (2,), kind)], [value("y", (2,), kind)]))
    onnx.save(made, tmp_path / "m.onnx")
    assert not bisect_trt.check(tmp_path / "m.onnx", RTX).outcome.failures


DIMS = st.lists(st.integers(1, 4), max_size=3)


@given(real=DIMS, made=DIMS, unknown=st.booleans(), kind=st.sampled_from(["FLOAT", "HALF", "INT32", "FP8"]))
def test_only_what_is_known_to_differ_is_a_failure(
    real: list[int], made: list[int], unknown: bool, kind: str
) -> None:
    proto = model(graph([node("Relu", "x", "y", "r")], [value("x", tuple(real))], [value("y", tuple(real))]))
    candidate = Candidate(proto.SerializeToString(), Path(), ("r",))
    shape = [-1] * len(made) if unknown else made
    found = wrong_outputs(candidate, [("y", kind, shape)], (), lambda: (), types=True)
    other_shape = len(real) != len(made) if unknown else real != made
    assert [f.signature.split("has ")[1][:5] for f in found] == ["shape"] * other_shape + ["type "] * (
        kind in ("HALF", "INT32")
    )
