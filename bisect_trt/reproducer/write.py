"""Writes all that is text in the folder of a reproducer, and has its script prove what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from bisect_trt.accuracy.tolerance import only_for
from bisect_trt.machine.environment import describe
from bisect_trt.outcome import Stage
from bisect_trt.reproducer import archive, command_lines, issue, script
from bisect_trt.reproducer import document as documents
from bisect_trt.reproducer.files import ISSUE, LOG, NOTE, REPORT, SCRIPT
from bisect_trt.reproducer.page import pages
from bisect_trt.reproducer.trial import disagreement
from bisect_trt.results import Finding, Reduction
from bisect_trt.writing.files import write_all, written_aside

TRIES = 12  # further runs of the script for a failure that comes and goes


def write(
    reduction: Reduction, journal: Path, *, tried: bool = True, objection: str | None = None
) -> Reduction:
    """Write the texts; with `tried` run `repro.py`, without whose word nothing is called verified.

    `objection` is what `disagreement` gave, where the script has run already.

    Raises:
        OSError: a file cannot be written.
    """
    assert not reduction.verified or is_at_users_tolerance(reduction)
    _write(reduction, journal)
    if tried and reduction.verified and not reduction.settings.run.cluster:  # the target may be there only
        objection = disagreement(reduction) if objection is None else objection
        for _ in range(TRIES if _comes_and_goes(reduction) else 0):
            objection = objection and disagreement(reduction)
        if objection:
            reduction = replace(reduction, notes=(*reduction.notes, objection), script_objection=objection)
            _write(reduction, journal)
    return reduction


def is_at_users_tolerance(reduction: Reduction) -> bool:
    """Return whether the fresh runs were compared at the tolerance that the user asked for.

    A tolerance that follows from what was seen proves nothing of the files.
    """
    if reduction.wanted.stage is not Stage.COMPARE:
        return True
    asked, used = reduction.settings.accuracy, reduction.compared_as
    names = ("", *(name for name, _ in (*asked.rtol, *asked.atol)))
    known = [asked, *(only_for(asked, name) for name in names)]
    return any((a.rtol, a.atol, a.metric) == (used.rtol, used.atol, used.metric) for a in known)


def _comes_and_goes(reduction: Reduction) -> bool:
    """Return whether not every fresh run showed the failure, or one that did was waited for."""
    return reduction.verified < max(reduction.repeats, reduction.settings.run.repeats)


def _write(reduction: Reduction, journal: Path) -> None:
    document = documents.report(reduction, describe())
    write_texts(reduction, document, *pages.render(reduction, document, journal))


def write_script(reduction: Reduction) -> None:
    """Write `repro.py` alone, so that it can be tried before all texts are written."""
    write_all(reduction.out, {SCRIPT: script.render(reduction)}, SCRIPT)


def write_texts(
    reduction: Reduction,
    document: Mapping[str, Any],
    pages: Mapping[str, str] = MappingProxyType({}),
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write all that is text, `report.json` last: when it is there, everything is.

    `document` is `document.report` of the reduction, `pages` are further texts by file name, and `facts`
    is what `report.json` holds of them. Input values for other tools are written where asked for.

    Raises:
        OSError: a file cannot be written.
    """
    paper, other = (NOTE, ISSUE) if reduction.judgement.kind is Finding.SENSITIVE else (ISSUE, NOTE)
    (reduction.out / other).unlink(missing_ok=True)
    texts = {
        SCRIPT: script.render(reduction),
        paper: issue.render(reduction, document, f"{archive.folder_name(reduction.out)}.zip"),
        LOG: reduction.log.rstrip("\n") + "\n",
        **pages,
        REPORT: json.dumps({**document, **facts}, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    with written_aside(reduction.out, command_lines.JSON) as folder:
        command_lines.write(reduction.best, reduction.settings.report.inputs_for, folder)
    write_all(reduction.out, texts, REPORT)
