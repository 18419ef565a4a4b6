"""The reference runs as far as a search needs it, and no further."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

import bisect_trt
from bisect_trt.errors import StoppedEarly
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.reduction.passes.localise import close_by
from bisect_trt.references.base import Record, Tensor
from bisect_trt.results import Step
from bisect_trt.session.journal import read
from bisect_trt.session.recording import Recording
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from chains import chain, saved
from support import model, tensor_type

HINT = "planted:node=n21,hint=yes"


def record(*names: str, error: str = "", missing: dict[str, str] | None = None) -> Record:
    tensors = {name: Tensor(1, ((2, 3),), (f"{name}.npy",)) for name in names}
    return Record(Path("store"), 1, tensors, missing or {}, error)


def recording(some: Record, proto: onnx.ModelProto | None = None) -> tuple[Recording, list[str]]:
    """With what it asked of the reference."""
    asked: list[str] = []

    def run(names: list[str] | None) -> Record:
        asked.append("all" if names is None else " ".join(names))
        return record("x", "t0", "t1", "t2") if names is None else some

    graph = Graph(normalise(proto or chain(3)))
    return Recording(graph, record("x"), run), asked


def test_what_was_expected_is_all_that_runs() -> None:
    made, asked = recording(record("x", "t0", "t1"))
    assert "x" in made and made.shape("x") == (2, 3) and asked == []
    assert made.expect({"t1", "t0", "x"}) is made.record
    assert "t1" in made and made.path(0, "t0").name == "t0.npy" and made.elem_type("t1") == 1
    assert asked == ["t0 t1"] and made.samples == 1


def test_anything_else_runs_all_once() -> None:
    made, asked = recording(record("x", "t0"))
    made.expect({"t0"})
    assert made.shape("t2") == (2, 3) and "y" not in made and made.whole() is made.record
    assert made.expect({"t1"}) is made.record and asked == ["t0", "all"]


@pytest.mark.parametrize(
    ("width", "kind", "asked_for"),
    [([2, 3], 1, "all"), ([1 << 14, 1 << 12], 1, "t2"), (["n", 3], 1, "t2"), ([2, 3], 10, "t2")],
)
def test_outputs_are_recorded_with_all_else_where_that_is_little(
    width: list[int | str], kind: int, asked_for: str
) -> None:
    """Not 16-bit floats, which ONNX Runtime rounds where they are recorded, and nothing of unknown size."""
    nodes = [helper.make_node("Neg", [a], [b], b) for a, b in (("x", "t0"), ("t0", "t1"), ("t1", "t2"))]
    proto = model(nodes, [tensor_type("x", width, kind)], [tensor_type("t2", width, kind)])
    made, asked = recording(record("x", "t2"), proto)
    assert "t2" in made.outputs() and asked == [asked_for]


def test_more_may_be_expected_later() -> None:
    made, asked = recording(record("x", "t0"))
    made.expect({"t0"})
    made.expect({"t1"})
    assert asked == ["t0", "t0 t1"]


@pytest.mark.parametrize("broken", [record("x", error="no kernel"), record("x", missing={"t0": "no kernel"})])
def test_a_reference_that_fails_on_the_way_is_run_as_a_whole(broken: Record) -> None:
    made, asked = recording(broken)
    made.expect({"t0"})
    assert made.shape("t0") == (2, 3) and asked == ["t0", "all"]


def test_random_values_are_made_once() -> None:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["t0"]), helper.make_node("Neg", ["t0"], ["t1"])]
    proto = model(nodes, [tensor_type("x", [2, 3])], [tensor_type("t1", [2, 3])])
    made, asked = recording(record("x", "t0"), proto)
    made.expect({"t0"})
    assert "t0" in made and asked == ["all"]


def test_close_by_are_what_is_upstream_and_the_neighbours() -> None:
    graph = Graph(normalise(chain(40)))
    assert close_by(graph, ()) == close_by(graph, ("unknown",)) == frozenset()
    near = close_by(graph, ("n21",))
    assert {"n20", "n21", "n22"} < near and len(near) < 12


def reduced(folder: Path, spec: str, **run: object) -> list[str]:
    """What a reduction told of its reference runs."""
    told: list[Step] = []
    options = {"repeats": 1, "simplify": False} | run
    settings = Settings(TargetSettings(spec), RunSettings(**options))  # type: ignore[arg-type]
    path = folder / "model.onnx"
    bisect_trt.reduce(path, settings, out=folder / "out", on_event=told.append)
    return [step.text for step in told if step.phase == "record"]


@pytest.mark.parametrize(
    ("spec", "whole"),
    [(HINT + ",stage=parse", False), (HINT.replace("n21", "n5"), False), ("planted:node=n9", True)],
)
def test_a_good_hint_needs_no_more_than_what_is_around_it(
    spec: str, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bisect_trt.session.recording.AT_ONCE", 0)  # a model with large tensors
    saved(tmp_path)
    assert ("running the reference" in reduced(tmp_path, spec)) == whole


def test_a_run_that_goes_on_has_the_same_names(tmp_path: Path) -> None:
    """What was recorded for the hint is there again, and so are the answers."""
    saved(tmp_path)
    with pytest.raises(StoppedEarly):
        reduced(tmp_path, HINT, max_probes=1)
    reduced(tmp_path, HINT)
    ended = [e["key"] for e in read(tmp_path / "out" / "journal.jsonl")[0] if e["event"] == "end"]
    assert len(ended) == len(set(ended)) > 1
