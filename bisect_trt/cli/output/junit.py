"""Verifications as JUnit's XML, which every CI reads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bisect_trt.errors import cannot_write
from bisect_trt.reproducer.verify import Status, Verification
from bisect_trt.writing import templates
from bisect_trt.writing.text import printable


def write(results: Sequence[Verification], file: Path, *, until_fixed: bool) -> None:
    """Write one test case for each reproducer; the file fits the schemas of Ant and of Jenkins.

    A failure is what the exit code 1 says: it still fails, or with `until_fixed`, it is fixed. What
    fails in another way or cannot be told is an error.

    Raises:
        UsageError: the file cannot be written.
        StoppedEarly: the disk is full.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    cases = [_case(result, result.exit_code(until_fixed=until_fixed)) for result in results]
    template = templates.of_xml(__package__).get_template("junit.xml.j2")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(template.render(now=now, cases=cases).rstrip("\n"), encoding="utf-8")
    except OSError as error:
        raise cannot_write(file, error, "give another file to --junit") from error


def _case(result: Verification, code: int) -> dict[str, Any]:
    failure = result.seen or result.wanted
    return {
        "name": printable(result.name),
        "target": printable(result.target) or "reproducer",
        "seconds": result.seconds,
        "tag": {0: "", 1: "failure"}.get(code, "error"),
        "status": result.status.value,
        "kind": f"{failure.stage} {failure.symptom}" if failure else result.status.value,
        "text": _text(result),
    }


def _text(result: Verification) -> str:
    lines = [result.why] if result.why else []
    if result.seen is not None:
        lines.append(f"seen: {result.seen.message}")
    if result.wanted is not None and result.status is not Status.SAME:
        lines.append(f"before: {result.wanted.message}")
    # XML has no escape for control characters.
    return "\n".join(printable(line) for line in lines)
