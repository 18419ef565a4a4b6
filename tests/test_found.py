"""What was found on real backends (`models/found/`) is small, harmless, and still there on its release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from bisect_trt.environment import first_version
from bisect_trt.outcome import Failure, Symptom, judge
from bisect_trt.outcome import Verdict as V
from bisect_trt.session.check import check
from bisect_trt.settings import Settings, TargetSettings

FOLDER = Path(__file__).parents[1] / "models" / "found"
ROWS: list[dict[str, Any]] = json.loads((FOLDER / "found.json").read_text())
LARGEST = 4096


def test_each_is_small_and_neither_crashes_nor_hangs_anything() -> None:
    assert {f"{row['name']}.onnx" for row in ROWS} == {place.name for place in FOLDER.glob("*.onnx")}
    for row in ROWS:
        assert (FOLDER / f"{row['name']}.onnx").stat().st_size <= LARGEST
        assert Symptom(row["failure"]["symptom"]) in (Symptom.ERROR, Symptom.MISMATCH)
        proto = onnx.load(FOLDER / f"{row['name']}.onnx")
        assert [node.op_type for node in proto.graph.node] == row["operators"]


def test_no_two_are_the_same_failure_of_one_operator() -> None:
    keys = [(*Failure.from_json(row["failure"]).key, *row["operators"]) for row in ROWS]
    assert len(set(keys)) == len(keys)


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["name"]))
def test_it_is_still_there(row: dict[str, Any]) -> None:
    version = first_version("tensorrt-rtx")
    if version not in row["target"]:
        pytest.skip(f"seen on {row['target']}, and {version or 'nothing'} is installed")
    outcome = check(FOLDER / f"{row['name']}.onnx", Settings(TargetSettings("tensorrt-rtx"))).outcome
    assert judge(outcome, Failure.from_json(row["failure"])) is V.REPRODUCES
