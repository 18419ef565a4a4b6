"""Opens reproducers that somebody else sent: folders and zips, of which nothing is believed.

Only files with the names that a reproducer has are read, under names of ours; links are refused; sizes
are limited before anything is unpacked; of `report.json` only what was checked is used, and never a path
or anything that starts a program or loads a library.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from msgspec import Struct, ValidationError, convert, field
from msgspec.structs import replace
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.external import tensors
from bisect_trt.model.operators import unknown_operators
from bisect_trt.model.store import external_info
from bisect_trt.options import SAFE_SPEC, by_hand, line
from bisect_trt.outcome import Failure
from bisect_trt.references.spec import SELF
from bisect_trt.reproducer.files import MODEL, REPORT, WEIGHTS
from bisect_trt.reproducer.seeded import FILE as SEEDED
from bisect_trt.settings import AccuracySettings, TargetSettings

LIMIT = 4 << 30
"""Bytes that a reproducer may hold when it is unpacked."""

_REPORT_LIMIT = 32 << 20
_FILES = re.compile(r"repro\.(onnx|data)|(inputs|expected)(-\d{1,4})?\.npz|report\.json|target\.log")
_VALUES = re.compile(r"(inputs|expected)(-\d{1,4})?\.npz")
_CHUNK = 1 << 22

# Settings that name files or programs: they are the business of whoever runs it.
_OWN = {"timing_cache", "plugins", "verbose_log", "ep_libraries", "fail_regex"}
_OWN |= {"without_tactics", "decisions"}
_TARGET_KEYS = {*TargetSettings.__struct_fields__} - _OWN
_ACCURACY_KEYS = {"rtol", "atol", "metric", "ignore", "topk", "judge"}
_BY_HAND = {"spec", "plugins", "ep_libraries", "fail_regex"}


class Report(Struct, frozen=True):
    """What is used of a `report.json`.

    `wanted` is the failure that the reproducer showed, `reworded` the same one as the target words it when it
    reads the file itself.
    """

    wanted: Failure = field(name="failure")
    reworded: Failure | None = None
    settings: dict[str, dict[str, Any]] = {}
    compared: dict[str, Any] = {}
    seen_on: dict[str, Any] = field(default_factory=dict, name="target")
    model: dict[str, Any] = {}
    nodes: list[str] = []

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the libraries on which it was seen, by name."""
        stated = self.seen_on.get("versions")
        return {str(k): str(version) for k, version in stated.items()} if isinstance(stated, dict) else {}

    @property
    def model_name(self) -> str:
        """Name of the user's file, without a folder; empty when it is not given."""
        name = str(self.model.get("file", ""))
        return name if name == Path(name).name and name.endswith(".onnx") else ""

    @property
    def seed(self) -> int:
        """Return the seed of the input values, where these were random."""
        value = self.settings.get("run", {}).get("seed")
        return value if isinstance(value, int) and value >= 0 else 0

    @property
    def accuracy(self) -> AccuracySettings:
        """How its outputs were compared. Raises UsageError."""
        accuracy: AccuracySettings = _settings(AccuracySettings, self.compared, _ACCURACY_KEYS)
        by_itself = self.compared.get("reference") == SELF  # others run programs, or are in expected.npz
        return replace(accuracy, reference=SELF) if by_itself else accuracy

    def target(self, spec: str | None, given: TargetSettings = TargetSettings()) -> TargetSettings:  # noqa: B008
        """Return the target and options of the builder; `spec` is what the user asks for instead.

        `given` has the libraries, the expression and the timing cache that the user gives.

        Raises:
            UsageError: the report asks for a target that might start a program or load a library, or
                for libraries, and none were given.
        """
        stated = self.settings.get("target", {})
        asked: TargetSettings = _settings(TargetSettings, stated, _BY_HAND)
        known: TargetSettings = _settings(TargetSettings, stated, _TARGET_KEYS)
        needed = by_hand(asked)
        hint = f"if you trust it, give this yourself: {line(*needed)}"
        if spec is None and SAFE_SPEC.fullmatch(asked.spec) is None:
            why = f"asks for the target {asked.spec!r}, which may start programs or load libraries"
            raise UsageError(f"{REPORT} {why}", hint)
        for libraries, got in ((asked.plugins, given.plugins), (asked.ep_libraries, given.ep_libraries)):
            if libraries and not got and spec is None:
                raise UsageError(f"{REPORT} asks for libraries, which are loaded only for you", hint)
        own = ("plugins", "ep_libraries", "fail_regex", "timing_cache")
        return replace(known, spec=spec or known.spec, **{name: getattr(given, name) for name in own})

    @property
    def spec(self) -> str:
        """The target on which it failed."""
        return str(_settings(TargetSettings, self.settings.get("target", {}), {"spec"}).spec)

    @property
    def timeout(self) -> float | None:
        """Seconds that a probe was given, if that was asked for."""
        value = self.settings.get("run", {}).get("timeout")
        return float(value) if isinstance(value, int | float) and 0 < value < 1e6 else None


def require_custom_ops(folder: Path, report: Report, given: tuple[Path, ...]) -> None:
    """Raises UsageError when the model needs a library of ONNX Runtime, and none is given."""
    used = report.settings.get("accuracy", {}).get("custom_ops") or []
    unknown = unknown_operators(onnx.load_model(str(folder / MODEL), load_external_data=False))
    if used and unknown and not given:
        raise UsageError(
            f"{MODEL} needs custom operators ({unknown[0][0]}), and no library of a report is ever loaded",
            f"if you trust it, give it yourself: --custom-ops {Path(str(used[0])).name}",
        )


def find(path: Path) -> list[Path]:
    """Return the reproducers at a path: itself, or the folders and zips in it, sorted by name; each once.

    A zip of what lies there as a folder, or in another zip, is left out: their files are the same.

    Raises:
        UsageError: there is none.
    """
    if path.suffix == ".onnx" and path.exists():
        raise UsageError(f"{path} is a model, not a reproducer", f"try: {line('bisect-trt', 'check', path)}")
    if path.is_file() or (path / REPORT).exists():
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    folders = [p for p in inside if p.is_dir() and (p / REPORT).exists()]
    zips = [p for p in inside if p.suffix == ".zip" and p.is_file()]
    known: dict[object, Path] = {}
    for place in (*folders, *zips):
        known.setdefault(_content(place) or place.name, place)
    found = sorted(known.values())
    if not found:
        why = "no reproducer in it" if path.is_dir() else "no such file or folder"
        raise UsageError(f"{path}: {why}", "give the folder or zip that bisect-trt reduce wrote")
    return found


def _content(place: Path) -> frozenset[int]:
    """Return the checksums of report and model; empty: unreadable."""
    names = (REPORT, MODEL)
    try:
        if not place.is_dir():
            with zipfile.ZipFile(place) as archive:
                entries = [e for e in archive.infolist() if Path(e.filename).name in names]
            return frozenset(e.CRC for e in entries if e.file_size <= _REPORT_LIMIT)
        plain = [file for file in map(place.joinpath, names) if file.is_file()]
        return frozenset(zlib.crc32(f.read_bytes()) for f in plain if f.stat().st_size <= _REPORT_LIMIT)
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return frozenset()  # it is opened again, and then what is wrong is said


def opened(path: Path, scratch: Path) -> tuple[Path, Report]:
    """Return a folder with the files of a reproducer, and its report.

    Raises:
        UsageError: it is no reproducer, is too large, or something in it leads elsewhere.
    """
    folder = path
    if path.is_file():
        folder = scratch / "unpacked"
        folder.mkdir()
        _unpack(path, folder)
    _require_plain(path, folder)
    return folder, _report(path, folder / REPORT)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack those files of a zip that a reproducer has, under their bare names."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if _FILES.fullmatch(e.filename.rpartition("/")[2])]
            entries = [e for e in entries if not e.is_dir() and e.filename.count("/") <= 1]
            size, most = sum(e.file_size for e in entries), min(LIMIT, shutil.disk_usage(folder).free)
            if size > most:
                raise UsageError(f"{path} holds {size:,} bytes when unpacked, {most:,} are allowed here")
            for entry in entries:
                place = folder / entry.filename.rpartition("/")[2]
                if place.exists():
                    raise UsageError(f"{path} holds {place.name} twice", "unpack it and give one folder")
                with archive.open(entry) as source, place.open("xb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        hint = "give the folder or zip that bisect-trt reduce wrote, the whole of it"
        raise UsageError(f"{path} cannot be unpacked: {error}", hint) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read or unpacked: {error.strerror or error}") from error


def _require_plain(path: Path, folder: Path) -> None:
    """Require that every file is a plain file in the folder, and that the model refers to nothing else."""
    for place in folder.iterdir():
        if _FILES.fullmatch(place.name) and (place.is_symlink() or not place.is_file()):
            raise UsageError(f"{path}: {place.name} is not a plain file, so it is not followed")
    if not (folder / MODEL).exists() or not (folder / REPORT).exists():
        raise UsageError(f"{path} is no reproducer: {MODEL} and {REPORT} have to be in it")
    try:
        proto = onnx.load_model(str(folder / MODEL), load_external_data=False)
        places = {external_info(t).get("location") for t in tensors(proto) if t.data_location == t.EXTERNAL}
    except Exception as error:  # protobuf and onnx raise several kinds
        raise UsageError(f"{path}: {MODEL} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if places - {WEIGHTS, SEEDED}:  # what is in the latter is made, not read
        raise UsageError(f"{path}: {MODEL} refers to files outside of the reproducer")
    for place in folder.iterdir():
        if _VALUES.fullmatch(place.name):
            side = proto.graph.input if place.name.startswith("inputs") else proto.graph.output
            _require_values(path, place, {value.name: value.type.tensor_type.elem_type for value in side})


def _require_values(path: Path, archive: Path, types: Mapping[str, int]) -> None:
    """Raises UsageError unless it holds whole arrays of these names and types, not too much of them."""
    where = f"{path}: {archive.name}"
    try:
        with zipfile.ZipFile(archive) as content:
            size = sum(entry.file_size for entry in content.infolist())
            if size > LIMIT:
                raise UsageError(f"{where} holds {size:,} bytes, {LIMIT:,} are allowed")
            for entry in content.infolist():
                name = entry.filename.removesuffix(".npy")
                if name not in types:
                    raise UsageError(f"{where} has values for {name!r}, which the model does not have")
                with content.open(entry) as stream:
                    _require_array(stream, entry.file_size, types[name])
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise UsageError(f"{where} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _require_array(stream: IO[bytes], size: int, elem_type: int) -> None:
    """Raises ValueError unless an `.npy` file is an array of that type, and as long as it says."""
    version = np.lib.format.read_magic(stream)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in reader:
        raise ValueError(f"version {version} of the format is not known")
    shape, _, dtype = reader[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError(f"an array of shape {shape} is not as long as it says")
    if elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return
    declared = helper.tensor_dtype_to_np_dtype(elem_type)
    bits = declared.isbuiltin != 1 and dtype == np.dtype(f"u{declared.itemsize}")
    if dtype != declared and not bits:
        raise ValueError(f"it holds {dtype}, and the model declares {declared}")


def _report(path: Path, file: Path) -> Report:
    try:
        if file.stat().st_size > _REPORT_LIMIT:
            raise UsageError(f"{path}: {REPORT} is too large")
        return convert(json.loads(file.read_bytes()), Report)
    except ValidationError as error:
        raise UsageError(f"{path}: {REPORT} is not one of bisect-trt: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {REPORT} cannot be read: {error}") from error


def _settings(kind: Any, given: dict[str, Any], keys: set[str]) -> Any:
    try:
        chosen = {k: v for k, v in given.items() if k in keys}
        return convert(chosen, kind, strict=False, dec_hook=lambda known, value: known(value))
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{REPORT}: {error}") from error
