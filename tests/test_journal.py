"""The journal survives kills, torn lines and full disks."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisect_trt.errors import BisectError, StoppedEarly, UsageError
from bisect_trt.outcome import Built, Failure, Outcome, Stage, Symptom, Verdict
from bisect_trt.session.journal import DiskFull, Journal, read

HEADER = {"model": "abc", "options": {"seed": 0}}
FAILURE = Failure(Stage.BUILD, Symptom.ERROR, "sig", "message", ("node",), "Conv")
OUTCOME = Outcome((FAILURE,), seconds=1.25, built=Built(engine_bytes=3))


def fill(path: Path) -> Journal:
    journal = Journal.open(path, HEADER)
    journal.begin("a", nodes=["n1", "n2"], cut="default")
    journal.end("a", OUTCOME, Verdict.REPRODUCES)
    journal.begin("b", nodes=["n1"])
    return journal


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert Journal.header(path) is None
    fill(path).close()
    assert Journal.header(path) == HEADER
    with Journal.open(path, {"ignored": "an old header stays"}) as again:
        assert again.outcome("a") == OUTCOME and again.verdict("a") is Verdict.REPRODUCES
        assert again.outcome("b") is None and again.verdict("b") is None
        assert again.finished() == {"a": (OUTCOME, Verdict.REPRODUCES)}
        assert again.deaths("b") == 1
        again.begin("b", nodes=["n1"])
        assert again.deaths("b") == 2
        again.end("b", Outcome(), Verdict.VANISHES)
        assert again.deaths("b") == 0
    assert Journal.header(path) == HEADER
    events, good = read(path)
    assert [e["event"] for e in events] == ["header", "begin", "end", "begin", "begin", "end"]
    assert good == path.stat().st_size


def test_times_are_apart_from_what_is_deterministic(tmp_path: Path) -> None:
    lines = []
    for name, seconds in (("one", 0.5), ("two", 7.5)):
        with Journal.open(tmp_path / name, HEADER) as journal:
            time.sleep(0.01)
            journal.begin("k", nodes=["n"])
            journal.end("k", Outcome(seconds=seconds), Verdict.VANISHES)
        events, _ = read(tmp_path / name)
        lines.append([{k: v for k, v in e.items() if k not in ("t", "seconds")} for e in events])
    assert lines[0] == lines[1]


@given(st.integers(0, 1000))
def test_a_journal_cut_anywhere_goes_on(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    fill(path).close()
    whole = path.read_bytes()
    cut = place % (len(whole) + 1)
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    events, good = read(path)
    assert len(events) == lines and whole[:good].count(b"\n") == lines
    with Journal.open(path, HEADER) as journal:
        assert (journal.outcome("a") is not None) == (lines >= 3)
        journal.begin("c", nodes=[])
    for line in path.read_bytes().splitlines():
        json.loads(line)
    assert Journal.header(path) == HEADER


def test_a_torn_line_of_zeros_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    fill(path).close()
    with path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n")  # some file systems leave these after a power cut
    assert len(read(path)[0]) == 4


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text("dear diary,\ntoday\n")
    for use in (lambda: Journal.header(path), lambda: Journal.open(path, HEADER)):
        with pytest.raises(UsageError, match="line 1"):
            use()
    assert path.read_text() == "dear diary,\ntoday\n"
    with pytest.raises(UsageError):
        Journal.open(tmp_path / "missing" / "j", HEADER)


@pytest.mark.parametrize(
    "line",
    [
        {"event": "begin"},
        {"event": "end", "key": "a", "verdict": "maybe", "outcome": {"failures": []}},
        {"event": "end", "key": "a", "verdict": "vanishes", "outcome": [1]},
        {"event": "given up", "key": []},
    ],
)
def test_a_line_that_is_no_event_of_ours_is_refused(line: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "j"
    fill(path).close()
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match="line 5"):
        Journal.open(path, HEADER)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with fill(path), pytest.raises(UsageError, match="another run is at work"):
        Journal.open(path, HEADER)
    with Journal.open(path, HEADER) as again:
        assert again.outcome("a") == OUTCOME
        path.rename(tmp_path / "k")
        path.touch()  # it was replaced: whoever held the old one holds nothing of this
        Journal.open(path, HEADER).close()


def test_kill_9_in_the_middle_of_a_probe(tmp_path: Path) -> None:
    path = tmp_path / "j"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom bisect_trt.session.journal import Journal\n"
        "j = Journal.open(Path(sys.argv[1]), {})\nj.begin('k', nodes=['n'])\n"
        "print('begun', flush=True)\ntime.sleep(60)\n"
    )
    for times in (1, 2):
        tool = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert tool.stdout is not None and tool.stdout.readline() == b"begun\n"
        tool.send_signal(signal.SIGKILL)
        tool.communicate()
        with Journal.open(path, {}) as journal:
            assert journal.deaths("k") == times


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, BisectError)])
def test_a_full_disk_stops_early_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[BisectError]
) -> None:
    path = tmp_path / "j"
    journal = fill(path)
    before = path.read_bytes()

    class Full:
        def __init__(self, file: BinaryIO) -> None:
            self.tell, self.truncate, self.seek = file.tell, file.truncate, file.seek
            self._write = file.write

        def write(self, data: bytes) -> int:
            if len(data) > 20:
                return self._write(data[:20])
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(journal, "_file", Full(journal._file))
    with pytest.raises(kind) as caught:
        journal.end("b", Outcome(), Verdict.VANISHES)
    assert isinstance(caught.value, StoppedEarly) == (code == errno.ENOSPC)
    assert str(path) in caught.value.message
    assert path.read_bytes() == before
    assert journal.outcome("b") is None


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, BisectError)])
def test_a_disk_that_refuses_later_is_told_at_the_end_at_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[BisectError]
) -> None:
    def full(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(kind, match=re.escape(str(tmp_path / "j"))):
            fill(tmp_path / "j").close()
    assert read(tmp_path / "j")[1] == (tmp_path / "j").stat().st_size, "its lines are whole"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_really_full_device(tmp_path: Path) -> None:
    device = Path("/dev/full")
    with device.open("wb", buffering=0) as file, pytest.raises(DiskFull, match="no space left"):
        Journal(file, device, []).event("note")
