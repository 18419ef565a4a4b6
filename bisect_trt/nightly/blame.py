"""`blame = true`: which release and which decision of the builder a new failure comes from.

Asked of a process of its own: a night goes on whatever becomes of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_GRACE = 120.0  # seconds for what had begun when the time was over


def tell(repro: Path, out: Path, seconds: float, say: Callable[[str], None]) -> None:
    """Ask `blame` about a reproducer and say what it found; never raises for what cannot be found out."""
    command = [sys.executable, "-m", "bisect_trt", "blame", str(repro), "--out", str(out), "--force"]
    command += ["--budget", f"{seconds:g}", "--json"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds + _GRACE, check=False
        )
        for line in _lines(json.loads(done.stdout)):
            say(f"blame: {repro.name}: {line}")
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        say(f"blame: {repro.name}: no answer: {type(error).__name__}")


def _lines(document: dict[str, dict[str, object]]) -> list[str]:
    """Return the answers and notes of a document of `blame --json`."""
    if "error" in document:
        return [str(document["error"]["message"])]
    answers = [document[part]["answer"] for part in ("releases", "decisions") if part in document]
    return [*map(str, answers), *map(str, document.get("notes", ()))]
