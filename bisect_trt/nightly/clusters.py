"""One bug in many models is one entry."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from bisect_trt.nightly.rows import Row
from bisect_trt.nightly.verdicts import Key, Status


@dataclass(frozen=True)
class Cluster:
    """Failures with one signature and one shape of the reduced graph.

    `rows` begin with the one to show: it has a reproducer if any has, and the smallest one. Rows that
    were not reduced are put where most of the same signature are.
    """

    key: Key
    shape: str
    rows: tuple[Row, ...]

    @property
    def id(self) -> str:
        """The same every night."""
        return hashlib.sha256("\0".join((*self.key, self.shape)).encode()).hexdigest()[:12]

    @property
    def first(self) -> Row:
        """The one to show."""
        return self.rows[0]

    @property
    def new(self) -> bool:
        """No model is known to have it from nights before."""
        return all(row.news for row in self.rows)


def find(rows: Iterable[Row]) -> list[Cluster]:
    """Clusters of all failing rows: those with news first, then those with most models."""
    by_key: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        if row.key is not None and row.status not in (Status.FIXED, Status.PASSING, Status.NOT_RUN):
            by_key[row.key].append(row)
    found = [
        Cluster(key, shape, tuple(sorted(members, key=_merit)))
        for key, of_key in by_key.items()
        for shape, members in _by_shape(of_key).items()
    ]
    return sorted(found, key=lambda c: (not c.new, not any(r.news for r in c.rows), -len(c.rows), c.id))


def _by_shape(rows: list[Row]) -> dict[str, list[Row]]:
    counts = Counter(row.shape for row in rows if row.shape)
    usual = min(counts, key=lambda shape: (-counts[shape], shape)) if counts else ""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.shape or usual].append(row)
    return groups


def _merit(row: Row) -> tuple[bool, bool, int, float, str, str]:
    return (
        not row.repro,
        row.reduction == "partial",
        row.repro_nodes,
        row.check_seconds,
        row.model,
        row.target,
    )
