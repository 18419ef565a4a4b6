"""All node tests of onnx there and back: load, normalise, record, cut every node and every prefix, run.

What cannot be compared, and why, is in `data/roundtrip_skips.txt`; all else of such a model is still
done. A line that begins with `~` is no pattern of names but a part of what ONNX Runtime says.
"""

from __future__ import annotations

import fcntl
import fnmatch
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph, is_random
from bisect_trt.model.load import load
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.references import ort
from bisect_trt.references.recorder import record

SKIPS = Path(__file__).parent / "data" / "roundtrip_skips.txt"
CHUNKS = 12
FEWEST_COMPARED = 1680  # of the 1884 of onnx 1.23 with ONNX Runtime 1.32: the test must not become hollow


@dataclass(frozen=True)
class Case:
    """A node test: its model, and inputs and outputs of each data set."""

    model: ModelProto
    data_sets: Any


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """All node tests by name. onnx takes 5 s to make their values: one process does it for all."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "node-tests.pickle"
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of onnx's own reference values
                made = collect_testcases(None)
            with_models = [(case.name, case.model, case.data_sets) for case in made if case.model is not None]
            found = {name: (model.SerializeToString(), data) for name, model, data in with_models}
            place.write_bytes(pickle.dumps(found))
    found = pickle.loads(place.read_bytes())  # by a process of this run
    return {name: Case(ModelProto.FromString(model), data) for name, (model, data) in found.items()}


@cache
def skips() -> list[tuple[str, str]]:
    """Pattern of names and reason, one a line."""
    lines = [line for line in SKIPS.read_text().splitlines() if line and not line.startswith("#")]
    return [(pattern, reason.strip()) for pattern, _, reason in (line.partition(":") for line in lines)]


def chunk(names: Iterable[str], number: int) -> list[str]:
    """Every CHUNKS-th name: expensive families lie together."""
    return sorted(names)[number::CHUNKS]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(CHUNKS))
def test_node_tests_survive_every_cut(
    number: int, cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a pool of threads for each of 28,000 sessions is slow
    wrong: list[str] = []
    compared = 0
    for name in chunk(cases, number):
        trip = Trip(cases[name], tmp_path / re.sub(r"\W", "_", name))
        skipped = any(fnmatch.fnmatch(name, pattern) for pattern, _ in skips())
        try:
            problems = list(trip.problems())
        except Exception as error:  # so that one run tells of all models
            problems = [f"{type(error).__name__}: {error}"]
        if skipped:
            assert problems, f"{name} is in {SKIPS.name} but has no problem"
            continue
        wrong += [f"{name}: {problem}" for problem in problems]
        if not trip.compared and not any(p[0] == "~" and p[1:] in trip.refused for p, _ in skips()):
            wrong.append(f"{name} is not compared, and nobody says why: {trip.refused}")
        compared += trip.compared
    assert not wrong, f"{len(wrong)} problems:\n" + "\n".join(wrong)
    assert compared >= FEWEST_COMPARED / CHUNKS * 0.9


def test_every_skip_has_a_reason_and_a_model(cases: dict[str, Case]) -> None:
    assert len(skips()) <= 12
    for pattern, reason in skips():
        assert len(reason) > 20
        assert pattern[0] == "~" or fnmatch.filter(cases, pattern), f"{pattern} matches nothing"


class Trip:
    """One model on its way."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.folder = folder
        self.compared = False
        self.refused = ""
        self.arrays: dict[str, Any] = {}

    def problems(self) -> Iterator[str]:
        """What is wrong with the model's recorded values and with its cuts."""
        self.folder.mkdir()
        path = self.folder / "model.onnx"
        path.write_bytes(self.case.model.SerializeToString())
        loaded = load(path)
        proto = normalise(loaded.proto)
        self.store = Store(self.folder / "store")
        self.store.adopt(proto, self.folder)
        self.graph = Graph(proto)
        sample = self.sample()
        feeds = {name: self.store.put(name, value) for name, value in sample.items()}
        self.record = record(proto.SerializeToString(), self.store.folder, [feeds])
        yield from self.against_the_file(path, sample)
        yield from self.cuts()

    def sample(self) -> dict[str, Any]:
        """Input values by name, without those that are no tensors."""
        given, _ = self.case.data_sets[0]
        names = [i.name for i in self.case.model.graph.input]
        arrays = {n: _array(v) for n, v in zip(names, given, strict=False)}
        return {n: a for n, a in arrays.items() if a is not None}

    def against_the_file(self, path: Path, sample: dict[str, Any]) -> Iterator[str]:
        """Whether the normalised model gives what the file gives."""
        if set(sample) != set(self.graph.graph_inputs):
            self.refused = "inputs that are no tensors"  # without them ONNX Runtime dies
            return
        try:
            wanted = ort.run(path.read_bytes(), self.folder, [sample])[0]
        except (ort.OrtError, ValueError) as error:
            self.refused = str(error)
            return
        self.compared = True
        if self.record.error:
            yield f"ONNX Runtime runs the file but not the normalised model: {self.record.error[:300]}"
        for name, value in wanted.items():
            if name in self.record and not self.is_random:
                yield from _differences(f"normalised: {name}", self.recorded(name), value, self.narrow)

    def cuts(self) -> Iterator[str]:
        cutter = Cutter(self.graph, self.store, self.record)
        order = self.graph.order
        seen: set[str] = set()
        selections = [order[:k] for k in range(1, len(order) + 1)] + [(name,) for name in order]
        for selection in selections:
            candidate = cutter.cut(frozenset(selection))
            if candidate.digest not in seen:
                seen.add(candidate.digest)
                what = f"{len(selection)} nodes up to {selection[-1]}"
                yield from (f"{what}: {problem}" for problem in self.check(candidate))

    def check(self, candidate: Candidate) -> Iterator[str]:
        """onnx.checker, then ONNX Runtime against the recorded values."""
        proto = onnx.ModelProto.FromString(candidate.model)
        onnx.load_external_data_for_model(proto, str(candidate.folder))
        try:
            onnx.checker.check_model(proto)
        except onnx.checker.ValidationError as error:
            yield f"checker: {str(error)[:200]}"
        inputs = {i.name for i in proto.graph.input}
        if inputs != set(candidate.feeds[0]) or not candidate.expected[0]:
            return  # ONNX Runtime could not make these values
        values = {name: self.recorded(name) for name in candidate.feeds[0]}
        try:
            got = ort.run(candidate.model, candidate.folder, [values])[0]
        except (ort.OrtError, ValueError) as error:
            if self.compared:
                yield f"ONNX Runtime: {str(error)[:300]}"
            return
        for name in candidate.expected[0] if not self.is_random else ():
            yield from _differences(name, got[name], self.recorded(name), self.narrow)

    def recorded(self, name: str) -> Any:
        if name not in self.arrays:
            self.arrays[name] = self.store.load(self.record.path(0, name), self.record.elem_type(name))
        return self.arrays[name]

    @cached_property
    def is_random(self) -> bool:
        return any(is_random(node) for node in self.graph.nodes.values())

    @cached_property
    def narrow(self) -> bool:
        """Whether 16 bit floats flow: ONNX Runtime skips the rounding between two such nodes."""
        halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
        return any(known.elem_type in halves for known in self.record.tensors.values())


def _array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def _differences(name: str, got: Any, wanted: Any, narrow: bool) -> Iterator[str]:
    if isinstance(got, str) or isinstance(wanted, str):
        return
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        yield f"{name} is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}"
    elif got.tobytes() == wanted.tobytes():
        return
    elif wanted.dtype == object:
        if not np.array_equal(got, wanted):
            yield f"{name} differs"
    else:
        wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
        rtol, atol = (2e-2, 1e-2) if narrow else (1e-5, 1e-6)
        if not np.allclose(got.astype(wide), wanted.astype(wide), rtol=rtol, atol=atol, equal_nan=True):
            yield f"{name} differs"
