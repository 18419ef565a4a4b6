"""Runs of elements of weights and input values of the original, wherever in a file they are."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from bisect_trt.anonymise.secrets import SMALL
from bisect_trt.model.external import tensors
from bisect_trt.model.seeded_values import three_digits
from bisect_trt.model.walk import inner_nodes
from bisect_trt.outcome import Array

_CHUNK = 1 << 22  # elements looked at at once
_RUN = 4  # elements
_BIG = 1 << 24  # bytes; larger files hold weights, at places that 4 divides
_PRINTABLE = re.compile(rb"[\x20-\x7e\x80-\xff]{3,}")
_NUMBERS = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

_FLOATS = (np.float16, np.float32, np.float64)

Named = Callable[[], Iterable[tuple[str, Array]]]


def find_values(files: Mapping[str, bytes], arrays: Named) -> list[tuple[str, str]]:
    """Return names of arrays of which a run, or a value that is long enough, is in a file, with that file."""
    where = {width: _index(files, width) for width in (16, 32)}
    singles = _singles(files)
    found = []
    for name, array in arrays():
        if not is_secret(array):
            continue
        keys, sources = where[32 if array.dtype.itemsize >= 8 else 16]
        hit = _lookup(array, keys)
        if hit is not None:
            found.append((name, sources[int(hit)]))
        elif array.size < _RUN:
            left = [singles[v] for v in _long(array) if v in singles]
            found += [(name, left[0])] if left else []
    return found


def is_secret(array: Array) -> bool:
    """Return whether an array is more than sizes, axes or flags."""
    kind = array.dtype.kind
    if kind in "OUSb" or array.size == 0:
        return kind == "b" and array.size > SMALL
    return kind not in "iu" or array.dtype.itemsize < 4 or array.size > SMALL


def strings(data: bytes) -> Iterator[str]:
    """Yield the printable runs of bytes; the texts of an array of texts, which has four bytes a letter."""
    if data[:6] == b"\x93NUMPY":
        array = np.load(io.BytesIO(data), allow_pickle=False)
        yield from (str(item) for item in array.flat) if array.dtype.kind in "US" else ()
    for match in _PRINTABLE.finditer(data):
        yield match.group().decode("utf-8", errors="replace")


def _long(array: Array) -> Iterator[float]:
    """Yield floats of more than three digits that no float16 is: no coincidence when met again."""
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        return
    for value in np.asarray(array, np.float64).flat:
        with np.errstate(all="ignore"):
            narrow = np.float32(value)
            plain = np.array((three_digits(value), np.float64(np.float16(value))), np.float32)
        if np.isfinite(narrow) and narrow not in plain:
            yield float(narrow)


def _printed(data: bytes) -> list[float]:
    """Return the numbers that stand in a text."""
    return [float(number) for number in _NUMBERS.findall("\n".join(strings(data)))]


def _singles(files: Mapping[str, bytes]) -> dict[float, str]:
    """Return all such numbers in files, with the file."""
    found: dict[float, str] = {}
    for name, data in files.items():
        arrays = list(_arrays(name, data))
        if not arrays and data[:2] != b"PK":
            arrays = [np.array(_printed(data))]
        for array in arrays:
            if array.size < _CHUNK:
                found.update(dict.fromkeys(_long(array), name))
    return found


def _index(files: Mapping[str, bytes], width: int) -> tuple[Array, list[str]]:
    """Return hashes of all windows in all files, sorted, each with the number of its file in the low bits."""
    names, parts = list(files), []
    for number, (name, data) in enumerate(files.items()):
        for blob, step in _blobs(name, data):
            keys = _windows(blob, width, step)
            if keys.size:
                parts.append((keys & ~np.uint64(0xFFFF)) | np.uint64(number & 0xFFFF))
    return (np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)), names


def _blobs(name: str, data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield bytes to look at, and at every how many of them a window may begin."""
    arrays = list(_arrays(name, data))
    if not arrays or len(data) < 1 << 20:
        yield data, 1 if len(data) < _BIG else 4  # whatever it is
    for array in arrays:
        yield np.ascontiguousarray(array).tobytes(), array.dtype.itemsize
        if array.dtype.kind == "f" or "float" in array.dtype.name:
            yield from _as_types(array, [other for other in _FLOATS if other != array.dtype])
    if not arrays and data[:2] != b"PK":
        yield from _as_types(np.array(_printed(data)), (*_FLOATS, np.int8, np.int32, np.int64))


def _as_types(array: Array, types: Iterable[type[np.generic]]) -> Iterator[tuple[bytes, int]]:
    for kind in types:
        with np.errstate(all="ignore"):
            yield array.astype(kind).tobytes(), np.dtype(kind).itemsize


def _arrays(name: str, data: bytes) -> Iterator[Array]:
    """Yield the tensors of an ONNX model, the array of a `.npy`."""
    if data[:6] == b"\x93NUMPY":
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError:
            return
        if array.dtype.kind not in "OUS":
            yield array
    elif name.endswith(".onnx"):
        try:
            proto = onnx.load_model_from_string(data)
        except DecodeError:
            return
        for node in inner_nodes(proto.graph):
            yield from (np.array(a.floats, np.float32) for a in node.attribute if a.floats)
            yield from (np.array(a.ints) for a in node.attribute if a.ints)
        for tensor in tensors(proto):
            if tensor.data_location != TensorProto.EXTERNAL and tensor.data_type != TensorProto.STRING:
                yield numpy_helper.to_array(tensor)


def _windows(blob: bytes, width: int, step: int) -> Array:
    """Return the hashes of `width` bytes from each `step`-th place on."""
    if len(blob) < width:
        return np.zeros(0, np.uint64)
    count = (len(blob) - width) // step + 1
    keys = np.zeros(count, np.uint64)
    for at in range(0, width, 8):
        keys += np.ndarray(count, "<u8", blob, at, (step,))
        keys = (keys ^ (keys >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _lookup(array: Array, keys: Array) -> int | None:
    """Return the number of a file that holds some run of the array; None when none does."""
    if not keys.size:
        return None
    flat = array.reshape(-1)
    elements = max(_RUN, 16 // array.dtype.itemsize)
    for start in range(0, flat.size - elements + 1, _CHUNK):
        chunk = np.ascontiguousarray(flat[start : start + _CHUNK])
        chunk = chunk[: chunk.size // elements * elements]
        rows = chunk.reshape(-1, elements)
        rows = rows[_tells(rows)]
        if not rows.size:
            continue
        width = elements * array.dtype.itemsize
        sought = _windows(rows.tobytes(), width, width) & ~np.uint64(0xFFFF)
        places = np.searchsorted(keys, sought)
        places[places == keys.size] = keys.size - 1
        hits = np.flatnonzero(keys[places] & ~np.uint64(0xFFFF) == sought)
        if hits.size:
            return int(keys[places[hits[0]]] & np.uint64(0xFFFF))
    return None


def _tells(rows: Array) -> Array:
    """Return the rows that are no coincidence: three different elements at least, that do not just count."""
    with np.errstate(all="ignore"):
        wide = np.asarray(rows, dtype=np.float64)
        ordered = np.sort(wide, axis=1)
        different = (np.diff(ordered, axis=1) > 0).sum(axis=1) >= 2
        steps = np.diff(wide, axis=1)
        counts = (np.abs(steps - steps[:, :1]) <= 1e-12).all(axis=1)
    found: Array = different & ~counts & np.isfinite(wide).all(axis=1)
    return found
