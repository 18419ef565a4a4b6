"""Nobody is accused falsely, and nothing wrong is excused: see docs/judging.md."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from rich.console import Console

import bisect_trt
import judging_cases as cases
import openvino_cpu
from bisect_trt.accuracy.tolerance import differences, only_for, precision_rtol
from bisect_trt.cli.output.console import show_check
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom
from bisect_trt.reduction.at_outputs import in_own_words
from bisect_trt.references import ort
from bisect_trt.reproducer import write
from bisect_trt.results import Reduction
from bisect_trt.scanning.words import first_lost, verdict
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.targets.registry import open_target
from bisect_trt.workers import rounding

REDUCED = ("8192 added and taken away", "close scores, ArgMax", "a wrong Add before a cancellation")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return openvino_cpu.libraries(tmp_path_factory.mktemp("openvino"))


def target_of(case: cases.Case, libraries: Any) -> TargetSettings:
    return TargetSettings(case.target, ep_libraries=libraries if case.target == cases.OPENVINO else ())


def judged(case: cases.Case, settings: TargetSettings, folder: Path) -> str:
    """What is said of the whole model, compared at its outputs: `wrong`, `sensitive`, or that it agrees."""
    proto, feeds = case.make()
    store = Store(folder)
    given = {name: store.put(name, value) for name, value in feeds.items()}
    names = tuple(node.name for node in proto.graph.node)
    candidate = Candidate(proto.SerializeToString(), folder, names, (given,))
    expected = ort.run(candidate.model, folder, [feeds])
    target, accuracy, least = open_target(settings), only_for(case.accuracy, ""), precision_rtol(settings)
    outputs = target.run(candidate).outputs
    assert outputs is not None
    worst = differences(expected, outputs, accuracy, least)[0]
    if worst.symptom is not Symptom.MISMATCH:
        return "agrees" if worst.ok else "wrong"

    def run(other: Candidate) -> Any:
        return target.run(other).outputs

    found = rounding.explain(settings, candidate, accuracy, least, expected, outputs, run)
    assert "unknown" not in found, found
    return "sensitive" if found["explained"] else "wrong"


@pytest.mark.parametrize("case", cases.REAL, ids=lambda case: case.name)
def test_what_is_wrong_is_not_excused(case: cases.Case, libraries: Any, tmp_path: Path) -> None:
    assert judged(case, target_of(case, libraries), tmp_path) == "wrong"


@pytest.mark.parametrize("case", cases.SENSITIVE, ids=lambda case: case.name)
def test_rounding_is_not_accused(case: cases.Case, libraries: Any, tmp_path: Path) -> None:
    assert judged(case, target_of(case, libraries), tmp_path) == "sensitive"


def reduced(case: cases.Case, libraries: Any, folder: Path, *, simplify: bool = True) -> Reduction:
    proto, feeds = case.make()
    onnx.save(proto, folder / "model.onnx")
    np.savez(folder / "in.npz", **feeds)
    run = RunSettings(inputs=folder / "in.npz", repeats=1, simplify=simplify)
    settings = Settings(target_of(case, libraries), run, case.accuracy)
    return bisect_trt.reduce(folder / "model.onnx", settings, out=folder / "out")


def require_right(case: cases.Case, result: Reduction, kind: str) -> None:
    """The finding, the paper that is written, and that the files fail at the user's tolerance."""
    report = json.loads((result.out / "report.json").read_text())
    assert report["finding"] == kind, report["judgement"]
    paper, other = ("NOTE.md", "ISSUE.md") if kind == "sensitive" else ("ISSUE.md", "NOTE.md")
    assert (result.out / paper).exists() and not (result.out / other).exists()
    assert result.verified == result.repeats == 1
    compared = report["compared"]
    assert dict(compared["rtol"]) == dict(case.accuracy.rtol) and not compared["atol"]
    if kind == "sensitive":
        title = (result.out / paper).read_text().splitlines()[0]
        assert ("ill-conditioned" in title) is (report["judgement"]["amplifier"] is not None)
        # Other sizes and neighbours round otherwise, and a node by itself in FP32 reads what is rounded.
        assert not any("Not every size" in note for note in result.notes) and not result.workarounds
        kept = [text for text in result.judgement.advice if text.startswith("Keep ")]
        assert all("bisect-trt precision" in text for text in kept)
        assert "ill-conditioned" in title or "explains the difference, and no node is at fault" in title
    if case.named:
        worst = report["judgement"]["amplifier"] or {"node": ""}
        told = {name for culprit in report["accuracy"]["culprits"] for name in culprit["nodes"]}
        assert case.named in {*result.nodes, worst["node"], *report["judgement"]["source"], *told}


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        pytest.param(case, kind, id=case.name, marks=() if case.name in REDUCED else pytest.mark.long)
        for kind, some in (("wrong", cases.REAL), ("sensitive", cases.SENSITIVE))
        for case in some
    ],
)
def test_what_is_handed_over(case: cases.Case, kind: str, libraries: Any, tmp_path: Path) -> None:
    require_right(case, reduced(case, libraries, tmp_path), kind)


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        pytest.param(make, finding, id=name, marks=() if name in ("Bernoulli", "0 / 0") else pytest.mark.long)
        for name, make, finding in cases.DOUBTFUL
    ],
)
def test_nothing_is_said_of_what_cannot_be_compared(make: Any, finding: str, tmp_path: Path) -> None:
    """On a target that computes something else in a node before it, too."""
    onnx.save(make(), tmp_path / "m.onnx")
    settings = Settings(TargetSettings("planted:op=Tanh,fail=mismatch"), RunSettings(repeats=1))
    found = bisect_trt.check(tmp_path / "m.onnx", settings)
    assert found.outcome.unresolved and found.finding == finding
    assert any(word in found.notes[0] for word in ("The model is random: ", "it begins at "))


@pytest.mark.long
def test_the_largest_effect_is_taken_and_the_others_are_told(tmp_path: Path) -> None:
    spec = "planted:node=raise,fail=mismatch+node=lower,fail=mismatch"
    result = reduced(cases.Case("", cases.raised, spec), (), tmp_path, simplify=False)
    other = {"raise": "lower", "lower": "raise"}[result.nodes[0]]
    told = next(n for n in result.notes if "fails by itself, too" in n)
    assert f"1 other part of the model fails by itself, too: {other}" in told and "--all" in told
    report = json.loads((result.out / "report.json").read_text())
    chosen, rest = report["accuracy"]["culprits"]
    assert chosen["nodes"] == list(result.nodes) and chosen["effect"] >= rest["effect"]


def test_what_overflows_is_blamed_where_it_overflows(tmp_path: Path) -> None:
    """The mean of the squares overflows too, but it was given what FP16 cannot hold."""
    case = cases.Case("", cases.root_mean_square, "emulate:fp16")
    result = reduced(case, (), tmp_path, simplify=False)
    assert result.nodes == ("square",)
    assert result.judgement.told[0].startswith("Overflow: the reference computes numbers here beyond 65504")
    assert not any("too:" in note for note in result.notes)


def test_inf_that_the_reference_hides_is_an_overflow(tmp_path: Path) -> None:
    """ONNX Runtime keeps 160,000 between two float16 nodes in float32: the cut goes round that tensor."""
    case = cases.Case("", cases.half_with_norm, "emulate:fp16")
    result = reduced(case, (), tmp_path, simplify=False)
    assert result.nodes == ("pow", "var") and result.wanted.symptom is Symptom.NOT_FINITE and result.verified
    assert result.judgement.kind == "wrong" and result.judgement.told[0].startswith("Overflow")
    run = RunSettings(inputs=tmp_path / "in.npz")
    scan = bisect_trt.scan(tmp_path / "model.onnx", replace(result.settings, run=run), out=tmp_path / "scan")
    assert first_lost(scan).startswith(
        "The first Inf is born in q (node pow, Pow): it does not fit into float16"
    )


def test_scan_accuses_nobody_where_the_model_is_random_or_not_finite(tmp_path: Path) -> None:
    settings = Settings(TargetSettings("emulate:fp16"))
    for name, make in (("random", cases.dropout), ("lost", cases.never_finite)):
        onnx.save(make(), tmp_path / f"{name}.onnx")
    random = bisect_trt.scan(tmp_path / "random.onnx", settings, out=tmp_path / "random")
    assert not random.guilty and random.agrees and random.notes[0].startswith("The model is random: drop")
    lost = bisect_trt.scan(tmp_path / "lost.onnx", settings, out=tmp_path / "lost")
    assert lost.agrees is None and verdict(lost).startswith("Nothing can be said of the outputs: the refer")
    assert "it begins at log_o, made by log (Log)" in lost.notes[0]


def test_scan_says_that_a_model_only_amplifies(tmp_path: Path) -> None:
    proto, feeds = cases.raised()
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", **feeds)
    settings = Settings(TargetSettings("emulate:fp16"), RunSettings(inputs=tmp_path / "in.npz"))
    scan = bisect_trt.scan(tmp_path / "m.onnx", settings, out=tmp_path / "out")
    told = verdict(replace(scan, tensors=tuple(t for t in scan.tensors if t.tensor != "lower_o")))
    assert "is no more than FP16 rounds: what follows makes it large" in told


@pytest.mark.long
def test_a_tolerance_of_our_own_is_never_called_verified(tmp_path: Path) -> None:
    case = cases.Case("", cases.raised, "planted:node=raise,fail=mismatch")
    result = reduced(case, (), tmp_path, simplify=False)
    assert result.verified and write.is_at_users_tolerance(result)
    other = replace(result, compared_as=replace(result.compared_as, rtol=(("", 1e-9),)))
    assert not write.is_at_users_tolerance(other)
    with pytest.raises(AssertionError):
        write.write(other, result.out / "journal.jsonl")


def test_each_refused_node_is_told(tmp_path: Path) -> None:
    """The parser names them all: `check` has a line for each, `reduce` says that there are more."""
    pytest.importorskip("tensorrt_rtx")
    nodes = [onnx.helper.make_node("Relu", ["x"], ["a"], "relu")]
    nodes += [onnx.helper.make_node("Det", ["a"], [f"y{k}"], f"det{k}") for k in range(3)]
    kind = onnx.TensorProto.FLOAT
    outputs = [onnx.helper.make_tensor_value_info(f"y{k}", kind, [2]) for k in range(3)]
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info("x", kind, [2, 4, 4])], outputs
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(proto, tmp_path / "m.onnx")
    settings = Settings(TargetSettings("tensorrt-rtx"), RunSettings(repeats=1, simplify=False))
    page = Console(record=True, width=200, file=io.StringIO())
    show_check(bisect_trt.check(tmp_path / "m.onnx", settings), page)
    told = page.export_text()
    assert all(f"det{k} (Det)" in told for k in range(3))
    result = bisect_trt.reduce(tmp_path / "m.onnx", settings, out=tmp_path / "out")
    assert any("2 other nodes of the model are refused too: det1 (Det), det2" in n for n in result.notes)


def in_float16() -> cases.Made:
    """A float16 model whose variance cancels: rounding of its own type."""
    make, half = onnx.helper.make_node, np.float16
    nodes = [make("Mul", ["x", "x"], ["sq"], "sq"), make("ReduceMean", ["sq"], ["m2"], "m2", axes=[1])]
    nodes += [make("ReduceMean", ["x"], ["m1"], "m1", axes=[1]), make("Mul", ["m1", "m1"], ["m12"], "m12")]
    nodes += [make("Sub", ["m2", "m12"], ["y"], "var")]
    x, y = (onnx.helper.make_tensor_value_info(*io) for io in (("x", 10, [4, 32]), ("y", 10, [4, 1])))
    opset = [onnx.helper.make_opsetid("", 13)]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y])
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    return proto, {"x": (30 + np.random.default_rng(0).standard_normal((4, 32))).astype(half)}


def test_a_model_in_float16_rounds_in_fp16_whatever_the_target(tmp_path: Path) -> None:
    proto, feeds = in_float16()
    store = Store(tmp_path)
    names = tuple(node.name for node in proto.graph.node)
    given = {name: store.put(name, value) for name, value in feeds.items()}
    candidate = Candidate(proto.SerializeToString(), tmp_path, names, (given,))
    expected = ort.run(candidate.model, tmp_path, [feeds])
    outputs = [{"y": np.asarray(expected[0]["y"]) * np.float16(2) + np.float16(100)}]
    arguments = TargetSettings(spec="planted:op=Sub"), candidate, only_for(AccuracySettings(), ""), 1e-2
    found = rounding.explain(*arguments, expected, outputs, lambda _: None)
    assert found["arithmetic"] == "FP16" and found["roundoff"] == 2.0**-11


def test_a_reproducer_holds_on_its_own_reference(tmp_path: Path) -> None:
    """ONNX Runtime keeps 160000 between two float16 nodes; recorded it is Inf, and misleads nobody."""
    node, half = onnx.helper.make_node, onnx.TensorProto.FLOAT16
    nodes = [node("Cast", ["x"], ["a"], "cast", to=half), node("Mul", ["a", "big"], ["b"], "scale")]
    nodes += [node("Pow", ["b", "two"], ["q"], "pow"), node("ReduceMean", ["q"], ["v"], "mean", axes=[-1])]
    nodes += [node("Sqrt", ["v"], ["s"], "sqrt"), node("Cast", ["s"], ["y"], "back", to=1)]
    weights = [onnx.numpy_helper.from_array(np.float16(v), name) for name, v in (("big", 400), ("two", 2))]
    io = [("x", [4, 32]), ("y", [4, 1])]
    ins, outs = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in io)
    graph = onnx.helper.make_graph(nodes, "g", [ins], [outs], weights)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    x = np.zeros((4, 32), np.float32)
    x[:, :2] = [[1.0, 0.5]]
    case = cases.Case("", lambda: (proto, {"x": x}), "emulate:fp16")
    result = reduced(case, (), tmp_path)
    inputs, expected = (np.load(result.out / name) for name in ("inputs.npz", "expected.npz"))
    assert all(np.isfinite(value).all() for archive in (inputs, expected) for value in archive.values())
    assert "pow" in result.nodes and result.wanted.symptom is Symptom.NOT_FINITE and result.verified == 1


@pytest.mark.parametrize("ended", [Symptom.HANG, Symptom.CRASH])
def test_a_probe_that_ended_is_not_the_wrong_numbers_of_a_part(ended: Symptom) -> None:
    """Seen: runs with rounding errors took longer than a probe may, and a mismatch was called a hang."""
    wanted, death = (Failure(Stage.COMPARE, s, "y", "y") for s in (Symptom.MISMATCH, ended))
    assert in_own_words(wanted, Outcome(failures=(death,))) is None
    assert in_own_words(wanted, Outcome(failures=(death, wanted))) is wanted
    assert in_own_words(death, Outcome(failures=(death,))) is death
