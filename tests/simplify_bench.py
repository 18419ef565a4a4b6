"""A problem whose target is a Python function: simplification without TensorRT, judged in microseconds.

As in a real probe, ONNX Runtime has to run an edited candidate before the target is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom, Verdict
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.simplify.run import simplify
from bisect_trt.session.prober import Counts
from support import record_all, run

FAILURE = Failure(Stage.BUILD, Symptom.ERROR, "it fails", "it fails")

Fails = Callable[[onnx.ModelProto, list[dict[str, np.ndarray]]], bool]


class FakeProber:
    """What `Problem` needs of a prober."""

    def __init__(self, fails: Fails, seconds: float = 0.001, workers: int = 1) -> None:
        self.fails, self.seconds, self.workers = fails, seconds, workers
        self.counts = Counts()
        self.judge: Any = None
        self.ahead: Any = tuple
        self.cache = None
        self.seen: dict[str, Outcome] = {}
        self.oracle = SimpleNamespace(deadline=10.0)

    def peek(self, candidate: Candidate, run: int = 0) -> Outcome | None:
        return self.seen.get(candidate.digest)

    def observe(self, candidate: Candidate, run: int = 0, target: object = None) -> Outcome:
        self.counts.probes += 1
        self.counts.asked += 1
        self.counts.asked_seconds += self.seconds
        outcome = self.seen[candidate.digest] = self._outcome(candidate)
        return outcome

    def close(self) -> None:
        pass

    def _outcome(self, candidate: Candidate) -> Outcome:
        if candidate.edited and not runs(candidate):
            return Outcome(unresolved="the reference cannot run it")
        proto, samples = loaded(candidate)
        failures = (FAILURE,) if self.fails(proto, samples) else ()
        return Outcome(failures, self.seconds)


def runs(candidate: Candidate) -> bool:
    """Whether ONNX Runtime runs a candidate on all its samples."""
    _, samples = loaded(candidate)
    try:
        for sample in samples:
            run(candidate.model, candidate.folder, sample)
    except Exception:  # ONNX Runtime has no base class of its own
        return False
    return True


def loaded(candidate: Candidate) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """The model with all weights in it, and the input values."""
    proto = onnx.load_model_from_string(candidate.model)
    onnx.load_external_data_for_model(proto, str(candidate.folder))
    return proto, [{name: np.load(path) for name, path in sample.items()} for sample in candidate.feeds]


def problem_of(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], fails: Fails, folder: Path) -> Problem:
    """A problem whose best candidate is the whole model."""
    model = normalise(proto)
    store = Store(folder)
    store.adopt(model, folder)
    graph = Graph(model)
    record = record_all(model, feeds, store)
    prober: Any = FakeProber(fails)
    problem = Problem(graph, Cutter(graph, store, record), prober, FAILURE, lambda step: None)
    assert problem.attempt(problem.cut(graph.order)), "the model does not fail before it is simplified"
    return problem


def simplified(
    proto: onnx.ModelProto, feeds: dict[str, np.ndarray], fails: Fails, folder: Path
) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]], Problem]:
    """What is left of a model, its input values, and the problem."""
    problem = problem_of(proto, feeds, fails, folder)
    simplify(problem)
    assert problem.best is not None and problem.verdicts[problem.best.digest] is Verdict.REPRODUCES
    assert runs(problem.best)
    return (*loaded(problem.best), problem)


def shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of inputs, weights and outputs."""
    found = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    for info in (*proto.graph.input, *proto.graph.output):
        found[info.name] = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    return found


def weight(name: str, shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> onnx.TensorProto:
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return numpy_helper.from_array(values, name)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def value_of(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))


def node(op: str, inputs: list[str], outputs: list[str], name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name or f"the_{op}", **attributes)
