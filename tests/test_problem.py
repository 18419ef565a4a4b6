"""The noun of the search: what it keeps, what it asks, and searches on real graphs with planted faults."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from msgspec.structs import replace
from onnx import helper

import bisect_trt
from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom, Verdict, judge
from bisect_trt.reduction.passes.workarounds import avoiding
from bisect_trt.reduction.reduce import open_run
from bisect_trt.reduction.reduce_all import slug
from bisect_trt.results import Reduction
from bisect_trt.session.journal import Journal
from bisect_trt.session.prober import Budget, BudgetSpent, Prober
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from cases import LIGHT, splice_resize_antialias
from chains import chain, saved
from support import model, tensor_type


def planted(spec: str, **run: object) -> Settings:
    options = {"repeats": 1, "simplify": False} | run
    return Settings(TargetSettings(f"planted:{spec}"), RunSettings(**options))  # type: ignore[arg-type]


def reduced(proto: onnx.ModelProto, spec: str, folder: Path, **run: object) -> Reduction:
    onnx.save(proto, folder / "model.onnx")
    return bisect_trt.reduce(folder / "model.onnx", planted(spec, **run), out=folder / "out")


@pytest.mark.parametrize(("spec", "left"), [("op=Dropout", 1), ("pair=Concat>MaxPool", 2)])
def test_a_local_failure_of_a_real_graph_is_cheap(spec: str, left: int, tmp_path: Path) -> None:
    result = reduced(onnx.load(LIGHT / "light_squeezenet.onnx"), spec, tmp_path)
    n, looks = result.original_nodes, 5  # at a few nodes, whether it is steady
    assert result.one_minimal and len(result.best.nodes) == left
    assert result.counts["search_probes"] <= 2 * math.log2(n) + 4 + looks
    assert result.counts["search_nodes_built"] <= 2.5 * n + 8 * looks


@pytest.mark.parametrize("tensor", ["t10", "t6", "t33"])
def test_a_failure_of_fusion_ends_minimal(tensor: str, tmp_path: Path) -> None:
    """It shows only while the tensor is made and used inside and is no output; t10 has two readers."""
    result = reduced(chain(40), f"fused={tensor}", tmp_path)
    made = int(tensor[1:])
    assert len(result.best.nodes) == 2 and f"n{made}" in result.best.nodes
    assert result.one_minimal and result.verified == 1


def test_a_failure_of_fusion_with_far_readers(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], "first")]
    nodes += [helper.make_node("Neg", [f"b{k - 1}" if k else "a"], [f"b{k}"], f"m{k}") for k in range(30)]
    nodes += [helper.make_node("Add", ["b29", "a"], ["y"], "last")]
    result = reduced(model(nodes, [tensor_type("x", [4])], [tensor_type("y", [4])]), "fused=a", tmp_path)
    assert len(result.best.nodes) == 2 and result.best.form is Form.HIDDEN


def test_each_of_two_planted_failures_gets_a_reproducer(tmp_path: Path) -> None:
    """The second stage hides behind the first, and one failure shows in two places."""
    spec = "node=n5,stage=parse,message=one+node=n21,stage=parse,message=two,hint=yes"
    spec += "+node=n30,stage=build,message=three+node=n33,stage=parse,message=one"
    results = bisect_trt.reduce_all(saved(tmp_path), planted(spec), out=tmp_path / "out")
    found = [(r.wanted.message, len(r.best.nodes)) for r in results]
    assert found == [("one", 1), ("two", 1), ("three", 1)]
    assert {r.best.nodes[0] for r in results} <= {"n5", "n33", "n21", "n30"}
    op = chain(40).graph.node[21].op_type.lower()
    assert [r.out.name for r in results] == ["1-parse-one", f"2-parse-{op}-two", "3-build-three"]
    for result in results:
        assert result.verified == 1 and (result.out / "repro.onnx").exists()
        assert result.archive is not None and result.archive.exists()
        assert json.loads((result.out / "report.json").read_text())["failure"]["message"] in "one two three"
    assert not (tmp_path / "out" / "work").exists()


def test_later_failures_are_compared_as_the_user_said(tmp_path: Path) -> None:
    """The first one is compared by itself at the end, with a tolerance of its own."""
    nodes = [
        helper.make_node("Neg", [f"{b}{k - 1}" if k else "x"], [f"{b}{k}"], f"n_{b}{k}")
        for b in "abc"
        for k in range(4)
    ]
    outputs = [tensor_type(f"{b}3", [4]) for b in "abc"]
    onnx.save(model(nodes, [tensor_type("x", [4])], outputs), tmp_path / "model.onnx")
    spec = "+".join(f"node=n_{b}2,fail=mismatch" for b in "abc")
    accuracy = AccuracySettings(ignore=("b3",), atol=(("c3", 1e4),))
    settings = replace(planted(spec), accuracy=accuracy)
    (result,) = bisect_trt.reduce_all(tmp_path / "model.onnx", settings, out=tmp_path / "out")
    assert result.best.nodes == ("n_a2",)


def test_two_real_failures_of_one_model(tmp_path: Path) -> None:
    """Resize with antialias and ScatterND with add: the parser lists both at once."""
    proto = splice_resize_antialias("squeezenet").model
    target = next(node for node in proto.graph.node if node.name == "splice/Up")
    proto.graph.initializer.extend(
        [
            helper.make_tensor("at", onnx.TensorProto.INT64, [1, 1], [0]),
            helper.make_tensor("add", onnx.TensorProto.FLOAT, [1, 48, 13, 13], [1.0] * 48 * 13 * 13),
        ]
    )
    scatter = helper.make_node(
        "ScatterND", ["splice/Down_out2", "at", "add"], [target.output[0]], "scatter", reduction="add"
    )
    target.output[0] = "splice/Down_out2"
    at = list(proto.graph.node).index(target)
    proto.graph.node.insert(at + 1, scatter)
    onnx.save(proto, tmp_path / "model.onnx")
    settings = Settings(TargetSettings("tensorrt-rtx"), RunSettings(repeats=1, simplify=False))
    results = bisect_trt.reduce_all(tmp_path / "model.onnx", settings, out=tmp_path / "out")
    assert [r.best.nodes for r in results] == [("splice/Down",), ("scatter",)]
    assert [r.verified for r in results] == [1, 1]


def test_slugs_are_short_and_plain() -> None:
    text = '(antialias == 0) && "Anti/aliasing" <name> 12'
    failure = Failure(Stage.PARSE, Symptom.ERROR, "", text, op="Resize")
    assert slug(failure) == "parse-resize-antialias-0-anti-aliasing"
    torn = Failure(Stage.PARSE, Symptom.ERROR, "", f"in {'x' * 60}", op="Resize")
    assert slug(torn) == "parse-resize-in"


def test_the_passing_neighbour_of_a_pair_is_one_of_the_two(tmp_path: Path) -> None:
    result = reduced(chain(40), "nodes=n5;n21", tmp_path)
    assert any("passing.onnx passes: it is repro.onnx without the node n" in note for note in result.notes)
    passing = onnx.load(result.out / "passing.onnx")
    assert len(passing.graph.node) == 1 and passing.graph.node[0].name in result.best.nodes
    onnx.checker.check_model(passing)


class FakeTask:
    def __init__(self) -> None:
        from concurrent.futures import Future

        self.future: Future[Outcome] = Future()
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeOracle:
    """Answers at once, but remembers the order of questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tasks: list[FakeTask] = []
        self.answer = True

    def submit(self, candidate: Candidate, target: TargetSettings | None = None) -> FakeTask:
        self.asked.append(candidate.nodes[0])
        task = FakeTask()
        if self.answer:
            task.future.set_result(Outcome(seconds=1.0))
        self.tasks.append(task)
        return task

    def outcome(self, task: FakeTask, *, guessed: bool = False) -> Outcome:
        return task.future.result(0)


@pytest.fixture
def prober(tmp_path: Path) -> Iterable[Prober]:
    with Journal.open(tmp_path / "journal.jsonl", {}) as journal:
        yield Prober(FakeOracle(), journal, workers=3)  # type: ignore[arg-type]


def candidate(name: str) -> Candidate:
    return Candidate(name.encode(), Path(), (name,))


def test_a_question_is_asked_once(prober: Prober) -> None:
    assert prober.observe(candidate("a")) == prober.observe(candidate("a"))
    prober.observe(candidate("a"), 1)
    assert prober.oracle.asked == ["a", "a"]  # type: ignore[attr-defined]
    assert (prober.counts.probes, prober.counts.cached, prober.counts.target_seconds) == (2, 1, 2.0)


def test_guesses_fill_free_workers_and_count_when_they_are_asked(prober: Prober) -> None:
    prober.ahead = lambda: [(candidate(name), 0) for name in "abcd"]
    prober.observe(candidate("a"))
    assert prober.oracle.asked == ["a", "b", "c"]  # type: ignore[attr-defined]
    assert (prober.counts.probes, prober.counts.ahead) == (1, 2)
    prober.ahead = tuple
    prober.observe(candidate("c"))
    assert prober.counts.probes == 2 and prober.counts.cached == 0
    prober.observe(candidate("c"))
    assert prober.counts.probes == 2 and prober.counts.cached == 1


def test_what_is_given_up_was_no_death(prober: Prober) -> None:
    oracle: FakeOracle = prober.oracle  # type: ignore[assignment]
    oracle.answer = False
    prober.budget = Budget(deadline=0.0)
    with pytest.raises(BudgetSpent, match="--budget used up"):
        prober.observe(candidate("a"))
    prober.budget = Budget(max_probes=0)
    with pytest.raises(BudgetSpent, match="--max-probes 0 reached"):
        prober.observe(candidate("a"))
    prober._start("key", candidate("b"))
    prober.close()
    assert oracle.tasks[-1].cancelled and prober.journal.deaths("key") == 0


def test_what_died_twice_is_not_asked_and_never_guessed(prober: Prober) -> None:
    for name, times in (("a", 2), ("b", 1)):
        for _ in range(times):
            prober.journal.begin(candidate(name).digest)
    prober.ahead = lambda: [(candidate(name), 0) for name in "abc"]
    assert "twice" in prober.observe(candidate("a")).unresolved
    prober.observe(candidate("d"))
    assert prober.oracle.asked == ["d", "c"]  # type: ignore[attr-defined]
    prober.observe(candidate("b"))
    assert prober.oracle.asked == ["d", "c", "b"]  # type: ignore[attr-defined]
    assert prober.judge(Outcome()) is Verdict.UNRESOLVED


def test_an_interrupt_while_the_journal_is_written_leaves_it_whole(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*job: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prober.journal._disk, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prober.observe(candidate("a"))
    prober.close()
    prober.journal.close()
    assert prober.journal.deaths(candidate("a").digest) == 0
    with Journal.open(prober.journal.path, {}) as again:
        assert again.deaths(candidate("a").digest) == 0


def test_other_settings_of_the_target_are_another_question(prober: Prober) -> None:
    """It is journaled, counted, and held back by the budget like any other."""
    other = TargetSettings("tensorrt-rtx", opt_level=1)
    for target in (None, other, other, TargetSettings("tensorrt-rtx", opt_level=2)):
        prober.observe(candidate("a"), target=target)
    assert prober.oracle.asked == ["a", "a", "a"]  # type: ignore[attr-defined]
    assert (prober.counts.probes, prober.counts.cached) == (3, 1) and len(prober.journal.finished()) == 3
    prober.budget = Budget(max_probes=3)
    with pytest.raises(BudgetSpent):
        prober.observe(candidate("a"), target=TargetSettings("tensorrt-rtx", opt_level=3))
    prober.observe(candidate("a"), target=other)  # what is known is free


BUILD = Failure(Stage.BUILD, Symptom.ERROR, "no tactic", "no tactic")
RESHAPE = ("optimizer", "ReshapeFusion")


@pytest.mark.parametrize(
    ("settings", "wanted", "helps", "told"),
    [
        ({}, BUILD, lambda t: t.tf32 is False, ["--no-tf32"]),
        ({"tf32": False}, BUILD, lambda t: t.tf32 is None, []),
        ({}, BUILD, lambda t: (t.opt_level or 3) < 2 and t.opt_level is not None, ["--opt-level 1"]),
        ({"opt_level": 5}, BUILD, lambda t: t.opt_level in (0, 4), ["--opt-level 0"]),
        ({"precision": "fp16"}, BUILD, lambda t: not t.precision, ["--precision fp16"]),
        ({"spec": "ort:CPU"}, BUILD, lambda t: RESHAPE in t.decisions, ["ReshapeFusion"]),
        ({"spec": "emulate:fp16"}, BUILD, lambda t: True, []),
        ({}, replace(BUILD, stage=Stage.PARSE), lambda t: True, []),
        ({}, replace(BUILD, symptom=Symptom.HANG), lambda t: True, []),
    ],
)
def test_options_that_avoid_a_failure_are_found(
    settings: dict[str, Any],
    wanted: Failure,
    helps: Callable[[TargetSettings], bool],
    told: list[str],
) -> None:
    def observe(candidate: object, run: int, target: TargetSettings) -> Outcome:
        return Outcome() if helps(target) else Outcome((wanted,))

    oracle = SimpleNamespace(target=TargetSettings(**{"spec": "tensorrt-rtx", **settings}))
    best, prober = SimpleNamespace(digest="d"), SimpleNamespace(oracle=oracle, observe=observe)
    problem = SimpleNamespace(best=best, wanted=wanted, outcomes={}, runs=1, prober=prober)
    problem.judge = lambda outcome: judge(outcome, wanted)
    found = avoiding(problem)  # type: ignore[arg-type]
    sentences = found.sentences
    assert len(sentences) == len(told) and all(o in text for o, text in zip(told, sentences, strict=True))
    assert len(found.targets) == len(told) and all(helps(target) for target in found.targets)


@pytest.mark.parametrize(("fault", "left"), [("n5;n6", ("n5", "n6")), ("n0;n9", None)])
def test_the_pass_of_the_documentation_works(
    fault: str, left: tuple[str, ...] | None, tmp_path: Path
) -> None:
    """The pass is that of docs/architecture.md; the second fault spans the model, so that nothing may go."""
    page = (Path(__file__).parents[1] / "docs/architecture.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(from .*?)```", page, re.S)[0], names)
    onnx.save(chain(10), tmp_path / "model.onnx")
    settings, out = planted(f"nodes={fault}"), tmp_path / "out"
    with open_run(
        tmp_path / "model.onnx", settings, out=out, force=False, on_event=lambda step: None
    ) as run:
        problem = run.confirm()
        names["trim_ends"](problem)
        assert (problem.best and problem.best.nodes) == left
