"""All that is text in the folder of a reproducer, and the proof that its script does what it says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from bisect_trt.environment import describe
from bisect_trt.reproducer import bundle
from bisect_trt.result import Reduction

_START = 120.0  # seconds for the script to import its libraries


def write(reduction: Reduction, journal: Path, *, tried: bool = True) -> Reduction:
    """Write the papers; with `tried` run `repro.py` once, and say so where it disagrees.

    Raises:
        OSError: a file cannot be written.
    """
    environment = describe()
    bundle.write_papers(reduction, environment)
    if tried and reduction.verified:
        told = disagreement(reduction)
        if told:
            reduction = replace(reduction, notes=(*reduction.notes, told))
            bundle.write_papers(reduction, environment)
    return reduction


def disagreement(reduction: Reduction) -> str:
    """What `repro.py` says other than that it still fails (exit code 1), as a sentence; else nothing."""
    limit = _START + 2 * (reduction.settings.run.timeout or 60.0)
    command = [sys.executable, bundle.SCRIPT]
    try:
        done = subprocess.run(
            command,
            cwd=reduction.out,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{bundle.SCRIPT} was tried once and did not end: {error}"
    if done.returncode == 1:
        return ""
    said = [line for line in done.stdout.splitlines() if line.strip()] or done.stderr.splitlines() or [""]
    code = done.returncode
    return f"{bundle.SCRIPT} was tried once and disagrees: exit code {code} instead of 1 ({said[-1].strip()})."
