"""The real runner: every way in which a child can end costs its own job only."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from disasters import left_running
from msgspec.structs import replace
from small import CRASH, ERROR, HANG, NUMBERS, SPEC, chain

from bisect_trt.nightly import children, job
from bisect_trt.nightly.children import Children
from bisect_trt.nightly.job import PROGRESS
from bisect_trt.nightly.runner import Answer, Cause, Checked, Job, Reduced, Trouble
from bisect_trt.outcome import Symptom
from bisect_trt.settings import RunSettings, Settings, TargetSettings

SETTINGS = Settings(TargetSettings(spec=SPEC), RunSettings(timeout=60.0, repeats=1))


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path / "tmp", tmp_path, parallel=1, logs=tmp_path / "logs")
    yield made
    made.close()
    assert not (tmp_path / "tmp").exists()
    assert not left_running(tmp_path)


def check(
    runner: Children, slug: str, model: Path, settings: Settings, limit: float, *, fresh: bool = True
) -> Answer:
    return runner.run(Job("check", slug, model, settings, limit, fresh=fresh))


def verify(runner: Children, slug: str, repro: Path, settings: Settings, limit: float) -> Answer:
    return runner.run(Job("verify", slug, Path(), settings, limit, repro))


def reduce(
    runner: Children, slug: str, model: Path, settings: Settings, out: Path, limit: float, *, again: bool
) -> Answer:
    return runner.run(Job("reduce", slug, model, settings, limit, out, again=again))


def test_check_reduce_verify(runner: Children, tmp_path: Path) -> None:
    fine = check(runner, "fine", chain(tmp_path / "fine.onnx", "Abs"), SETTINGS, 100)
    assert isinstance(fine, Checked) and not fine.failures and fine.nodes == 3
    assert fine.digest and "planted" in fine.version and fine.seconds > 0
    bad = chain(tmp_path / "bad.onnx", "Abs", ERROR)
    seen = check(runner, "bad", bad, SETTINGS, 100)
    assert isinstance(seen, Checked) and "Erf is not taken" in seen.failures[0].signature
    out = tmp_path / "repro"
    made = reduce(runner, "bad", bad, SETTINGS, out, 100, again=False)
    assert isinstance(made, Reduced), made
    assert (made.nodes, made.finished, made.verified) == (1, True, 1)
    assert made.shape.startswith("Erf#") and made.failure.key == seen.failures[0].key
    at = (out / "report.json").stat().st_mtime_ns
    again = reduce(runner, "bad", bad, SETTINGS, out, 100, again=False)
    assert isinstance(again, Reduced) and again.shape == made.shape
    assert (out / "report.json").stat().st_mtime_ns == at, "a finished reduction is taken as it is"
    shown = verify(runner, "bad", out, SETTINGS, 100)
    assert isinstance(shown, Checked) and shown.shows and shown.failures[0].key == seen.failures[0].key
    anew = reduce(runner, "bad", bad, SETTINGS, out, 100, again=True)
    assert isinstance(anew, Reduced) and (out / "report.json").stat().st_mtime_ns > at


def test_only_what_saw_passes_and_refusals_is_used_again(runner: Children, tmp_path: Path) -> None:
    seen: list[Path] = []
    ended = runner._wait

    def wait(child: children.Child, limit: float, grace: float) -> Checked | Reduced | Trouble:
        seen.append(child.folder)
        return ended(child, limit, grace)

    runner._wait = wait  # type: ignore[method-assign]
    fine, bad = chain(tmp_path / "fine.onnx", "Abs"), chain(tmp_path / "bad.onnx", ERROR)
    wrong = chain(tmp_path / "wrong.onnx", NUMBERS)
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"rubbish")
    for model in (fine, fine, bad, fine, wrong, fine, corrupt, fine):
        check(runner, "x", model, SETTINGS, 100, fresh=False)
    for _ in range(2):
        check(runner, "x", fine, SETTINGS, 100)
    names = [seen.index(folder) for folder in seen]
    assert names == [0, 0, 0, 0, 0, 5, 5, 7, 8, 9]
    assert not left_running(tmp_path) or len(list((tmp_path / "tmp").iterdir())) == 1, "the spare one"


def test_crash_and_hang_of_the_target_are_failures(runner: Children, tmp_path: Path) -> None:
    for op, symptom in ((CRASH, Symptom.CRASH), (HANG, Symptom.HANG)):
        quick = replace(SETTINGS, run=replace(SETTINGS.run, timeout=3.0))
        seen = check(runner, op, chain(tmp_path / f"{op}.onnx", op), quick, 100)
        assert isinstance(seen, Checked) and seen.failures[0].symptom is symptom


def test_unusable_models(runner: Children, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(chain(tmp_path / "whole.onnx").read_bytes()[:60])
    for path, word in ((broken, "broken.onnx"), (tmp_path / "missing.onnx", "missing.onnx")):
        answer = check(runner, "x", path, SETTINGS, 100)
        assert isinstance(answer, Trouble) and answer.cause is Cause.USAGE and word in answer.reason
    steady = reduce(runner, "x", tmp_path / "whole.onnx", SETTINGS, tmp_path / "out", 100, again=False)
    assert isinstance(steady, Trouble) and steady.cause is Cause.STEADY


def test_log_of_a_bug_is_kept(runner: Children, tmp_path: Path) -> None:
    answer = verify(runner, "x", tmp_path, SETTINGS, 60)  # no reproducer there, which `verify` never sees
    assert isinstance(answer, Trouble) and answer.cause is Cause.BUG and "report.json" in answer.reason
    assert "Traceback" in (tmp_path / "logs" / "x.log").read_text()


def test_deadline(runner: Children, tmp_path: Path) -> None:
    began = time.monotonic()
    answer = check(runner, "x", chain(tmp_path / "x.onnx", HANG), SETTINGS, 3.0)
    assert isinstance(answer, Trouble) and answer.cause is Cause.DEADLINE
    assert 3.0 < time.monotonic() - began < 15.0


def cancel_when_smaller(runner: Children, nodes: int) -> None:
    """Waits until a reduction has a best that is smaller than the model."""
    left = nodes
    ends = time.monotonic() + 120
    while left >= nodes and time.monotonic() < ends:
        time.sleep(0.1)
        with suppress(TypeError, OSError, ValueError):
            left = json.loads((runner.folder("x") / PROGRESS).read_text())["nodes"]  # type: ignore[operator]
    runner.cancel()


def test_reduction_saves_its_best_when_its_time_is_over(runner: Children, tmp_path: Path) -> None:
    """And the next one goes on from there."""
    model = chain(tmp_path / "x.onnx", ERROR, *["Abs"] * 60, CRASH)
    spec = f"planted:nodes=x/{ERROR}_1;x/{CRASH}_62,fail=error+cost=0.01"
    settings = Settings(TargetSettings(spec=spec), SETTINGS.run)
    watcher = threading.Thread(target=cancel_when_smaller, args=(runner, 64))
    watcher.start()
    answer = reduce(runner, "x", model, settings, tmp_path / "out", 300.0, again=False)
    watcher.join()
    assert isinstance(answer, Reduced), answer
    assert not answer.finished and answer.stop_reason
    other = Children(tmp_path / "tmp2", tmp_path, parallel=1, logs=tmp_path / "logs")
    whole = reduce(other, "x", model, settings, tmp_path / "out", 300.0, again=False)
    other.close()
    assert isinstance(whole, Reduced) and whole.finished and whole.nodes == 2


def test_full_disks_as_libraries_tell_them() -> None:
    told = [OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x")]
    told += [
        OSError("Not enough free space to write 40 bytes after offset 128"),
        OSError("9 requested and 3 written"),
    ]
    for error in told:
        assert job._disk_full(error)
        try:
            raise ValueError("another one") from error
        except ValueError as outer:
            assert job._disk_full(outer)
    assert not any(
        job._disk_full(e) for e in (OSError("something"), OSError(errno.EACCES, "x"), ValueError())
    )


@pytest.mark.parametrize(
    ("free", "cause", "told"),
    [(0, Cause.DIED, Cause.DISK), (1 << 30, Cause.DIED, Cause.DIED), (0, Cause.MEMORY, Cause.MEMORY)],
)
def test_a_full_disk_that_nobody_could_tell_of(
    free: int, cause: Cause, told: Cause, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    seen = children._of_the_disk(Trouble(cause, "exit code 1"), tmp_path)
    assert seen.cause is told and "exit code 1" in seen.reason
    assert ("no space left" in seen.reason) == (told is Cause.DISK)


def in_background(runner: Children, model: Path) -> tuple[threading.Thread, list[Checked | Trouble]]:
    answers: list[Checked | Trouble] = []
    thread = threading.Thread(target=lambda: answers.append(check(runner, "x", model, SETTINGS, 60)))
    thread.start()
    return thread, answers


def test_death_of_the_child(runner: Children, tmp_path: Path) -> None:
    thread, answers = in_background(runner, chain(tmp_path / "x.onnx", HANG))
    while (folder := runner.folder("x")) is None or not (folder / "pid").exists():
        time.sleep(0.05)
    time.sleep(2)
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    thread.join(20)
    assert (
        isinstance(answers[0], Trouble) and answers[0].cause is Cause.DIED and "SIGKILL" in answers[0].reason
    )
    fine = check(runner, "y", chain(tmp_path / "y.onnx"), SETTINGS, 60)
    assert isinstance(fine, Checked)


def test_cancel(runner: Children, tmp_path: Path) -> None:
    thread, answers = in_background(runner, chain(tmp_path / "x.onnx", HANG))
    time.sleep(2)
    runner.cancel()
    thread.join(20)
    assert isinstance(answers[0], Trouble) and answers[0].cause is Cause.CANCELLED
    late = check(runner, "y", chain(tmp_path / "y.onnx"), SETTINGS, 60)
    assert isinstance(late, Trouble) and late.cause is Cause.CANCELLED


def test_memory_of_the_child_itself(
    runner: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children.limits, "default_limit", lambda workers: 1 << 20)
    monkeypatch.setattr(children, "SLOW_POLL", 0.0)
    settings = replace(SETTINGS, run=replace(SETTINGS.run, memory_limit=1 << 33))
    answer = check(runner, "x", chain(tmp_path / "x.onnx", HANG), settings, 60)
    assert isinstance(answer, Trouble) and answer.cause is Cause.MEMORY


def test_death_of_a_child_that_is_not_fresh_says_nothing(runner: Children, tmp_path: Path) -> None:
    fine = chain(tmp_path / "fine.onnx")
    check(runner, "x", fine, SETTINGS, 60, fresh=False)
    ((_, warm),) = runner._warm
    os.kill(warm.process.pid, signal.SIGSTOP)  # alive when it is taken
    asked = warm.ask

    def ask(job: Job) -> None:
        asked(job)
        os.kill(warm.process.pid, signal.SIGKILL)

    warm.ask = ask  # type: ignore[method-assign]
    answer = check(runner, "y", fine, SETTINGS, 60, fresh=False)
    assert isinstance(answer, Checked) and not answer.failures
