"""The main job on real models: TensorRT-RTX's builder refuses them, and the culprit alone must come out."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

import bisect_trt
from bisect_trt.errors import ModelDoesNotFail, TargetUnavailable, UsageError
from bisect_trt.model.graph import Graph
from bisect_trt.model.normalise import normalise
from bisect_trt.outcome import Verdict, judge
from bisect_trt.reproducer import archive as attach
from bisect_trt.reproducer.verify import verify_files
from bisect_trt.results import Reduction, Step
from bisect_trt.session.journal import read
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from cases import CASES, Case, base, small

MODELS = Path(__file__).parents[1] / "models"
RTX = Settings(TargetSettings("tensorrt-rtx"))
PAPERS = {"ISSUE.md", "report.json", "report.html", "report.md", "journal.jsonl", "target.log"}
FILES = {"repro.onnx", "inputs.npz", "expected.npz", "repro.py"} | PAPERS
REAL = [
    ("resize_antialias", "squeezenet"),
    ("scatternd_add", "squeezenet"),
    ("attention_gqa", "squeezenet"),
    ("attention_fp32", "squeezenet"),
    ("nms", "squeezenet"),
]


def planted(spec: str, **run: object) -> Settings:
    return Settings(TargetSettings(f"planted:{spec}"), RunSettings(simplify=False, **run))  # type: ignore[arg-type]


def saved(case: Case, folder: Path) -> tuple[Path, Path]:
    """The case as a file, and its inputs."""
    onnx.save(case.model, folder / "model.onnx")
    np.savez(folder / "in.npz", **case.inputs())
    return folder / "model.onnx", folder / "in.npz"


def reduced(case: Case, folder: Path, simplify: bool = False) -> Reduction:
    """Without simplification the reproducer has the user's names, and the counts are the search's."""
    model, inputs = saved(case, folder)
    settings = Settings(RTX.target, RunSettings(inputs=inputs, simplify=simplify))
    return bisect_trt.reduce(model, settings, out=folder / "out")


@pytest.mark.parametrize(("name", "light"), REAL)
def test_a_spliced_culprit_comes_out_alone(name: str, light: str, tmp_path: Path) -> None:
    case = CASES[name](light)
    result = reduced(case, tmp_path)
    assert set(result.best.nodes) == set(case.culprits)
    assert (result.wanted.stage, result.wanted.symptom) == (case.stage, "error")
    assert case.message in result.wanted.message
    assert (result.verified, result.repeats) == (3, 3) and result.one_minimal and result.finished
    assert {path.name for path in result.out.iterdir()} - {"passing.onnx"} == FILES
    onnx.checker.check_model(onnx.load(result.out / "repro.onnx"), full_check=True)


@pytest.mark.parametrize("name", ["resize_antialias", "scatternd_add"])
def test_a_parse_failure_takes_three_probes_at_most_after_confirmation(name: str, tmp_path: Path) -> None:
    result = reduced(CASES[name]("resnet50"), tmp_path)
    assert result.counts["search_probes"] <= 1 + 3
    assert result.counts["search_nodes_built"] <= 1.1 * result.original_nodes


@pytest.mark.slow
def test_two_branches_in_densenet_end_at_five_nodes(tmp_path: Path) -> None:
    """In a small network the target words it differently, which is told; it is still the same."""
    case = CASES["two_branch_reshape"]()
    result = reduced(case, tmp_path)
    assert set(result.best.nodes) == set(case.culprits) and case.fewest == 5
    assert result.one_minimal and result.verified == 3
    assert result.original_failure is not None and case.message in result.original_failure.message
    assert any("words this failure differently" in note for note in result.notes)


@pytest.mark.parametrize("name", ["attention_gqa", "averagepool_dilated", "shape_from_float"])
def test_models_of_the_repository(name: str, tmp_path: Path) -> None:
    case = small(name)
    result = reduced(case, tmp_path, simplify=True)
    assert set(result.nodes) <= set(case.culprits) and len(result.best.nodes) <= case.fewest
    assert result.verified == 3 and result.one_minimal


def test_what_only_says_that_no_gpu_is_here_is_gone_round(tmp_path: Path) -> None:
    """RoiAlign's plugin cannot start without a driver, and behind it stands a Det, which has no importer."""
    with pytest.raises(TargetUnavailable, match="RoiAlign cannot be judged without a GPU"):
        bisect_trt.reduce(MODELS / "roialign.onnx", RTX, out=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert bisect_trt.check(MODELS / "roialign.onnx", RTX).outcome.unresolved
    model = onnx.load(MODELS / "roialign.onnx")
    shape = onnx.numpy_helper.from_array(np.array([1, -1, 1, 1]), "tail_shape")
    model.graph.initializer.append(shape)
    model.graph.node.extend(
        [
            onnx.helper.make_node("Reshape", [model.graph.output[0].name, "tail_shape"], ["tail"], "reshape"),
            onnx.helper.make_node("Det", ["tail"], ["det"], "det"),
        ]
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("det", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "m.onnx")
    result = bisect_trt.reduce(tmp_path / "m.onnx", RTX, out=tmp_path / "out")
    assert [n.op_type for n in onnx.load(result.out / "repro.onnx").graph.node] == ["Det"]
    assert any("nothing can be said of /roi_head/RoiAlign" in note for note in result.notes)


def test_the_reproducer_stands_alone(tmp_path: Path) -> None:
    """The zip, unpacked elsewhere, without our package: exit 1 while it fails, 0 when it does not."""
    result = reduced(small("nms"), tmp_path)
    with zipfile.ZipFile(attach.zip_it(result.out, result.wanted.stage)) as archive:
        archive.extractall(tmp_path / "elsewhere")
    [folder] = (tmp_path / "elsewhere").iterdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    block = folder / "bisect_trt.py"
    block.write_text("raise ImportError('the reproducer needs bisect_trt')")
    run = [sys.executable, "repro.py"]
    failing = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert failing.returncode == 1, failing.stdout + failing.stderr
    (folder / "repro.onnx").write_bytes((MODELS / "ok.onnx").read_bytes())
    fixed = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr


def test_the_report_follows_its_schema_and_says_what_was_measured(tmp_path: Path) -> None:
    result = reduced(small("resize_antialias"), tmp_path)
    report = json.loads((result.out / "report.json").read_text())
    schema = Path(__file__).parents[1] / "docs/report.schema.json"
    jsonschema.validate(report, json.loads(schema.read_text()))
    assert "outputs are not compared" in " ".join(result.notes) and not result.outputs_compared
    issue = (result.out / "ISSUE.md").read_text()
    assert "antialias" in issue and "3 of 3" in issue and "not compared" in issue
    ends = [event for event in read(result.out / "journal.jsonl")[0] if event["event"] == "end"]
    assert len(ends) == result.counts["probes"]


def test_a_model_that_does_not_fail_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelDoesNotFail, match="builds on TensorRT-RTX"):
        bisect_trt.reduce(MODELS / "ok.onnx", RTX, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_failure_is_also_seen_and_never_replaces_the_wanted_one(tmp_path: Path) -> None:
    """Every Relu fails in its own way; what is wanted is the failure of one Conv below them."""
    onnx.save(base("squeezenet"), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    pair = "op=MaxPool,fail=error,message=first kind+op=Softmax,fail=error,message=second kind"
    result = bisect_trt.reduce(tmp_path / "model.onnx", planted(pair), out=tmp_path / "out")
    assert "first kind" in result.wanted.message
    assert [n.op_type for n in onnx.load(result.out / "repro.onnx").graph.node] == ["MaxPool"]
    assert any(n.op_type == "Softmax" for n in graph.node)
    for failure in result.also_seen:
        assert "second kind" in failure.message


@pytest.mark.parametrize("how", ["error", "crash", "mismatch", "nan"])
def test_planted_failures_of_every_symptom_end_at_the_node(how: str, tmp_path: Path) -> None:
    middle = Graph(normalise(onnx.load(MODELS / "ok.onnx"))).order[7]
    result = bisect_trt.reduce(MODELS / "ok.onnx", planted(f"node={middle},fail={how}"), out=tmp_path / "out")
    assert result.best.nodes == (middle,) and result.one_minimal
    assert result.verified == 3
    n = result.original_nodes
    assert result.counts["search_probes"] <= 2 * math.log2(n) + 4
    assert result.counts["search_nodes_built"] <= 2.5 * n + 24  # halves overlap by a few nodes


def test_a_program_that_ends_itself_is_reduced_as_a_crash(tmp_path: Path) -> None:
    """What `make demo` shows, too: the program is ours, no other software is made to crash."""
    program = f"command:{sys.executable} {MODELS / 'crashing_program.py'} {{model}}"
    settings = Settings(TargetSettings(program), RunSettings(simplify=False))
    result = bisect_trt.reduce(MODELS / "ok.onnx", settings, out=tmp_path / "out")
    assert (result.wanted.symptom, result.wanted.signature) == ("crash", "SIGABRT")
    assert [n.op_type for n in onnx.load(result.out / "repro.onnx").graph.node] == ["Softmax"]
    assert result.one_minimal and result.verified == 3


def test_a_hang_ends_at_its_node(tmp_path: Path) -> None:
    onnx.save(base("squeezenet"), tmp_path / "model.onnx")
    settings = planted("op=Softmax,fail=hang,hint=yes", timeout=1.5, repeats=1)
    result = bisect_trt.reduce(tmp_path / "model.onnx", settings, out=tmp_path / "out")
    assert result.wanted.symptom == "hang" and len(result.best.nodes) == 1


def test_two_ops_that_only_fail_together(tmp_path: Path) -> None:
    onnx.save(base("squeezenet"), tmp_path / "model.onnx")
    result = bisect_trt.reduce(
        tmp_path / "model.onnx", planted("pair=Concat>Softmax"), out=tmp_path / "out"
    )
    ops = [n.op_type for n in onnx.load(result.out / "repro.onnx").graph.node]
    assert ops.count("Concat") == 1 and ops.count("Softmax") == 1
    assert result.one_minimal and result.verified == 3


def test_what_is_written_fails_like_the_original(tmp_path: Path) -> None:
    result = reduced(small("attention_gqa"), tmp_path)
    [outcome] = verify_files(result.out, result.settings, 60, 1)
    assert judge(outcome, result.wanted) is Verdict.REPRODUCES


def test_sigterm_keeps_the_best_so_far_and_the_same_call_goes_on(tmp_path: Path) -> None:
    """Stopped in the middle, it writes an unverified result; the next call repeats no probe."""
    onnx.save(base("squeezenet"), tmp_path / "model.onnx")
    code = (
        "import sys\nfrom bisect_trt.cli.app import main\n"
        "if __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "run.py").write_text(code)
    spec = "planted:nodes={},cost=0.01,stage=parse"
    order = Graph(normalise(base("squeezenet"))).order
    line = [sys.executable, str(tmp_path / "run.py"), "reduce", str(tmp_path / "model.onnx")]
    line += ["--target", spec.format(f"{order[10]};{order[50]}"), "--out", str(tmp_path / "out")]
    line += ["--repeats", "1"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stdout is not None
    heard: list[str] = []
    for text in process.stderr:
        heard.append(text)
        if "still fail" in text:
            process.send_signal(signal.SIGTERM)
            break
    said = process.stderr.read() + process.stdout.read()
    assert process.wait(timeout=60) == 6, (heard, said)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert not report["finished"]
    before = [e["key"] for e in read(tmp_path / "out/journal.jsonl")[0] if e["event"] == "end"]
    again = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stdout + again.stderr
    ends = [e["key"] for e in read(tmp_path / "out/journal.jsonl")[0] if e["event"] == "end"]
    assert ends[: len(before)] == before and len(set(ends)) == len(ends), "no probe twice"
    assert json.loads((tmp_path / "out/report.json").read_text())["finished"]


def test_a_finished_folder_is_not_overwritten_unasked(tmp_path: Path) -> None:
    case = small("scatternd_add")
    reduced(case, tmp_path)
    written = (tmp_path / "out/repro.onnx").stat().st_mtime_ns
    with pytest.raises(UsageError, match="finished run"):
        reduced(case, tmp_path)
    assert (tmp_path / "out/repro.onnx").stat().st_mtime_ns == written
    (tmp_path / "other").mkdir()
    (tmp_path / "other/precious").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        bisect_trt.reduce(tmp_path / "model.onnx", RTX, out=tmp_path / "other")
    with pytest.raises(UsageError, match="was not written by"):
        bisect_trt.reduce(tmp_path / "model.onnx", RTX, out=tmp_path / "other", force=True)
    assert (tmp_path / "other/precious").read_text() == "mine"


def test_progress_tells_each_accepted_step(tmp_path: Path) -> None:
    steps: list[Step] = []
    model, inputs = saved(small("nms"), tmp_path)
    settings = Settings(RTX.target, RunSettings(inputs=inputs, simplify=False))
    result = bisect_trt.reduce(model, settings, out=tmp_path / "out", on_event=steps.append)
    accepted = [step.nodes for step in steps if step.accepted]
    assert accepted and accepted == sorted(accepted, reverse=True) and accepted[-1] == len(result.best.nodes)
    assert {"record", "confirm", "verify"} <= {step.phase for step in steps}
