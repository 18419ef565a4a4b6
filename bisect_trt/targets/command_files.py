"""Files that a program of the user reads and writes: a standalone model, inputs, outputs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.external import tensors
from bisect_trt.model.inputs.formats import read_json
from bisect_trt.model.store import external_info, point_to, raw_size
from bisect_trt.model.weight_values import EMBED_LIMIT
from bisect_trt.outcome import Array


def write_model(candidate: Candidate, path: Path) -> None:
    """The candidate as a file of its own, with its weights inside, or in one file beside it when too big.

    The store's files are no use beside the model: they hold weights of the whole model.

    Raises:
        OSError: disk full, or a weight file is missing.
    """
    model = onnx.load_model_from_string(candidate.model)
    outside = [t for t in tensors(model) if t.data_location == TensorProto.EXTERNAL]
    inside = sum(raw_size(t.data_type, t.dims) for t in outside) + len(candidate.model) <= EMBED_LIMIT
    beside = path.with_suffix(".weights")
    with ExitStack() as open_files:
        out = None if inside else open_files.enter_context(beside.open("wb"))
        for tensor in outside:
            data = _read(tensor, candidate.folder)
            if out is None:
                del tensor.external_data[:]
                tensor.data_location = TensorProto.DEFAULT
                tensor.raw_data = data
            else:
                out.write(b"\0" * (-out.tell() % 64))
                point_to(tensor, beside.name, out.tell(), len(data))
                out.write(data)
    path.write_bytes(model.SerializeToString())


def _read(tensor: TensorProto, folder: Path) -> bytes:
    info = external_info(tensor)
    with (folder / info["location"]).open("rb") as file:
        file.seek(int(info.get("offset", 0)))
        return file.read(raw_size(tensor.data_type, tensor.dims))


def write_npz(arrays: Mapping[str, Array], path: Path) -> None:
    """Write an uncompressed `.npz` with any names (`numpy.savez` cannot take one called `file`).

    Types that numpy does not know (bfloat16, float8, ...) are written as the bits of each element.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in arrays.items():
            array = np.ascontiguousarray(value).reshape(np.shape(value))
            if array.dtype.kind in "OU":
                array = array.astype(np.str_)
            elif np.dtype(array.dtype.type).isbuiltin != 1:  # that of `newbyteorder` is 0 for any type
                array = array.view(f"u{array.dtype.itemsize}")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, allow_pickle=False)


def read_outputs(path: Path, declared: Sequence[onnx.ValueInfoProto]) -> dict[str, Array]:
    """Return the model's outputs that are in a `.npz`, or in JSON as Polygraphy saves it (`--save-outputs`).

    Outputs without names (`numpy.savez(path, a, b)`) count in the order of the model. Bits of types that
    numpy does not know become these types. Nothing is unpickled.

    Raises:
        ValueError: it is neither, or an output of the model is not in it.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    given = _read_npz(path) if zipped else _read_json(path)
    names = [value.name for value in declared]
    if list(given) == [f"arr_{k}" for k in range(len(names))]:
        given = dict(zip(names, given.values(), strict=True))
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"it holds {', '.join(given) or 'nothing'}, but not {', '.join(missing)}")
    return {value.name: _typed(given[value.name], value) for value in declared}


def _typed(array: Array, value: onnx.ValueInfoProto) -> Array:
    elem_type = value.type.tensor_type.elem_type
    if elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return array
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    if dtype.isbuiltin != 1 and array.dtype == np.dtype(f"u{dtype.itemsize}"):
        return array.view(dtype)
    return array


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, KeyError, EOFError) as e:
        raise ValueError(f"it is no readable npz file: {e}") from e


def _read_json(path: Path) -> dict[str, Array]:
    """Return the last sample of what `formats.read_json` reads."""
    try:
        return dict(read_json(path)[-1])
    except (UsageError, OSError) as e:
        raise ValueError(f"it is neither npz nor JSON as Polygraphy writes it: {e}") from e
