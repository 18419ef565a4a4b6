"""Progress: a live view on terminals of any width, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from onnx import helper
from rich.console import Console

from bisect_trt.cli.output import console as module_console
from bisect_trt.cli.output import progress as module
from bisect_trt.cli.output.console import show_reduction
from bisect_trt.cli.output.progress import LiveView, progress
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.origin import Origin
from bisect_trt.outcome import End, Ended, Failure, Stage, Symptom
from bisect_trt.results import Reduction, Step
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo

STEPS = [
    Step("record", "running the reference", 910),
    Step("drop", "12 nodes: vanishes", 40, 3, 1, 0, 1.5),
    Step("drop", "[red]3[/red] nodes \x1b[2Jstill fail", 3, 5, 1, 2, 75.0, accepted=True),
]


def terminal(width: int = 80, **more: object) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=width, highlight=False, **more), out  # type: ignore[arg-type]


def test_plain_lines_only_for_what_was_kept() -> None:
    out = io.StringIO()
    with progress(console=Console(file=out, width=20, highlight=False)) as on_event:
        for step in STEPS:
            on_event(step)
    assert out.getvalue() == "drop: [red]3[/red] nodes ?[2Jstill fail (5 probes, 1 min 15 s in the target)\n"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_the_live_view_fits_the_terminal(width: int) -> None:
    console, out = terminal(width)
    view = LiveView()
    view.take(STEPS[2])
    view.take(Step("verify", "running the files", 910))  # knows no counts: they stay
    console.print(view)
    plain = Console(file=io.StringIO(), width=width, highlight=False)
    with plain.capture() as capture:
        plain.print(view)
    lines = capture.get().splitlines()
    assert len(lines) == 5 and max(map(len, lines)) <= width
    assert "\x1b[2J" not in out.getvalue()
    if width == 80:
        text = capture.get()
        for piece in (
            "verify",
            "nodes left  3",
            "5 done, 1 cached, 2 unresolved",
            "1 min 15 s of it",
            "[red]3[/red]",
        ):
            assert piece in text


def test_a_terminal_gets_the_view_and_the_kept_lines() -> None:
    console, out = terminal()
    with progress(console=console) as on_event:
        for step in STEPS:
            on_event(step)
    assert "nodes still fail" not in out.getvalue()  # the escape code was taken out
    assert "unresolved" in out.getvalue() and "still fail (5 probes" in out.getvalue()


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, out = terminal()
    with progress(console=console) as on_event:
        on_event(STEPS[2])
    assert "\x1b[1;36m" not in out.getvalue()
    monkeypatch.delenv("NO_COLOR")
    console, out = terminal(color_system="standard")
    with progress(console=console) as on_event:
        on_event(STEPS[2])
    assert "\x1b[1;36m" in out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 200, 0])
@pytest.mark.parametrize("finished", [True, False])
def test_the_last_screen_is_ten_lines(width: int, finished: bool, tmp_path: Path) -> None:
    """On a terminal of any width; a pipe has none (0), so nothing is cut there."""
    long = "word " * 100
    failure = Failure(Stage.PARSE, Symptom.ERROR, "x", long, ("softmax",), "Softmax")
    model = helper.make_model(helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])] * 9, "g", [], []))
    best = Candidate(model.SerializeToString(), tmp_path, ("a",))
    origin = Origin("softmax", "/home/me/model.py", 6, long, "M.attn")
    result = Reduction(
        tmp_path / "m.onnx", tmp_path / "o", Settings(), TargetInfo("t", "Target 1", False, (long,)), "",
        failure, best, 910, also_seen=(failure,) * 5, notes=(long, long), origins=(origin,), verified=3,
        repeats=3, one_minimal=True, end=End() if finished else End(Ended.INTERRUPTED, "interrupted"),
    )  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, width=width or 80, force_terminal=bool(width), no_color=True, highlight=False)
    show_reduction(result, tmp_path / "o.zip", console)
    lines = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()
    assert len(lines) == 10
    for told in ("parse error on Target 1", "softmax, from model.py", "910 -> 1 node",
                 "1-minimal; 3 of 3", "repro.py", "o.zip"):  # fmt: skip
        assert any(told in line for line in lines), told
    for line in lines:
        exact = line.startswith(("Folder", "Attach", "Next", "Go on")) or "verify" in line
        assert exact or len(line) <= (width or 260) or not width, line
    assert (long.strip() in out.getvalue()) == (not width)


@pytest.mark.parametrize(
    ("message", "gist"),
    [
        ("[tactic.cpp::get::48] Error Code 2: Internal Error (Assertion x() failed. In get at /a/b.cpp:48)",
         "Assertion x() failed."),
        ("IBuilder::f: Error Code 1: Myelin ([myelin_graph.h:12: attach] Exception: ops.cpp:59: CHECK(x))",
         "Myelin (Exception: CHECK(x))"),
        ("no such thing.\nonnxOpCheckers.cpp:749 checkResize", "no such thing."),
        ("onnxOpCheckers.cpp:749 checkResize", "onnxOpCheckers.cpp:749 checkResize"),
        ("y: 3 of 6 differ, the first at [0, 0, 1]", "y: 3 of 6 differ, the first at [0, 0, 1]"),
    ],
)  # fmt: skip
def test_one_line_of_a_message_says_what_is_wrong(message: str, gist: str) -> None:
    assert module_console._gist(Failure(Stage.BUILD, Symptom.ERROR, "x", message)) == gist


def test_quiet_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True) as on_event:
        for step in STEPS:
            on_event(step)
    assert capfd.readouterr() == ("", "")


def test_progress_never_goes_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with progress() as on_event:
        on_event(STEPS[2])
    seen = capfd.readouterr()
    assert seen.out == "" and "still fail" in seen.err


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console, out = terminal()
    with progress(console=console) as on_event:
        on_event(STEPS[-1])
    assert out.getvalue().count("\n") == 1 and "probes" in out.getvalue()  # drawn once, and not drawn over


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_seconds(value: float, text: str) -> None:
    assert module.seconds(value) == text
