"""The output folder: made, resumed, or refused; never overwritten unasked."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import bisect_trt
from bisect_trt.errors import UsageError
from bisect_trt.journal import Journal, locked, read
from bisect_trt.settings import Settings, TargetSettings

JOURNAL = "journal.jsonl"
WORK = "work"
DONE = "done"  # the event of the journal after which there is nothing to go on with
SCRUBBED = "scrubbed"  # and the one after which its probes tell nothing any more, see `anonymise`


def default_folder(model: Path) -> Path:
    """`MODEL-repro/` in the current directory."""
    return Path.cwd() / f"{model.stem}-repro"


def header(model_digest: str, settings: Settings, *, every: bool = False) -> dict[str, str]:
    """What two runs must share for one to go on with the other's journal.

    Workers, deadlines, memory limits, budgets and caches may differ: they do not change what a probe
    means. `every` says that all failures are looked for, each with a folder of its own.
    """
    found = {
        "target": meaning(settings.target),
        "inputs": _content(settings.run.inputs),
        "seed": settings.run.seed,
        "accuracy": repr(settings.accuracy),
        **({"all": True} if every else {}),
    }
    options = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return {"tool": bisect_trt.__version__, "model": model_digest, "options": options}


def meaning(target: TargetSettings) -> dict[str, str]:
    """All of the target's settings that an outcome depends on, libraries by content."""
    plain = {k: str(v) for k, v in asdict(target).items() if k != "verbose_log"}
    libraries = [*target.plugins, *(path for _, path in target.ep_libraries)]
    return {**plain, "libraries": " ".join(_content(path) for path in libraries)}


def require_free(out: Path, head: dict[str, str], *, force: bool) -> None:
    """Nothing is written here; see `open_folder`.

    Raises:
        UsageError: the folder holds anything but an unfinished run that has this header, or another run
            is at work in it.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} exists and is not a folder", "choose another one with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if (out / JOURNAL).exists():
        locked(out / JOURNAL).close()
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
    if force and (out / JOURNAL).exists():
        with locked(out / JOURNAL):
            shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return Journal.open(out / JOURNAL, head)


def _require_resumable(out: Path, head: dict[str, str]) -> None:
    journal = out / JOURNAL
    if not journal.exists():
        raise UsageError(f"{out} exists and is not empty", "choose another folder with --out")
    if not read(journal)[0] and len(list(out.iterdir())) == 1:
        return  # it was killed with its first word
    if Journal.header(journal) != head:
        raise UsageError(
            f"{out} holds a run of another model, other options or another version of bisect-trt",
            "choose another folder with --out, or replace it with --force",
        )
    said = {event["event"] for event in read(journal)[0]}
    if SCRUBBED in said and DONE not in said:
        raise UsageError(
            f"{out} holds an anonymous run that was ended before its audit", "do it again with --force"
        )
    if DONE in said:
        shutil.rmtree(out / WORK, ignore_errors=True)  # it may have been killed with its last word said
        raise UsageError(
            f"{out} holds a finished run of this model with these options",
            "look at its ISSUE.md, or do it again with --force",
        )


def _content(path: Path | None) -> str:
    return "" if path is None or not path.is_file() else hashlib.sha256(path.read_bytes()).hexdigest()
