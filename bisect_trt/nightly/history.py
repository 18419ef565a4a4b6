"""The memory of all nights: SQLite in WAL mode, one connection a process.

One row for every night x model x target; it is there from the night's first minute on ("not run: not
reached yet") and is replaced as soon as more is known, so that a kill at any time loses nothing but
the job that was running.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bisect_trt.errors import UsageError
from bisect_trt.nightly.history_rows import Night, Row
from bisect_trt.nightly.verdicts import WINDOW, Past, Result, Status

FILE = "history.sqlite"
SCHEMA = 1
_BEYOND = 1 << 62  # no night has this number

_COLUMNS = [*Row.__struct_fields__]
_PUT = f"INSERT OR REPLACE INTO results ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_CREATE = f"""
CREATE TABLE nights (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, finished TEXT, used REAL NOT NULL DEFAULT 0,
    exit_code INTEGER, ended_early TEXT NOT NULL DEFAULT '', phase TEXT NOT NULL DEFAULT ''
);
CREATE TABLE results (
    {", ".join(_COLUMNS)}, PRIMARY KEY (night, model, target),
    FOREIGN KEY (night) REFERENCES nights(id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX results_of_model ON results(model, target, night DESC);
CREATE TABLE running (
    model TEXT NOT NULL, target TEXT NOT NULL, phase TEXT NOT NULL, since TEXT NOT NULL, folder TEXT NOT NULL,
    PRIMARY KEY (model, target)
) WITHOUT ROWID;
CREATE TABLE announced (
    night INTEGER NOT NULL, cluster TEXT NOT NULL, PRIMARY KEY (night, cluster)
) WITHOUT ROWID;
"""
"""Values of `results` keep the types that they have in a row; older files declare them as well."""


class History:
    """The memory of all nights of one output folder."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the database, or make it.

        Raises:
            UsageError: it cannot be opened, is no database, or was written by a newer version.
        """
        self._pending: dict[tuple[str, str], Row] = {}
        try:
            if read_only:
                self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
            else:
                self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
                self._db.execute("PRAGMA journal_mode=WAL")
                # What a kill must not lose is with the kernel; a power cut may cost the last rows, which are
                # made again. Waiting for the disk at every row cost more than all else that a night does.
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute("PRAGMA foreign_keys=ON")
            self._db.row_factory = sqlite3.Row
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            full = "make room" if "full" in str(error) else "move it away: a new one is begun"
            raise UsageError(f"{path} cannot be used as a history: {error}", full) from error
        if version > SCHEMA:
            raise UsageError(f"{path} was written by a newer bisect-trt (history version {version})")
        if version < SCHEMA and not read_only:
            self._db.executescript(f"BEGIN; {_CREATE} PRAGMA user_version={SCHEMA}; COMMIT;")

    def close(self) -> None:
        """Close the connection; what is in the log of SQLite is moved into the file."""
        self._db.close()

    def begin_night(self, now: datetime, resume_within: float) -> tuple[Night, bool]:
        """Go on with the last night if it is unfinished and young enough (True), else begin one.

        A start in the future (the clock was set back) counts as now.
        """
        last = self.last_night()
        if last and last.finished is None and now - last.started < timedelta(seconds=resume_within):
            return last, True
        number = self._db.execute("INSERT INTO nights(started) VALUES (?)", [now.isoformat()]).lastrowid
        assert number is not None
        return Night(number, now), False

    def last_night(self, before: int = _BEYOND) -> Night | None:
        """Return the latest night, or the latest before another one."""
        return next(self._nights("WHERE id < ? ORDER BY id DESC LIMIT 1", before), None)

    def nights(self, limit: int) -> list[Night]:
        """Return the latest nights, latest first."""
        return list(self._nights("ORDER BY id DESC LIMIT ?", limit))

    def save_night(self, night: Night) -> None:
        """Write what changed of a night."""
        finished = night.finished.isoformat() if night.finished else None
        self._db.execute(
            "UPDATE nights SET finished=?, used=?, exit_code=?, ended_early=?, phase=? WHERE id=?",
            [finished, night.used, night.exit_code, night.ended_early, night.phase, night.id],
        )

    def plan(self, rows: Iterable[Row]) -> None:
        """Put rows for all that this night should do; those that are there with the same settings stay."""
        self._db.execute("BEGIN")
        with suppress(sqlite3.Error):
            self._db.execute("DELETE FROM running")
        for row in rows:
            there = self.row(row.night, row.model, row.target)
            if there is None or there.settings != row.settings:
                self._put(row)
        self._db.execute("COMMIT")

    def save(self, row: Row) -> bool:
        """Write a row; False when the disk is full: it is kept in memory and written with the next one."""
        self._pending[row.name] = row
        try:
            for waiting in list(self._pending.values()):
                self._put(waiting)
                del self._pending[waiting.name]
        except sqlite3.OperationalError as error:
            if "full" not in str(error) and "disk I/O" not in str(error):
                raise
            return False
        return True

    def row(self, night: int, model: str, target: str) -> Row | None:
        """Return one row, as it was saved last."""
        if (waiting := self._pending.get((model, target))) and waiting.night == night:
            return waiting
        return next(self._rows("WHERE night=? AND model=? AND target=?", night, model, target), None)

    def rows(self, night: int) -> Iterator[Row]:
        """Yield all rows of a night, by model and target, one at a time."""
        for row in self._rows("WHERE night=? ORDER BY model, target", night):
            waiting = self._pending.get(row.name)
            yield waiting if waiting and waiting.night == night else row

    def past(self, row: Row) -> list[Past]:
        """Return nights before a row's that have a result, latest first, as many as `verdicts` looks at."""
        where = "WHERE model=? AND target=? AND night<? AND result!='unknown' ORDER BY night DESC LIMIT ?"
        return [
            Past(p.result, p.key, p.status, _alike(p, row))
            for p in self._rows(where, row.model, row.target, row.night, WINDOW)
        ]

    def reproducer(self, row: Row, exists: Path) -> Row | None:
        """Return the latest earlier row of the same model, target and failure with an existing reproducer."""
        where = (
            "WHERE model=? AND target=? AND night<? AND stage=? AND symptom=? AND signature=? AND repro!=''"
            " AND reduction IN ('done', 'kept') ORDER BY night DESC LIMIT 20"
        )
        found = self._rows(where, row.model, row.target, row.night, row.stage, row.symptom, row.signature)
        return next((r for r in found if (exists / r.repro / "repro.onnx").is_file()), None)

    def seconds_before(self, model: str, target: str, night: int) -> float:
        """Say how long the last check took: the guess for tonight's. 0 when there is none."""
        where = "WHERE model=? AND target=? AND night<? AND check_seconds>0 ORDER BY night DESC LIMIT 1"
        found = next(self._rows(where, model, target, night), None)
        return found.check_seconds if found else 0.0

    def trend(self, model: str, target: str, upto: int, nights: int) -> list[Row]:
        """Return the rows of the last nights, oldest first."""
        where = "WHERE model=? AND target=? AND night<=? AND night>? ORDER BY night"
        return list(self._rows(where, model, target, upto, upto - nights))

    def reproducers_in_use(self, nights: Iterable[int]) -> set[str]:
        """Return the reproducer folders that rows of these nights point to."""
        numbers = list(nights)
        marks = ", ".join("?" * len(numbers))
        sql = f"SELECT DISTINCT repro FROM results WHERE repro!='' AND night IN ({marks})"
        return {row[0] for row in self._db.execute(sql, numbers)}

    def rename(self, old: str, new: str) -> None:
        """A model is called otherwise from now on; nights that know both names keep both."""
        self._db.execute("UPDATE OR IGNORE results SET model=? WHERE model=?", [new, old])

    def settle(self) -> None:
        """Move what is in SQLite's log into the file, so that the folder has its real size."""
        with suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def announce(self, night: int, cluster: str) -> bool:
        """True once for each cluster and night: the hook is to be run."""
        sql = "INSERT OR IGNORE INTO announced(night, cluster) VALUES (?, ?)"
        return self._db.execute(sql, [night, cluster]).rowcount == 1

    def forget(self, keep: int) -> None:
        """Drop all but the latest nights."""
        sql = "DELETE FROM nights WHERE id NOT IN (SELECT id FROM nights ORDER BY id DESC LIMIT ?)"
        self._db.execute(sql, [keep])
        self._db.execute("DELETE FROM announced WHERE night NOT IN (SELECT id FROM nights)")

    def set_running(self, model: str, target: str, phase: str, folder: str) -> None:
        """Write what runs, for `nightly status`; a full disk is no failure here."""
        since = datetime.now(UTC).isoformat()
        with suppress(sqlite3.OperationalError):
            self._db.execute(
                "INSERT OR REPLACE INTO running VALUES (?, ?, ?, ?, ?)", [model, target, phase, since, folder]
            )

    def clear_running(self, model: str, target: str) -> None:
        """Note that the job ended."""
        with suppress(sqlite3.OperationalError):
            self._db.execute("DELETE FROM running WHERE model=? AND target=?", [model, target])

    def running(self) -> list[dict[str, Any]]:
        """Return what was running when this was last written: model, target, phase, since, folder."""
        return [dict(row) for row in self._db.execute("SELECT * FROM running ORDER BY since")]

    def _put(self, row: Row) -> None:
        values = [getattr(row, name) for name in _COLUMNS]
        values[_COLUMNS.index("runs")] = json.dumps(row.runs)
        self._db.execute(_PUT, values)

    def _rows(self, where: str, *values: Any) -> Iterator[Row]:
        for found in self._db.execute(f"SELECT * FROM results {where}", values):
            data = dict(found)
            runs = [(Result(r), (k[0], k[1], k[2]) if k else None) for r, k in json.loads(data["runs"])]
            data |= {"runs": tuple(runs), "result": Result(data["result"]), "news": bool(data["news"])}
            yield Row(**(data | {"status": Status(data["status"])}))

    def _nights(self, where: str, *values: Any) -> Iterator[Night]:
        for found in self._db.execute(f"SELECT * FROM nights {where}", values):
            data = dict(found)
            for name in ("started", "finished"):
                data[name] = datetime.fromisoformat(data[name]) if data[name] else None
            yield Night(**data)


def _alike(before: Row, now: Row) -> bool:
    """Return whether nothing but luck can make the results of two nights differ."""
    same = (before.digest, before.version, before.settings) == (now.digest, now.version, now.settings)
    return same and bool(now.digest)
