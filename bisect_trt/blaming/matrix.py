"""Reproducers against releases: every one of these is tried with every one of those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bisect_trt.blaming.blame import Asking, Blame, blame
from bisect_trt.errors import BisectError, TargetUnavailable
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.outcome import Failure, Stage, Symptom, Verdict
from bisect_trt.reproducer.untrusted import find
from bisect_trt.settings import Settings

_CODES = {Verdict.REPRODUCES: 1, Verdict.VANISHES: 0, Verdict.UNRESOLVED: TargetUnavailable.exit_code}
_UNREAD = Failure(Stage.BUILD, Symptom.ERROR, "", "")


def matrix(
    place: Path,
    asking: Asking,
    settings: Settings,
    *,
    target: str | None = None,
) -> list[Blame]:
    """Try the reproducers at a path on all releases that are asked for; nothing is written but the cache.

    One that cannot be tried among several has no releases, and a note; one alone raises.

    Raises:
        As `blaming.blame`.
    """
    places = find(place)
    found = []
    for each in places:
        with temporary_folder() as scratch:
            out = scratch / "out"
            try:
                one = blame(each, asking, settings, target=target, out=out)
            except BisectError as error:
                if len(places) == 1:
                    raise
                one = Blame(each.name, _UNREAD, out, notes=(error.message,))
            found.append(one)
    return found


def exit_code(found: Sequence[Blame], *, until_fixed: bool = False) -> int:
    """Return 1 when any reproducer still fails on the newest release, else 3, else 0, as `verify` does.

    `until_fixed` turns 0 and 1 round.
    """
    codes = set()
    for one in found:
        newest = one.releases.tried[-1].verdict if one.releases else Verdict.UNRESOLVED
        code = _CODES[newest]
        codes.add(1 - code if until_fixed and code < 2 else code)
    return next((code for code in (1, 3) if code in codes), 0)
