"""The folders that a scan writes to."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bisect_trt.errors import UsageError, cannot_write
from bisect_trt.model.store import type_name
from bisect_trt.references.base import Record
from bisect_trt.scanning.jobs import Row
from bisect_trt.session.journal import locked
from bisect_trt.writing.files import ASIDE, remove_drafts

DOCUMENT = "scan.json"
PAGE = "scan.html"
INDEX = "index.json"
_SCRATCH = ("work", "logs")
_MARK = ".scanning"  # locked while a scan is at work; one that was killed leaves it, and what it had begun


def require_free(out: Path, values: Path | None, *, force: bool) -> None:
    """Nothing is written here; see `scanning.scan`.

    Raises:
        UsageError: a folder holds something that a scan would have to replace, or is no folder, or another
            scan is at work in it.
    """
    for place, option in ((out, "--out"), (values, "--save-tensors")):
        if place is not None and place.exists() and not place.is_dir():
            raise UsageError(f"{place} exists and is not a folder", f"choose another one with {option}")
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if _MARK in there:
        locked(out / _MARK).close()
        there = {name for name in there - {_MARK, *_SCRATCH} if not name.startswith(ASIDE)}
    if there and not (force and DOCUMENT in there):
        hint = "choose another folder with --out"
        if DOCUMENT in there:
            hint += ", or replace it with --force"
        raise UsageError(f"{out} exists and is not empty", hint)
    if values is not None and values.is_dir() and any(values.iterdir()):
        raise UsageError(f"{values} exists and is not empty", "choose another folder with --save-tensors")


@contextmanager
def open_out(out: Path) -> Iterator[Path]:
    """The folder, for recorded values too: these are gone in the end, and the folder if it is empty then."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error, "choose another one with --out") from error
    with locked(out / _MARK):
        _clear(out)
        try:
            yield out
        finally:
            _clear(out)
            (out / _MARK).unlink(missing_ok=True)
            if not any(out.iterdir()):
                out.rmdir()


def _clear(out: Path) -> None:
    for name in _SCRATCH:
        shutil.rmtree(out / name, ignore_errors=True)
    remove_drafts(out)


def keep_values(folder: Path, record: Record, rows: Mapping[str, Sequence[Row]]) -> None:
    """`.npy` files of both sides for each tensor that was measured, and `index.json` that says what is what.

    Types that numpy does not know (bfloat16, ...) are stored as their bits, as the index says.

    Raises:
        UsageError: the folder cannot be written.
        StoppedEarly: the disk is full.
    """
    index = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (tensor, measured) in enumerate(rows.items()):
            kind = type_name(record.elem_type(tensor))
            for row in sorted(measured, key=lambda row: row.diff.sample):
                sample = row.diff.sample
                stem = f"{number:05d}-{re.sub(r'[^A-Za-z0-9._-]', '_', tensor)[-80:]}-{sample}"
                entry = {"tensor": tensor, "sample": sample, "type": kind}
                files = {"reference": record.path(sample, tensor)}
                if row.file:
                    files["target"] = record.folder / row.file
                for side, source in files.items():
                    entry[side] = f"{stem}.{side}.npy"
                    _take(source, folder / f"{stem}.{side}.npy")
                index.append(entry)
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    except OSError as error:
        raise cannot_write(folder, error, "give another folder to --save-tensors") from error


def _take(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another file system, or links are not allowed
        shutil.copyfile(source, place)
