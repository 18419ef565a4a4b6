"""The journal of a search as rows: what was tried, what came of it, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bisect_trt.outcome import Verdict
from bisect_trt.report.progress import printable

_NAMES = 3  # of the nodes of a probe that are told


@dataclass(frozen=True)
class Row:
    """One probe.

    Attributes:
        number: from 1, in the order in which they ended.
        nodes: of the candidate.
        what: how it was cut, and some of its nodes.
        verdict: what it said of the wanted failure.
        seconds: inside the target.
        spent: seconds inside the target up to its end.
        left: nodes of the smallest candidate that was known to fail afterwards.
        saw: the first failure, if any, or why nothing can be said.
    """

    number: int
    nodes: int
    what: str
    verdict: str
    seconds: float
    spent: float
    left: int
    saw: str


def rows(events: Iterable[Mapping[str, Any]], nodes: int, *, names: bool = True) -> list[Row]:
    """The finished probes of a journal; `nodes` has the whole model. Without `names` nothing is named."""
    begun: dict[str, Mapping[str, Any]] = {}
    found: list[Row] = []
    left, spent = nodes, 0.0
    for event in events:
        if event["event"] == "begin":
            begun[event["key"]] = event
        if event["event"] != "end":
            continue
        start, seconds = begun.get(event["key"], {}), float(event.get("seconds", 0.0))
        count, verdict = int(start.get("count", 0)), str(event["verdict"])
        spent += seconds
        if verdict == Verdict.REPRODUCES and count:
            left = min(left, count)
        what = _what(start, count, names)
        saw = _saw(event["outcome"], names)
        found.append(Row(len(found) + 1, count, what, verdict, seconds, spent, left, saw))
    return found


def _what(start: Mapping[str, Any], count: int, names: bool) -> str:
    cut = str(start.get("cut", ""))
    shown = [printable(name) for name in start.get("nodes", ())[:_NAMES]] if names else []
    more = ", ..." if shown and count > len(shown) else ""
    return ": ".join(part for part in (cut, ", ".join(shown) + more) if part)


def _saw(outcome: Mapping[str, Any], names: bool) -> str:
    failures = outcome.get("failures", ())
    if not failures:
        return printable(outcome.get("unresolved", ""))[:200] if names else ""
    first = failures[0]
    told = f"{first['stage']} {first['symptom']}"
    return f"{told}: {printable(first['message'])[:200]}" if names and first.get("message") else told
