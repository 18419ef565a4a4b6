"""`bisect-trt nightly` as people type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from fakes import Site, fails, passes
from small import ERROR, chain

from bisect_trt.cli import nightly as commands
from bisect_trt.errors import UsageError
from bisect_trt.nightly import lock, plan, status
from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.plan import find_models
from bisect_trt.nightly.verdicts import Result, Status


def call(*words: str) -> int:
    """As the command line does it, errors raised."""
    app = typer.Typer()
    app.add_typer(commands.app, name="nightly")

    @app.command("other")
    def other() -> None: ...

    code = app(["nightly", *words], prog_name="bisect-trt", standalone_mode=False)
    return code if isinstance(code, int) else 0


def test_init_writes_a_configuration_that_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("--init") == 0
    assert "nightly.toml written" in capsys.readouterr().out
    with pytest.raises(UsageError, match="is there already"):
        call("--init")
    assert call("--init", "other.toml") == 0 and (tmp_path / "other.toml").exists()
    with pytest.raises(UsageError, match=r"no model matches models/\*\*/\*.onnx"):
        call("nightly.toml")


def test_usage_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in (
        ([], "neither a folder of models nor a configuration"),
        (["--out", "x"], "neither a folder of models nor a configuration"),
        ([".", "--target", "tensort"], "--target: unknown target 'tensort'"),
        (["n.toml", "--rtol", "1"], "--rtol is for a folder of models"),
        (["none.toml"], "cannot read"),
        (["status", "none"], "holds no nights"),
        ([".", "--until", "soon"], "--until 'soon'"),
    ):
        with pytest.raises(UsageError, match=said):
            call(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_folder_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through a configuration, from another folder, with `--out`; then what `status` says of it."""
    monkeypatch.chdir(tmp_path)
    chain(tmp_path / "site/models/ok.onnx", "Abs")
    chain(tmp_path / "site/models/deep/bad.onnx", "Abs", ERROR)
    (tmp_path / "site/n.toml").write_text(
        f'[models]\ninclude = ["models/**/*.onnx"]\n[[target]]\nspec = "planted:op={ERROR},fail=error"\n'
    )
    assert call("site/n.toml", "--out", "here") == 1
    assert "models/deep/bad.onnx" in capsys.readouterr().err
    data = json.loads((tmp_path / "here/results.json").read_text())
    assert {r["model"]: r["status"] for r in data["results"]} == {
        "models/deep/bad.onnx": "new",
        "models/ok.onnx": "passes",
    }
    assert not (tmp_path / "site/runs").exists()
    assert call("site/n.toml", "--out", "here") == 0
    capsys.readouterr()
    assert call("status", "here") == 0
    text = capsys.readouterr().out
    assert "night 2" in text and "exit code 0" in text and "1 known · 1 passes" in text


def test_plain_folder_means_all_models_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("bisect_trt.nightly.service.nightly", lambda config, tell: seen.append(config) or 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert call("models/", "--until", "07:00") == 0
    (config,) = seen
    assert config.base == tmp_path / "models" and config.models.include == ("**/*.onnx",)
    assert config.out == tmp_path / "runs" and config.budget.until is not None
    for name in ("a.onnx", "b/c.onnx", "a-repro/repro.onnx", "b/c-repro/repro.onnx"):
        (tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / name).touch()
    assert find_models(config) == ["a.onnx", "b/c.onnx"]
    (tmp_path / "models" / "round.onnx").symlink_to("round.onnx")  # a model that cannot be read
    assert find_models(config) == ["a.onnx", "b/c.onnx", "round.onnx"]


def test_a_folder_takes_the_options_of_check_and_reduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And `--init` writes a configuration that means the same."""
    seen = []
    monkeypatch.setattr("bisect_trt.nightly.service.nightly", lambda config, tell: seen.append(config) or 0)
    monkeypatch.chdir(tmp_path)
    chain(tmp_path / "models/a.onnx", "Abs")
    words = [
        "--target",
        "emulate:fp16",
        "--rtol",
        "y:1e-2",
        "--inputs",
        "x.npz",
        "--seed",
        "7",
        "--repeats",
        "2",
    ]
    assert call("models", *words) == 0
    assert call("models", *words, "--init") == 0
    assert call("nightly.toml") == 0
    first, second = (plan.items(config, plan.find_models(config))[0] for config in seen)
    assert first.settings == second.settings and first.target == second.target == "emulate:fp16"
    assert (first.name, second.name) == ("a.onnx", "models/a.onnx")
    settings = first.settings
    assert settings.accuracy.rtol == (("y", 0.01),) and settings.run.inputs == tmp_path / "x.npz"
    assert (settings.run.seed, settings.run.repeats) == (7, 2)


def test_status_of_a_running_night(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    seen: list[list[str]] = []
    site.night(
        {"a": passes(), "b": fails("one"), "c": passes()},
        before=lambda runner, asked: seen.append(list(status.lines(site.out))),
    )
    first, last = "\n".join(seen[0]), "\n".join(seen[-1])
    assert f"running by process {os.getpid()}" in first and "phase check" in first
    assert (
        "checked 0 of 3" in first and "checked 3 of 3" in last and "1 new" in last and "phase reduce" in last
    )
    after = "\n".join(status.lines(site.out))
    assert "finished" in after and "exit code 1" in after and "report: " in after


def test_status_tells_what_runs_and_how_far_it_is(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    history = History(out / FILE)
    assert list(status.lines(out)) == ["no night yet"]
    history.begin_night(datetime.now(UTC), 0)
    history.save(Row(1, "m.onnx", "rtx", "s", phase="confirmed", result=Result.FAIL, status=Status.NEW))
    (tmp_path / "job").mkdir()
    step = {"phase": "drop", "text": "", "nodes": 17, "probes": 40}
    (tmp_path / "job/progress.json").write_text(json.dumps(step))
    history.set_running("m.onnx", "rtx", "reduce", str(tmp_path / "job"))
    assert "not finished and not running" in "\n".join(status.lines(out))
    with lock.hold(out):
        text = "\n".join(status.lines(out))
    assert "reduce m.onnx on rtx, for 0." in text and "drop, 17 nodes left, 40 probes" in text


def test_status_writes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    site.night({"a": passes()})
    before = {p: p.stat().st_mtime_ns for p in site.out.rglob("*")}
    list(status.lines(site.out))
    assert {
        p: p.stat().st_mtime_ns for p in site.out.rglob("*") if not p.name.startswith(f"{FILE}-")
    } == before


@pytest.mark.slow
def test_sigterm_ends_a_real_night_in_order(tmp_path: Path) -> None:
    for k in range(4):
        chain(tmp_path / f"models/m{k}.onnx", "Abs")
    text = '[models]\ninclude = ["models/*.onnx"]\n[[target]]\nspec = "planted:op=X,cost=1"\n'
    (tmp_path / "n.toml").write_text(text)
    program = "import sys; from bisect_trt.cli import nightly as n; sys.exit(n.app(standalone_mode=False))"
    night = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "n.toml")],
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert night.stderr is not None
    for line in night.stderr:
        if "check models/m0.onnx" in line:
            break
    began = time.monotonic()
    night.send_signal(signal.SIGTERM)
    rest = night.stderr.read()
    assert night.wait(30) == 6 and time.monotonic() - began < 15, rest
    assert "stopped by a signal" in rest and "Traceback" not in rest
    assert (tmp_path / "runs/index.html").exists()
    assert "goes on with it" in "\n".join(status.lines(tmp_path / "runs"))
