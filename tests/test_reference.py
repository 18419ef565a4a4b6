"""The reference run: recorded tensors, slices, what ONNX Runtime cannot do, probes that compare."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import ml_dtypes
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import support
from bisect_trt.errors import StoppedEarly
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.inputs.feeds import GraphInput
from bisect_trt.model.inputs.generate import generate
from bisect_trt.model.normalise import normalise
from bisect_trt.model.patch import fixed
from bisect_trt.model.store import Store, raw_size
from bisect_trt.outcome import Built, Failure, Outcome, Stage, Symptom
from bisect_trt.references import ort, recorder
from bisect_trt.references.base import Record
from bisect_trt.references.recorder import record
from bisect_trt.session import recording
from bisect_trt.session.recording import record_in_worker
from bisect_trt.settings import DEFAULT_ACCURACY, RunSettings, Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo, TargetResult
from bisect_trt.workers import jobs, reference
from bisect_trt.workers.pool import Pool

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"


def model(
    nodes: list[onnx.NodeProto], outputs: list[str], **inputs: tuple[int, list[Any]]
) -> onnx.ModelProto:
    for k, node in enumerate(nodes):
        node.name = node.name or f"n{k}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def put(folder: Path, *samples: dict[str, Any]) -> list[dict[str, Path]]:
    store = Store(folder)
    return [{name: store.put(name, np.asarray(v)) for name, v in sample.items()} for sample in samples]


def value(recorded: Record, name: str, sample: int = 0) -> Any:
    path, shape = recorded.path(sample, name), recorded.shape(name, sample)
    return Store(recorded.folder).load(path, recorded.elem_type(name), shape)


def light(folder: Path) -> tuple[onnx.ModelProto, list[dict[str, Path]]]:
    proto = onnx.load(LIGHT)
    weights = {t.name for t in proto.graph.initializer}
    inputs = [GraphInput.from_value_info(v) for v in proto.graph.input if v.name not in weights]
    sample = {name: value.make() for name, value in generate(inputs, 0, {}).items()}
    proto = normalise(fixed(proto, {name: array.shape for name, array in sample.items()}))
    Store(folder).adopt(proto, LIGHT.parent)
    return proto, put(folder, sample)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, Record]:
    folder = tmp_path_factory.mktemp("whole")
    proto, feeds = light(folder)
    return proto, record(proto.SerializeToString(), folder, feeds)


def test_a_real_model_is_recorded_as_it_runs(whole: tuple[onnx.ModelProto, Record], tmp_path: Path) -> None:
    proto, recorded = whole
    assert recorded.error == "" and not recorded.missing and recorded.samples == 1
    assert recorded.reference.startswith("ONNX Runtime 1.")
    [output] = [o.name for o in proto.graph.output]
    [name] = [i.name for i in proto.graph.input]
    run = ort.Session(proto.SerializeToString(), recorded.folder).run({name: value(recorded, name)})
    assert np.array_equal(run[output], value(recorded, output))
    convs = [node for node in proto.graph.node if node.op_type == "Conv"]
    assert len(convs) > 20 and all(node.output[0] in recorded for node in convs)


@pytest.mark.parametrize("budget", [1, 3_000_000])
def test_slices_give_the_same_bytes(
    whole: tuple[onnx.ModelProto, Record], tmp_path: Path, budget: int
) -> None:
    _, one = whole
    proto, feeds = light(tmp_path)
    sliced = record(proto.SerializeToString(), tmp_path, feeds, budget=budget)
    assert sliced.tensors.keys() == one.tensors.keys()
    for name in one.tensors:
        assert sliced.path(0, name).read_bytes() == one.path(0, name).read_bytes(), name


def test_generated_weights_are_not_recorded(whole: tuple[onnx.ModelProto, Record]) -> None:
    proto, recorded = whole
    made = [node.output[0] for node in proto.graph.node if node.op_type == "ConstantOfShape"]
    assert made and not any(name in recorded for name in made)


def test_json_round_trip(whole: tuple[onnx.ModelProto, Record]) -> None:
    _, recorded = whole
    assert Record.from_json(json.loads(json.dumps(recorded.to_json()))) == recorded


def test_several_samples_of_several_shapes(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Shape", ["r"], ["s"])],
        ["s"],
        x=(T.FLOAT, ["N"]),
    )
    feeds = put(tmp_path, {"x": np.array([-1, 2], "f4")}, {"x": np.array([3], "f4")})
    recorded = record(proto.SerializeToString(), tmp_path, feeds, budget=1)
    assert [value(recorded, "r", k).tolist() for k in (0, 1)] == [[0, 2], [3]]
    assert [value(recorded, "s", k).tolist() for k in (0, 1)] == [[2], [1]]
    first, second = recorded.values(["x", "s", "unknown"])
    assert list(first) == ["x", "s"] and first["s"] != second["s"]


@pytest.mark.parametrize("known", [True, False])
def test_the_budget_holds_where_shapes_are_known_from_the_inputs_only(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what was given and, behind a Reshape that nobody can infer, by what was made so far."""
    reshape = [
        helper.make_node("NonZero", ["s"], ["z"]),
        helper.make_node("Gather", ["z", "zero"], ["g"], axis=0),
        helper.make_node("Add", ["g", "all"], ["to"]),
        helper.make_node("Reshape", ["x", "to"], ["t"]),
    ]
    first = [helper.make_node("Neg", ["x"], ["t"])] if known else reshape
    nodes = first + [helper.make_node("Neg", ["t" * k], ["t" * (k + 1)]) for k in range(1, 12)]
    weights = [numpy_helper.from_array(np.int64(v), n) for n, v in (("zero", 0), ("all", -1))]
    inputs = [support.tensor_type("x", ["n"])]
    inputs += [] if known else [support.tensor_type("s", ["m"])]
    proto = normalise(
        support.model(nodes, inputs, [support.tensor_type("t" * 12, None)], [] if known else weights)
    )
    store = Store(tmp_path)
    x = store.put("x", np.ones(1_000_000, np.float32))
    feeds = [{"x": x} if known else {"x": x, "s": store.put("s", np.ones(1, np.float32))}]
    sizes: list[int] = []
    plain = recorder._Run.run

    def run(self: Any, names: list[str], *, static: bool = False) -> None:
        plain(self, names, static=static)
        sizes.append(sum(raw_size(self.tensors[t].elem_type, self.tensors[t].shapes[0]) for t in names))

    monkeypatch.setattr(recorder._Run, "run", run)
    record(proto.SerializeToString(), tmp_path, feeds, budget=9_000_000)
    assert sum(sizes) == 48_000_000 + (0 if known else 24) and max(sizes) <= 9_000_000


@pytest.mark.parametrize("budget", [1, None])
def test_types_numpy_does_not_know_and_no_tensors(tmp_path: Path, budget: int | None) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["b"], to=T.BFLOAT16),
        helper.make_node("Cast", ["x"], ["f8"], to=T.FLOAT8E4M3FN),
        helper.make_node("Cast", ["x"], ["i4"], to=T.INT4),
        helper.make_node("Cast", ["x"], ["s"], to=T.STRING),
        helper.make_node("Identity", ["b"], ["b2"]),
        helper.make_node("Cast", ["i4"], ["back"], to=T.FLOAT),
        helper.make_node("SequenceConstruct", ["x", "x"], ["seq"]),
        helper.make_node("ConcatFromSequence", ["seq"], ["joined"], axis=0),
        helper.make_node("Cast", ["s"], ["number"], to=T.FLOAT),
        helper.make_node("Log", ["x"], ["nan"]),
    ]
    proto = model(nodes, ["b2", "back", "joined", "number", "nan"], x=(T.FLOAT, [3]))
    feeds = put(tmp_path, {"x": np.array([1, 2, -3], "f4")})
    recorded = record(proto.SerializeToString(), tmp_path, feeds, budget=budget)
    assert value(recorded, "b2").dtype == ml_dtypes.bfloat16
    for name in ("b", "f8", "i4", "b2", "back", "number"):
        assert value(recorded, name).astype(float).tolist() == [1, 2, -3], name
    assert recorded.shape("joined") == (6,)
    assert recorded.missing["s"] == "holds strings: only tensors are recorded"
    assert "seq" in recorded.missing["seq"]
    assert np.isnan(value(recorded, "nan")[2])


def test_random_values_are_kept_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
        helper.make_node("Sub", ["y", "noise"], ["z"]),
    ]
    proto = model(nodes, ["z"], x=(T.FLOAT, [100]))
    feeds = put(tmp_path, {"x": np.zeros(100, "f4")})
    recorded = record(proto.SerializeToString(), tmp_path, feeds, budget=1)
    assert np.array_equal(value(recorded, "noise"), value(recorded, "y"))
    assert not value(recorded, "z").any()


def test_bodies_capture_recorded_tensors(tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["r", "w"], [f"{op}_out"])
        return helper.make_graph([node], op, [], [helper.make_tensor_value_info(f"{op}_out", T.FLOAT, None)])

    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("Add"), else_branch=branch("Sub")),
    ]
    proto = model(nodes, ["y"], x=(T.FLOAT, [2]), c=(T.BOOL, []))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([10, 20], "f4"), "w"))
    feeds = put(tmp_path, {"x": np.array([-1, 1], "f4"), "c": np.array(False)})
    recorded = record(proto.SerializeToString(), tmp_path, feeds, budget=1)
    assert value(recorded, "y").tolist() == [-10, -19]


@pytest.mark.parametrize("budget", [1, None])
def test_what_cannot_run_costs_only_what_needs_it(tmp_path: Path, budget: int | None) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"])]
    nodes += [helper.make_node("Nonsense", ["a"], ["bad"], domain="made.up")]
    nodes += [helper.make_node("Neg", ["bad"], ["c"]), helper.make_node("Neg", ["a"], ["fine"])]
    nodes += [helper.make_node("Reshape", ["a", "shape"], ["wrong"])]
    nodes += [helper.make_node("Abs", ["fine"], ["good"]), helper.make_node("Abs", ["wrong"], ["worse"])]
    proto = model(nodes, ["c", "good", "worse"], x=(T.FLOAT, [3]))
    proto.opset_import.add(domain="made.up", version=1)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([7]), "shape"))
    feeds = put(tmp_path, {"x": np.ones(3, "f4")})
    recorded = record(proto.SerializeToString(), tmp_path, feeds, budget=budget)
    assert set(recorded.tensors) == {"x", "a", "fine", "good"}
    assert "Nonsense" in recorded.error and recorded.missing["bad"] == recorded.error
    assert recorded.missing["c"] == "needs bad, which is missing"
    assert "reshape" in recorded.missing["wrong"].lower()
    assert recorded.values(["c", "good"]) == ({"good": recorded.path(0, "good")},)


def test_outputs_that_are_weights_or_inputs(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], ["y", "w", "x"], x=(T.FLOAT, [1]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([5], "f4"), "w"))
    feeds = put(tmp_path, {"x": np.array([2], "f4")})
    recorded = record(proto.SerializeToString(), tmp_path, feeds, tensors=["y", "w", "x"])
    assert [value(recorded, name).tolist() for name in ("x", "y", "w")] == [[2], [2], [5]]


def test_only_what_was_asked_for(whole: tuple[onnx.ModelProto, Record], tmp_path: Path) -> None:
    proto, feeds = light(tmp_path)
    outputs = [o.name for o in proto.graph.output]
    recorded = record(proto.SerializeToString(), tmp_path, feeds, tensors=outputs)
    assert set(recorded.tensors) == {*outputs, *(i.name for i in proto.graph.input)}
    assert recorded.path(0, outputs[0]).read_bytes() == whole[1].path(0, outputs[0]).read_bytes()


def test_names_of_files_do_not_depend_on_what_was_asked_for(tmp_path: Path) -> None:
    proto, feeds = light(tmp_path)
    data, (first, *_, last) = proto.SerializeToString(), [n.output[0] for n in proto.graph.node][-9:]
    some = record(data, tmp_path, feeds, tensors=[last, first])
    every = record(data, tmp_path, feeds)
    assert {name: every.path(0, name) for name in (first, last)} == {
        name: some.path(0, name) for name in (first, last)
    }


def test_agrees_with_another_implementation(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"], axis=1),
        helper.make_node("ReduceSum", ["p"], ["sum"]),
    ]
    proto = model(nodes, ["m", "p", "sum"], x=(T.FLOAT, [4, 4]))
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("f4")
    recorded = record(proto.SerializeToString(), tmp_path, put(tmp_path, {"x": x}))
    expected = ReferenceEvaluator(proto).run(None, {"x": x})
    for name, want in zip(("m", "p", "sum"), expected, strict=True):
        assert np.allclose(value(recorded, name), want, rtol=1e-5)


def test_recording_in_a_worker(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], ["y"], x=(T.FLOAT, [2]))
    store = tmp_path / "store"
    feeds = put(store, {"x": np.array([-1, 1], "f4")})
    with Pool(1, log_dir=tmp_path / "logs") as pool:
        recorded = record_in_worker(pool, store, proto, feeds, Settings(run=RunSettings(timeout=0.001)))
    assert value(recorded, "y").tolist() == [0, 1]


def test_a_reference_that_dies_leaves_the_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Expand", ["x", "shape"], ["big"]), helper.make_node("Neg", ["big"], ["y"])]
    proto = model(nodes, ["y"], x=(T.FLOAT, [1]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1 << 29]), "shape"))
    store = tmp_path / "store"
    feeds = put(store, {"x": np.array([1], "f4")})
    with Pool(1, log_dir=tmp_path / "logs", memory_limit=500 << 20) as pool:
        recorded = record_in_worker(pool, store, proto, feeds, Settings())
    assert "more memory than the limit" in recorded.error and set(recorded.tensors) == {"x"}


def test_a_full_disk_while_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "no space")

    proto = model([helper.make_node("Relu", ["x"], ["y"])], ["y"], x=(T.FLOAT, [2]))
    feeds = put(tmp_path, {"x": np.ones(2, "f4")})
    monkeypatch.setattr(Store, "put_at", full)
    with pytest.raises(StoppedEarly, match="no space left"):
        reference.record(proto.SerializeToString(), tmp_path, feeds, None, None)


# Probes: what the target gave against the reference


class Fake:
    """A target that gives what it was told to."""

    def __init__(self, result: TargetResult) -> None:
        self.result = result

    def info(self) -> TargetInfo:
        return TargetInfo("fake", "Fake", True)

    def run(self, candidate: Candidate) -> TargetResult:
        return self.result


def probe(monkeypatch: pytest.MonkeyPatch, candidate: Candidate, result: TargetResult) -> Outcome:
    monkeypatch.setattr(jobs, "opened", lambda settings: Fake(result))
    assert jobs.describe(TargetSettings()).name == "fake"
    return jobs.probe(TargetSettings(), candidate)


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], ["y"], x=(T.FLOAT, [2]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", T.FLOAT, [2]))
    feeds = put(tmp_path, {"x": np.array([-1, 1], "f4")})
    return Candidate(proto.SerializeToString(), tmp_path, ("n0",), tuple(feeds))


def gave(*samples: Mapping[str, Any]) -> TargetResult:
    return TargetResult(outputs=tuple({k: np.asarray(v, "f4") for k, v in s.items()} for s in samples))


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    ("y", "symptom"),
    [
        ([0, 1], None),
        ([0, 5], Symptom.MISMATCH),
        ([0, float("nan")], Symptom.NOT_FINITE),
        ([0, 1, 1], Symptom.MISMATCH),
    ],
)
def test_outputs_are_compared(
    monkeypatch: pytest.MonkeyPatch,
    candidate: Candidate,
    recorded: bool,
    y: list[float],
    symptom: Symptom | None,
) -> None:
    if recorded:
        expected = tuple(put(candidate.folder, {"y": np.array([0, 1], "f4")}))
        candidate = Candidate(candidate.model, candidate.folder, ("n0",), candidate.feeds, expected)
    outcome = probe(monkeypatch, candidate, gave({"y": y}))
    assert [f.symptom for f in outcome.failures] == ([symptom] if symptom else [])
    assert outcome.unresolved == "" and outcome.facts["compared"] == 1
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))).failures == outcome.failures
    for failure in outcome.failures:
        assert failure.stage is Stage.COMPARE and failure.message.startswith("y: ")
        assert not any(c.isdigit() for c in failure.signature)


def test_outputs_without_a_reference_are_unresolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    proto = model([helper.make_node("Nonsense", ["x"], ["y"], domain="made.up")], ["y"], x=(T.FLOAT, [2]))
    proto.opset_import.add(domain="made.up", version=1)
    feeds = tuple(put(tmp_path, {"x": np.ones(2, "f4")}))
    empty: tuple[dict[str, Path], ...]
    for empty in ((), ({},)):
        bad = Candidate(proto.SerializeToString(), tmp_path, ("n0",), feeds, empty)
        outcome = probe(monkeypatch, bad, gave({"y": [1, 1]}))
        assert not outcome.failures and "Nonsense" in outcome.unresolved


def test_a_lost_output_is_a_mismatch(monkeypatch: pytest.MonkeyPatch, candidate: Candidate) -> None:
    [failure] = probe(monkeypatch, candidate, gave({})).failures
    assert failure.symptom is Symptom.MISMATCH and failure.message == "y: the target gives no such output"


def test_failures_of_the_target_are_passed_on(monkeypatch: pytest.MonkeyPatch, candidate: Candidate) -> None:
    failure = Failure(Stage.PARSE, Symptom.ERROR, "sig", "message")
    told = TargetResult(failures=(failure,), log="log", facts={"engine_bytes": 1})
    outcome = probe(monkeypatch, candidate, told)
    assert outcome.failures == (failure,) and outcome.log == "log" and outcome.built == Built(engine_bytes=1)
    assert probe(monkeypatch, candidate, TargetResult()).failures == ()  # build only


@pytest.mark.parametrize("budget", [None, 1])
def test_the_budget_of_the_run_reaches_the_recorder(budget: int | None, tmp_path: Path) -> None:
    """And one of a byte gives the same record."""
    seen: list[Any] = []

    class Here:
        def submit(self, function: Any, *given: Any, timeout: Any) -> Any:
            seen.extend(given)
            reply = SimpleNamespace(death=None, value=function(*given))
            return SimpleNamespace(result=lambda: reply)

    nodes = [helper.make_node("Relu", ["x"], ["h"], "a"), helper.make_node("Exp", ["h"], ["y"], "b")]
    proto = support.model(
        nodes, [support.tensor_type("x", [2, 3])], [support.tensor_type("y", [2, 3])]
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 3
    settings = Settings(run=RunSettings(record_budget=budget))
    recorded = record_in_worker(cast(Pool, Here()), tmp_path, proto, put(tmp_path, {"x": x}), settings)
    assert seen[4] == (budget or psutil.virtual_memory().total // 4)
    assert np.array_equal(value(recorded, "h"), np.maximum(x, 0))
    assert np.allclose(value(recorded, "y"), np.exp(np.maximum(x, 0)))


def test_an_output_that_is_an_input_is_a_copy() -> None:
    """ONNX Runtime hands the caller's own memory out, which may be gone when somebody looks."""
    ends = [helper.make_tensor_value_info(name, T.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends)
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    session = ort.Session(proto.SerializeToString(), Path())
    value = np.ones(4, np.float32)
    given = session.run({"x": value})
    value[:] = 99
    assert np.array_equal(np.asarray(given["x"]), np.ones(4)), "what it was when it ran"


def never(*arguments: Any) -> None:
    """A reference that does not come back."""
    time.sleep(600)


def test_a_reference_that_never_ends_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "SHORTEST", 0.5)
    monkeypatch.setattr(recording.reference, "record", never)
    proto = model([helper.make_node("Relu", ["x"], ["y"])], ["y"], x=(T.FLOAT, [2]))
    feeds = put(tmp_path / "store", {"x": np.ones(2, np.float32)})
    with Pool(1, log_dir=tmp_path / "logs") as pool:
        settings = Settings(run=RunSettings(timeout=0.05))
        found = record_in_worker(pool, tmp_path / "store", proto, feeds, settings)
    assert "no answer within 0.5 s" in found.error


def test_a_candidate_that_ran_is_not_run_again_and_one_that_did_not_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the reference can run a candidate is asked once for each model and its inputs."""
    proto = model([helper.make_node("Reshape", ["x", "s"], ["y"])], ["y"], x=(T.FLOAT, [4]), s=(T.INT64, [1]))
    fits, other, wrong = (
        put(tmp_path / name, {"x": np.arange(4, dtype=np.float32), "s": np.array([size])})
        for name, size in (("fits", 4), ("other", -1), ("wrong", 3))
    )
    asked: list[Candidate] = []
    real = reference.values
    monkeypatch.setattr(reference, "values", lambda one: (asked.append(one), real(one))[1])

    def error(feeds: list[dict[str, Path]]) -> str:
        candidate = Candidate(proto.SerializeToString(), tmp_path, ("n0",), tuple(feeds))
        return reference.error(candidate, DEFAULT_ACCURACY)

    assert [error(fits), error(fits), error(other)] == ["", "", ""]
    assert len(asked) == 2
    assert all("cannot run it" in error(wrong) for _ in range(2))
    assert len(asked) == 4
