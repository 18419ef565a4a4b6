"""The output folder: made, resumed, or refused; never overwritten unasked."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import bisect_trt
from bisect_trt.errors import UsageError
from bisect_trt.journal import Journal
from bisect_trt.settings import Settings

JOURNAL = "journal.jsonl"
WORK = "work"
REPORT = "report.json"


def default_folder(model: Path) -> Path:
    """`MODEL-repro/` in the current directory."""
    return Path.cwd() / f"{model.stem}-repro"


def header(model_digest: str, settings: Settings) -> dict[str, str]:
    """What two runs must share for one to go on with the other's journal.

    Workers, deadlines and memory limits may differ: they do not change what a probe means.
    """
    meaning = {
        "target": {k: str(v) for k, v in asdict(settings.target).items() if k != "verbose_log"},
        "inputs": _content(settings.run.inputs),
        "seed": settings.run.seed,
    }
    options = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
    return {"tool": bisect_trt.__version__, "model": model_digest, "options": options}


def require_free(out: Path, head: dict[str, str], *, force: bool) -> None:
    """Nothing is written here; see `open_folder`.

    Raises:
        UsageError: the folder holds anything but an unfinished run that has this header.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} exists and is not a folder", "choose another one with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        _require_resumable(out, head)
    elif not (out / JOURNAL).exists():
        raise UsageError(
            f"{out} was not written by bisect-trt and is not removed, --force or not",
            "choose another folder with --out",
        )


def open_folder(out: Path, head: dict[str, str], *, force: bool) -> Journal:
    """The journal of a new folder, or of the unfinished run of the same model and options."""
    require_free(out, head, force=force)
    if force and out.is_dir():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return Journal.open(out / JOURNAL, head)


def _require_resumable(out: Path, head: dict[str, str]) -> None:
    journal = out / JOURNAL
    if not journal.exists():
        raise UsageError(f"{out} exists and is not empty", "choose another folder with --out")
    if Journal.header(journal) != head:
        raise UsageError(
            f"{out} holds a run of another model, other options or another version of bisect-trt",
            "choose another folder with --out, or replace it with --force",
        )
    report = out / REPORT
    if report.exists() and json.loads(report.read_text())["finished"]:
        raise UsageError(
            f"{out} holds a finished run of this model with these options",
            "look at its ISSUE.md, or do it again with --force",
        )


def _content(path: Path | None) -> str:
    return "" if path is None or not path.is_file() else hashlib.sha256(path.read_bytes()).hexdigest()
