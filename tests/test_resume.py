"""Kill -9 at random moments: the same command goes on, repeats no finished probe, ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

import bisect_trt
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.session import folder as folders
from bisect_trt.session.journal import Journal, read
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.writing.files import ASIDE
from chains import saved

SPEC = "planted:nodes=n5;n21;n22,message=broken,cost=0.002"
# report.json tells times and counts, journal.jsonl the whole story, and the zip holds the report.
SAME = ("repro.onnx", "inputs.npz", "expected.npz", "repro.py", "ISSUE.md", "target.log", "passing.onnx")

CALL = "from bisect_trt.cli.app import main; sys.exit(main())"


def command(model: Path, out: Path, *more: str) -> list[str]:
    arguments = ["reduce", str(model), "--target", SPEC, "--repeats", "1", "--out", str(out), *more]
    return [sys.executable, "-c", f"import sys; {CALL}", *arguments]


def start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def events(out: Path) -> list[dict[str, object]]:
    """What the journal holds whole, now."""
    journal = out / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return [json.loads(line) for line in lines]


def open_probes(out: Path) -> Counter[str]:
    """Probes that were begun and did not end, with how often."""
    begun = Counter(str(e["key"]) for e in events(out) if e["event"] == "begin")
    for event in events(out):
        if event["event"] == "end":
            begun.pop(str(event["key"]), None)
    return begun


def kill_tool(process: subprocess.Popen[bytes], out: Path) -> None:
    """The whole group, unless the open probe was killed before: that is a rule of its own."""
    while process.poll() is None and any(times > 1 for times in open_probes(out).values()):
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_a_worker(process: subprocess.Popen[bytes], out: Path, spared: set[str]) -> bool:
    """A worker in the middle of something, each probe once: twice looks like a lack of memory."""
    running = set(open_probes(out)) or {f"start of {process.pid}"}
    if running & spared or process.poll() is not None:
        return False
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(child.pid) == child.pid:  # workers are leaders of their own
                child.kill()
                time.sleep(0.05)  # it may have been in a probe that began since `running` was read
                spared |= running | set(open_probes(out))
                return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("moments", [5, pytest.param(50, marks=pytest.mark.long)])
def test_kills_at_random_moments_change_nothing(moments: int, tmp_path: Path) -> None:
    """Of the tool, of workers, and with the last line of the journal torn."""
    model = saved(tmp_path)
    straight = tmp_path / "straight" / "out"
    straight.parent.mkdir()
    process = start(command(model, straight))
    assert process.wait() == 0, process.stderr and process.stderr.read()
    dice, out = random.Random(moments), tmp_path / "out"
    kills, spared = 0, set[str]()
    while kills < moments:
        process, known = start(command(model, out)), len(events(out))
        while dice.random() < 0.98 and process.poll() is None and len(events(out)) == known:
            time.sleep(0.02)  # most kills are to hit more than imports
        moment = time.monotonic() + dice.uniform(0.0, 1.5)
        while time.monotonic() < moment and process.poll() is None:
            time.sleep(0.02)
            if dice.random() < 0.04 and kill_a_worker(process, out, spared):
                kills += 1
        if process.poll() is None:
            kill_tool(process, out)
            kills += 1
            tear(out, dice)
        else:
            assert_finished(process)
            assert_same(straight, out)
            out = out.with_name(f"{kills}") / "out"  # a fresh one goes on being killed
            out.parent.mkdir()
            spared.clear()
    process = start(command(model, out))
    process.wait()
    assert_finished(process)
    assert_same(straight, out)


AT_A_WRITE = """
import os, signal, sys
left, folder, count, tool = int(sys.argv.pop(1)), sys.argv[-1], 0, os.getpid()
def hook(event, args):
    global count
    writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event in ("os.rename", "os.remove", "os.mkdir")) and str(args[0]).startswith(folder):
        count += 1
        if count == left and os.getpid() == tool:  # workers may have been forked from it
            os.kill(tool, signal.SIGKILL)
sys.addaudithook(hook)
from bisect_trt.cli.app import main
code = main()
print(count, file=sys.stderr)
sys.exit(code)
"""
"""The tool, killed by itself before its n-th change of the output folder."""

KILLS = 25  # moments that are tried, of some hundred


def killed_at(write: int, model: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """A run that ends itself before its n-th write; 0: never, and the number of writes is its last line."""
    words = [sys.executable, "-c", AT_A_WRITE, str(write), *command(model, out)[3:]]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_kill_before_any_write_changes_nothing(tmp_path: Path) -> None:
    model, straight = saved(tmp_path), tmp_path / "straight" / "out"
    straight.parent.mkdir()
    done = killed_at(0, model, straight)
    assert done.returncode == 0, done.stderr
    writes = int(done.stderr.split()[-1])
    assert writes > 20
    for write in random.Random(0).sample(range(1, writes + 1), min(KILLS, writes)):
        out = tmp_path / f"{write}" / "out"
        out.parent.mkdir()
        assert killed_at(write, model, out).returncode == -signal.SIGKILL
        again = killed_at(0, model, out)
        assert again.returncode == 0 or "finished" in again.stderr, (write, again.stderr)
        assert_same(straight, out)


def test_what_a_kill_after_the_last_word_left_behind_goes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = command(saved(tmp_path), out)
    assert start(words).wait() == 0
    (out / "work").mkdir()
    process = start(words)
    assert process.wait() == 2
    assert_finished(process)
    assert not (out / "work").exists() and (out / "repro.onnx").exists()


def test_a_folder_in_which_a_run_is_at_work_is_left_alone(tmp_path: Path) -> None:
    model, settings = saved(tmp_path), Settings(TargetSettings(SPEC), RunSettings(repeats=1, simplify=False))
    with folders.open_folder(tmp_path / "out", {}, force=False):
        for force in (False, True):
            with pytest.raises(UsageError, match="another run is at work"):
                bisect_trt.reduce(model, settings, out=tmp_path / "out", force=force)
            assert [e["event"] for e in events(tmp_path / "out")] == ["header"]


def test_a_run_goes_on_with_the_same_values_and_programs_on_the_same_target_only(tmp_path: Path) -> None:
    values = np.ones((2, 3), np.float32)
    script = tmp_path / "check.sh"
    script.write_text("#!/bin/sh\n")
    settings = Settings(TargetSettings(f"command:sh {script} {{model}}"))
    head = folders.header("m", settings, [{"x": values}])
    assert head == folders.header("m", settings, [{"x": values.copy()}])
    assert head != folders.header("m", settings, [{"x": values * 2}])
    assert head != folders.header("m", settings, [{"x": values}, {"x": values}])
    script.write_text("#!/bin/sh\nexit 1\n")
    assert head != folders.header("m", settings, [{"x": values}])
    for version in ("1.0", "1.0", "1.1"):
        with folders.open_folder(tmp_path / "out", head, force=False) as journal:
            if version == "1.1":
                with pytest.raises(UsageError, match=r"holds a run on rtx 1\.0; here is rtx 1\.1"):
                    folders.require_target(journal, f"rtx {version}")
            else:
                folders.require_target(journal, f"rtx {version}")


def test_a_draft_of_a_run_that_was_killed_while_it_wrote_is_gone(tmp_path: Path) -> None:
    with folders.open_folder(tmp_path / "out", {}, force=False):
        pass
    draft = tmp_path / "out" / f"{ASIDE}killed"
    draft.mkdir()
    (draft / "blame.json").touch()
    with folders.open_folder(tmp_path / "out", {}, force=False):
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["journal.jsonl"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / ("x" * 300), tmp_path / "file" / "out"):
        with pytest.raises(UsageError, match="cannot write"):
            folders.open_folder(out, {}, force=False)


@pytest.mark.parametrize("first", ["", '{"t": 0.0, "event": "head'])
def test_a_kill_with_the_first_word_leaves_nothing_in_the_way(first: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "journal.jsonl").write_text(first)
    head = {"model": "m"}
    with folders.open_folder(out, head, force=False) as journal:
        assert Journal.header(journal.path) == head
    (out / "journal.jsonl").write_text(first)
    (out / "notes.txt").touch()
    with pytest.raises(UsageError, match="another model"):
        folders.open_folder(out, head, force=False)


def assert_finished(process: subprocess.Popen[bytes]) -> None:
    """It came to its end, or the one before did, which was killed after its last word."""
    said = process.stderr.read().decode() if process.stderr else ""
    assert process.returncode == 0 or "holds a finished run" in said, said


def tear(out: Path, dice: random.Random) -> None:
    """As if the machine had lost its power: of the last line only a part reached the disk."""
    journal = out / "journal.jsonl"
    if dice.random() < 0.25 and journal.exists():
        data = journal.read_bytes()
        last = data.rstrip(b"\n").rfind(b"\n") + 1
        if last and b'"begin"' in data[last:]:
            journal.write_bytes(data[: dice.randrange(last, len(data))])


def content(path: Path) -> bytes:
    """Bytes of a file; ISSUE.md has a column of seconds."""
    return re.sub(rb"\| \d+\.\d+ \|", b"| ? |", path.read_bytes())


def assert_same(straight: Path, out: Path) -> None:
    for name in SAME:
        assert (straight / name).exists() == (out / name).exists(), name
        if (straight / name).exists():
            assert content(straight / name) == content(out / name), name
    ended = Counter(str(e["key"]) for e in events(out) if e["event"] == "end")
    assert ended and max(ended.values()) == 1, "a finished probe was repeated"
    assert not (out / "work").exists()
    assert json.loads((out / "report.json").read_text())["finished"]


def test_a_probe_that_took_the_tool_down_twice_is_not_tried_again(tmp_path: Path) -> None:
    model, settings = saved(tmp_path), Settings(TargetSettings(SPEC), RunSettings(repeats=1, simplify=False))
    plain = bisect_trt.reduce(model, settings, out=tmp_path / "plain")
    begun = [e for e in read(tmp_path / "plain" / "journal.jsonl")[0] if e["event"] == "begin"]
    victim = next(e for e in begun if e["key"] == plain.best.digest)  # the three culprits themselves
    out = tmp_path / "out"
    head = Journal.header(tmp_path / "plain" / "journal.jsonl")
    assert head is not None
    out.mkdir()
    with Journal.open(out / "journal.jsonl", head) as journal:
        for _ in range(2):
            journal.begin(victim["key"], count=3, nodes=victim["nodes"], cut="default")
    result = bisect_trt.reduce(model, settings, out=out)
    ends = [e for e in read(out / "journal.jsonl")[0] if e["event"] == "end" and e["key"] == victim["key"]]
    assert [e["verdict"] for e in ends] == ["unresolved"]
    assert "twice" in ends[0]["outcome"]["unresolved"]
    assert plain.best.digest != result.best.digest, "other nodes, or the same ones cut in another way"
    assert set(plain.best.nodes) == {"n5", "n21", "n22"} <= set(result.best.nodes)


def test_a_whole_model_that_takes_the_tool_down_is_no_endless_loop(tmp_path: Path) -> None:
    model, settings = saved(tmp_path), Settings(TargetSettings(SPEC), RunSettings(repeats=1, simplify=False))
    bisect_trt.reduce(model, settings, out=tmp_path / "plain")
    head = Journal.header(tmp_path / "plain" / "journal.jsonl")
    first = next(e for e in read(tmp_path / "plain" / "journal.jsonl")[0] if e["event"] == "begin")
    assert head is not None
    (tmp_path / "out").mkdir()
    with Journal.open(tmp_path / "out" / "journal.jsonl", head) as journal:
        for _ in range(2):
            journal.begin(first["key"])
    with pytest.raises(TargetUnavailable, match="twice"):
        bisect_trt.reduce(model, settings, out=tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_polite_end_is_no_death_and_leaves_the_best_so_far(number: signal.Signals, tmp_path: Path) -> None:
    model, out = saved(tmp_path), tmp_path / "out"
    slow = command(model, out)
    slow[slow.index(SPEC)] = SPEC.replace("0.002", "0.02")
    process = start(slow)
    while process.poll() is None and not any(reproduced_smaller(out, event) for event in events(out)):
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(30) == 6, process.stderr and process.stderr.read().decode()
    assert not any(open_probes_after_giving_up(out).values())
    report = json.loads((out / "report.json").read_text())
    assert not report["finished"] and report["stop_reason"] == "interrupted"
    assert (out / "repro.onnx").exists()
    assert start(slow).wait() == 0
    assert json.loads((out / "report.json").read_text())["nodes"]


def reproduced_smaller(out: Path, event: dict[str, object]) -> bool:
    if event.get("verdict") != "reproduces":
        return False
    begun = next(e for e in events(out) if e["event"] == "begin" and e["key"] == event["key"])
    return 3 < int(str(begun["count"])) < 40


def open_probes_after_giving_up(out: Path) -> dict[str, int]:
    journal = Journal.open(out / "journal.jsonl", {})
    return {key: times for key in journal._begun if (times := journal.deaths(key))}
