"""First contact: sixty wrong uses, and what is printed for each, as one page to read."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from bisect_trt import _version
from bisect_trt.cli.app import NAMES, main

GOLDEN = Path(__file__).parent / "data/first_contact.txt"
"""`UPDATE_GOLDEN=1 make test ARGS=tests/test_first_contact.py` writes it again: then read what changed."""

EMULATE = "--target emulate:fp16"
USES = [
    # Nothing, or no command.
    "",
    "-V",
    "model.onnx",
    "models",
    "night.toml",
    "redcue model.onnx",
    "checkmodel.onnx",
    "help doctor extra",
    # Words of other tools, which are understood: what is wrong here comes after them.
    "check gone.onnx --target trt --fp16",
    "check --onnx=gone.onnx --target rtx",
    "check gone.onnx --shapes x:[1,3,8,8]",
    "check gone.onnx --minShapes=x:1x3 --maxShapes=x:8x3",
    "reduce gone.onnx --anonymize",
    # Options.
    "check",
    "check model.onnx other.onnx",
    "check model.onnx --taget emulate:fp16",
    "check model.onnx --target",
    "check model.onnx --target fp7",
    "check model.onnx --target tensort",
    "check model.onnx --target ort",
    "check model.onnx --target emulate:fp7",
    "check model.onnx --target command:'echo \"'",
    "check model.onnx --precision fp8",
    f"check model.onnx {EMULATE} --precision fp16",
    "check model.onnx --shapes x",
    "check model.onnx --shapes x:1x3,x:2x3",
    f"check model.onnx {EMULATE} --shapes nope:1x3x8x8",
    f"check model.onnx {EMULATE} --shapes x:1x3",
    "check model.onnx --min-shapes x:1x3",
    "check model.onnx --shapes x:1 --min-shapes x:1 --max-shapes x:2",
    "check model.onnx --rtol much",
    "check model.onnx --rtol 1e-3 --rtol 1e-2",
    f"check model.onnx {EMULATE} --rtol nope:1e-3",
    "check model.onnx --metric bleu",
    "check model.onnx --topk 5",
    "check model.onnx --input-range x:2..1",
    "check model.onnx --workspace lots",
    "check model.onnx --opt-level 9",
    "check model.onnx --seed 1.5",
    "check model.onnx --timeout soon",
    "check model.onnx --device 0,0",
    "check model.onnx --plugins gone.so",
    "check model.onnx --reference pytorch",
    f"check model.onnx {EMULATE} --reference python:gone.py",
    "reduce model.onnx --workers 3 --device 0,1",
    "reduce model.onnx --anonymise --no-simplify",
    "reduce model.onnx --style github",
    "reduce model.onnx --with tensorboard",
    "reduce model.onnx --budget 1h30",
    # Files.
    "check gone.onnx",
    "check models",
    "check empty.onnx",
    "check text.onnx",
    "check lfs.onnx",
    "check net.py",
    "reduce some.zip",
    f"check model.onnx {EMULATE} --inputs gone.npz",
    f"check model.onnx {EMULATE} --inputs wrong.npz",
    f"check model.onnx {EMULATE} --inputs text.onnx",
    f"check model.onnx {EMULATE} --inputs net.pt",
    "verify model.onnx",
    "verify gone.onnx",
    "blame gone-repro",
    "blame model.onnx",
    "blame models --on gone.onnx",
    "verify models",
    "verify some.zip",
    # A model that does not fail is an answer.
    f"reduce model.onnx {EMULATE} --repeats 1 --timeout 60",
    # Nights.
    "nightly",
    "nightly gone.toml",
    "nightly night.toml",
    "nightly broken.toml",
    "nightly model.onnx",
    "nightly models --until late",
    "nightly --init night.toml",
]


@pytest.fixture
def desk(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what people have lying around."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(models_dir / "ok.onnx", "model.onnx")
    Path("models").mkdir()
    for name in ("a.onnx", "b.onnx"):
        shutil.copy("model.onnx", Path("models") / name)
    Path("empty.onnx").touch()
    Path("text.onnx").write_text("hello\n")
    Path("lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    Path("net.py").write_text("import torch\n")
    Path("net.pt").touch()
    Path("some.zip").write_text("no zip\n")
    Path("night.toml").write_text("[models]\ninclude = ['*.onnx']\n[defaults]\nrtoll = 1\n")
    Path("broken.toml").write_text("[models\n")
    np.savez("wrong.npz", nope=np.zeros(3, np.float32))
    return tmp_path


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The screen after a command, without what differs between machines and versions."""
    code = main(words)
    seen = capsys.readouterr()
    text = seen.out + seen.err
    for found, kept in (
        (_version.__version__, "VERSION"),
        (str(Path.cwd()), "HERE"),
        (r"\d+\.\d+(\.\d+)+", "1.2.3"),
        (r"\b\d+(\.\d)? s\b", "1 s"),
    ):
        text = re.sub(re.escape(found) if kept in ("VERSION", "HERE") else found, kept, text)
    return f"$ {shlex.join(['bisect-trt', *words])}\n{text}[{code}]\n"


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for words in (["help"], ["--help"], ["help", "scan"], ["scan", "--help"]):
        assert main(words) == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] and pages[2] == pages[3] and "--tensors" in pages[2]


@pytest.mark.parametrize("path", ["", f"{'x' * 300}.onnx"], ids=["empty", "long"])
@pytest.mark.parametrize("command", [name for name in NAMES if name != "doctor"])
def test_a_path_that_no_file_can_have_is_a_wrong_use(
    command: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An unset variable of a shell gives an empty path.
    monkeypatch.chdir(tmp_path)
    assert main([command, path]) == 2


def test_sixty_wrong_uses_read_well(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert onnx.load("model.onnx").graph.input
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("bisect_trt.cli.app._columns", lambda: 80)
    page = "\n".join(said(shlex.split(use), capsys) for use in USES)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(page)
    assert len(USES) >= 60 and "Traceback" not in page and "internal error" not in page
    assert page == GOLDEN.read_text()


def test_an_index_beyond_the_depth_of_a_one_hot_is_legal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX gives a row of off values for it."""
    depth = onnx.numpy_helper.from_array(np.array(4), "depth")
    values = onnx.numpy_helper.from_array(np.array([0, 1], np.float32), "values")
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("OneHot", ["i", "depth", "values"], ["y"])],
        "g",
        [make("i", onnx.TensorProto.INT64, [3])],
        [make("y", onnx.TensorProto.FLOAT, [3, 4])],
        [depth, values],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "m.onnx")
    np.savez(tmp_path / "i.npz", i=np.array([0, 3, 9]))
    words = ["check", str(tmp_path / "m.onnx"), "--target", "ort:CPU", "--inputs", str(tmp_path / "i.npz")]
    assert main(words) == 0, capsys.readouterr().err
