"""Failures inside If, Loop and Scan, with values captured from outside, nested twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from making import (
    ANTIALIAS,
    BOOL,
    INT64,
    SCALES,
    bad_resize,
    chain,
    const,
    graph,
    model,
    node,
    reduced,
    value,
)

FIVE = ["Relu", "Sigmoid", "Abs", "Neg", "Tanh"]


def branch_model(*, nested: bool, fails_in: str = "then") -> onnx.ModelProto:
    """x -> ... -> If(sum > 0: the failing Resize, else another) -> ...; `nested` puts it into a second If."""
    head, x = chain("h", "x", ["Relu", "Sigmoid"])
    inner, last = chain("i", x, ["Abs", "Neg"])  # captures x
    bad_nodes = [*inner, bad_resize(last, "bz"), node("Exp", "bz", "bo", "exp")]
    bad = graph(bad_nodes, [], [value("bo", None)], name="bad")
    good_nodes = [node("Resize", f"{x} _ scales", "go", "good", mode="nearest")]
    good = graph(good_nodes, [], [value("go", None)], name="good")
    if nested:
        also = graph([node("Resize", f"{x} _ scales", "ao", "also")], [], [value("ao", None)], name="also")
        branches = {"then_branch": bad, "else_branch": also}
        nodes = [node("If", "cond", "no", "inner_if", **branches), node("Neg", "no", "out", "neg")]
        bad = graph(nodes, [], [value("out", None)], name="outer")
    test = [node("ReduceSum", x, "s", "sum", keepdims=0), node("Greater", "s zero", "cond", "greater")]
    branches = {"then_branch": bad, "else_branch": good}
    if fails_in != "then":
        branches = {"then_branch": good, "else_branch": bad}
    if fails_in == "else":
        test[1] = node("Less", "s zero", "cond", "less")
    tail, y = chain("t", "mid", FIVE)
    nodes = [*head, *test, node("If", "cond", "mid", "the_if", **branches), *tail]
    return model(graph(nodes, [value("x")], [value(y, (1, 2, 4, 4))], [SCALES, const("zero", 0.0)]))


def loop_model(trips: int) -> onnx.ModelProto:
    """A Loop whose body captures a tensor and weights, halves in the way that fails, and doubles again."""
    head, x = chain("h", "x", ["Relu", "Sigmoid"])
    body = graph(
        [
            node("Identity", "ci", "co", "keep_on"),
            node("Abs", "vi", "v1", "abs"),
            bad_resize("v1", "v2"),
            node("Resize", "v2 _ up", "v3", "up"),
            node("Add", f"v3 {x}", "vo", "add"),
            node("Identity", "v3", "all", "collect"),
        ],
        [value("it", (), INT64), value("ci", (), BOOL), value("vi")],
        [value("co", (), BOOL), value("vo"), value("all", (1, 2, 8, 8))],
        name="body",
    )
    tail, y = chain("t", "mid", FIVE)
    nodes = [*head, node("Loop", f"trip yes {x}", "mid every", "the_loop", body=body), *tail]
    weights = [SCALES, const("up", [1, 1, 2, 2]), const("yes", True, bool), const("trip", trips, np.int64)]
    return model(graph(nodes, [value("x")], [value(y), value("every", (trips, 1, 2, 8, 8))], weights))


def scan_model() -> onnx.ModelProto:
    head, x = chain("h", "x", ["Relu", "Sigmoid"])
    body = graph(
        [
            node("Unsqueeze", "row ax", "v1", "wrap"),
            bad_resize("v1", "v2"),
            node("Resize", "v2 _ up", "v3", "up"),
            node("Squeeze", "v3 ax", "v4", "unwrap"),
            node("Add", "state v4", "next", "add"),
            node("Identity", "next", "out", "collect"),
        ],
        [value("state", (2, 8, 8)), value("row", (2, 8, 8))],
        [value("next", (2, 8, 8)), value("out", (2, 8, 8))],
        name="body",
    )
    tail, y = chain("t", "mid", FIVE)
    scan = node("Scan", f"s0 {x}", "final mid", "the_scan", body=body, num_scan_inputs=1)
    nodes = [*head, node("Squeeze", f"{x} ax", "s0", "first"), scan, *tail]
    weights = [SCALES, const("up", [1, 1, 2, 2]), const("ax", [0], np.int64)]
    return model(graph(nodes, [value("x")], [value(y), value("final", (2, 8, 8))], weights))


@pytest.mark.parametrize(
    "made",
    [
        branch_model(nested=False),
        branch_model(nested=True),
        branch_model(nested=False, fails_in="else"),
        branch_model(nested=False, fails_in="not taken"),
        loop_model(1),
        loop_model(3),
        scan_model(),
    ],
    ids=["if", "if in if", "else", "not taken", "loop once", "loop thrice", "scan"],
)
def test_a_failure_inside_a_body_is_reduced_inside_it(made: onnx.ModelProto, tmp_path: Path) -> None:
    result = reduced(made, tmp_path)
    proto = onnx.load(tmp_path / "out" / "repro.onnx")
    assert [n.op_type for n in proto.graph.node] == ["Resize"]
    assert ANTIALIAS in result.wanted.message
    assert result.verified == 1 and result.one_minimal


def test_an_overflow_inside_a_branch_is_found_inside_it(tmp_path: Path) -> None:
    inner = [node("Relu", "x", "b0", "relu"), node("Mul", "b0 big", "b1", "up")]
    inner.append(node("Mul", "b1 small", "b2", "down"))
    bad = graph(inner, [], [value("b2", None)], name="bad")
    good = graph([node("Neg", "x", "g", "neg")], [], [value("g", None)], name="good")
    test = [node("ReduceMax", "x", "s", "max", keepdims=0), node("Greater", "s zero", "cond", "greater")]
    branches = {"then_branch": bad, "else_branch": good}
    nodes = [*test, node("If", "cond", "mid", "the_if", **branches), node("Tanh", "mid", "y", "tanh")]
    weights = [const("zero", 0.0), const("big", 1e6), const("small", 1e-6)]
    result = reduced(model(graph(nodes, [value("x")], [value("y")], weights)), tmp_path, "emulate:fp16")
    assert {n.op_type for n in onnx.load(tmp_path / "out" / "repro.onnx").graph.node} == {"Mul"}
    assert result.verified == 1


def test_a_failure_of_the_control_flow_itself_keeps_it(tmp_path: Path) -> None:
    result = reduced(loop_model(3), tmp_path, "planted:op=Loop,fail=error,stage=build")
    assert [n.op_type for n in onnx.load(tmp_path / "out" / "repro.onnx").graph.node] == ["Loop"]
    assert result.verified == 1
