"""Verifications as JUnit's XML, which every CI reads."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from bisect_trt.errors import cannot_write
from bisect_trt.reproducer.verify import Status, Verification
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
    where = {"package": "bisect-trt", "id": "0", "timestamp": now, "hostname": "localhost"}
    suite = ET.Element("testsuite", where, name="verify", tests=str(len(results)))
    ET.SubElement(suite, "properties")
    counts = {"failures": 0, "errors": 0}
    for result in results:
        case = ET.SubElement(suite, "testcase", name=printable(result.name), time=f"{result.seconds:.3f}")
        case.set("classname", printable(result.target) or "reproducer")
        code = result.exit_code(until_fixed=until_fixed)
        if code:
            kind = "failure" if code == 1 else "error"
            counts["failures" if code == 1 else "errors"] += 1
            ET.SubElement(case, kind, message=result.status.value, type=_type(result)).text = _text(result)
    for stream in ("system-out", "system-err"):
        ET.SubElement(suite, stream)
    suite.attrib |= {key: str(value) for key, value in counts.items()}
    suite.set("time", f"{sum(result.seconds for result in results):.3f}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        ET.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise cannot_write(file, error, "give another file to --junit") from error


def _type(result: Verification) -> str:
    failure = result.seen or result.wanted
    return f"{failure.stage} {failure.symptom}" if failure else result.status.value


def _text(result: Verification) -> str:
    lines = [result.why] if result.why else []
    if result.seen is not None:
        lines.append(f"seen: {result.seen.message}")
    if result.wanted is not None and result.status is not Status.SAME:
        lines.append(f"before: {result.wanted.message}")
    # XML has no escape for control characters.
    return "\n".join(printable(line) for line in lines)
