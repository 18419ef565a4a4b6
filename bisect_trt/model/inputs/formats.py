"""Files with input values (and with outputs): `.npz`, `.npy` folders, ONNX test data, JSON."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from bisect_trt.errors import UsageError, cannot_write
from bisect_trt.model.store import plain
from bisect_trt.outcome import Array
from bisect_trt.writing.files import written_whole

Sample = dict[str, Array]

KINDS = (
    "a .npz file, a folder of .npy or .npz files, a folder with ONNX test_data_set_* folders, "
    "JSON as Polygraphy saves it or plain lists in JSON, or a Python loader FILE.py:FUNCTION"
)
_MARK = "polygraphy_class"


def read_samples(path: Path, names: Sequence[str]) -> list[Sample]:
    """Return arrays by name, a mapping for each sample; nothing is unpickled or executed.

    A folder is one sample when it holds `.npy` files (`NAME.npy`) or `input_K.pb` files; it is several
    when it holds `.npz` files, `test_data_set_K` folders, or folders of `.npy` files, in natural order.

    Args:
        path: file or folder.
        names: of the model's inputs, in its order: what `input_K.pb` without a name stands for.

    Raises:
        UsageError: it cannot be read, or is none of these.
    """
    if not path.exists():
        raise UsageError(f"cannot read {path}: no such file or folder", f"give {KINDS}")
    try:
        if path.is_dir():
            return _read_folder(path, names)
        if path.suffix.lower() == ".json":
            return read_json(path)
        if path.suffix.lower() == ".pb":
            return [_read_pb([path], names)]
        if path.suffix.lower() in (".pt", ".pth"):
            hint = "in Python: numpy.savez('inputs.npz', **{name: tensor.numpy() for ...})"
            raise UsageError(f"{path} is a file of PyTorch, which is not read here", hint)
        return [read_npz(path)]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _read_folder(path: Path, names: Sequence[str]) -> list[Sample]:
    if arrays := _sorted(path.glob("*.npy")):
        return [{file.stem: _read_npy(file) for file in arrays}]
    if tensors := _sorted(path.glob("input_*.pb")):
        return [_read_pb(tensors, names)]
    if archives := _sorted(path.glob("*.npz")):
        return [read_npz(file) for file in archives]
    inner = [folder for folder in _sorted(path.iterdir()) if folder.is_dir()]
    sets = [folder for folder in inner if folder.name.startswith("test_data_set_")]
    found = [sample for folder in sets or inner for sample in _read_folder(folder, names)]
    if not found:
        raise UsageError(f"{path} holds no input values", f"give {KINDS}")
    return found


def _sorted(paths: Any) -> list[Path]:
    """Sort by the numbers in the names: set 2 comes before set 10."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.stem)]

    return sorted(paths, key=key)


def _read_npy(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
        return array
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path} is no plain array: {error}") from error


# What zipfile and numpy raise on spoiled archives; versions that they lack and passwords are RuntimeErrors.
_DAMAGE = (ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, MemoryError)


def read_npz(path: Path) -> Sample:
    """Read an archive of arrays. Raises UsageError, and OSError where the file cannot be read."""
    hint = "make it with numpy.savez(file, **{input name: array})"
    try:
        data = np.load(path, allow_pickle=False)
        if not isinstance(data, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} holds one array without a name, not a .npz archive", hint)
        with data:
            return {name: data[name] for name in data.files}
    except _DAMAGE as error:
        why = "" if "pickle" in str(error) else f": {error}"  # numpy takes whatever it does not know for one
        raise UsageError(f"{path} is no .npz archive of plain arrays{why}", hint) from error


def _read_pb(files: Sequence[Path], names: Sequence[str]) -> Sample:
    """Read `input_K.pb`: a TensorProto each; one without a name is the K-th input."""
    found: Sample = {}
    for file in files:
        number = re.search(r"_(\d+)\.pb$", file.name)
        position = int(number[1]) if number else 0
        try:
            tensor = onnx.TensorProto.FromString(file.read_bytes())
            value = numpy_helper.to_array(tensor, str(file.parent))
        except (DecodeError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{file} is no ONNX tensor: {error}", "sequences are not supported") from error
        name = tensor.name or (names[position] if position < len(names) else f"input {position}")
        found[name if name in names or position >= len(names) else names[position]] = value
    return found


def read_json(path: Path) -> list[Sample]:
    """Read Polygraphy's `--save-inputs`, or plain lists: one mapping of name to array, or a list of them.

    Of its `--save-outputs` the outputs of the first runner are taken, a sample for each iteration.

    Raises:
        UsageError: it is no such file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if isinstance(data, dict) and data.get(_MARK) == "RunResults":
        data = _run_results(path, data)
    samples = data if isinstance(data, list) else [data]
    if not samples or not all(isinstance(sample, dict) and sample for sample in samples):
        raise UsageError(
            f"{path} holds no input values",
            'write {"input": [[1, 2], [3, 4]]}, or a list of these for several samples',
        )
    return [{str(k): _array(path, str(k), v) for k, v in sample.items()} for sample in samples]


def _run_results(path: Path, data: dict[str, Any]) -> list[Any]:
    try:
        return [iteration["outputs"] for iteration in data["lst"][0][1]]
    except (LookupError, TypeError) as error:
        raise UsageError(f"{path} holds no outputs of a Polygraphy run") from error


def _array(path: Path, name: str, value: Any) -> Array:
    if isinstance(value, dict) and "values" in value:  # LazyArray; of a scalar a number
        value = value["values"]
    if isinstance(value, dict):
        if isinstance(value.get("array"), str):
            return _decoded(path, name, value["array"])
        raise UsageError(f"{path}: {name} is no array (it is a {value.get(_MARK, 'mapping')})")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UsageError(f"{path}: the lists of {name} have different lengths") from error
    if array.dtype.kind not in "biufU":
        raise UsageError(f"{path}: {name} is no array of numbers, bools or strings")
    return array


def _decoded(path: Path, name: str, text: str) -> Array:
    try:
        array = np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError) as error:
        raise UsageError(f"{path}: the array of {name} cannot be decoded: {error}") from error
    return np.asarray(array)


def write_samples(path: Path, samples: Sequence[Mapping[str, Array]]) -> None:
    """Write values so that `read_samples`, and Polygraphy for `.json`, read them again.

    `x.json` is one file; `x.npz` is one too for one sample, else `x.npz`, `x-1.npz`, ...

    Raises:
        UsageError: the name ends in neither, or it cannot be written.
        StoppedEarly: the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".json":
            listed = [{k: _encoded(v) for k, v in sample.items()} for sample in samples]
            with written_whole(path) as aside:
                aside.write_text(json.dumps(listed, indent=1))
        elif path.suffix.lower() == ".npz":
            for k, sample in enumerate(samples):
                place = path if k == 0 else path.with_name(f"{path.stem}-{k}{path.suffix}")
                with written_whole(place) as aside:
                    write_npz(aside, sample)
        else:
            raise UsageError(f"{path}: write values as .npz or .json")
    except OSError as error:
        raise cannot_write(path, error) from error


def _encoded(value: Array) -> dict[str, str]:
    file = io.BytesIO()
    np.save(file, plain(value), allow_pickle=False)
    return {"array": base64.b64encode(file.getvalue()).decode(), _MARK: "ndarray"}


def write_npz(path: Path, sample: Mapping[str, Array]) -> None:
    """Do as `numpy.savez` does, which cannot take an array called `file`. Raises OSError."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in sample.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, plain(value), allow_pickle=False)


def in_order(sample: Sample, names: Sequence[str]) -> Sample:
    """Return outputs by these names where all go without (`arr_0`, as `numpy.savez(file, a)` calls them)."""
    unnamed = list(sample) == [f"arr_{k}" for k in range(len(names))]
    return dict(zip(names, sample.values(), strict=True)) if unnamed else sample
