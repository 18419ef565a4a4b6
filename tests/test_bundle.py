"""The folder: files, scripts that run without us, texts that nothing in a model can break."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import TensorProto, helper

from bisect_trt.machine.environment import ABSENT, Environment
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.reproducer import archive as attach
from bisect_trt.reproducer import document as documents
from bisect_trt.reproducer import files, markdown, models, script, untrusted
from bisect_trt.reproducer import write as texts
from bisect_trt.reproducer.script_values import constant_parts
from bisect_trt.results import Reduction
from bisect_trt.settings import AccuracySettings, RunSettings, Settings, TargetSettings
from bisect_trt.targets.base import TargetInfo

ROOT = Path(__file__).parents[1]
MACHINE = Environment(*(ABSENT,) * 4, "TestOS 1", "3.11.0", ABSENT, ABSENT, "container")
RTX = TargetInfo("tensorrt-rtx", "TensorRT-RTX 1.7.1.116", False, ("No GPU here.",))
ANTIALIAS = Failure(
    Stage.PARSE,
    Symptom.ERROR,
    "UNSUPPORTED_NODE_ATTR:Resize:checkResize: "
    '(antialias == 0) && "Antialiasing is not supported currently."',
    '(antialias == 0) && "Antialiasing is not supported currently."\nonnxOpCheckers.cpp:749 checkResize',
    ("up",),
    "Resize",
)
WEIGHT = np.arange(4096, dtype=np.float32).reshape(64, 64) / 4096
NASTY = 'a"""\nimport os; os._exit(7)\n# `x` [bold] {{ 1 }} \\'


def make_model(nodes: list[onnx.NodeProto], x: list[int | str], y: list[int], **more: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", more.pop("type", TensorProto.FLOAT), x)],
        [helper.make_tensor_value_info("y", more.pop("out", TensorProto.FLOAT), y)],
        **more,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def resize(antialias: int, name: str = "up") -> onnx.ModelProto:
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 0.5, 0.5])
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], name, mode="linear", antialias=antialias)
    return make_model([node], [1, 1, 8, 8], [1, 1, 4, 4], initializer=[scales])


def matmul(store: Path) -> onnx.ModelProto:
    """Its weight is external data in the store: the tail of a `.npy`, as recorded tensors are."""
    np.save(store / "t000000.npy", WEIGHT)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHT.shape)
    weight.data_location = TensorProto.EXTERNAL
    offset = (store / "t000000.npy").stat().st_size - WEIGHT.nbytes
    for key, value in (("location", "t000000.npy"), ("offset", str(offset)), ("length", str(WEIGHT.nbytes))):
        weight.external_data.add(key=key, value=value)
    return make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")], [2, 64], [2, 64], initializer=[weight]
    )


def candidate(model: onnx.ModelProto, store: Path, x: np.ndarray, y: np.ndarray) -> Candidate:
    np.save(store / "x.npy", x)
    np.save(store / "y.npy", y)
    names = tuple(node.name for node in model.graph.node)
    return Candidate(
        model.SerializeToString(), store, names, ({"x": store / "x.npy"},), ({"y": store / "y.npy"},)
    )


def reduction(best: Candidate, out: Path, wanted: Failure = ANTIALIAS, **more: Any) -> Reduction:
    settings = more.pop("settings", Settings(TargetSettings(spec="tensorrt-rtx")))
    fields: dict[str, Any] = {
        "model": Path("/home/someone/secret/big model.onnx"),
        "out": out,
        "settings": settings,
        "target": RTX,
        "reference": "ONNX Runtime 1.32.0",
        "wanted": wanted,
        "best": best,
        "original_nodes": 910,
        "one_minimal": True,
        "verified": 3,
        "repeats": 3,
        "counts": {"probes": 12, "target_seconds": 1.5},
        "phases": ({"name": "hints", "probes": 2, "nodes_before": 910, "nodes_after": 1, "seconds": 0.5},),
        "log": "[ERROR] no\n",
    }
    return Reduction(**{**fields, **more})


def write_texts(found: Reduction) -> None:
    texts.write_texts(found, documents.report(found, MACHINE))


def write(found: Reduction) -> Path:
    models.write_model(found.best, found.out)
    write_texts(found)
    return found.out


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def failing(store: Path) -> Candidate:
    ones = np.ones((1, 1, 8, 8), np.float32)
    return candidate(resize(1), store, ones, ones[:, :, ::2, ::2])


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("symptom", list(Symptom))
def test_scripts_are_short_whatever_the_failure(
    failing: Candidate, store: Path, tmp_path: Path, stage: Stage, symptom: Symptom
) -> None:
    """Under 120 lines of at most 120 characters; all that can be asked for at once takes a few more."""
    wanted = Failure(stage, symptom, f"{symptom}: died", "x " * 80)
    bits = np.ones((2, 3), np.uint16)
    relu = helper.make_node("Relu", ["x"], ["y"], "r")
    odd = make_model([relu], ["N", 3], [2, 3], type=TensorProto.BFLOAT16, out=TensorProto.BFLOAT16)
    (store / "odd").mkdir()
    everything = TargetSettings(spec="x", workspace=1, opt_level=3, tf32=True, plugins=(Path("/a/b.so"),))
    for name in ("tensorrt", "tensorrt-rtx", "ort:CPUExecutionProvider", "emulate:fp16"):
        info = TargetInfo(name, name, True)
        plain = Settings(TargetSettings(spec=name))
        for best, settings, most in (
            (failing, plain, 119),
            (candidate(odd, store / "odd", bits, bits), Settings(replace(everything, spec=name)), 129),
        ):
            text = script.render(reduction(best, tmp_path, wanted, target=info, settings=settings))
            ast.parse(text)
            lines = text.splitlines()
            assert len(lines) <= most and max(map(len, lines)) <= 120, (name, len(lines))


def start(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `repro.py` as a stranger does: another folder, no environment, no bisect_trt to import."""
    guard = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] == 'bisect_trt': raise ImportError('no bisect_trt here')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"sys.argv = {[str(out / 'repro.py'), *arguments]!r}\n"
        f"runpy.run_path({str(out / 'repro.py')!r}, run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", guard], cwd="/", capture_output=True, text=True, timeout=120, check=False
    )


def test_all_files_are_there_and_the_report_fits_its_schema(failing: Candidate, tmp_path: Path) -> None:
    out = write(reduction(failing, tmp_path / "m-repro", also_seen=(ANTIALIAS,)))
    assert {path.name for path in out.iterdir()} == {
        "repro.onnx", "inputs.npz", "expected.npz", "repro.py", "ISSUE.md", "report.json", "target.log",
    }  # fmt: skip
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads((out / "report.json").read_text())
    jsonschema.validate(document, schema)
    assert document["nodes"] == ["up"] and document["model"] == {"file": "big model.onnx", "nodes": 910}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "surprise": 1}, schema)


def test_verify_takes_the_tactics_that_were_kept(failing: Candidate, tmp_path: Path) -> None:
    kept = TargetSettings("tensorrt", with_tactics=("0x1",), without_tactics=("0x2",))
    folder = write(reduction(failing, tmp_path / "m-repro", settings=Settings(kept)))
    _, report = untrusted.opened(folder, tmp_path)
    target = report.target(None)
    assert (target.with_tactics, target.without_tactics) == (("0x1",), ())


def test_no_folder_of_the_user_is_written(failing: Candidate, tmp_path: Path) -> None:
    """But for libraries: `repro.py` has to load them from where they are."""
    there = Path("/home/someone/secret")
    libraries = {"plugins": (there / "p.so",), "ep_libraries": (("X", there / "x.so"),)}
    logs = {"timing_cache": there / "cache", "verbose_log": there / "log"}
    target = TargetSettings("tensorrt-rtx", **logs, **libraries)  # type: ignore[arg-type]
    run = RunSettings(inputs=there / "in.npz", cache_dir=there / "c", save_inputs=there / "s")
    accuracy = AccuracySettings(reference=f"outputs:{there}/out.npz", custom_ops=(there / "ops.so",))
    out = write(reduction(failing, tmp_path / "m-repro", settings=Settings(target, run, accuracy)))
    for path in out.iterdir():
        assert b"secret" not in path.read_bytes() or path.name == "repro.py", path.name
    again = "bisect-trt verify . --plugins p.so --ep-library X=x.so --custom-ops ops.so"
    assert again in (out / "ISSUE.md").read_text()


@pytest.mark.parametrize("limit", [models.EMBED_LIMIT, 1000])
def test_the_model_stands_alone(store: Path, tmp_path: Path, limit: int) -> None:
    x = np.ones((2, 64), np.float32)
    models.write_model(candidate(matmul(store), store, x, x @ WEIGHT), tmp_path / "out", limit)
    for path in store.iterdir():
        path.unlink()
    out = tmp_path / "out"
    assert (out / "repro.data").exists() == (limit == 1000)
    onnx.checker.check_model(str(out / "repro.onnx"))
    session = ort.InferenceSession(str(out / "repro.onnx"), providers=["CPUExecutionProvider"])
    with np.load(out / "inputs.npz") as inputs, np.load(out / "expected.npz") as expected:
        (y,) = session.run(None, dict(inputs))
        np.testing.assert_allclose(y, expected["y"], rtol=1e-5)


def test_external_data_that_ends_early_is_an_error_and_nothing_is_written(
    store: Path, tmp_path: Path
) -> None:
    x = np.ones((2, 64), np.float32)
    best = candidate(matmul(store), store, x, x)
    os.truncate(store / "t000000.npy", 200)
    with pytest.raises(OSError, match="ends before the weight 'w' does"):
        models.write_model(best, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_written_model_is_read_back(failing: Candidate, tmp_path: Path) -> None:
    best = replace(failing, feeds=failing.feeds * 2, expected=failing.expected * 2)
    models.write_model(best, tmp_path / "out")
    (tmp_path / "scratch").mkdir()
    back = models.read_model(tmp_path / "out", tmp_path / "scratch")
    assert back.nodes == ("up",) and back.folder == tmp_path / "out" and len(back.feeds) == 2
    assert back.model == (tmp_path / "out/repro.onnx").read_bytes()
    for mine, other in zip((*back.feeds, *back.expected), (*best.feeds, *best.expected), strict=True):
        assert {n: p.read_bytes() for n, p in mine.items()} == {n: p.read_bytes() for n, p in other.items()}


def test_odd_names_and_types_survive_the_archive(tmp_path: Path) -> None:
    values = {
        "file": np.int64(3),
        "/block/conv:0": np.ones(3, np.float16),
        "../up": np.array(["a", "bc"]),
        "b": np.asarray([1.5], ml_dtypes.bfloat16).view(np.uint16),
    }
    feeds = {}
    for k, (name, value) in enumerate(values.items()):
        np.save(tmp_path / f"{k}.npy", value)
        feeds[name] = tmp_path / f"{k}.npy"
    files.write_values(feeds, tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as back:
        assert sorted(back.files) == sorted(values)
        for name, value in values.items():
            np.testing.assert_array_equal(back[name], value)


def test_the_zip_has_what_to_attach_and_equal_bytes(failing: Candidate, tmp_path: Path) -> None:
    out = write(reduction(failing, tmp_path / "m-repro"))
    (out / "journal.jsonl").write_text("{}\n")
    first = attach.zip_it(out, Stage.BUILD)
    data = first.read_bytes()
    os.utime(out / "repro.onnx", (1, 1))
    assert attach.zip_it(out, Stage.BUILD) == first == tmp_path / "m-repro.zip"
    assert first.read_bytes() == data
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {name.removeprefix("m-repro/") for name in archive.namelist()} == {
            "repro.onnx", "inputs.npz", "expected.npz", "repro.py", "ISSUE.md", "report.json", "target.log",
        }  # fmt: skip


def test_a_file_that_is_not_ours_is_not_overwritten(failing: Candidate, tmp_path: Path) -> None:
    out = write(reduction(failing, tmp_path / "m"))
    (tmp_path / "m-repro.zip").write_text("mine")
    assert attach.zip_it(out, Stage.BUILD) == tmp_path / "m-repro-2.zip"
    assert (tmp_path / "m-repro.zip").read_text() == "mine"


def test_the_script_tells_failing_from_fixed(failing: Candidate, tmp_path: Path) -> None:
    builder = TargetSettings(spec="tensorrt-rtx", workspace=1 << 28, opt_level=1, tf32=False)
    out = write(reduction(failing, tmp_path / "m-repro", settings=Settings(builder)))
    text = (out / "repro.py").read_text()
    assert len(text.splitlines()) < 120 and max(map(len, text.splitlines())) <= 120
    done = start(out)
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stdout
    assert "Antialiasing is not supported" in told and "tensorrt_rtx 1" in told and "numpy 2" in told
    assert "Expected: it parses and builds; ONNX Runtime 1" in told and "Actual: it fails: parse: " in told
    assert start(out, "--until-fixed").returncode == 0
    onnx.save(resize(0), out / "repro.onnx")
    assert start(out).returncode == 0
    assert start(out, "--until-fixed").returncode == 1
    # another failure of the same stage is not this one
    other = helper.make_node("Det", ["x"], ["y"], "d")
    onnx.save(make_model([other], [1, 1, 8, 8], [1, 1]), out / "repro.onnx")
    done = start(out)
    assert done.returncode == 2 and "it fails: parse" in done.stdout, done.stdout
    assert start(out, "--until-fixed").returncode == 2
    (out / "repro.onnx").unlink()
    assert start(out).returncode == 2


def test_the_script_knows_a_build_failure(store: Path, tmp_path: Path) -> None:
    """The parser takes a float8 output, the builder does not."""
    from bisect_trt.targets.tensorrt.backend import TensorRT

    model = make_model(
        [helper.make_node("Cast", ["x"], ["y"], "c", to=TensorProto.FLOAT8E4M3FN)],
        [2, 3],
        [2, 3],
        out=TensorProto.FLOAT8E4M3FN,
    )
    best = candidate(model, store, np.ones((2, 3), np.float32), np.full((2, 3), 0x38, np.uint8))
    result = TensorRT(TargetSettings(spec="tensorrt-rtx")).run(best)
    wanted = result.failures[0]
    assert wanted.stage is Stage.BUILD
    out = write(reduction(best, tmp_path / "m-repro", wanted))
    done = start(out)
    assert done.returncode == 1, done.stdout + done.stderr


def test_dynamic_inputs_get_the_profile(store: Path, tmp_path: Path) -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"], "r")], ["N", 3], ["N", 3])  # type: ignore[list-item]
    x = np.ones((2, 3), np.float32)
    target = TargetSettings(
        spec="tensorrt-rtx",
        min_shapes=(("x", (1, 3)),),
        opt_shapes=(("x", (2, 3)),),
        max_shapes=(("x", (9, 3)),),
    )
    out = write(reduction(candidate(model, store, x, x), tmp_path / "m-repro", settings=Settings(target)))
    assert "((1, 3), (2, 3), (9, 3))" in (out / "repro.py").read_text()
    done = start(out)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("symptom", "insert", "code"),
    [
        (Symptom.CRASH, "os.abort()", 1),
        (Symptom.CRASH, "time.sleep(600)", 2),
        (Symptom.CRASH, "pass", 0),
        (Symptom.HANG, "time.sleep(600)", 1),
        (Symptom.HANG, "os.abort()", 2),
        (Symptom.OUT_OF_MEMORY, "hog = bytearray(1 << 30); time.sleep(600)", 1),
        (Symptom.OUT_OF_MEMORY, "pass", 0),
    ],
)
def test_deaths_are_seen_from_outside(
    store: Path, tmp_path: Path, symptom: Symptom, insert: str, code: int
) -> None:
    """The builder does not die here, so a line that does is written into the script."""
    x = np.ones((2, 3), np.float32)
    model = make_model([helper.make_node("Relu", ["x"], ["y"], "r")], [2, 3], [2, 3])
    wanted = Failure(Stage.BUILD, symptom, f"{symptom}: it died", "it died")
    settings = Settings(
        TargetSettings(spec="tensorrt-rtx"), RunSettings(timeout=10, memory_limit=900_000_000)
    )
    out = write(reduction(candidate(model, store, x, x), tmp_path / "m-repro", wanted, settings=settings))
    text = (out / "repro.py").read_text()
    assert text.count("    builder = trt.Builder(log)\n") == 1
    text = text.replace("    builder = trt.Builder(log)\n", f"    {insert}\n    builder = trt.Builder(log)\n")
    (out / "repro.py").write_text(text)
    done = start(out)
    assert done.returncode == code, done.stdout + done.stderr


def test_the_script_needs_only_numpy_and_the_target(failing: Candidate, tmp_path: Path) -> None:
    """In a virtual environment that holds those two (by links to what is installed) and nothing else."""
    out = write(reduction(failing, tmp_path / "m-repro"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    for package in Path(np.__file__).parents[1].iterdir():
        if package.name.startswith(("numpy", "tensorrt_rtx")):
            (site / package.name).symlink_to(package)
    command = [str(tmp_path / "venv/bin/python"), "-I", str(out / "repro.py")]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ONNX Runtime does not run it here: No module named 'onnxruntime'" in done.stdout
    assert "Antialiasing is not supported" in done.stdout
    (site / "tensorrt_rtx").unlink()
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "No module named 'tensorrt_rtx'" in done.stdout


@pytest.mark.parametrize("stored", [True, False])
def test_the_script_for_a_provider_of_onnx_runtime(store: Path, tmp_path: Path, stored: bool) -> None:
    """The CPU's own provider agrees with itself, until other values are expected."""
    x = np.ones((2, 3), np.float32)
    model = make_model([helper.make_node("Neg", ["x"], ["y"], "r")], [2, 3], [2, 3])
    wanted = Failure(Stage.COMPARE, Symptom.MISMATCH, "outputs differ", "y differs")
    info = TargetInfo("ort:CPUExecutionProvider", "ONNX Runtime's CPU", True)
    best = candidate(model, store, x, -x)
    spec = Settings(TargetSettings(spec="ort:CPU"))
    best = best if stored else replace(best, expected=())
    out = write(reduction(best, tmp_path / "m-repro", wanted, target=info, settings=spec))
    done = start(out)
    assert done.returncode == 0 and "failure is gone" in done.stdout, done.stdout + done.stderr
    if stored:
        np.savez(out / "expected.npz", y=x)
        done = start(out)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "y: 6 of 6 wrong; [0, 0] is -1.0, not 1.0" in done.stdout
    (out / "repro.onnx").write_bytes(b"no model")
    done = start(out)
    assert done.returncode == 2 and "it fails: build" in done.stdout


def test_the_script_for_an_emulated_precision(store: Path, tmp_path: Path) -> None:
    """What is rounded is written into a model of its own, so that ONNX Runtime is all that is needed."""
    x = np.full((2, 3), 300, np.float32)
    model = make_model([helper.make_node("Mul", ["x", "x"], ["y"], "square")], [2, 3], [2, 3])
    wanted = Failure(Stage.COMPARE, Symptom.NOT_FINITE, "outputs are not finite", "y is Inf")
    info = TargetInfo("emulate:fp16", "FP16 emulated", True)
    best, out = candidate(model, store, x, x * x), tmp_path / "m-repro"
    models.write_model(best, out)
    models.write_emulated(out, "fp16")
    spec = Settings(TargetSettings("emulate:fp16"))
    write_texts(reduction(best, out, wanted, target=info, settings=spec))
    assert out / "repro-fp16.onnx" in attach.attachments(out)
    # the tolerance is that of the precision, not that of the types of the tensors
    assert "BOUNDS = {'y': (0.02, None)}" in (out / "repro.py").read_text()
    done = start(out)
    assert done.returncode == 1 and "is inf, not 90000.0" in done.stdout, done.stdout + done.stderr
    np.savez(out / "inputs.npz", x=x / 300)
    np.savez(out / "expected.npz", y=x / 300)
    assert start(out).returncode == 0 and start(out, "--until-fixed").returncode == 1


HARNESS = """
import os, sys, time
import numpy as np
print("loading", sys.argv[1])
mode = open(os.path.join(os.path.dirname(__file__), "mode")).read()
if mode == "fails": sys.exit("ValueError: cannot lower r of " + sys.argv[1])
if mode == "otherwise": sys.exit("MemoryError")
if mode == "cannot tell": sys.exit(125)
if mode == "crash": os.abort()
if mode == "hang": time.sleep(60)
x = np.load(sys.argv[2])["x"]
np.savez(sys.argv[3], y=x if mode == "wrong" else -x)
"""
FAILS = Failure(
    Stage.RUN, Symptom.ERROR, "ValueError: cannot lower <name> of <path>", "ValueError: cannot lower r of m"
)
WRONG = Failure(Stage.COMPARE, Symptom.MISMATCH, "outputs differ", "y differs")


@pytest.mark.parametrize(
    ("wanted", "regex", "modes"),
    [
        (FAILS, "", {"fails": 1, "otherwise": 2, "cannot tell": 2, "crash": 2, "fine": 0}),
        (replace(FAILS, signature="cannot lower"), "cannot l.wer", {"fails": 1, "otherwise": 2, "fine": 0}),
        (WRONG, "", {"wrong": 1, "fine": 0, "fails": 2}),
        (replace(FAILS, symptom=Symptom.CRASH, signature="SIGABRT"), "", {"crash": 1, "fails": 2}),
        (replace(FAILS, symptom=Symptom.HANG, signature="hang: no answer"), "", {"hang": 1, "fine": 0}),
    ],
)
def test_the_script_for_a_command(
    store: Path, tmp_path: Path, wanted: Failure, regex: str, modes: dict[str, int]
) -> None:
    x = np.ones((2, 3), np.float32)
    (tmp_path / "harness.py").write_text(HARNESS)
    spec = f"command:{sys.executable} {tmp_path}/harness.py {{model}} {{inputs}} {{outputs}}"
    settings = Settings(TargetSettings(spec, fail_regex=regex), RunSettings(timeout=5))
    model = make_model([helper.make_node("Neg", ["x"], ["y"], "r")], [2, 3], [2, 3])
    info = TargetInfo(spec, "command harness", True)
    best = candidate(model, store, x, -x)
    out = write(reduction(best, tmp_path / "m-repro", wanted, target=info, settings=settings))
    text = (out / "repro.py").read_text()
    assert len(text.splitlines()) < 120 and "bisect_trt" not in text.replace("bisect-trt", "")
    for mode, code in modes.items():
        (tmp_path / "mode").write_text(mode)
        done = start(out)
        assert done.returncode == code, (mode, done.stdout, done.stderr)


def test_a_planted_target_says_what_it_needs(failing: Candidate, tmp_path: Path) -> None:
    planted = TargetInfo("planted", "planted faults", True)
    spec = TargetSettings(spec="planted:op=Resize,stage=build")
    out = write(reduction(failing, tmp_path / "m-repro", target=planted, settings=Settings(spec)))
    ast.parse((out / "repro.py").read_text())
    done = start(out)
    assert done.returncode == 2 and "no bisect_trt here" in done.stdout
    assert "needs bisect-trt itself" in (out / "ISSUE.md").read_text()
    by_hand = replace(spec, plugins=(Path("/a/p.so"),), ep_libraries=(("X", Path("/x.so")),), fail_regex="a'")
    text = script.render(reduction(failing, out, target=planted, settings=Settings(by_hand)))
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    [call] = [code for code in calls if code.startswith("TargetSettings(")]
    given = eval(call, {"TargetSettings": TargetSettings, "Path": Path})
    assert given == replace(by_hand, spec="auto")


def test_scripts_for_running_targets_are_python(failing: Candidate, tmp_path: Path) -> None:
    """Running needs a GPU; what can be seen without one is that the text is whole."""
    for stage, symptom in (
        (Stage.COMPARE, Symptom.NOT_FINITE),
        (Stage.RUN, Symptom.CRASH),
        (Stage.LOAD, Symptom.ERROR),
    ):
        wanted = Failure(stage, symptom, "x", "x")
        for name in ("tensorrt", "tensorrt-rtx"):
            info = TargetInfo(name, name, True)
            chosen = Settings(TargetSettings(with_tactics=("0x0000000000000002",)))
            text = script.render(reduction(failing, tmp_path, wanted, target=info, settings=chosen))
            ast.parse(text)
            assert "0x0000000000000002" in text and "config.algorithm_selector" in text
            assert "execute_async_v3" in text and f"import {name.replace('-', '_')} as trt" in text


@pytest.mark.parametrize(
    ("symptom", "given", "code"),
    [
        (Symptom.MISMATCH, "y", 0),
        (Symptom.MISMATCH, "y * 1.001", 0),
        (Symptom.MISMATCH, "y * 1.2", 1),
        (Symptom.MISMATCH, "y[:1]", 1),
        (Symptom.MISMATCH, "y / 0", 2),
        (Symptom.NOT_FINITE, "y / 0", 1),
        (Symptom.NOT_FINITE, "y * 1.2", 2),
    ],
)
@pytest.mark.parametrize("elem", [TensorProto.FLOAT, TensorProto.BFLOAT16])
def test_outputs_are_compared(
    store: Path, tmp_path: Path, symptom: Symptom, given: str, code: int, elem: int
) -> None:
    """Engines cannot be run here, so a line that says what one would give is written into the script."""
    x = np.linspace(1, 9, 6, dtype=np.float32).reshape(2, 3)
    raw = x.astype(ml_dtypes.bfloat16).view(np.uint16) if elem == TensorProto.BFLOAT16 else x
    node = helper.make_node("Identity", ["x"], ["y"], "i")
    model = make_model([node], [2, 3], [2, 3], type=elem, out=elem)
    wanted = Failure(Stage.COMPARE, symptom, "y", "y differs")
    found = reduction(candidate(model, store, raw, raw), tmp_path / "m-repro", wanted)
    out = write(replace(found, target=replace(RTX, can_run=True)))
    text = (out / "repro.py").read_text()
    if elem == TensorProto.BFLOAT16:
        given = f"(lambda y: ({given}).astype(ml_dtypes.bfloat16).view('u2'))(y.view(ml_dtypes.bfloat16))"
    text = text.replace('CUDA = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")\n', "")
    start_, end = text.index("def attempt(log):"), text.index('if __name__ == "__main__"')
    fake = "def attempt(log):\n    y = np.load(HERE / 'expected.npz')['y']\n"
    fake += f"    compare('y', y, {given})\n\n\n"
    (out / "repro.py").write_text(text[:start_] + fake + text[end:])
    done = start(out)
    assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.parametrize("target", [RTX, TargetInfo("planted", NASTY, True)])
def test_nothing_in_a_model_becomes_code(store: Path, tmp_path: Path, target: TargetInfo) -> None:
    ones = np.ones((1, 1, 8, 8), np.float32)
    best = candidate(resize(1, NASTY), store, ones, ones)
    wanted = Failure(Stage.PARSE, Symptom.ERROR, NASTY, NASTY, (NASTY,), NASTY)
    settings = Settings(TargetSettings(spec=f"planted:{NASTY}", plugins=(Path(NASTY),)))
    found = reduction(
        best, tmp_path / "m-repro", wanted, target=replace(target, title=NASTY), settings=settings
    )
    out = write(found)
    tree = ast.parse((out / "repro.py").read_text())
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "os._exit(7)" not in calls
    jsonschema.validate(
        json.loads((out / "report.json").read_text()),
        json.loads((ROOT / "docs/report.schema.json").read_text()),
    )


@given(st.text())
def test_a_fence_holds_whatever_is_in_it(text: str) -> None:
    lines = markdown.fence(text).split("\n")
    assert lines[0] == lines[-1] and set(lines[0]) == {"`"}
    assert not any(line.strip().startswith(lines[0]) for line in lines[1:-1])


@given(st.text())
@example('a\x00b\r\nimport os\u2028\x0c """ \\')
def test_a_comment_stays_in_its_string(text: str) -> None:
    assert isinstance(ast.parse(f'"""{script.comment(text)}\n"""').body[0], ast.Expr)


def test_parts_are_what_the_message_and_its_mask_share() -> None:
    failure = Failure(
        Stage.BUILD,
        Symptom.ERROR,
        "IBuilder::build: Error Code <n>: tensor <name> has <n> dims but needs a shape that fits",
        "IBuilder::build: Error Code 4: tensor conv_7 has 5 dims but needs a shape that fits",
    )
    parts = constant_parts(failure)
    assert parts[0] == "dims but needs a shape that fits" and "IBuilder::build: Error Code" in parts
    assert constant_parts(replace(failure, signature="<name>")) == []


def test_a_parser_tells_the_same_failure_by_another_function_in_another_release() -> None:
    """TensorRT-RTX 1.6 and 1.7 refuse a zero point in functions of two names, 1.5 with a blank less."""
    said = "Assertion failed: allZeros(point): Non-zero zero point is not supported. Set XYto enable it"
    old = Failure(Stage.PARSE, Symptom.ERROR, f"INVALID_NODE:QuantizeLinear:HelperOfBoth: {said}", said)
    new = replace(old, signature=old.signature.replace("HelperOfBoth", "buildIt").replace("XYto", "XY to"))
    assert not old.same_as(new) and old.told_like(new)
    assert not old.told_like(replace(new, signature=new.signature.replace("Quantize", "Dequantize")))
    assert all(part in f"{said} [QuantizeLinear in buildIt]" for part in constant_parts(old))
    bare = Failure(Stage.PARSE, Symptom.ERROR, "UNSUPPORTED_NODE:Det:checkDet: false", "no Det (checkDet)")
    assert constant_parts(bare) == ["[Det in checkDet]"]
    assert not bare.told_like(replace(bare, signature=bare.signature.replace("checkDet", "parse")))


def test_the_script_gives_an_engine_the_types_that_it_takes() -> None:
    """TensorRT 8.6 makes int32 of int64: the bytes of one are not those of the other."""
    trt = SimpleNamespace(int32="int32", float32="float32", IOutputAllocator=object)
    known: dict[str, Any] = {"trt": trt, "np": np}
    exec(script.environment().get_template("memory.py.j2").render(), known)
    of = {"ids": "int32", "x": "float32", "y": "int64", "bits": "bf16"}
    engine = SimpleNamespace(get_tensor_dtype=of.__getitem__)
    kinds = {
        name: np.dtype(known["kind"](engine, name, np.zeros(2, given)))
        for name, given in {"ids": np.int64, "x": np.float64, "y": np.int64, "bits": np.uint16}.items()
    }
    assert kinds == {"ids": np.int32, "x": np.float32, "y": np.int64, "bits": np.uint16}
