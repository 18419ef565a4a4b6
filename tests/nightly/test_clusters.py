"""One bug in many models is one entry; shapes of graphs do not see names, sizes or order."""

from __future__ import annotations

import random

import onnx
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict
from onnx import TensorProto, helper

from bisect_trt.nightly import same_bugs
from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.plan import reduce_order
from bisect_trt.nightly.verdicts import Result, Status


def row(model: str, signature: str, shape: str = "", status: Status = Status.NEW, **more: object) -> Row:
    news = status in (Status.NEW, Status.CHANGED)
    plain = Row(1, model, "t", "s", stage="build", symptom="error", signature=signature, shape=shape)
    values = {**asdict(plain), "status": status, "news": news, "result": Result.FAIL, **more}
    return Row(**values)  # type: ignore[arg-type]


def test_one_bug_in_37_models_is_one_entry() -> None:
    rows = [
        row(f"m{k}", "one", "A#1" if k % 2 else "", repro="r" if k % 2 else "", repro_nodes=9 - k)
        for k in range(37)
    ]
    (one,) = same_bugs.find(rows)
    assert len(one.rows) == 37 and one.shape == "A#1" and one.new
    assert one.first.repro and one.first.repro_nodes == min(r.repro_nodes for r in rows if r.repro)


def test_signature_and_shape_both_count() -> None:
    rows = [row("a", "one", "A#1"), row("b", "one", "B#2"), row("c", "two", "A#1"), row("d", "one")]
    found = same_bugs.find(rows)
    assert sorted(tuple(sorted(r.model for r in c.rows)) for c in found) == [("a", "d"), ("b",), ("c",)]
    assert len({c.id for c in found}) == 3
    assert {c.id for c in same_bugs.find(reversed(rows))} == {c.id for c in found}


def test_known_bug_in_a_new_model_is_not_new() -> None:
    known, new = row("a", "one", status=Status.KNOWN), row("b", "two")
    found = same_bugs.find([known, row("c", "one"), new])
    assert [(c.key[2], c.new) for c in found] == [("two", True), ("one", False)], "new ones first"


def test_what_does_not_fail_is_in_none() -> None:
    rows = [row("a", "one", status=s) for s in (Status.FIXED, Status.PASSING, Status.NOT_RUN)]
    assert same_bugs.find(rows) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Status.NEW, Status.CHANGED, Status.KNOWN, Status.FLAKY]),
            st.sampled_from("abc"),
            st.integers(0, 9),
        ),
        max_size=12,
    )
)
def test_reduction_order(data: list[tuple[Status, str, int]]) -> None:
    rows = [row(f"m{k}", key, status=s, check_seconds=c) for k, (s, key, c) in enumerate(data)]
    ordered = reduce_order(rows)
    assert sorted(r.model for r in ordered) == sorted(r.model for r in rows)
    ranks = {Status.NEW: 0, Status.CHANGED: 0, Status.FLAKY: 1, Status.KNOWN: 2}
    assert [ranks[r.status] for r in ordered] == sorted(ranks[r.status] for r in rows)
    fresh = [r for r in ordered if ranks[r.status] == 0]
    kinds = len({r.signature for r in fresh})
    assert len({r.signature for r in fresh[:kinds]}) == kinds, "each bug once before any twice"
    for part in (fresh[:kinds], fresh[kinds:]):
        assert [r.check_seconds for r in part] == sorted(r.check_seconds for r in part)


def graph(edges: list[tuple[str, list[str], list[str]]], seed: int = 0, size: int = 4) -> onnx.GraphProto:
    """Nodes `op, inputs, outputs`; a seed gives other names and another order."""
    dice = random.Random(seed)
    names: dict[str, str] = {}
    for _, inputs, outputs in edges:
        for name in (*inputs, *outputs):
            names.setdefault(name, f"{name}_{dice.randrange(10**6)}" if seed and name else name)
    nodes = [
        helper.make_node(op, [names[i] for i in ins], [names[o] for o in outs]) for op, ins, outs in edges
    ]
    if seed:
        nodes[:2] = nodes[1::-1]  # the first two do not depend on each other
    return helper.make_graph(
        nodes, f"g{seed}", [helper.make_tensor_value_info(names["x"], TensorProto.FLOAT, [size])], []
    )


BASE = [("Relu", ["x"], ["a"]), ("Abs", ["x"], ["b"]), ("Sub", ["a", "b"], ["c"]), ("Relu", ["c"], ["d"])]


@given(st.integers(1, 10**6), st.integers(1, 100))
def test_shape_does_not_see_names_sizes_order(seed: int, size: int) -> None:
    plain = same_bugs.of(graph(BASE))
    assert plain.startswith("Abs+2xRelu+Sub#")
    assert same_bugs.of(graph(BASE, seed, size)) == plain


def test_shape_sees_ops_edges_and_slots() -> None:
    others = [
        BASE[:3],
        [*BASE[:3], ("Abs", ["c"], ["d"])],
        [*BASE[:2], ("Sub", ["b", "a"], ["c"]), BASE[3]],
        [*BASE[:2], ("Sub", ["a", "a"], ["c"]), BASE[3]],
        [*BASE[:3], ("Relu", ["b"], ["d"])],
    ]
    assert len({same_bugs.of(graph(g)) for g in (BASE, *others)}) == 6


def test_shape_of_many_ops_is_short() -> None:
    many = [(op, ["x"], [op]) for op in ("Abs", "Relu", "Neg", "Sin", "Cos", "Tan", "Exp", "Log")]
    assert "+2 more#" in same_bugs.of(graph(many))
