"""Parts that fail among many: found in few builds, and never in the way of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.cutting.segments import Segment
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.scanning.groups import BYTES, NODES, Isolation, plan

EMPTY = Candidate(b"", Path(), ())


def part(name: str, op: str = "Relu", size: int = 1) -> Segment:
    return Segment((name,), op, EMPTY, size)


def failure(*names: str, stage: Stage = Stage.BUILD, symptom: Symptom = Symptom.ERROR) -> Failure:
    return Failure(stage, symptom, "no", f"no {' '.join(names)}", names)


class Builder:
    """Builds groups; those that hold a bad part fail as `tell` says. Remembers what it measured."""

    def __init__(self, bad: set[str], tell: Callable[[list[str]], list[Failure]]) -> None:
        self.bad, self.tell = bad, tell
        self.measured: set[str] = set()
        self.groups: list[int] = []

    def __call__(self, group: Sequence[Segment]) -> Sequence[Failure]:
        assert group
        self.groups.append(len(group))
        names = [p.nodes[0] for p in group]
        wrong = [n for n in names if n in self.bad]
        if wrong:
            return self.tell(wrong)
        self.measured.update(names)
        return []


def nobody(names: list[str]) -> list[Failure]:
    return [failure()]


def isolate(parts: list[Segment], builder: Builder, most: int) -> Isolation:
    isolation = Isolation(builder, most)
    isolation.run(parts)
    assert isolation.builds <= most
    # Every part was either measured or is told about.
    told = set(isolation.blamed)
    assert builder.measured | told == {p.nodes[0] for p in parts} and not builder.measured & told
    return isolation


OPS = ["Conv", "Relu", "Add", "Resize", "MatMul"]


@given(st.lists(st.sampled_from(OPS), min_size=1, max_size=60), st.data())
def test_with_enough_builds_exactly_the_bad_ones_are_blamed(ops: list[str], data: st.DataObject) -> None:
    parts = [part(f"n{k}", op) for k, op in enumerate(ops)]
    bad = data.draw(st.sets(st.sampled_from([p.nodes[0] for p in parts]), max_size=6))
    isolation = isolate(parts, Builder(bad, nobody), 500)
    assert {n for n, b in isolation.blamed.items()} == bad
    assert all(b.suspects == 1 and b.failure for b in isolation.blamed.values())


@given(st.lists(st.sampled_from(OPS), min_size=1, max_size=60), st.integers(1, 12), st.data())
def test_however_few_builds_no_bad_part_counts_as_measured(
    ops: list[str], most: int, data: st.DataObject
) -> None:
    parts = [part(f"n{k}", op) for k, op in enumerate(ops)]
    bad = data.draw(st.sets(st.sampled_from([p.nodes[0] for p in parts]), max_size=6))
    builder = Builder(bad, nobody)
    isolation = isolate(parts, builder, most)
    assert not builder.measured & bad
    for name, blamed in isolation.blamed.items():
        if blamed.suspects == 1 and blamed.failure:
            assert name in bad


@pytest.mark.parametrize("at", [0, 1, 333, 500, 511, 998, 999])
def test_one_bad_node_of_a_thousand_hides_few(at: int) -> None:
    """The model of a CNN: many nodes of few operators, one of which fails and nobody says which."""
    parts = [part(f"n{k}", OPS[k % 5]) for k in range(1000)]
    builder = Builder({f"n{at}"}, nobody)
    isolation = isolate(parts, builder, 11)
    assert f"n{at}" in isolation.blamed and len(isolation.blamed) <= 4


def test_a_bad_operator_of_its_own_is_found_in_a_few_builds() -> None:
    parts = [part(f"n{k}", OPS[k % 5]) for k in range(1000)] + [part("odd", "NonMaxSuppression")]
    isolation = isolate(parts, Builder({"odd"}, nobody), 11)
    assert set(isolation.blamed) == {"odd"} and isolation.builds <= 9


def test_nodes_that_the_target_names_cost_one_more_build() -> None:
    parts = [part(f"n{k}") for k in range(40)]
    bad = {"n3", "n7", "n31"}
    named = Builder(bad, lambda names: [failure(name) for name in names])
    isolation = isolate(parts, named, 11)
    assert set(isolation.blamed) == bad and named.groups == [40, 37] and isolation.builds == 2


def test_what_the_parser_refuses_costs_no_build() -> None:
    parts = [part(f"n{k}") for k in range(40)]
    named = Builder({"n3", "n7"}, lambda names: [failure(names[0], stage=Stage.PARSE)])
    isolation = isolate(parts, named, 1)
    assert set(isolation.blamed) == {"n3", "n7"} and isolation.builds == 1


def test_the_ends_of_a_fused_range_are_not_believed() -> None:
    parts = [part(f"n{k}") for k in range(16)]

    def ends(names: list[str]) -> list[Failure]:
        message = "node {ForeignNode[n0...n15]}"
        return [Failure(Stage.BUILD, Symptom.ERROR, "no", message, ("n0", "n15"), "Relu")]

    isolation = isolate(parts, Builder({"n6"}, ends), 50)
    assert set(isolation.blamed) == {"n6"}


def test_too_much_for_one_build_is_nobodys_fault() -> None:
    parts = [part(f"n{k}") for k in range(64)]
    measured: set[str] = set()

    def build(group: Sequence[Segment]) -> Sequence[Failure]:
        if len(group) > 20:
            return [failure(symptom=Symptom.OUT_OF_MEMORY)]
        measured.update(p.nodes[0] for p in group)
        return []

    isolation = Isolation(build, 20)
    isolation.run(parts)
    assert len(measured) == 64 and not isolation.blamed
    assert isolation.builds == 7  # halves are built, and nothing is divided in vain


def test_two_that_fail_only_together_are_both_measured() -> None:
    parts = [part(f"n{k}") for k in range(32)]
    measured: set[str] = set()

    def build(group: Sequence[Segment]) -> Sequence[Failure]:
        names = {p.nodes[0] for p in group}
        if {"n3", "n20"} <= names:
            return [failure()]
        measured.update(names)
        return []

    isolation = Isolation(build, 50)
    isolation.run(parts)
    assert len(measured) == 32 and not isolation.blamed


@given(st.lists(st.integers(1, BYTES), min_size=1, max_size=50), st.integers(1, 6))
def test_groups_keep_order_and_number(sizes: list[int], most: int) -> None:
    parts = [part(f"n{k}", size=size) for k, size in enumerate(sizes)]
    groups = plan(parts, most)
    assert [p for group in groups for p in group] == parts
    assert 1 <= len(groups) <= most and all(groups)
    if sum(sizes) <= BYTES and len(parts) <= NODES:
        assert len(groups) == 1
