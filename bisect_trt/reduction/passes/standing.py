"""Does the best candidate fail by itself, at the tolerance of the user? Where it does not, it grows.

Only the user's tolerance counts for what is handed over, never one that follows from what was seen. An error
that is too small for it where it is made grows on its way to the outputs; the nodes through which it grows
belong to the reproducer, as few as will do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import onnx
from msgspec.structs import replace
from onnx import TensorProto

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.graph import Graph, Selection
from bisect_trt.outcome import Outcome
from bisect_trt.reduction.at_outputs import Hybrid, Passage, in_own_words
from bisect_trt.reduction.passes.drop import minimise
from bisect_trt.reduction.problem import Problem

WAYS = 6  # tensors on the way at which a part may end, the nearest first
COMPARED = 1 << 28  # elements of tensors on the way that are compared in one run


def stand_alone(problem: Problem) -> None:
    """Leave a best candidate that fails at its own outputs, at the user's tolerance of the model's output.

    The words for it change, since its outputs are others than the model's. Where no part of the model fails
    by itself there is no best candidate any more: the whole model is what fails.
    """
    hybrid, best = problem.hybrid, problem.best
    if hybrid is None or best is None or best.rest is None or problem.wanted is None:
        return
    seen = problem.outcomes[best.digest]
    nodes = _way(problem.graph, best.nodes, hybrid.output)
    measured = _measured(problem, hybrid, best, nodes)
    way = tuple(_passages(problem.graph, hybrid, seen, measured, nodes))
    hybrid = replace(hybrid, source=best.nodes, way=way, by_itself=not hybrid.fails_alone(seen))
    problem.compare_at(hybrid)
    if hybrid.by_itself:
        _grow(problem, hybrid, best, measured, nodes)
    if problem.best is not None:
        larger = (problem.cut(some, best.form) for some in _larger(problem, best, measured, nodes))
        narrow = _is_narrow(problem.best)
        _compare_by_itself(problem, hybrid, chain([problem.best], larger if narrow else ()))


def _compare_by_itself(problem: Problem, hybrid: Hybrid, candidates: Iterable[Candidate]) -> None:
    """Compare from now on nothing but a candidate's own outputs; keep the first that fails so."""
    problem.prober.compare(hybrid.own_accuracy, by_itself=True)
    for candidate in candidates:
        bare = _expected_anew(problem, replace(candidate, rest=None))
        for outcome in problem.observations(bare, problem.runs):
            stand_in = in_own_words(problem.failure, outcome)
            if stand_in is not None:
                problem.compare_at(replace(hybrid, stand_in=stand_in))
                problem.verdict(bare)
                problem.keep(bare)
                return
        problem.refuse(candidate)
    problem.keep(None)


def _expected_anew(problem: Problem, bare: Candidate) -> Candidate:
    """Expect what the reference makes of the part by itself, where that may be something else than recorded.

    ONNX Runtime computes 16-bit floats in float32 and rounds what leaves a model: a value that overflows
    between two nodes of the whole model does not, and is Inf where it is recorded and fed to a part.
    """
    if problem.rerecord is None or not _is_narrow(bare):
        return bare
    proto = onnx.load_model_from_string(bare.model)
    record = problem.rerecord(proto, bare.feeds)
    names = tuple(output.name for output in proto.graph.output)
    return bare if record.error else replace(bare, expected=record.values(names))


def _is_narrow(candidate: Candidate) -> bool:
    """Return whether 16-bit floats enter or leave a candidate."""
    graph = onnx.load_model_from_string(candidate.model).graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    return not kinds.isdisjoint((TensorProto.FLOAT16, TensorProto.BFLOAT16))


def _grow(problem: Problem, hybrid: Hybrid, best: Candidate, measured: Outcome, nodes: Selection) -> None:
    """Take nodes along the way until the part fails by itself, then leave out what is not needed."""
    style = best.form
    problem.judge_anew()
    for selection in _larger(problem, best, measured, nodes):
        if problem.attempt(problem.cut(selection, style)):
            if not hybrid.accumulated and problem.best is not None:
                minimise(problem, problem.best)
            return


def _larger(problem: Problem, best: Candidate, measured: Outcome, nodes: Selection) -> Iterator[Selection]:
    """Yield the candidate with the nodes up to a tensor that fails, fewest first; up to the outputs; all."""
    graph, inside = problem.graph, frozenset(best.nodes)
    failing = [t for t in measured.measured.damage if graph.producer.get(t) in nodes]
    ends = {inside | _up_to(graph, nodes, graph.producer[t]) for t in failing}
    yield from sorted(ends, key=lambda some: (len(some), graph.sorted(some)))[:WAYS]
    for more in (inside | nodes, frozenset(problem.scope)):
        if more not in ends:
            yield more


def _measured(problem: Problem, hybrid: Hybrid, best: Candidate, nodes: Selection) -> Outcome:
    """Run the candidate on the target again, with all tensors on the way to the output compared."""
    left, through = COMPARED, []
    for name in problem.graph.sorted(nodes):
        for tensor in problem.graph.outputs_of(name):
            size = hybrid.rests.elements(tensor)
            left -= size
            through += [tensor] if size and left >= 0 else []
    if not through:
        return problem.outcomes[best.digest]
    return problem.observe(hybrid.rests.attach(replace(best, rest=None), through))


def _way(graph: Graph, nodes: tuple[str, ...], output: str) -> Selection:
    """Return the nodes between some nodes and an output of the model; those that make it are among them."""
    last = graph.producer.get(output)
    return _up_to(graph, frozenset(graph.behind(nodes) - {*nodes}), last) if last is not None else frozenset()


def _up_to(graph: Graph, nodes: Selection, last: str) -> Selection:
    """Return those of these nodes that the last one needs, and itself if it is one of them."""
    return nodes & {last, *graph.before(last)}


def _passages(
    graph: Graph, hybrid: Hybrid, seen: Outcome, measured: Outcome, nodes: Selection
) -> Iterator[Passage]:
    """Yield the error before and behind each node on the way."""
    errors: dict[str, float] = {diff["name"]: _error(diff) for diff in hybrid.own(seen)[::-1]}
    errors |= measured.measured.errors  # no share of elements beyond the tolerance: these are no sizes
    for name in graph.sorted(nodes):
        before = max((errors.get(t, 0.0) for t in graph.inputs_of(name)), default=0.0)
        behind = max((errors.get(t, 0.0) for t in graph.outputs_of(name)), default=0.0)
        if before and behind:
            yield Passage(name, graph.node(name).op_type, before, behind)


def _error(diff: Mapping[str, object]) -> float:
    error = float(str(diff["rms_error"]))
    return error if math.isfinite(error) else 1.0
