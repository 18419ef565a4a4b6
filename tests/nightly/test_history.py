"""The database: what is written is read, by a second process too; full disks and newer versions."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.nightly.history import History
from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.verdicts import Result, Status

NOW = datetime(2026, 5, 1, 22, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEYS = st.tuples(TEXT, TEXT, TEXT)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "h.sqlite")


def rows() -> st.SearchStrategy[Row]:
    words = {
        n: TEXT for n in ("digest", "version", "phase", "stage", "symptom", "signature", "message", "op")
    }
    more = {n: TEXT for n in ("reason", "repro", "shape", "reduction", "settings")}
    runs = st.lists(st.tuples(st.sampled_from(Result), st.none() | KEYS), max_size=3).map(tuple)
    return st.builds(
        Row,
        night=st.just(1),
        model=TEXT,
        target=TEXT,
        runs=runs,
        result=st.sampled_from(Result),
        status=st.sampled_from(Status),
        news=st.booleans(),
        seconds=st.floats(0, 1e9),
        **words,
        **more,
    )


@given(row=rows())
def test_a_row_is_read_as_it_was_written(row: Row, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("h") / "h.sqlite"
    history = History(path)
    history.begin_night(NOW, 0)
    history.save(row)
    other = History(path, read_only=True)
    assert list(other.rows(1)) == [row] == [history.row(1, row.model, row.target)]
    other.close()
    history.close()


def test_nights(history: History) -> None:
    first, again = history.begin_night(NOW, 3600)
    assert (first.id, again) == (1, False)
    assert history.begin_night(NOW + timedelta(minutes=59), 3600) == (first, True)
    assert history.begin_night(NOW - timedelta(days=3), 3600)[1], "the clock was set back"
    second, again = history.begin_night(NOW + timedelta(hours=2), 3600)
    assert (second.id, again) == (2, False)
    done = replace(second, finished=NOW + timedelta(hours=3), exit_code=1, used=12.5, ended_early="x")
    history.save_night(done)
    assert history.last_night() == done and history.last_night(2) == first
    assert history.begin_night(NOW + timedelta(hours=3), 36000)[0].id == 3, (
        "a finished one is not gone on with"
    )
    assert [n.id for n in history.nights(2)] == [3, 2]


def test_plan_keeps_what_is_done_with_the_same_settings(history: History) -> None:
    history.begin_night(NOW, 0)
    done = Row(1, "m", "t", "s1", phase="done", result=Result.PASS, status=Status.PASSING, reason="")
    history.save(done)
    history.plan([Row(1, "m", "t", "s1"), Row(1, "n", "t", "s1")])
    assert history.row(1, "m", "t") == done
    history.plan([Row(1, "m", "t", "s2")])
    assert history.row(1, "m", "t") == Row(1, "m", "t", "s2")


def test_past_and_reproducer(history: History, tmp_path: Path) -> None:
    base = Row(0, "m", "t", "s", digest="d", version="v", stage="build", symptom="error", signature="x")
    for night in range(1, 8):
        history.begin_night(NOW + timedelta(days=night), 0)
        fail = replace(base, night=night, result=Result.FAIL, status=Status.KNOWN, check_seconds=night)
        if night == 5:
            fail = replace(fail, result=Result.UNKNOWN)
        if night == 2:
            fail = replace(fail, repro="reproducers/a/m-repro", reduction="done")
        if night == 6:
            fail = replace(fail, repro="reproducers/b/m-repro", reduction="partial", version="w")
        history.save(fail)
    now = replace(base, night=8)
    past = history.past(now)
    assert [p.same for p in past] == [True, False, True, True], (
        "latest first, without the one that was not run"
    )
    assert history.seconds_before("m", "t", 8) == 7
    assert history.reproducer(now, tmp_path) is None, "its files are gone"
    (tmp_path / "reproducers/a/m-repro").mkdir(parents=True)
    (tmp_path / "reproducers/a/m-repro/repro.onnx").touch()
    found = history.reproducer(now, tmp_path)
    assert found is not None and found.night == 2
    assert history.reproducer(replace(now, signature="y"), tmp_path) is None
    assert history.reproducers_in_use([2, 6, 7]) == {"reproducers/a/m-repro", "reproducers/b/m-repro"}
    assert [r.night for r in history.trend("m", "t", 7, 3)] == [5, 6, 7]
    history.forget(2)
    assert [n.id for n in history.nights(9)] == [7, 6] and not list(history.rows(2))


def test_full_disk_keeps_rows_in_memory(history: History, tmp_path: Path) -> None:
    history.begin_night(NOW, 0)
    history.plan(Row(1, f"m{k}", "t", "s") for k in range(3))
    database = history._db
    database.execute(f"PRAGMA max_page_count={database.execute('PRAGMA page_count').fetchone()[0] + 1}")
    big = [Row(1, f"m{k}", "t", "s", message="x" * 20000) for k in range(3)]
    saved = [history.save(row) for row in big]
    assert saved[-1] is False
    assert list(history.rows(1)) == big, "they are known all the same"
    assert history.row(1, "m2", "t") == big[2]
    database.execute("PRAGMA max_page_count=100000")
    assert history.save(Row(1, "last", "t", "s"))
    other = History(tmp_path / "h.sqlite", read_only=True)
    assert {r.model for r in other.rows(1)} == {"m0", "m1", "m2", "last"}


def test_announced_once(history: History) -> None:
    assert [history.announce(1, "c"), history.announce(1, "c"), history.announce(2, "c")] == [
        True,
        False,
        True,
    ]


def test_versions_and_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    History(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(UsageError, match="newer"):
        History(path)
    other = tmp_path / "other.sqlite"
    other.write_text("no database, but long enough to be looked at" * 50)
    with pytest.raises(UsageError, match="cannot be used"):
        History(other)
