"""`blame = true`: which release and which decision of the builder a new failure comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bisect_trt.blaming import words
from bisect_trt.blaming.blame import Asking, blame
from bisect_trt.errors import BisectError
from bisect_trt.settings import RunSettings


def tell(repro: Path, out: Path, seconds: float, say: Callable[[str], None]) -> None:
    """Ask `blame` about a reproducer and say what it found; never raises for what cannot be found out."""
    try:
        found = blame(repro, Asking(), run=RunSettings(budget=seconds), out=out, force=out.exists())
    except BisectError as error:
        say(f"blame: {repro.name}: {error.message}")
        return
    if found.releases is not None:
        say(f"blame: {repro.name}: {words.answer(found.releases)}")
    if found.decisions is not None:
        say(f"blame: {repro.name}: {words.sentences(found.decisions)[0]}")
