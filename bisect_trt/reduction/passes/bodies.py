"""A failure inside the body of an If, Loop or Scan is reduced inside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper

from bisect_trt.model.bodies import has_body, opened
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.outcome import Stage, Verdict
from bisect_trt.reduction.passes.drop import drop, recut
from bisect_trt.reduction.passes.localise import follow_hints, resolve
from bisect_trt.reduction.problem import Problem


def enter_bodies(problem: Problem) -> None:
    """Put what a control flow node runs in its place, where the failure survives that, and reduce it.

    A node by itself is opened first. The reference is run again for the tensors of the body, so that it
    can be cut like any other graph.
    """
    best = problem.best
    while best is not None and best.rest is None and best.form.is_cut and _enter_one(problem, best):
        follow_hints(problem)
        drop(problem)
        recut(problem)
        best = problem.best


def _enter_one(problem: Problem, best: Candidate) -> bool:
    """Open the first control flow node of a candidate that the failure does not need."""
    # What does not run is parsed and built all the same.
    for flat in _flat(best, problem.failure.stage in (Stage.PARSE, Stage.BUILD)):
        store = Store(best.folder)
        graph = Graph(flat)
        if problem.rerecord is None:
            return False
        cutter = Cutter(graph, store, problem.rerecord(flat, best.feeds))
        whole = cutter.cut(frozenset(graph.order), best.form)
        if problem.verdict(whole) is Verdict.REPRODUCES:
            problem.opened(graph, cutter, whole, _blamed(problem, graph, whole))
            return True
    return False


def _flat(best: Candidate, all_branches: bool) -> Iterator[onnx.ModelProto]:
    """Yield the candidate with one control flow node less, each in turn."""
    proto = onnx.load_model_from_string(best.model)
    for name in [node.name for node in proto.graph.node if has_body(node)]:
        known = partial(_is_true, proto, best)
        yield from map(normalise, opened(proto, name, known, all_branches=all_branches))


def _is_true(proto: onnx.ModelProto, best: Candidate, tensor: str) -> bool | None:
    """Return a condition's value in the recorded run; None when a node of the candidate makes it."""
    for weight in proto.graph.initializer:
        if weight.name == tensor:
            return bool(numpy_helper.to_array(weight).any())
    for sample in best.feeds[:1]:
        if tensor in sample:
            return bool(np.load(sample[tensor], allow_pickle=False).any())
    return None


def _blamed(problem: Problem, graph: Graph, whole: Candidate) -> list[str]:
    """Return the nodes that the target names when it sees the opened model."""
    shown = problem.shown_by(whole)
    failures = problem.outcomes[whole.digest].failures
    named = next((f.nodes for f in failures if f.same_as(shown)), ())
    return resolve(graph, named)
