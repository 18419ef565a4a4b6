"""The morning page and its relatives: `index.html`, `summary.md`, `junit.xml`, `results.json`.

All are views of one plain JSON document; nothing here asks the history twice.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from bisect_trt._version import __version__
from bisect_trt.nightly.history import History
from bisect_trt.nightly.history_rows import Night, Row
from bisect_trt.nightly.same_bugs import Cluster
from bisect_trt.nightly.verdicts import Status
from bisect_trt.writing import templates
from bisect_trt.writing.files import write_all
from bisect_trt.writing.text import seconds

PAGE, SUMMARY, JUNIT, RESULTS = "index.html", "summary.md", "junit.xml", "results.json"
SCHEMA = 1
TREND = 14  # nights
_LONGEST_MESSAGE = 2000  # characters of a message
_PAGES = ("report.html", "ISSUE.md", "NOTE.md")  # of a reproducer, the first that is there
_DIFFERENT = (Status.NEW, Status.CHANGED, Status.FLAKY, Status.FIXED)
# XML has no way to write them
_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF), "�")


def collect(
    history: History, night: Night, clusters: list[Cluster], out: Path, *, skip_known: bool = False
) -> dict[str, Any]:
    """Collect everything the views need, as plain JSON data; paths are relative to the output folder.

    With `skip_known` what failed before in the same way is no failure in `junit.xml` but skipped.
    """
    rows = list(history.rows(night.id))
    before = history.last_night(night.id)
    of_cluster = {row.name: cluster.id for cluster in clusters for row in cluster.rows}
    counts = Counter(row.status.value for row in rows)
    return {
        "schema": SCHEMA,
        "tool": {"name": "bisect-trt", "version": __version__},
        "night": {
            "id": night.id,
            "started": _time(night.started),
            "finished": _time(night.finished) if night.finished else None,
            "worked_seconds": round(night.used, 1),
            "ended_early": night.ended_early,
            "exit_code": night.exit_code,
            "before": {"id": before.id, "started": _time(before.started)} if before else None,
        },
        "news": sum(row.news for row in rows),
        "junit_skip_known": skip_known,
        "counts": {status.value: counts[status.value] for status in Status},
        "targets": sorted({f"{r.target}: {r.version}" for r in rows if r.version}),
        "clusters": [_cluster(cluster, out) for cluster in clusters],
        "results": [
            _result(row, out, of_cluster.get(row.name, "")) | {"trend": _trend(history, row)} for row in rows
        ],
    }


def write(data: Mapping[str, Any], folder: Path, out: Path) -> None:
    """Write all four views into `folder`, each whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    base = os.path.relpath(out, folder)
    prefix = "" if base == "." else f"{base}/"
    texts = {
        RESULTS: json.dumps(data, indent=1, ensure_ascii=False) + "\n",
        JUNIT: junit(data),
        SUMMARY: summary(data),
        PAGE: page(data, prefix),
    }
    write_all(folder, texts, PAGE)


def page(data: Mapping[str, Any], prefix: str) -> str:
    """Return the page; links start with `prefix`. It needs no network and no other file."""
    order = {status.value: k for k, status in enumerate(Status)}
    results = sorted(data["results"], key=lambda r: (order[r["status"]], r["model"], r["target"]))
    different = [r for r in results if r["status"] in _DIFFERENT]
    words = {"results": results, "different": different, "prefix": prefix, "statuses": list(order)}
    return _templates().get_template("index.html.j2").render({**data, **words})


def summary(data: Mapping[str, Any]) -> str:
    """Return a chat message in Markdown, at most a screen; the first line names each new failure."""
    clusters = {cluster["id"]: cluster for cluster in data["clusters"]}
    news = [_news(result, clusters) for result in data["results"] if result["news"]]
    reasons: dict[str, list[str]] = {}
    for result in data["results"]:
        if result["status"] == Status.NOT_RUN:
            reasons.setdefault(result["reason"], []).append(result["model"])
    return _templates().get_template("summary.md.j2").render({**data, "named": news, "reasons": reasons})


def _news(result: Mapping[str, Any], clusters: Mapping[str, Any]) -> str:
    """`a.onnx` on which target, in which version, and which model had the same bug before."""
    said = f"`{_cell(result['model'])}` on {_cell(result['version'] or result['target'])}"
    if result["status"] == Status.NOT_RUN:
        return f"{said} ({_cell(result['reason'])[:120]})"
    if result["status"] in (Status.CHANGED, Status.FLAKY):
        return f"{said} ({result['status']})"
    cluster = clusters.get((result["failure"] or {"cluster": ""})["cluster"])
    had = [model for model, _, status in cluster["models"] if status == Status.KNOWN] if cluster else []
    return f"{said} (as `{_cell(had[0])}` before)" if had else said


def tonight(data: Mapping[str, Any], page: Path) -> str:
    """Return the last line of the log: how many of each status, and where the page is."""
    counts = ", ".join(f"{number} {status}" for status, number in data["counts"].items() if number)
    return f"night {data['night']['id']}: {counts}; exit code {data['night']['exit_code']}; {page}"


def junit(data: Mapping[str, Any]) -> str:
    """Return JUnit XML: a suite a target, a case a model.

    Not run is skipped, and known failures where asked for.
    """
    suites: dict[str, list[dict[str, Any]]] = {}
    for result in data["results"]:
        case = result | _told(result, data["junit_skip_known"])
        suites.setdefault(result["target"], []).append(case)
    return _templates().get_template("junit.xml.j2").render({**data, "suites": suites}).translate(_CONTROL)


def _told(result: Mapping[str, Any], skip_known: bool) -> dict[str, str]:
    """Return what a case of JUnit tells of a result: the element, empty of what passes, and its message."""
    failure = result["failure"]
    if result["status"] == Status.NOT_RUN:
        return {"tag": "skipped", "said": result["reason"]}
    if not failure:
        return {"tag": ""}
    tag = "skipped" if skip_known and result["status"] == Status.KNOWN else "failure"
    said = f"{result['status']}: {failure['stage']} {failure['symptom']}: {failure['signature']}"
    return {"tag": tag, "said": said}


def _result(row: Row, out: Path, cluster: str) -> dict[str, Any]:
    failure = None
    if row.key is not None and row.status not in (Status.FIXED, Status.PASSING, Status.NOT_RUN):
        message = row.message[:_LONGEST_MESSAGE]
        failure = {"stage": row.stage, "symptom": row.symptom, "signature": row.signature[:_LONGEST_MESSAGE]}
        failure |= {"message": message, "op": row.op, "cluster": cluster}
    repro = None
    if row.repro and failure:
        repro = {"folder": row.repro, "page": _repro_page(row, out), "nodes": row.repro_nodes}
        repro |= {"shape": row.shape, "state": row.reduction}
    return {
        "model": row.model,
        "target": row.target,
        "version": row.version,
        "status": row.status.value,
        "news": row.news,
        "reason": row.reason,
        "runs": [result.value for result, _ in row.runs],
        "failure": failure,
        "repro": repro,
        "nodes": row.nodes,
        "check_seconds": round(row.check_seconds, 3),
        "seconds": round(row.seconds, 3),
    }


def _cluster(cluster: Cluster, out: Path) -> dict[str, Any]:
    stage, symptom, signature = cluster.key
    first = cluster.first
    return {
        "id": cluster.id,
        "new": cluster.new,
        "stage": stage,
        "symptom": symptom,
        "signature": signature[:_LONGEST_MESSAGE],
        "words": _words(signature, first.message)[:_LONGEST_MESSAGE],
        "shape": cluster.shape,
        "models": [[row.model, row.target, row.status.value] for row in cluster.rows],
        "news": sum(row.news for row in cluster.rows),
        "repro": _result(first, out, cluster.id)["repro"],
        "message": first.message[:_LONGEST_MESSAGE],
    }


def _words(signature: str, message: str) -> str:
    """Return what people read: the signature, but for one that says no more than that something is false."""
    first = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return first if first and re.search(r":\s*false$", signature) else signature


def _trend(history: History, row: Row) -> list[list[Any]]:
    """Return `[night, status]` of the last nights, oldest first."""
    return [[r.night, r.status.value] for r in history.trend(row.model, row.target, row.night, TREND)]


def _repro_page(row: Row, out: Path) -> str:
    there = (name for name in _PAGES if (out / row.repro / name).is_file())
    return f"{row.repro}/{next(there, '')}"


def _time(moment: datetime) -> str:
    return moment.astimezone().isoformat(timespec="seconds")


def _cell(text: str) -> str:
    """Make it one line of Markdown that cannot end its code span or its table cell."""
    return " ".join(text.replace("`", "'").replace("|", "/").split())


@cache
def _templates() -> jinja2.Environment:
    return templates.of_xml("bisect_trt.nightly", seconds=seconds, cell=_cell)
