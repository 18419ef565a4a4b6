"""Fresh runs, `verify` and `repro.py` compare the same things; without their inputs nothing can be told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.outcome import Outcome
from bisect_trt.reduction import schedule
from bisect_trt.reduction.reduce import reduce
from bisect_trt.reproducer import write
from bisect_trt.reproducer.trial import WaitingPython
from bisect_trt.reproducer.verify import Status, verify, verify_files
from bisect_trt.results import Reduction
from bisect_trt.session.check import check
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.workers import jobs


def save(place: Path, nodes: list[onnx.NodeProto], output: onnx.ValueInfoProto) -> Path:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph(nodes, "g", [given], [output])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), place)
    return place


def chain(folder: Path, *operators: str) -> Path:
    names = ["x", *(f"t{k}" for k in range(len(operators) - 1)), "y"]
    nodes = [helper.make_node(op, [names[k]], [names[k + 1]], f"n{k}") for k, op in enumerate(operators)]
    return save(folder / "m.onnx", nodes, helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3]))


def script(out: Path) -> int:
    return subprocess.run([sys.executable, out / "repro.py"], check=False, capture_output=True).returncode


def reduced(model: Path, target: str, reference: str = "ort") -> Reduction:
    settings = Settings(
        TargetSettings(target), RunSettings(repeats=1), AccuracySettings(reference=reference)
    )
    return reduce(model, settings, out=model.parent / "out")


def test_without_a_reference_all_compare_alike(tmp_path: Path) -> None:
    """They compared with recorded NaN, and said that the failure was gone."""
    found = reduced(chain(tmp_path, "Relu", "Tanh", "Neg"), "planted:op=Tanh,fail=nan", "self")
    assert found.verified == 1 and not found.script_objection
    [again] = verify(found.out)
    assert again.status is Status.SAME
    assert script(found.out) == 1


@pytest.mark.parametrize("target", ["planted:op=Tanh,fail=mismatch", "emulate:fp16"])
def test_without_its_inputs_a_reproducer_cannot_tell(target: str, tmp_path: Path) -> None:
    model = chain(tmp_path, "Relu", "Tanh", "Neg")
    tight = AccuracySettings(rtol=(("", 1e-6),), atol=(("", 0.0),))
    settings = Settings(TargetSettings(target), RunSettings(repeats=1), tight)
    found = reduce(model, settings, out=tmp_path / "out")
    assert script(found.out) == 1
    (found.out / "inputs.npz").unlink()
    [again] = verify(found.out)
    assert (again.status, again.exit_code()) == (Status.UNKNOWN, 3)
    assert "no value for the input" in again.why
    assert script(found.out) == 2


def test_a_failure_to_build_needs_no_inputs(tmp_path: Path) -> None:
    found = reduced(chain(tmp_path, "Relu", "Tanh"), "planted:op=Tanh,stage=build")
    (found.out / "inputs.npz").unlink()
    [again] = verify(found.out)
    assert again.status is Status.SAME


def test_nothing_is_verified_without_the_word_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "disagreement", lambda reduction: "repro.py says otherwise.")
    found = reduced(chain(tmp_path, "Relu", "Tanh"), "planted:op=Tanh,stage=build")
    assert not found.sure
    issue = (found.out / "ISSUE.md").read_text()
    assert "Not verified: 1 of 1 run fail so, but repro.py says otherwise." in issue
    assert '"verified": 0' in (found.out / "report.json").read_text()


@pytest.mark.parametrize(("objection", "judged"), [("", 2), ("repro.py says otherwise.", 3)])
def test_a_run_of_the_script_is_the_last_of_the_fresh_runs_if_it_agrees(
    objection: str, judged: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def fresh(*args: object, **more: object) -> list[Outcome]:
        counts.append(int(str(args[3])))
        return verify_files(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("bisect_trt.reduction.finish.verify_files", fresh)
    monkeypatch.setattr("bisect_trt.reduction.finish.disagreement", lambda reduction: objection)
    values = AccuracySettings(rtol=(("", 1e-6),), atol=(("", 0.0),))
    settings = Settings(TargetSettings("emulate:fp16"), RunSettings(repeats=3), values)
    found = reduce(chain(tmp_path, "Relu", "Tanh"), settings, out=tmp_path / "out")
    assert (found.verified, found.repeats, sum(counts)) == (3, 3, judged)
    assert found.script_objection == objection and found.sure == (not objection)


def test_what_the_reference_runs_is_said_to_run_whatever_it_gives(tmp_path: Path) -> None:
    """A sequence has no recorded value, so the report said that ONNX Runtime does not run it either."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("SplitToSequence", ["r"], ["s"], "split", axis=0),
    ]
    made = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    found = reduced(save(tmp_path / "m.onnx", nodes, made), "tensorrt-rtx")
    assert found.reference_error == ""
    assert "yes, ONNX Runtime" in (found.out / "ISSUE.md").read_text()


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (helper.make_node("EyeLike", ["x"], ["y"], "eye"), [2, 3]),
        (helper.make_node("Acos", ["x"], ["y"], "acos"), [2, 3]),
    ],
)
def test_by_itself_a_model_may_mean_unequal_rows_and_nan(
    node: onnx.NodeProto, shape: list[int], tmp_path: Path
) -> None:
    """The rows of an EyeLike differ by its definition, and the Acos of 2 is NaN everywhere."""
    model = save(tmp_path / "m.onnx", [node], helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    np.savez(tmp_path / "i.npz", x=np.full((2, 3), 2, np.float32))
    settings = Settings(
        TargetSettings("ort:CPU"), RunSettings(inputs=tmp_path / "i.npz"), AccuracySettings(reference="self")
    )
    assert not check(model, settings).outcome.failures


def test_what_starts_slowly_is_explained_meanwhile_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that takes long to start is asked for what avoids the failure while the fresh runs start."""
    (tmp_path / "quick").mkdir()
    (tmp_path / "slow").mkdir()
    order: list[str] = []
    ready: list[int] = []
    told = ("Seen: without the planted fault it does not fail.",)

    def explain(problem: object, found: schedule.Found) -> schedule.Found:
        order.append("explain")
        return replace(found, tactics=told)

    def fresh(*args: object, **more: object) -> list[Outcome]:
        order.append("verify")
        ready.append(len(more["ready"]))  # type: ignore[arg-type]
        return verify_files(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("bisect_trt.reduction.reduce.explain", explain)
    monkeypatch.setattr("bisect_trt.reduction.finish.verify_files", fresh)
    target = "planted:op=Tanh,fail=nan"
    first = reduced(chain(tmp_path / "quick", "Relu", "Tanh", "Neg"), target)
    assert order == ["explain", "verify"]
    monkeypatch.setattr(jobs, "warm_job", lambda settings: (os.getpid, ()))
    monkeypatch.setattr(jobs, "room", partial(max, 1))
    second = reduced(chain(tmp_path / "slow", "Relu", "Tanh", "Neg"), target)
    assert sorted(order) == ["explain", "explain", "verify", "verify"]
    assert ready == [0, 1]  # processes that were started while the model was still worked on
    assert first.verified == second.verified == 1 and not second.script_objection
    assert told[0] in first.notes and set(first.notes) == set(second.notes)
    for file in ("repro.onnx", "repro.py"):
        assert (first.out / file).read_bytes() == (second.out / file).read_bytes()


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WaitingPython]:
    """A process that waits for a script; its builder is a stand-in."""
    (tmp_path / "tensorrt.py").write_text(
        "class Logger:\n    ERROR = 1\n    def __init__(self, level): pass\n"
        "class Builder:\n    made = []\n"
        "    def __init__(self, log): self.made.append(log)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WaitingPython() as python:
        yield python


def test_a_script_runs_in_a_process_that_has_its_builder_and_nothing_of_ours(
    waiting: WaitingPython, tmp_path: Path
) -> None:
    place = tmp_path / "with spaces"
    place.mkdir()
    (place / "other.py").write_text("VALUE = 7\n")
    (place / "repro.py").write_text(
        "import sys, tensorrt, other\nprint(sys.argv, __file__, __name__)\n"
        "known = [name for name in sys.modules if name.startswith('bisect_trt')]\n"
        "sys.exit(len(tensorrt.Builder.made) + len(known) + other.VALUE)\n"
    )
    path = str(place / "repro.py")
    done = waiting.run(path, 60.0)
    assert done.stdout.split("\n")[0] == f"{[path]} {path} __main__", done.stderr
    assert done.returncode == 8


def test_a_process_that_gets_no_script_is_gone_at_the_end(waiting: WaitingPython) -> None:
    process = waiting._process
    assert process.poll() is None
    waiting.__exit__(None, None, None)
    assert process.poll() is not None


def test_what_no_fresh_process_shows_is_handed_over_as_it_was_cut(tmp_path: Path) -> None:
    """Simple values may show a failure by luck, in a worker that ran other probes before."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\ndata = open(sys.argv[1], 'rb').read()\n"
        "fresh = '/run-' in sys.argv[1] or 'repro' in sys.argv[1]\n"
        "values = bytes.fromhex('0000c03f') in data  # 1.5\n"
        "sys.exit('error: no kernel' if b'MatMul' in data and (values or not fresh) else 0)\n"
    )
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"], "mm")]
    weight = numpy_helper.from_array(np.full((4, 4), 1.5, np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "m.onnx")
    result = reduced(tmp_path / "m.onnx", f"command:{sys.executable} -S -E {program} {{model}}")
    assert result.simplification is None and len(result.best.nodes) == 1
    assert result.verified == result.repeats == 1
    assert any("in no fresh process" in note for note in result.notes)
    assert numpy_helper.to_array(onnx.load(tmp_path / "out/repro.onnx").graph.initializer[0]).all()
