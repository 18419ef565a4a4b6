"""The command line: options, exit codes, one line for an error, one document for --json."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from msgspec.structs import replace
from onnx import helper
from rich.console import Console

import bisect_trt
from bisect_trt import errors
from bisect_trt.cli.app import app, main
from bisect_trt.cli.output.console import show_check, show_reduction
from bisect_trt.model.candidate import Candidate
from bisect_trt.options import ROWS, kinds
from bisect_trt.outcome import End, Ended, Failure, Outcome, Stage, Symptom
from bisect_trt.results import CANNOT_RUN, Check, Reduction, Simplification
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
MAIN = "import sys; from bisect_trt.cli.app import main; sys.exit(main())"
SCHEMA = json.loads((ROOT / "docs/report.schema.json").read_text())
INFO = TargetInfo("tensorrt-rtx", "TensorRT-RTX 1.7.1.116", False)
FAILURE = Failure(Stage.BUILD, Symptom.ERROR, "no", "no [bold]way[/bold]\x1b[2J", ("a[0]",), "Conv")


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`bisect-trt` in a process of its own."""
    line = [sys.executable, "-c", MAIN, *words]
    return subprocess.run(
        line, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("texts", "shapes"),
    [
        (None, {}),
        (["x:1x3x224x224"], {"x": (1, 3, 224, 224)}),
        (["b:2", "a:1x1"], {"a": (1, 1), "b": (2,)}),
        (["b:2 a:1x1"], {"a": (1, 1), "b": (2,)}),
        (["b:2, a:1x1,c:0"], {"a": (1, 1), "b": (2,), "c": (0,)}),
        (["input:0:1x3"], {"input:0": (1, 3)}),
        (["my input:4 b:5"], {"my input": (4,), "b": (5,)}),
        (["x:[1,3, 224],y:[2]"], {"x": (1, 3, 224), "y": (2,)}),  # as Polygraphy has them
    ],
)
def test_shapes(texts: list[str] | None, shapes: dict[str, tuple[int, ...]]) -> None:
    (row,) = (r for r in ROWS if r.flag == "--shapes")
    assert dict(row.read(texts)) == shapes


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "x:", "x:axb", "x:1x-1", "x:1x", "1x3", "x:1.5", ":3", "x:1 y", "x:1,x:2"],
)
def test_wrong_shapes_are_one_clear_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "model.onnx", "--shapes", text]) == 2
    seen = capsys.readouterr()
    first, second = seen.err.splitlines()
    assert first.startswith("error: --shapes") and second.startswith("hint: ") and seen.out == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 << 30), ("512MiB", 512 << 20), ("1.5k", 1536), ("7", 7), ("1 TB", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert kinds.size(text) == size == kinds.size(kinds.size_text(size))


@pytest.mark.parametrize("text", ["", "G", "-1", "0", "2X", "1e9", "2GG"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        kinds.size(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-shapes", "x:1"], "incomplete"),
        (["--opt-shapes", "x:1"], "incomplete"),
        (["--min-shapes", "x:1", "--max-shapes", "y:1"], "incomplete"),
        (["--min-shapes", "x:2", "--max-shapes", "x:1"], "min <= opt <= max"),
        (["--min-shapes", "x:1", "--max-shapes", "x:1x1"], "min <= opt <= max"),
        (
            ["--shapes", "x:1", "--min-shapes", "x:1", "--max-shapes", "x:1"],
            "in --shapes and in --min-shapes",
        ),
        (["--workspace", "much"], "is not a size"),
        (["--plugins", "/no/such/lib.so"], "no such file"),
        (["--opt-level", "6"], "--opt-level"),
        (["--repeats", "0"], "--repeats"),
        (["--nonsense"], "--nonsense"),
        (["another.onnx"], "another.onnx"),
    ],
)
def test_wrong_options(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reduce", "model.onnx", *words]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert said in error and error.startswith("error: ") and hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("w", "h"), 2),
        (errors.TargetUnavailable("w", "h"), 3),
        (errors.ModelDoesNotFail("w", "h"), 4),
        (errors.FlakyFailure("w", "h"), 5),
        (errors.StoppedEarly("w", "h"), 6),
        (KeyboardInterrupt(), 6),
        (RuntimeError("w\nand more"), 70),
        (AssertionError(), 70),
    ],
)
def test_every_error_has_its_code_and_no_traceback(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(*words: Any, **more: Any) -> Any:
        raise error

    monkeypatch.setattr(bisect_trt, "check", fake, raising=False)
    assert main(["check", "m.onnx"]) == code
    seen = capsys.readouterr()
    assert seen.out == "" and "Traceback" not in seen.err and len(seen.err.splitlines()) == 2
    assert main(["check", "m.onnx", "--json"]) == code
    seen = capsys.readouterr()
    told = json.loads(seen.out)["error"]
    assert told["exit_code"] == code and told["message"] and told["hint"] and seen.err == ""
    assert main(["check", "m.onnx", "--debug"]) == code
    assert type(error).__name__ in capsys.readouterr().err


@pytest.mark.parametrize(("words", "hint"), [(["check", "m.onnx"], "kept"), (["scan", "m.onnx"], "goes on")])
def test_who_interrupts_reads_whether_anything_was_kept(
    words: list[str], hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(*words: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(bisect_trt, words[0], fake, raising=False)
    assert main(words) == 6
    assert hint in capsys.readouterr().err.splitlines()[1]


def test_usage_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reduce", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "UsageError"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bisect-trt {bisect_trt.__version__}\n"
    assert main(["reduce", "--help"]) == 0
    text = capsys.readouterr().out
    for option in (
        "--out", "--target", "--inputs", "--seed", "--timeout", "--repeats", "--workers", "--memory-limit",
        "--json", "--force", "--debug", "--shapes", "--min-shapes", "--opt-shapes", "--max-shapes",
        "--workspace", "--opt-level", "--tf32", "--no-tf32", "--timing-cache", "--plugins", "--verbose-log",
    ):  # fmt: skip
        assert option in text


def test_check_says_what_fails_and_what_to_paste(models_dir: Path, tmp_path: Path) -> None:
    model = models_dir / "resize_antialias.onnx"
    done = command("check", str(model), "--target", "tensorrt-rtx", "--workspace", "1G", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "parse error" in done.stdout and "/neck/down/Resize" in done.stdout and "(Resize)" in done.stdout
    (line,) = [x for x in done.stdout.splitlines() if "bisect-trt reduce" in x]
    words = shlex.split(line.removeprefix("Next"))
    assert words == [
        "bisect-trt",
        "reduce",
        str(model),
        "--target",
        "tensorrt-rtx",
        "--workspace",
        "1G",
    ]
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_good_model(models_dir: Path, tmp_path: Path) -> None:
    done = command("check", str(models_dir / "ok.onnx"), "--target", "tensorrt-rtx", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["agrees"] and document["failures"] == [] and document["reduce"] == ""


def test_reduce_from_the_command_line(models_dir: Path, tmp_path: Path) -> None:
    words = ("reduce", str(models_dir / "resize_antialias.onnx"), "--target", "tensorrt-rtx", "--out", "o")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "26 -> 1 node: Resize" in done.stdout
        and "3 of 3 fresh runs" in done.stdout
        and "1-minimal" in done.stdout
    )
    assert len(done.stdout.splitlines()) <= 14
    assert "follow hints" in done.stderr and "\x1b" not in done.stdout + done.stderr
    assert (tmp_path / "o-repro.zip").exists()
    again = command(*words, cwd=tmp_path)
    assert again.returncode == 2 and "finished run" in again.stderr and again.stdout == ""
    forced = command(*words, "--force", "--json", cwd=tmp_path)
    assert forced.returncode == 0 and forced.stderr == ""
    document = json.loads(forced.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["verified"] == document["repeats"] == 3 and document["zip"].endswith("o-repro.zip")
    repro = subprocess.run([sys.executable, "o/repro.py"], cwd=tmp_path, check=False, capture_output=True)
    assert repro.returncode == 1


def test_a_target_that_prints_does_not_spoil_the_document(models_dir: Path, tmp_path: Path) -> None:
    """Myelin writes to standard output by itself."""
    done = command("reduce", str(models_dir / "attention_gqa.onnx"), "--json", "--repeats", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), SCHEMA)


def test_a_model_that_does_not_fail(models_dir: Path, tmp_path: Path) -> None:
    done = command("reduce", str(models_dir / "ok.onnx"), "--target", "tensorrt-rtx", cwd=tmp_path)
    assert done.returncode == 4 and done.stdout == ""
    assert "TensorRT-RTX" in done.stderr and "not compared" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("missing.onnx", None), ("text.onnx", b"hello"), ("empty.onnx", b""), ("dir.onnx", "dir")],
)
def test_files_that_are_no_models(
    name: str, content: bytes | str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    before = sorted(tmp_path.iterdir())
    for what in ("check", "reduce"):
        assert main([what, str(path), "--target", "tensorrt-rtx"]) == 2
        seen = capsys.readouterr()
        assert name in seen.err and "Traceback" not in seen.err and seen.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_target(models_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(models_dir / "ok.onnx"), "--target", "tensorrtx"]) == 2
    assert "tensorrt-rtx" in capsys.readouterr().err


@pytest.mark.parametrize("width", [30, 80, 200])
def test_the_screens_show_names_as_they_are(width: int, tmp_path: Path) -> None:
    console = Console(width=width, highlight=False)
    model = Path("a [red]dir[/red]/" + "long" * 20 + ".onnx")
    outcome = Outcome((FAILURE,), 1.0)
    node = helper.make_node("Conv", ["x"], ["y"], "a[0]")
    proto = helper.make_model(helper.make_graph([node], "g", [], []))
    with console.capture() as capture:
        show_check(Check(model, Settings(), INFO, "", outcome, 9, 1.0, False), console)
        best = Candidate(proto.SerializeToString(), tmp_path, ("a[0]",))
        result = Reduction(model, tmp_path / "o", Settings(), INFO, "", FAILURE, best, 9)
        show_reduction(
            replace(result, end=End(Ended.INTERRUPTED, "interrupted")), tmp_path / "o.zip", console
        )
    text = capture.get()
    assert "a[0]" in text and "\x1b[2J" not in text and "[bold]way[/bold]" in text
    resume = shlex.join(["bisect-trt", "reduce", str(model), "--out", str(tmp_path / "o")])
    assert f"Go on       {resume}\n" in text  # one line, whatever the width: to be pasted
    assert "unverified" in text and "stopped early: interrupted" in " ".join(text.split())


def test_a_current_folder_that_is_gone_is_no_bug_of_ours(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bisect_trt.reduce", lambda *args, **options: Path.cwd())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    assert main(["reduce", str(models_dir / "ok.onnx")]) == 2
    assert "error: the current folder is gone" in capsys.readouterr().err


def test_no_place_for_temporary_files_is_no_bug_of_ours(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container that is read-only: `tempfile` tries four folders."""

    def nowhere(*args: object, **options: object) -> None:
        said = "No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/work']"
        raise FileNotFoundError(errno.ENOENT, said)

    monkeypatch.setattr("bisect_trt.reduce", nowhere)
    assert main(["reduce", str(models_dir / "ok.onnx")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: temporary files can be written nowhere") and "TMPDIR" in said


@pytest.mark.parametrize("place", ["", "/mnt/out/repro.onnx"])
def test_a_full_disk_is_no_bug_of_ours(
    place: str, models_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", *([place] if place else []))

    monkeypatch.setattr("bisect_trt.reduce", full)
    assert main(["reduce", str(models_dir / "ok.onnx")]) == 6
    said = capsys.readouterr().err
    assert said.splitlines()[0] == f"error: no space left {f'for {place}' if place else 'on a disk'}"
    assert "run the same line again" in said


@pytest.mark.parametrize(
    ("blamed", "told"),
    [("ab", "node b (Conv)"), ("a", "nodes b, c"), ("", "nodes b, c"), ("cb", "nodes c, b (Conv)")],
)
def test_a_node_that_is_not_left_is_not_the_place(blamed: str, told: str, tmp_path: Path) -> None:
    """The target may have named an innocent one."""
    failure = replace(FAILURE, nodes=tuple(blamed), op="Conv")
    nodes = [helper.make_node("Conv", ["x"], [name], name) for name in "bc"]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()
    best = Candidate(model, tmp_path, ("b", "c"))
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        found = Reduction(Path("m.onnx"), tmp_path / "o", Settings(), INFO, "", failure, best, 9)
        show_reduction(found, tmp_path / "o.zip", console)
    assert f"Where       {told}\n" in capture.get()


def test_that_the_reference_cannot_run_the_model_is_said_right_below_the_failure(tmp_path: Path) -> None:
    """Shapes of the user's that no runtime takes put all the rest in doubt."""
    notes = (f"{CANNOT_RUN}: MatMul dimension mismatch\nmore of it", "another note")
    model = helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()
    best = Candidate(model, tmp_path, ("b",))
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        found = Reduction(Path("m.onnx"), tmp_path / "o", Settings(), INFO, "", FAILURE, best, 9, notes=notes)
        show_reduction(found, tmp_path / "o.zip", console)
    rows = [line for line in capture.get().splitlines() if line[:1].strip()]
    assert rows[1] == f"Careful     {notes[0].partition(chr(10))[0]}"
    assert capture.get().count(CANNOT_RUN) == 1


@pytest.mark.parametrize("how", [Ended.DONE, Ended.SPENT])
def test_a_simplification_that_had_its_time_says_how_it_goes_on(how: Ended, tmp_path: Path) -> None:
    model = helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()
    best = Candidate(model, tmp_path, ("b",))
    simple = Simplification(nodes=("b",), end=End(how))
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        found = Reduction(Path("m.onnx"), tmp_path / "o", Settings(), INFO, "", FAILURE, best, 9)
        show_reduction(replace(found, simplification=simple), tmp_path / "o.zip", console)
    assert ("--force --simplify-budget" in capture.get()) is (how is Ended.SPENT)


def test_ctrl_c_leaves_the_best_so_far_and_the_line_that_goes_on(models_dir: Path, tmp_path: Path) -> None:
    line = ["reduce", str(models_dir / "ok.onnx"), "--out", "o b", "--seed", "1"]
    target = "planted:nodes=/backbone/layer1/Add;/backbone/layer2/Add,fail=error+cost=0.05"
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *line, "--target", target],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for said in process.stderr:
        if "still fail" in said:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 6, out + err
    (go_on,) = [x for x in out.splitlines() if x.startswith("Go on")]
    words = shlex.split(go_on.removeprefix("Go on"))
    assert words[:2] == ["bisect-trt", "reduce"] and words[words.index("--target") + 1] == target
    assert (tmp_path / "o b/repro.onnx").exists() and "stopped early" in out
    done = command(*words[1:], cwd=tmp_path)
    assert done.returncode == 0 and "3 of 3" in done.stdout, done.stdout + done.stderr


def test_a_closed_pipe_is_no_error(models_dir: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", MAIN, "reduce", "--help"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.wait(60)
    assert "Traceback" not in said


def test_the_reference_of_the_command_line_is_current() -> None:
    """`make docs` writes it."""
    text = (Path(__file__).parents[1] / "docs/cli.md").read_text()
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        part = text.partition(f"## `bisect-trt {command.name}`\n")[2].partition("\n## ")[0]
        for option in (name for parameter in command.params for name in parameter.opts if name[0] == "-"):
            assert re.search(rf"\* `[^`]*{option}\b", part), f"{command.name} {option}: run `make docs`"
