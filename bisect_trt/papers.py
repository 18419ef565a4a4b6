"""All that is text in the folder of a reproducer, and the proof that its script does what it says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bisect_trt
from bisect_trt.environment import describe
from bisect_trt.report import pages
from bisect_trt.reproducer import documents, files, texts
from bisect_trt.result import Reduction

_START = 120.0  # seconds for the script to import its libraries


def write(reduction: Reduction, journal: Path, *, tried: bool = True) -> Reduction:
    """Write the papers; with `tried` run `repro.py` once, and say so where it disagrees.

    Raises:
        OSError: a file cannot be written.
    """
    _write(reduction, journal)
    if tried and reduction.verified and not reduction.settings.run.cluster:  # the target may be there only
        told = disagreement(reduction)
        if told:
            reduction = replace(reduction, notes=(*reduction.notes, told))
            _write(reduction, journal)
    return reduction


def _write(reduction: Reduction, journal: Path) -> None:
    environment = describe()
    document = documents.report(reduction, environment, bisect_trt.__version__)
    texts.write_papers(reduction, environment, *pages.render(reduction, document, journal))


def disagreement(reduction: Reduction) -> str:
    """What `repro.py` says other than that it still fails (exit code 1), as a sentence; else nothing."""
    limit = _START + 2 * (reduction.settings.run.timeout or 60.0)
    command = [sys.executable, str((reduction.out / files.SCRIPT).absolute())]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{files.SCRIPT} was tried once and did not end: {error}"
    if done.returncode == 1:
        return ""
    said = [line for line in done.stdout.splitlines() if line.strip()] or done.stderr.splitlines() or [""]
    code = done.returncode
    told = f"exit code {code} instead of 1 ({said[-1].strip()})"
    return f"{files.SCRIPT} was tried once and disagrees: {told}."
