"""What is happening now, read from beside: `bisect-trt nightly status`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bisect_trt.errors import UsageError
from bisect_trt.nightly import lock
from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.history_rows import Night
from bisect_trt.nightly.job import PROGRESS
from bisect_trt.nightly.verdicts import Status
from bisect_trt.writing.text import seconds


def lines(out: Path) -> Iterator[str]:
    """Yield the state of an output folder, for people. Writes nothing and needs no lock.

    Raises:
        UsageError: there is no history in the folder.
    """
    if not (out / FILE).is_file():
        raise UsageError(f"{out} holds no nights", "give the folder that `bisect-trt nightly` writes to")
    with closing(History(out / FILE, read_only=True)) as history:
        night = history.last_night()
        if night is None:
            yield "no night yet"
            return
        holder = lock.holder(out)
        yield _headline(night, holder)
        rows = list(history.rows(night.id))
        done = sum(row.phase != "planned" for row in rows)
        yield f"checked {done} of {len(rows)}, worked {seconds(night.used)}"
        counts = Counter(row.status for row in rows if row.phase != "planned")
        if counts:
            yield " · ".join(f"{counts[status]} {status}" for status in Status if counts[status])
        if holder is not None:
            yield from (_running(job) for job in history.running())
        if (out / "index.html").is_file():
            yield f"report: {out / 'index.html'}"


def _headline(night: Night, holder: lock.Holder | None) -> str:
    began = f"night {night.id}, began {night.started.astimezone():%Y-%m-%d %H:%M}"
    if holder is not None:
        where = f" by process {holder.pid} on {holder.host}" if holder.pid else ""
        return f"{began}: running{where}{f', phase {night.phase}' if night.phase else ''}"
    if night.finished is None:
        return f"{began}: not finished and not running; the next start goes on with it"
    early = f", ended early: {night.ended_early}" if night.ended_early else ""
    return f"{began}: finished {night.finished.astimezone():%H:%M}{early}, exit code {night.exit_code}"


def _running(job: dict[str, Any]) -> str:
    since = (datetime.now(UTC) - datetime.fromisoformat(job["since"])).total_seconds()
    said = _progress(Path(job["folder"])) if job["folder"] else ""
    return f"  {job['phase']} {job['model']} on {job['target']}, for {seconds(max(0.0, since))}{said}"


def _progress(folder: Path) -> str:
    try:
        step = json.loads((folder / PROGRESS).read_text())
        return f": {step['phase']}, {step['nodes']} nodes left, {step['probes']} probes"
    except (OSError, ValueError, KeyError):
        return ""
