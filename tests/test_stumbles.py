"""What made people stop, one test each: wrong words, wrong exit codes, answers that looked like failures."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import bisect_trt
from bisect_trt.cli.app import main
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.operators import unordered_outputs
from bisect_trt.targets.ort import ep_libraries

ROOT = Path(__file__).parents[1]
HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
TOP = f"""{HEAD} g (float[2, 8] x) => (float[2, 5] v, int64[2, 5] i) {{
    k = Constant<value = int64[1] {{5}}>() v0, i = TopK<sorted = 0>(x, k) v = Identity(v0) }}"""
BACKWARDS = """
import sys
import numpy as np, onnxruntime as ort
model, inputs, outputs = sys.argv[1:4]
session = ort.InferenceSession(model)
given = session.run(None, dict(np.load(inputs)))
names = [output.name for output in session.get_outputs()]
np.savez(outputs, **{name: value[..., ::-1] for name, value in zip(names, given)})
"""


def save(model: str, place: Path) -> str:
    onnx.save(onnx.parser.parse_model(model), place)
    return str(place)


@pytest.fixture
def backwards(tmp_path: Path) -> str:
    """A target that gives the best in another order."""
    (tmp_path / "backwards.py").write_text(BACKWARDS)
    return f"command:{sys.executable} {tmp_path / 'backwards.py'} {{model}} {{inputs}} {{outputs}}"


def test_the_best_without_an_order_are_a_set(
    tmp_path: Path, backwards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    loose, ordered = save(TOP, tmp_path / "a.onnx"), save(TOP.replace("= 0", "= 1"), tmp_path / "b.onnx")
    assert main(["check", loose, "--target", backwards]) == 0
    assert main(["check", ordered, "--target", backwards]) == 1
    assert unordered_outputs(onnx.load(loose)) == {"v": -1, "i": -1}
    assert unordered_outputs(onnx.load(ordered)) == {}


def test_input_values_of_another_type_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(f"{HEAD} g (int64[N] ids) => (int64[N] y) {{ y = Neg(ids) }}", tmp_path / "m.onnx")
    np.savez(tmp_path / "ids.npz", ids=np.array([1, 2], np.float32))
    assert main(["check", model, "--target", "ort:CPU", "--inputs", str(tmp_path / "ids.npz")]) == 0
    assert "ids was converted from float32 to int64; no value changed." in capsys.readouterr().out
    np.savez(tmp_path / "ids.npz", ids=np.array([1.5], np.float32))
    assert main(["check", model, "--target", "ort:CPU", "--inputs", str(tmp_path / "ids.npz")]) == 2


@pytest.mark.parametrize("ends", ["python", "command"])
def test_a_reference_that_crashes_says_nothing_of_the_model(
    ends: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Relu(x) }}", tmp_path / "m.onnx")
    (tmp_path / "crash.py").write_text("import os\ndef run(inputs):\n    os.abort()\n")
    reference = f"python:{tmp_path / 'crash.py'}:run"
    if ends == "command":
        reference = "command:sh -c 'kill -ABRT $$' {model} {outputs}"
    assert main(["check", model, "--target", "ort:CPU", "--reference", reference]) == 3
    told = capsys.readouterr()
    assert told.err.startswith("error: nothing can be said: --reference") and "Fails" not in told.out


def test_a_plugin_without_its_driver_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    library = tmp_path / "libprovider.so"
    library.touch()

    def register(name: str, path: str) -> None:
        raise RuntimeError(f"Failed to load library {path} with error: {lacks}")

    ort: Any = SimpleNamespace(__version__="1.0", register_execution_provider_library=register)
    lacks = "libcuda.so.1: cannot open shared object file: No such file or directory"
    with pytest.raises(TargetUnavailable, match=r"needs libcuda\.so\.1, which is not on this") as told:
        ep_libraries.register(ort, "Nv", library, given=True)
    assert "NVIDIA's driver" in told.value.hint
    lacks = "undefined symbol: GetProvider"
    with pytest.raises(UsageError, match="undefined symbol"):
        ep_libraries.register(ort, "Nv", library, given=True)


def test_an_old_python_is_told_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(SystemExit, match=r"bisect-trt needs Python 3\.11 or newer, and this is 3\.10"):
        runpy.run_path(str(ROOT / "build_backend.py"))
    oldest = ROOT / "pyproject.toml"
    assert 'requires-python = ">=3.11"' in oldest.read_text() and "backend-path" in oldest.read_text()


def test_no_line_installs_what_is_on_no_index() -> None:
    """Before a release: from a clone, an archive or an address."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.*"), *ROOT.glob("bisect_trt/**/*.*")]
    for page in pages:
        text = page.read_text() if page.suffix in (".md", ".py", ".yml", ".j2", ".toml") else ""
        for line in text.splitlines():
            assert "pip install bisect-trt" not in line and "bisect-trt[" not in line, page


def test_a_reproducer_brings_its_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`simplify` and `check` on the folder or its repro.onnx."""
    folder = tmp_path / "m-repro"
    folder.mkdir()
    model = save(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Mul(x, x) }}", folder / "repro.onnx")
    np.savez(folder / "inputs.npz", x=np.full(2, 60_000, np.float32))  # whose square is no FP16
    for place in (model, str(folder)):
        assert main(["check", place, "--target", "emulate:fp16"]) == 1, capsys.readouterr()
    out = str(tmp_path / "out")
    assert main(["simplify", str(folder), "--target", "emulate:fp16", "--out", out, "--repeats", "1"]) == 0
    told = capsys.readouterr().out
    assert "Next" in told.splitlines()[-2] or "Next" in told.splitlines()[-1]


def test_a_reproducer_that_lies_there_twice_counts_once(
    tmp_path: Path, models_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Mul(x, x) }}", tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.full(2, 60_000, np.float32))
    many = tmp_path / "many"
    many.mkdir()
    words = ["--target", "emulate:fp16", "--inputs", str(tmp_path / "x.npz"), "--repeats", "1"]
    assert main(["reduce", model, *words, "--out", str(many / "m-repro"), "--no-simplify"]) == 0
    told = capsys.readouterr().out
    assert any(line.startswith("Next") for line in told.splitlines())
    shutil.copytree(many / "m-repro", many / "copy-repro")
    assert (many / "m-repro.zip").is_file()
    main(["verify", str(many), "--json"])
    assert len(json.loads(capsys.readouterr().out)["results"]) == 1


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "bisect_trt", "-V"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("bisect-trt ")


def test_input_values_in_a_file_of_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Relu(x) }}", tmp_path / "m.onnx")
    (tmp_path / "x.pt").touch()
    assert main(["check", model, "--target", "ort:CPU", "--inputs", str(tmp_path / "x.pt")]) == 2
    assert "is a file of PyTorch" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "blame"])
def test_a_model_that_is_not_there_is_no_model(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path / "gone.onnx")]) == 2
    assert "gone.onnx: no such file or folder" in capsys.readouterr().err


def test_a_page_has_one_count_of_nodes_and_no_idle_passes(tmp_path: Path) -> None:
    """The node that was found is no other one either: nameless, it has two names."""
    pytest.importorskip("tensorrt_rtx")
    model = f"""{HEAD} g (float[3, 3] x) => (float z) {{
        k = Constant<value = float {{2.0}}>() a = Mul(x, k) z = Det(a) }}"""
    found = bisect_trt.reduce(
        save(model, tmp_path / "m.onnx"), target="tensorrt-rtx", repeats=1, out=tmp_path / "out"
    )
    assert [node.op_type for node in onnx.load(found.out / "repro.onnx").graph.node] == ["Det"]
    assert not any("refused too" in note for note in found.notes), found.notes
    told = (found.out / "report.md").read_text()
    assert "2 -> 1 node: Det" in told and "| nodes | 2 | 1 |" in told and "m.onnx, 2 nodes" in told
    table = told.partition("| pass | probes |")[2].partition("\n\n")[0].splitlines()[2:]
    assert table and all(int(row.split("|")[2]) > 0 for row in table)


def test_force_takes_the_old_zip_along(tmp_path: Path) -> None:
    """The zip of another result lay beside a folder that held nothing any more; files of others stay."""
    text = f"{HEAD} g (float[2, 3] x) => (float[2, 3] y) {{ t = Tanh(x) y = Neg(t) }}"
    model, out = save(text, tmp_path / "m.onnx"), tmp_path / "out"
    first = bisect_trt.reduce(model, target="planted:op=Tanh,stage=build", repeats=1, out=out)
    assert first.archive is not None and first.archive.exists()
    other = tmp_path / "notes.zip"
    other.write_bytes(b"of somebody else")
    with pytest.raises(bisect_trt.ModelDoesNotFail):
        bisect_trt.reduce(model, target="planted:op=Exp,stage=build", out=out, force=True)
    assert not first.archive.exists() and other.exists()
