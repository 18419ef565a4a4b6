"""The state machine of the history: what tonight's runs and the nights before make of a model."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

from msgspec import Struct

Key = tuple[str, str, str]
"""Stage, symptom and signature of a failure (`outcome.Failure.key`)."""

WINDOW = 4  # nights before this one that are looked at for flakiness


class Status(StrEnum):
    """What a person wants to know about a model in the morning."""

    NEW = "new"
    CHANGED = "changed"
    FLAKY = "flaky"
    KNOWN = "known"
    FIXED = "fixed"
    PASSING = "passes"
    NOT_RUN = "not run"

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        """Histories of 0.1.0 have another word for it, which was wrong of a first night."""
        return cls.PASSING if value == "still passing" else None


class Result(StrEnum):
    """What a night's runs of a model say; `UNKNOWN` leaves the history as it was."""

    PASS = "pass"
    FAIL = "fail"
    MIXED = "mixed"  # it failed in some runs of one night
    UNKNOWN = "unknown"


class Past(Struct, frozen=True):
    """One earlier night of a model on a target.

    `same` says that model file, target version and settings were those of tonight: then a result that
    comes and goes is the failure's own doing.
    """

    result: Result
    key: Key | None
    status: Status
    same: bool = True


def combine(runs: Sequence[tuple[Result, Key | None]]) -> tuple[Result, Key | None]:
    """Several runs of one night as one: equal, or mixed. The first failure's key stands for all."""
    known = [run for run in runs if run[0] is not Result.UNKNOWN]
    if not known:
        return Result.UNKNOWN, None
    failed = [key for result, key in known if result is not Result.PASS]
    if not failed:
        return Result.PASS, None
    return (Result.FAIL if len(set(known)) == 1 else Result.MIXED), failed[0]


def status(result: Result, key: Key | None, past: Sequence[Past]) -> Status:
    """Return the status of a model.

    Args:
        result: of tonight.
        key: of tonight's failure.
        past: earlier nights, latest first; those without a result are stepped over.
    """
    if result is Result.UNKNOWN:
        return Status.NOT_RUN
    known = [p for p in past if p.result is not Result.UNKNOWN]
    if result is Result.MIXED or _comes_and_goes(result, key, known):
        return Status.FLAKY
    failed_before = bool(known) and known[0].result is not Result.PASS
    if result is Result.PASS:
        was_flaky = bool(known) and known[0].status is Status.FLAKY
        return Status.FIXED if failed_before or was_flaky else Status.PASSING
    if not failed_before:
        return Status.NEW
    return Status.KNOWN if known[0].key == key else Status.CHANGED


def is_news(now: Status, past: Sequence[Past]) -> bool:
    """Return whether this is news: a failure that was not there, or another one, the night before."""
    if now in (Status.NEW, Status.CHANGED):
        return True
    before = next((p for p in past if p.result is not Result.UNKNOWN), None)
    return now is Status.FLAKY and (before is None or before.status in (Status.PASSING, Status.FIXED))


def _comes_and_goes(result: Result, key: Key | None, known: Sequence[Past]) -> bool:
    """Two changes within the last nights although nothing else changed; a mixed night counts as two."""
    nights = [(result, key)]
    for night in known[:WINDOW]:
        if not night.same:
            break
        nights.append((night.result, night.key))
    changes = sum(a[0] != b[0] for a, b in pairwise(nights))
    return changes + 2 * sum(n[0] is Result.MIXED for n in nights) >= 2
