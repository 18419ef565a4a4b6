"""The journal: every probe as lines of JSON, written before and after it.

One event a line, in the order in which things happened:

    {"t": 0.0, "event": "header", "header": {...}}
    {"t": 1.5, "event": "begin", "key": "3f...", "nodes": [...], "cut": "default"}
    {"t": 1.9, "event": "given up", "key": "77..."}
    {"t": 0.3, "event": "target", "fingerprint": "tensorrt-rtx|..."}
    {"t": 2.0, "event": "deadline", "seconds": 10.0}
    {"t": 2.0, "event": "end", "key": "3f...", "verdict": "vanishes", "outcome": {...}, "seconds": 0.4}

`t` (seconds since the run, or its resumption, began) and `seconds` (inside the target) are all that
differs between two equal runs; the outcome carries no time of its own. A line is with the system when the
call returns, so that it outlives the tool, and on the disk a few milliseconds later, while the probe runs,
or 0.1 s after lines before it: a disk takes 6 ms to say so, longer than a small probe. After a kill the
last line may be torn, and is cut off when the journal is opened. Whoever has it open holds a lock, which
the kernel gives back when its holder ends, even by kill -9.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from bisect_trt.errors import BisectError, StoppedEarly, UsageError, cannot_write, is_full
from bisect_trt.outcome import Outcome, Verdict

Event = dict[str, Any]

REST = 0.1  # seconds between two times that lines are brought to the disk: probes of milliseconds share one


class DiskFull(StoppedEarly):
    """The journal cannot be written any more; what it holds so far is whole."""


def read(path: Path) -> tuple[list[Event], int]:
    """Return all whole events of a journal, and the bytes that they take.

    A last line that is torn (no line end, or no JSON) is left out.

    Raises:
        UsageError: the file cannot be read, or is broken before its last line: no journal of ours.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    events: list[Event] = []
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        try:
            event = json.loads(data[good:end])
            if not isinstance(event, dict) or "event" not in event:
                raise ValueError("no event")
        except ValueError as error:
            if end + 1 < len(data):
                raise no_event(path, len(events) + 1) from error
            break
        events.append(event)
        good = end + 1
    return events, good


def no_event(path: Path, number: int) -> UsageError:
    """Return the error for a file that is not one of our journals, or is broken."""
    hint = "choose another folder with --out, or replace this one with --force"
    return UsageError(f"{path}, line {number} is no event of a journal", hint)


def locked(path: Path) -> BinaryIO:
    """Return a journal, opened or made, that nobody else writes until it is closed.

    Raises:
        UsageError: another run has it open, or it cannot be opened.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))  # not replaced since
    except BlockingIOError:
        free = False
    except OSError:  # a file system that knows no locks
        free = True
    if not free:
        file.close()
        hint = "wait until it ends, or choose another folder with --out"
        raise UsageError(f"another run is at work in {path.parent}", hint)
    return file


class Journal(AbstractContextManager["Journal"]):
    """Append-only; also the cache of a run, and of the one before it that was stopped."""

    def __init__(self, file: BinaryIO, path: Path, events: list[Event]) -> None:
        """Use `open` instead."""
        self.path = path
        self._file = file
        self._disk = ThreadPoolExecutor(1, "journal")  # so that nobody waits for it but at the end
        self._syncing: deque[Future[None]] = deque()  # one that runs, and one that waits for it
        self._closing = threading.Event()
        self._rested = 0.0  # moment of `time.monotonic` before which the disk is asked at the end only
        self._start = time.monotonic()
        self._outcomes: dict[str, tuple[Outcome, Verdict]] = {}
        self._begun: dict[str, int] = {}
        self.target = ""  # on what the probes ran
        self.deadline: float | None = None  # of all probes but the first
        self._open: set[str] = set()  # begun by this process, and neither ended nor given up
        for number, event in enumerate(events, start=1):
            try:
                self._take(event)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise no_event(path, number) from error

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """Begin a journal, or go on with one that is there.

        Whether the header of an old one matches is for the caller to ask (`Journal.header`).

        Raises:
            UsageError: the file cannot be opened, is no journal, or another run writes it.
            DiskFull: the header cannot be written.
        """
        file = locked(path)
        try:
            events, good = read(path)
            file.truncate(good)
            file.seek(good)
            journal = cls(file, path, events)
        except BaseException as error:
            file.close()
            if isinstance(error, OSError):
                raise cannot_write(path, error) from error
            raise
        if not events:
            journal.event("header", header=dict(header))
        return journal

    @staticmethod
    def header(path: Path) -> dict[str, Any] | None:
        """Return what the journal was opened with; None when there is none, or it holds no whole line.

        Raises:
            UsageError: the file is no journal.
        """
        first: Event = next(iter(read(path)[0]), {}) if path.exists() else {}
        header = first.get("header")
        return header if first.get("event") == "header" and isinstance(header, dict) else None

    def event(self, kind: str, /, **fields: Any) -> None:
        """Write any other event.

        Raises:
            DiskFull: no space, or a quota is used up; the lines before stay whole.
            BisectError: another error of the file system.
        """
        self._write({"t": round(time.monotonic() - self._start, 3), "event": kind, **fields})

    def begin(self, key: str, **fields: Any) -> None:
        """Write that a probe starts; `fields` (nodes, cut, ...) are for the report. Raises as `event`."""
        self._open.add(key)
        self.event("begin", key=key, **fields)
        self._begun[key] = self._begun.get(key, 0) + 1

    def end(self, key: str, outcome: Outcome, verdict: Verdict, **fields: Any) -> None:
        """Write what a probe saw. Raises as `event`."""
        seen = outcome.to_json()
        seconds = seen.pop("seconds")
        self.event("end", key=key, verdict=verdict.value, outcome=seen, seconds=seconds, **fields)
        self._outcomes[key] = (outcome, verdict)
        self._open.discard(key)

    def give_up_all(self) -> None:
        """Write that what this process began is ended before it ended by itself. Raises as `event`."""
        for key in sorted(self._open):
            self.give_up(key)

    def give_up(self, key: str) -> None:
        """Write that a probe was ended before it ended by itself. Raises as `event`."""
        self.event("given up", key=key)
        self._begun[key] = max(0, self._begun.get(key, 0) - 1)
        self._open.discard(key)

    def outcome(self, key: str) -> Outcome | None:
        """Return what a finished probe saw; None when it did not finish."""
        return self._outcomes.get(key, (None, None))[0]

    def verdict(self, key: str) -> Verdict | None:
        """Say how a finished probe was judged."""
        return self._outcomes.get(key, (None, None))[1]

    def finished(self) -> dict[str, tuple[Outcome, Verdict]]:
        """Return all finished probes."""
        return dict(self._outcomes)

    def deaths(self, key: str) -> int:
        """Say how often this probe was begun and did not end; one that runs now counts."""
        return 0 if key in self._outcomes else self._begun.get(key, 0)

    def close(self) -> None:
        """Bring all to the disk and close the file; the journal can still be asked. Raises as `event`."""
        if self._file.closed:
            return
        try:
            self._closing.set()
            self._disk.shutdown()
            for synced in self._syncing:
                synced.result()
        except OSError as error:
            raise self._write_error(error) from error
        finally:
            self._file.close()

    def __exit__(self, *ended: object) -> None:
        """Close the journal."""
        self.close()

    def _take(self, event: Event) -> None:
        if event["event"] == "begin":
            self._begun[event["key"]] = self._begun.get(event["key"], 0) + 1
        if event["event"] == "given up":
            self._begun[event["key"]] = max(0, self._begun.get(event["key"], 0) - 1)
        if event["event"] == "target":
            self.target = str(event.get("fingerprint", ""))  # anonymous ones do not say
        if event["event"] == "deadline" and "seconds" in event:
            self.deadline = float(event["seconds"])
        if event["event"] == "end":
            data = {**event["outcome"], "seconds": event.get("seconds", 0.0)}
            self._outcomes[event["key"]] = (Outcome.from_json(data), Verdict(event["verdict"]))

    def _write(self, event: Event) -> None:
        line = json.dumps(event, ensure_ascii=True, allow_nan=True).encode() + b"\n"
        start = self._file.tell()
        try:
            rest = memoryview(line)
            while rest:  # unbuffered: a write may take a part only
                rest = rest[self._file.write(rest) :]
            while self._syncing and self._syncing[0].done():
                self._syncing.popleft().result()  # an error of it came too late for its own call
            if len(self._syncing) < 2:  # else the one that waits brings this line, too
                self._syncing.append(self._disk.submit(self._sync))
        except BaseException as error:  # Ctrl-C, too: the line is whole or not there
            self._undo(start)
            if isinstance(error, OSError):
                raise self._write_error(error) from error
            raise

    def _sync(self) -> None:
        """Bring all that is written to the disk, in a thread of its own."""
        self._closing.wait(self._rested - time.monotonic())
        self._rested = time.monotonic() + REST
        os.fsync(self._file.fileno())

    def _write_error(self, error: OSError) -> BisectError:
        if is_full(error):
            return DiskFull(f"no space left for {self.path}", "make room and run the same line again")
        return BisectError(f"cannot write {self.path}: {error.strerror}")

    def _undo(self, start: int) -> None:
        """Cut off a line that was written in part."""
        with suppress(OSError):  # else the next reader cuts it off
            self._file.truncate(start)
            self._file.seek(start)
