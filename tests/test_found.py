"""What was found on real backends (`models/found/`) is small, harmless, and still there on its release."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import bisect_trt
import openvino_cpu
from bisect_trt.machine.environment import first_version
from bisect_trt.outcome import Failure, Symptom
from bisect_trt.reproducer.verify import Status
from bisect_trt.session.check import check
from bisect_trt.settings import Settings, TargetSettings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import found  # noqa: E402

FOLDER = ROOT / "models" / "found"
ROWS: list[dict[str, Any]] = json.loads((FOLDER / "found.json").read_text())
OTHER: list[dict[str, Any]] = json.loads((FOLDER / found.OTHER / "found.json").read_text())
LARGEST = 4096


@pytest.mark.parametrize(("rows", "folder"), [(ROWS, FOLDER), (OTHER, FOLDER / found.OTHER)])
def test_each_is_small_and_neither_crashes_nor_hangs_anything(
    rows: list[dict[str, Any]], folder: Path
) -> None:
    assert {f"{row['name']}.onnx" for row in rows} == {place.name for place in folder.glob("*.onnx")}
    for row in rows:
        assert (folder / f"{row['name']}.onnx").stat().st_size <= LARGEST
        assert Symptom(row["failure"]["symptom"]) in (Symptom.ERROR, Symptom.MISMATCH, Symptom.NOT_FINITE)
        proto = onnx.load(folder / f"{row['name']}.onnx")
        assert [node.op_type for node in proto.graph.node] == row["operators"]


def test_no_two_are_the_same_failure_of_one_operator() -> None:
    keys = [(*Failure.from_json(row["failure"]).key, *row["operators"]) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_the_table_tells_each() -> None:
    page = (ROOT / "docs" / "found.md").read_text()
    assert page.endswith(found.page(ROWS, OTHER))


def test_first_and_last_release() -> None:
    def told(*states: str) -> str:
        versions = ("1.4.0", "1.10.0", "1.11.0")
        return found.released({"releases": dict(zip(versions, states, strict=True))})

    assert told("same", "other", "same") == "1.4.0 to 1.11.0 (latest)"
    assert told("same", "fine", "fine") == "1.4.0"
    assert told("same", "fine", "same") == "1.4.0 to 1.11.0, not all between (latest)"
    assert told("fine", "same", "fine") == "1.10.0" and told("fine", "fine", "fine") == "none"


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["name"]))
def test_it_is_still_there(row: dict[str, Any], tmp_path: Path) -> None:
    """As `verify` sees it, on the release that is installed."""
    version = first_version("tensorrt-rtx")
    known = row["releases"].get(version)
    if known is None:
        pytest.skip(f"asked of {', '.join(row['releases'])}, and {version or 'nothing'} is installed")
    shutil.copyfile(FOLDER / f"{row['name']}.onnx", tmp_path / "repro.onnx")
    report = {"failure": row["failure"], "settings": {"target": {"spec": "tensorrt-rtx"}, "run": {}}}
    (tmp_path / "report.json").write_text(json.dumps({**report, "compared": {}, "repeats": 1}))
    [seen] = bisect_trt.verify(tmp_path, repeats=1, timeout=120.0)
    assert (seen.status is Status.SAME) == (known == "same"), seen


@pytest.mark.long
@pytest.mark.parametrize("row", OTHER, ids=lambda row: str(row["name"]))
def test_openvino_still_differs(row: dict[str, Any], tmp_path: Path) -> None:
    """With values made up, so without a reproducer's folder."""
    libraries = openvino_cpu.libraries(tmp_path)
    version = first_version("onnxruntime-ep-openvino")
    if version not in row["releases"]:
        pytest.skip(f"asked of {', '.join(row['releases'])}, and {version} is installed")
    place = FOLDER / found.OTHER / f"{row['name']}.onnx"
    seen = check(place, Settings(TargetSettings(openvino_cpu.SPEC, ep_libraries=libraries)))
    assert Failure.from_json(row["failure"]).key in [failure.key for failure in seen.outcome.failures]
