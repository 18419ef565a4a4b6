"""Ending early, the cache between runs, several workers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import onnx
import pytest

import bisect_trt
from bisect_trt.errors import ClusterLost, StoppedEarly, UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.options import kinds
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom
from bisect_trt.reduction.simplify.run import LEAST_BUDGET
from bisect_trt.results import Reduction
from bisect_trt.session.cache import Cache
from bisect_trt.session.journal import read
from bisect_trt.session.oracle import Oracle
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.workers.pool import Task
from chains import saved

SPEC = "planted:nodes=n5;n21;n22,cost=0.0005"
SAME = ("repro.onnx", "inputs.npz", "expected.npz", "repro.py", "passing.onnx")


def reduced(model: Path, out: Path, spec: str = SPEC, **run: object) -> Reduction:
    settings = Settings(TargetSettings(spec), RunSettings(**{"repeats": 1, "simplify": False} | run))  # type: ignore[arg-type]
    return bisect_trt.reduce(model, settings, out=out)


def probes(out: Path) -> list[str]:
    return [e["key"] for e in read(out / "journal.jsonl")[0] if e["event"] == "end"]


def test_max_probes_ends_early_and_the_same_call_goes_on(tmp_path: Path) -> None:
    """Wherever it ends: simplification takes longer here than what it has when it starts from nothing."""
    model, spec, out = saved(tmp_path), SPEC.replace("0.0005", "0.005"), tmp_path / "some" / "out"
    whole = reduced(model, tmp_path / "whole" / "out", spec, simplify=True)
    assert whole.simplification and whole.simplification.seconds > LEAST_BUDGET
    with pytest.raises(StoppedEarly, match="--max-probes 2 reached before anything smaller"):
        reduced(model, out, spec, simplify=True, max_probes=2)
    assert len(probes(out)) == 2
    result, calls = reduced(model, out, spec, simplify=True, max_probes=20), 0
    assert not result.finished and result.stop_reason == "--max-probes 20 reached"
    assert (result.verified, result.one_minimal) == (1, False)
    assert 3 < len(result.best.nodes) < 40 and (result.out / "repro.onnx").exists()
    while not result.one_minimal:
        before = len(probes(result.out))
        result, calls = reduced(model, out, spec, simplify=True, max_probes=14), calls + 1
        assert len(probes(result.out)) <= before + 14
    assert calls < 8 and not result.finished, "its simplification was cut short"
    (out / ".writing-1").mkdir()
    for name in ("actual.npz", "inputs-1.npz", "repro.data"):
        (out / name).touch()  # of a larger result
    result = reduced(model, out, spec, simplify=True)
    assert result.finished
    assert probes(out) == probes(whole.out)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.out.iterdir()}
    for name in SAME:
        assert (out / name).read_bytes() == (whole.out / name).read_bytes(), name
    said = [e["event"] for e in read(out / "journal.jsonl")[0]]
    assert said.count("deadline") == 1, "that of the first probe holds"


@pytest.mark.parametrize("probes_before", [22, 45])
def test_a_lost_cluster_leaves_the_best_so_far(
    probes_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the search, and while it is made simple: not verified, and the same call goes on."""
    model, out = saved(tmp_path), tmp_path / "some" / "out"
    whole = reduced(model, tmp_path / "whole" / "out", SPEC, simplify=True)
    outcome, seen = Oracle.outcome, []

    def lost(oracle: Oracle, task: Task, *, guessed: bool = False) -> Outcome:
        seen.append(task)
        if len(seen) > probes_before:
            raise ClusterLost("the cluster has had no node for work for 60 s")
        return outcome(oracle, task, guessed=guessed)

    monkeypatch.setattr(Oracle, "outcome", lost)
    result = reduced(model, out, SPEC, simplify=True)
    assert not result.finished and "no node for work" in result.stop_reason
    assert result.verified == 0 and len(result.best.nodes) < 40
    assert (len(result.best.nodes) == 3) == (probes_before > 30)
    onnx.checker.check_model(str(out / "repro.onnx"))
    monkeypatch.undo()
    result = reduced(model, out, SPEC, simplify=True)
    assert result.finished and result.verified
    for name in SAME:
        assert (out / name).read_bytes() == (whole.out / name).read_bytes(), name


def test_the_budget_cuts_a_probe_short(tmp_path: Path) -> None:
    model = saved(tmp_path)
    began = time.monotonic()
    with pytest.raises(StoppedEarly, match="--budget used up") as error:
        reduced(model, tmp_path / "out", "planted:node=n5,cost=3", budget=5.0)  # 120 s for the model
    assert time.monotonic() - began < 60
    assert "gets no farther: give it more" in error.value.hint
    again = reduced(model, tmp_path / "out2", "planted:node=n5,cost=0.0001", budget=600.0)
    assert again.finished


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("2h", 7200), ("1h30m", 5400), ("45", 45), ("0.5h", 1800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert kinds.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "3x", "-5s", "0", "1m2h", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        kinds.duration(text)


def test_another_run_finds_everything_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    model, moved = saved(tmp_path), saved(tmp_path / "elsewhere")
    first = reduced(model, tmp_path / "one", cache_dir=tmp_path / "cache")
    second = reduced(moved, tmp_path / "two", cache_dir=tmp_path / "cache")
    assert first.counts["probes"] > 10 and first.counts["shared"] == 0
    assert (second.counts["probes"], second.counts["shared"]) == (0, first.counts["probes"])
    for name in SAME:
        assert (first.out / name).read_bytes() == (second.out / name).read_bytes()
    other = reduced(model, tmp_path / "three", "planted:node=n5", cache_dir=tmp_path / "cache")
    assert other.counts["shared"] == 0, "another target"
    seeded = reduced(model, tmp_path / "four", cache_dir=tmp_path / "cache", seed=1)
    assert seeded.counts["shared"] <= 6 < seeded.counts["probes"], "other feeds, but for the last nodes"


def test_outputs_that_are_to_be_saved_are_made_in_spite_of_the_cache(tmp_path: Path) -> None:
    model, spec = saved(tmp_path), "planted:node=n30,fail=mismatch"
    for name in ("one", "two"):
        saves = {"cache_dir": tmp_path / "cache", "save_outputs": tmp_path / name / "outputs"}
        result = reduced(model, tmp_path / name / "out", spec, **saves)
        assert (tmp_path / name / "outputs" / "target.npz").exists()
    counts = result.counts
    assert counts["probes"] <= 3, "only the whole model, whose outputs are to be saved"
    assert counts["shared"] == counts["asked"] - counts["probes"] > 3


def candidate(folder: Path, name: str = "a", content: bytes = b"1") -> Candidate:
    (folder / f"{name}.npy").write_bytes(content)
    return Candidate(b"", folder, ("n",), ({"x": folder / f"{name}.npy"},))


def test_keys_are_contents_and_not_places(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", "target 1")
    seen = Outcome((Failure(Stage.PARSE, Symptom.ERROR, "s", "m"),), 0.5)
    cache.put(candidate(tmp_path), 0, seen)
    assert cache.get(candidate(tmp_path, "b")) == seen
    assert cache.get(candidate(tmp_path), 1) is None
    assert cache.get(candidate(tmp_path, "c", b"2")) is None
    assert Cache(tmp_path / "cache", "target 2").get(candidate(tmp_path)) is None


@pytest.mark.parametrize("symptom", [Symptom.CRASH, Symptom.HANG, Symptom.OUT_OF_MEMORY])
def test_what_may_be_the_machines_fault_is_not_kept(symptom: Symptom, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", "target")
    cache.put(candidate(tmp_path), 0, Outcome((Failure(Stage.BUILD, symptom, "s", "m"),)))
    cache.put(candidate(tmp_path), 1, Outcome(unresolved="the reference cannot run it"))
    assert cache.get(candidate(tmp_path)) is None and cache.get(candidate(tmp_path), 1) is None


def test_the_oldest_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", "target", limit=10 * 4096)
    for run in range(10):
        cache.put(candidate(tmp_path), run, Outcome())
    files = sorted((tmp_path / "cache").glob("??/*.json"), key=lambda p: p.stat().st_mtime_ns)
    for k, file in enumerate(files):
        os.utime(file, (k, k))
    assert cache.get(candidate(tmp_path)) is not None  # used just now
    cache.put(candidate(tmp_path), 10, Outcome())
    cache.trim()
    left = set((tmp_path / "cache").glob("??/*.json"))
    assert len(left) <= 9 and cache.get(candidate(tmp_path)) is not None
    assert cache.get(candidate(tmp_path), 10) is not None


def test_a_broken_entry_is_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", "target")
    cache.put(candidate(tmp_path), 0, Outcome())
    (entry,) = (tmp_path / "cache").glob("??/*.json")
    whole = entry.read_text()
    assert cache.get(candidate(tmp_path)) == Outcome()
    for broken in ("", "{", "[]", json.dumps({"failures": [{}]}), whole[:-1], whole.replace("0.0", "1.0")):
        entry.write_text(broken)
        assert cache.get(candidate(tmp_path)) is None
    entry.write_bytes(b"\xff\x00")
    assert cache.get(candidate(tmp_path)) is None


def test_files_of_others_stay_where_they_are(tmp_path: Path) -> None:
    """Whoever gives a folder that holds other things, too."""
    cache = Cache(tmp_path / "cache", "target", limit=0)
    (tmp_path / "cache" / "en").mkdir()
    (tmp_path / "cache" / "en" / "thesis.json").write_text("years of work")
    cache.put(candidate(tmp_path), 0, Outcome())
    cache.trim()
    assert [path.name for path in (tmp_path / "cache").glob("??/*")] == ["thesis.json"]


def test_a_cache_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--cache-dir"):
        Cache(tmp_path / "file" / "cache", "target")


@pytest.mark.parametrize(
    "spec", [SPEC, "planted:node=n30,fail=mismatch", "planted:pair=Sigmoid>Tanh,fail=nan"]
)
def test_the_number_of_workers_changes_no_byte(spec: str, tmp_path: Path) -> None:
    model = saved(tmp_path)
    one = reduced(model, tmp_path / "one" / "out", spec)
    two = reduced(model, tmp_path / "two" / "out", spec, workers=2)
    for name in SAME:
        assert (one.out / name).exists() == (two.out / name).exists()
        if (one.out / name).exists():
            assert (one.out / name).read_bytes() == (two.out / name).read_bytes(), name
    assert {f.key for f in one.also_seen} == {f.key for f in two.also_seen}
    assert two.counts["ahead"] > 0 == one.counts["ahead"]
    assert two.counts["probes"] == one.counts["probes"]
