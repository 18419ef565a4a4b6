"""Outcomes of probes, shared between runs: `--cache-dir`.

One small JSON file an outcome, named by the content of what was asked: the candidate's model with the
bytes of its weights, its feeds and the values expected, the target with its versions, device and
settings, and the version of this tool. Nothing in a key depends on where files lie. Any number of
runs may use a folder at once: files are written aside and renamed, and one that vanishes, is damaged or
is no entry of ours counts as absent. Files of others are never removed. Only what a target said itself is
kept: a crash, a hang and a lack of memory may be the machine's, and are asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
from msgspec.structs import replace
from onnx import TensorProto

from bisect_trt._version import __version__
from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.external import tensors
from bisect_trt.model.load import read_light
from bisect_trt.model.store import external_info, promise_of, raw_size
from bisect_trt.outcome import Outcome, Symptom
from bisect_trt.session.folder import meaning
from bisect_trt.settings import Settings
from bisect_trt.writing.files import written_whole

LIMIT = 256 * 2**20
"""Bytes that a cache may take on the disk; the files not used for longest go first."""

_BLOCK = 4096  # of a file system
_CHUNK = 1 << 22
_EVERY = 64  # entries written between two looks at the size of all
_OF_THE_MACHINE = frozenset({Symptom.CRASH, Symptom.HANG, Symptom.OUT_OF_MEMORY})


_OURS = re.compile(r"[0-9a-f]{62}\.json|\.[0-9a-f]{62}\.json\.\d+\.writing")
"""Names of our files: an entry, or what a killed run left of one."""


def _check(content: str) -> str:
    """Return the checksum by which a damaged entry is found."""
    return hashlib.sha256(content.encode()).hexdigest()


class Cache:
    """Outcomes by content, in a folder."""

    def __init__(self, folder: Path, fingerprint: str, limit: int = LIMIT) -> None:
        """Use `folder`, which is made.

        Args:
            folder: any number of models, targets and versions may share it.
            fingerprint: all that an outcome depends on besides the candidate.
            limit: bytes on the disk, roughly.

        Raises:
            UsageError: the folder cannot be made or written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            message = f"--cache-dir {folder}: {error.strerror}"
            raise UsageError(message, "give a folder to write in") from error
        self._folder = folder
        self._fingerprint = fingerprint
        self._limit = limit
        self._hashes: dict[tuple[str, int, int], str] = {}  # file, offset, length: content
        self._put = 0

    def get(self, candidate: Candidate, run: int = 0) -> Outcome | None:
        """Return what an earlier run saw; None when there was none."""
        place = self._place(candidate, run)
        try:
            check, _, content = place.read_text().partition("\n")
            found = Outcome.from_json(json.loads(content)) if check == _check(content) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        with suppress(OSError):
            os.utime(place)
        return found

    def put(self, candidate: Candidate, run: int, outcome: Outcome) -> None:
        """Keep an outcome, unless it may be the machine's. A full disk is no error."""
        if outcome.unresolved or any(f.symptom in _OF_THE_MACHINE for f in outcome.failures):
            return
        place = self._place(candidate, run)
        with suppress(OSError):
            place.parent.mkdir(exist_ok=True)
            content = json.dumps(outcome.to_json())
            with written_whole(place) as aside:
                aside.write_text(f"{_check(content)}\n{content}")
        if self._put % _EVERY == 0:
            self.trim()
        self._put += 1

    def trim(self) -> None:
        """Remove what was not used for longest until a tenth below the limit, if it is over it."""
        found = []
        for path in self._folder.glob("??/*"):
            if not _OURS.fullmatch(path.name):
                continue
            with suppress(OSError):
                seen = path.stat()
                found.append((seen.st_mtime, -(-seen.st_size // _BLOCK) * _BLOCK, path))
        held = sum(size for _, size, _ in found)
        if held <= self._limit:
            return
        for _, size, path in sorted(found):
            if held <= 0.9 * self._limit:
                return
            with suppress(OSError):
                path.unlink()
            held -= size

    def _place(self, candidate: Candidate, run: int) -> Path:
        h = hashlib.sha256(json.dumps([self._fingerprint, run, self._content(candidate)]).encode())
        name = h.hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.json"

    def _content(self, candidate: Candidate) -> list[Any]:
        """Return the candidate by content: no name of a file, no offset in one."""
        content = candidate.content
        proto = read_light(content) if isinstance(content, Path) else onnx.load_model_from_string(content)
        for tensor in tensors(proto):
            if tensor.data_location == TensorProto.EXTERNAL:
                info = external_info(tensor)
                size = int(info.get("length") or raw_size(tensor.data_type, tensor.dims))
                file, start = candidate.folder / info["location"], int(info.get("offset") or 0)
                tensor.raw_data = self._hash(file, start, size).encode()
                del tensor.external_data[:]
        values: list[Any] = [
            [sorted((name, self._hash(path)) for name, path in sample.items()) for sample in side]
            for side in (candidate.feeds, candidate.expected)
        ]
        rest = candidate.rest
        if rest is not None:
            part = replace(candidate, content=rest.model, feeds=rest.feeds, expected=rest.expected, rest=None)
            values.append([*rest.outputs, "", *rest.deltas, *(self._content(part) if rest.model else ())])
        return [hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(), *values]

    def _hash(self, path: Path, offset: int = 0, length: int = -1) -> str:
        """Return the content of a part of a file; files of a run never change, so each is read once."""
        part = (str(path), offset, length)
        if part not in self._hashes:
            h = hashlib.sha256()
            promised = promise_of(path)  # made or not: the values are the same
            with (promised if promised.exists() else path).open("rb") as file:
                left = length if length >= 0 else os.fstat(file.fileno()).st_size
                file.seek(offset)
                while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                    h.update(chunk)
                    left -= len(chunk)
            self._hashes[part] = h.hexdigest()
        return self._hashes[part]


def shared(settings: Settings, on: str) -> Cache | None:
    """Return the cache that was asked for; none for a command of the user, which may change unseen.

    Args:
        settings: with its folder, and all that gives an outcome its meaning.
        on: the target and the reference with their versions.
    """
    if settings.run.cache_dir is None or settings.target.spec.startswith("command:"):
        return None
    fingerprint = [__version__, on, meaning(settings.target), repr(settings.accuracy)]
    return Cache(settings.run.cache_dir, json.dumps(fingerprint, sort_keys=True))
