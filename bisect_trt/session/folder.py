"""The output folder: made, resumed, or refused; never overwritten unasked."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from msgspec.structs import asdict

from bisect_trt._version import __version__
from bisect_trt.errors import UsageError, cannot_write
from bisect_trt.model.inputs.made_up import MadeUp, Value
from bisect_trt.session.journal import Journal, locked, read
from bisect_trt.settings import Settings, TargetSettings
from bisect_trt.writing.files import remove_drafts
from bisect_trt.writing.text import short_name

JOURNAL = "journal.jsonl"
WORK = "work"
DONE = "done"  # the event of the journal after which there is nothing to go on with
_ELSEWHERE = "choose another folder with --out"
_OR_REPLACE = f"{_ELSEWHERE}, or replace it with --force"
SCRUBBED = "scrubbed"  # and the one after which its probes tell nothing any more, see `anonymise`


def default_folder(model: Path) -> Path:
    """Return `MODEL-repro/` in the current directory."""
    return Path.cwd() / f"{short_name(model.stem)}-repro"


def header(
    model_digest: str, settings: Settings, samples: Sequence[Mapping[str, Value]], *, every: bool = False
) -> dict[str, str]:
    """Return what two runs must share for one to go on with the other's journal.

    Workers, deadlines, memory limits, budgets and caches may differ: they do not change what a probe
    means. `samples` are the input values, wherever they come from. `every` says that all failures are looked
    for, each with a folder of its own.
    """
    accuracy = settings.accuracy
    files = [*accuracy.custom_ops, *named(accuracy.reference), *named(settings.target.spec)]
    found = {
        "target": meaning(settings.target),
        "inputs": _values(samples),
        "seed": settings.run.seed,
        "accuracy": repr(accuracy),
        "files": [_content(file) for file in files],
        **({"all": True} if every else {}),
    }
    options = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return {"tool": __version__, "model": model_digest, "options": options}


def meaning(target: TargetSettings) -> dict[str, str]:
    """Return all of the target's settings that an outcome depends on, libraries by content."""
    plain = {k: str(v) for k, v in asdict(target).items() if k != "verbose_log"}
    libraries = [*target.plugins, *(path for _, path in target.ep_libraries)]
    return {**plain, "libraries": " ".join(_content(path) for path in libraries)}


def named(spec: str) -> list[Path]:
    """Return the files of the user's own target or reference: programs, scripts, saved outputs."""
    kind, _, argument = spec.partition(":")
    if kind not in ("command", "python", "torchscript", "outputs"):
        return []
    words = [argument, argument.rpartition(":")[0]]
    if kind == "command":
        with suppress(ValueError):
            words = shlex.split(argument)
    files = [Path(word) for word in words if word and Path(word).is_file()]
    return [f for f in files if kind != "command" or os.access(f, os.X_OK) or f.suffix in (".py", ".sh")]


def require_target(journal: Journal, fingerprint: str) -> None:
    """Note on what probes run; those of a journal must not be of another version or device.

    Raises:
        UsageError: it is another one than when the run began.
    """
    if not journal.target:
        journal.event("target", fingerprint=fingerprint)
    elif journal.target != fingerprint:
        here = f"{journal.path.parent} holds a run on {journal.target}; here is {fingerprint}"
        raise UsageError(here, _OR_REPLACE)


def anonymous_folder(head: dict[str, str]) -> Path:
    """Return `anonymous-repro`, with a number if another model's run is there: a name without information."""
    numbered = (f"anonymous-{number}" if number > 1 else "anonymous" for number in itertools.count(1))
    known = ((out, Journal.header(out / JOURNAL)) for out in map(default_folder, map(Path, numbered)))
    return next(out for out, old in known if not out.exists() or (old or {}).get("model") == head["model"])


def require_free(out: Path, head: dict[str, str], *, force: bool) -> None:
    """Check that `open_folder` may use a folder; nothing is written.

    Raises:
        UsageError: the folder holds anything but an unfinished run that has this header, or another run
            is at work in it.
    """
    try:
        there = out.exists()
    except OSError as error:  # a name that is too long
        raise cannot_write(out, error, _ELSEWHERE) from error
    if there and not out.is_dir():
        raise UsageError(f"{out} exists and is not a folder", "choose another one with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if (out / JOURNAL).exists():
        locked(out / JOURNAL).close()
    if not force:
        _require_resumable(out, head)
    elif not (out / JOURNAL).exists():
        kept = f"{out} was not written by bisect-trt and is not removed, --force or not"
        raise UsageError(kept, _ELSEWHERE)


def open_folder(out: Path, head: dict[str, str], *, force: bool) -> Journal:
    """Return the journal of a new folder, or of the unfinished run of the same model and options.

    Raises:
        UsageError: as `require_free` does, or the folder cannot be made.
    """
    require_free(out, head, force=force)
    try:
        if force and (out / JOURNAL).exists():
            with locked(out / JOURNAL):
                shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error, _ELSEWHERE) from error
    journal = Journal.open(out / JOURNAL, head)
    remove_drafts(out)  # the lock is ours now
    return journal


def _require_resumable(out: Path, head: dict[str, str]) -> None:
    journal = out / JOURNAL
    if not journal.exists():
        raise UsageError(f"{out} exists and is not empty", _ELSEWHERE)
    if not read(journal)[0] and len(list(out.iterdir())) == 1:
        return  # it was killed with its first word
    if Journal.header(journal) != head:
        other = "another model, other inputs, options or version of bisect-trt"
        raise UsageError(f"{out} holds a run of {other}", _OR_REPLACE)
    said = {event["event"] for event in read(journal)[0]}
    if SCRUBBED in said and DONE not in said:
        raise UsageError(
            f"{out} holds an anonymous run that was ended before its audit", "do it again with --force"
        )
    if DONE in said:
        shutil.rmtree(out / WORK, ignore_errors=True)  # it may have been killed with its last word said
        raise UsageError(
            f"{out} holds a finished run of this model with these options",
            "look at what it wrote, or do it again with --force",
        )


def _values(samples: Sequence[Mapping[str, Value]]) -> str:
    h = hashlib.sha256()
    for sample in samples:
        for name, value in sorted(sample.items()):
            h.update(f"{name} {value.dtype} {value.shape};".encode())
            if isinstance(value, MadeUp):
                h.update(value.to_json().encode())
                continue
            plain = np.ascontiguousarray(value).reshape(-1)
            h.update(repr(plain.tolist()).encode() if plain.dtype.hasobject else plain.view(np.uint8).data)
    return h.hexdigest()


def _content(path: Path | None) -> str:
    return "" if path is None or not path.is_file() else hashlib.sha256(path.read_bytes()).hexdigest()
