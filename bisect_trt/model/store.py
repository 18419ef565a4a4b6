"""The store: one flat folder with the weights and recorded values that probes refer to.

ONNX Runtime refuses external data that is absolute, holds `..`, or is a symlink out of the folder. It
takes any offset: so a recorded `.npy` file is external data as it is. The user's own files are never
linked: onnx refuses data with more than one hard link, so his model would load in no program any more.
"""

from __future__ import annotations

import errno
import hashlib
import math
import mmap
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import onnx
from numpy.lib import format
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.graph import bodies
from bisect_trt.model.inputs.made_up import MadeUp
from bisect_trt.outcome import Array
from bisect_trt.writing.files import written_whole

INLINE_LIMIT = 1024
"""Bytes; a weight above it is external data."""

_AT_ONCE = 1 << 30  # bytes of a file that the kernel is asked to copy
_MAP_LIMIT = 1 << 17  # bytes: to map less costs more than to read it
_CHUNK = 1 << 20
_BY: dict[bool, Literal["C", "F"]] = {False: "C", True: "F"}
ALIGNMENT = 64  # bytes: runtimes map weights, and kernels read whole vectors
_WEIGHTS = "weights.bin"


def initializers(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield the dense initializers of a graph and of all bodies in it."""
    yield from graph.initializer
    for node in graph.node:
        for body in bodies(node):
            yield from initializers(body)


def type_name(elem_type: int) -> str:
    """Return what ONNX calls a type, in small letters: `float`, `int64`."""
    return str(TensorProto.DataType.Name(elem_type)).lower()


@cache
def bits_per_element(elem_type: int) -> int:
    """Return the bits of an element in ONNX's raw encoding (narrow types are packed); 0 for strings."""
    if elem_type == TensorProto.STRING:
        return 0
    name = TensorProto.DataType.Name(elem_type)
    packed = re.search(r"(?:INT|FLOAT)([246])(?:E|$)", name)  # INT4, FLOAT4E2M1; not INT64
    return int(packed[1]) if packed else 8 * helper.tensor_dtype_to_np_dtype(elem_type).itemsize


def raw_size(elem_type: int, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor in ONNX's raw encoding; 0 for strings."""
    return (math.prod(map(int, shape)) * bits_per_element(elem_type) + 7) // 8


def external_info(tensor: TensorProto) -> dict[str, str]:
    """Return the keys of an external tensor: `location`, `offset`, `length`, ..."""
    return {entry.key: entry.value for entry in tensor.external_data}


def point_to(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Make `tensor` external data: `length` bytes at `offset` of the file `location`."""
    for field in ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data"):
        tensor.ClearField(field)
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    tensor.data_location = TensorProto.EXTERNAL


def append_weight(tensor: TensorProto, whole: TensorProto, file: BinaryIO, name: str) -> None:
    """Write a large weight to the end of the file `name`, and make it external data that lies there.

    `whole` is the same with its values in it; it may be `tensor` itself.
    """
    length = raw_size(tensor.data_type, tensor.dims)
    if length > INLINE_LIMIT:
        start = _next_weight(file)  # of typed fields numpy_helper knows how each type is packed
        file.write(whole.raw_data or numpy_helper.from_array(numpy_helper.to_array(whole)).raw_data)
        point_to(tensor, name, start, length)


def _next_weight(file: BinaryIO) -> int:
    """Fill a file up to where a weight is aligned, as runtimes want to map it."""
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    return file.tell()


class Store:
    """A folder that holds weights and recorded tensors, and never two copies of a big one."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made when it does not exist."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._copies: dict[Path, str] = {}  # of the user's files, by name
        self._embedded: dict[tuple[Path, int], int] = {}  # file and offset to where the copy begins
        self._begun = False
        self._next = 0

    def adopt(self, proto: onnx.ModelProto, model_dir: Path, *, model_file: str = "") -> None:
        """Make all weights of `proto` above `INLINE_LIMIT` external data in the folder, in place.

        Embedded weights, and those that lie in the file `model_file` itself (see `read_light`), are appended
        to `weights.bin`, each once (which the first call of a `Store` begins anew, so that a run that is
        resumed writes the same bytes); external files in `model_dir` are copied under flat names, which
        takes no disk where the file system shares blocks (Btrfs, XFS). Weights in bodies are treated alike.

        Raises:
            OSError: a file cannot be read, or the folder cannot be written.
        """
        weights = self.folder / _WEIGHTS
        if not self._begun:
            weights.unlink(missing_ok=True)  # others may have mapped it: never truncate in place
        self._begun = True
        with weights.open("ab") as out:
            for tensor in initializers(proto.graph):
                if tensor.data_location != TensorProto.EXTERNAL:
                    append_weight(tensor, tensor, out, _WEIGHTS)
                elif external_info(tensor)["location"] == model_file:
                    self._copy_once(tensor, model_dir / model_file, out)
                else:
                    self._refer(tensor, model_dir)

    def _copy_once(self, tensor: TensorProto, file: Path, out: BinaryIO) -> None:
        """Copy embedded values to where they are aligned, as runtimes want to map them."""
        length = raw_size(tensor.data_type, tensor.dims)
        offset = int(external_info(tensor).get("offset") or 0)
        place = (file, offset)
        if place not in self._embedded:
            self._embedded[place] = _next_weight(out)
            with file.open("rb") as source:
                source.seek(offset)
                for start in range(0, length, _CHUNK):
                    out.write(source.read(min(_CHUNK, length - start)))
        point_to(tensor, _WEIGHTS, self._embedded[place], length)

    def _refer(self, tensor: TensorProto, model_dir: Path) -> None:
        info = external_info(tensor)
        source = (model_dir / info["location"]).resolve()
        if source.parent == self.folder.resolve():
            return  # adopted before
        if source not in self._copies:
            self._copies[source] = self._copy_file(source)
        offset = int(info.get("offset", 0))
        point_to(tensor, self._copies[source], offset, raw_size(tensor.data_type, tensor.dims))

    def _copy_file(self, source: Path) -> str:
        """Return a copy of the user's file under a plain name.

        That of a run which is resumed is used again.
        """
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", source.name)[-80:]
        place = self.folder / f"ext{len(self._copies):05d}-{safe}"
        if not place.exists():
            with written_whole(place) as unfinished:
                copy_file(source, unfinished)
        return place.name

    def put(self, name: str, array: Array) -> Path:
        """Write one recorded tensor to a new `.npy` file, `t000000.npy` and so on.

        Types that numpy does not know (bfloat16, float8, int4, ...) are written as the bits of
        each element, one element a byte or more. `name` is for messages only.

        Raises:
            ValueError: the value is no plain array (of numbers, bools or strings).
        """
        if array.dtype.kind in "OU" and not all(isinstance(item, str) for item in array.flat):
            raise ValueError(f"{name} is no array of numbers, bools or strings")
        while True:
            path = self.folder / f"t{self._next:06d}.npy"
            self._next += 1
            with suppress(FileExistsError):  # other processes may write to the same folder
                _save(path, array, "xb")
                return path

    def promise(self, value: MadeUp) -> Path:
        """Do as `put` does, for values that are not made yet: whoever loads them first makes them.

        Beside the file, which is not there before that, lies what its values are to be.
        """
        path = self.folder / f"m{self._next:06d}.npy"  # no name that `put` may take
        self._next += 1
        promise_of(path).write_text(value.to_json())
        return path

    def put_at(self, stem: str, array: Array) -> Path:
        """Do as `put` does, into `stem` + `.npy`, in place of what is there (others may have mapped it)."""
        path = self.folder / f"{stem}.npy"
        with written_whole(path) as aside:
            _save(aside, array, "wb")
        return path

    def put_once(self, name: str, array: Array) -> Path:
        """Do as `put` does, for a value that follows from the tensor's name: a resumed run uses it again."""
        path = self.folder / f"seeded-{hashlib.sha256(name.encode()).hexdigest()[:16]}.npy"
        if not path.exists():
            self.put(name, array).rename(path)
        return path

    @staticmethod
    def load(path: Path, elem_type: int, shape: Sequence[int] | None = None) -> Array:
        """Return a recorded tensor, read-only, memory mapped when it is large.

        Without an `elem_type` (0: nothing declares it) it is what the file says, where that is one type.

        Raises:
            ValueError: the file holds another type or shape.
            UsageError: the values were only promised, and are not made.
        """
        keep_promise(path)
        array = _as_type(_read(path), elem_type, path)
        if shape is not None and array.shape != tuple(shape):
            raise ValueError(f"{path.name} holds the shape {array.shape}, not {tuple(shape)}")
        array.flags.writeable = False
        return array

    def tensor(self, name: str, path: Path, elem_type: int, shape: Sequence[int]) -> TensorProto:
        """Return a recorded tensor as an initializer: its value when small, else a reference to the file.

        Raises:
            ValueError: the file holds another type or shape.
        """
        array = self.load(path, elem_type, shape)
        length = raw_size(elem_type, shape)
        if bits_per_element(elem_type) < 8 or length <= INLINE_LIMIT:  # packed types differ from the file
            if elem_type == TensorProto.STRING:
                return helper.make_tensor(name, elem_type, shape, np.asarray(array))
            return numpy_helper.from_array(np.asarray(array), name)
        tensor = TensorProto(name=name, data_type=elem_type, dims=list(shape))
        point_to(tensor, path.name, path.stat().st_size - length, length)
        return tensor


def copy_file(source: Path, place: Path) -> None:
    """Make a copy that shares the blocks of the user's file where the file system can."""
    try:
        with source.open("rb") as given, place.open("wb") as made:
            while os.copy_file_range(given.fileno(), made.fileno(), _AT_ONCE):
                pass
    except OSError:  # some systems do that within a file system only
        shutil.copyfile(source, place)


def promise_of(path: Path) -> Path:
    """Say where it lies what the values of a file are to be, see `Store.promise`."""
    return path.with_suffix(".madeup")


def keep_promise(path: Path) -> None:
    """Make the values of a file that were only promised. Raises UsageError as `MadeUp.make` does."""
    promise = promise_of(path)
    if path.exists() or not promise.exists():
        return
    value = MadeUp.from_json(promise.read_text())
    with written_whole(path) as aside:  # other workers may be at the same
        _save(aside, value.make(), "wb")


def shape_of(path: Path) -> tuple[int, ...]:
    """Return the shape of a recorded tensor, or of one that is only promised; its values are not read."""
    if not path.exists() and promise_of(path).exists():
        return MadeUp.from_json(promise_of(path).read_text()).shape
    return _read(path).shape


def _save(place: Path, array: Array, mode: str) -> None:
    """Do as `np.save` does, whose error on a full disk has no number: it wrote less than it was to."""
    with place.open(mode) as out:
        try:
            np.save(out, plain(array), allow_pickle=False)
        except OSError as error:
            if error.errno is not None:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error


def _read(path: Path) -> Array:
    """Do as `np.load` does, most of whose time for a small file is reading its header as Python."""
    with path.open("rb") as file:
        if format.read_magic(file) == (1, 0):
            length = file.read(2)
            shape, by_column, dtype = _header(length + file.read(int.from_bytes(length, "little")))
            start, size = file.tell(), os.fstat(file.fileno()).st_size
            if not dtype.hasobject and start + math.prod(shape) * dtype.itemsize <= size:
                if size <= _MAP_LIMIT:
                    return np.ndarray(shape, dtype, file.read(), order=_BY[by_column])
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                return np.ndarray(shape, dtype, whole, start, order=_BY[by_column])
        file.seek(0)
        array: Array = np.load(file, allow_pickle=False)
        return array


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type; most recorded tensors of a model have the same few."""
    shape, by_column, dtype = format.read_array_header_1_0(BytesIO(text))
    return shape, by_column, dtype


def plain(array: Array) -> Array:
    """Return what `np.save` can write without pickle, in C order, as `Store.put` describes it."""
    array = np.asarray(array, order="C")
    if array.dtype.kind in "OU":
        return array.astype(np.str_)
    # numpy's own types are not `isbuiltin` any more when they travelled as `newbyteorder` gives them
    if array.dtype.kind == "V" or np.dtype(array.dtype.type).isbuiltin != 1:
        return array.view(f"u{array.dtype.itemsize}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _as_type(array: Array, elem_type: int, path: Path) -> Array:
    """Raises ValueError for another type, and for what may be the bits of one (bfloat16, ...)."""
    if elem_type == TensorProto.STRING:
        return array.astype(object)
    if not elem_type and array.dtype in (np.uint8, np.uint16):
        raise ValueError(f"{path.name} holds {array.dtype}, or the bits of a type that nothing declares")
    dtype = helper.tensor_dtype_to_np_dtype(elem_type) if elem_type else array.dtype
    if array.dtype == dtype:
        return array
    if dtype.isbuiltin == 1 or array.dtype != np.dtype(f"u{dtype.itemsize}"):
        raise ValueError(f"{path.name} holds {array.dtype}, not {dtype}")
    return array.view(dtype)
