"""Input values that a line tells: they are in `inputs.npz`, but do not travel in the zip.

The doc string of a graph input has a line for each sample (`model.edit_synthetic.tell`). Where the values
are those that it tells, `write_model` adds their digest to the line; `seeded.py` and `read_model` put such
values where they are missing, and take no others for them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Feeds
from bisect_trt.model.edit_synthetic import SPREAD, parse, told
from bisect_trt.model.store import Store, raw_size

Array = npt.NDArray[Any]

_SHA = " sha256:"
_LIMIT = 4 << 30  # bytes that somebody else's file may make us write
_LOADED = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


class Told(NamedTuple):
    """Values of one input in one sample: how they are made, and their digest."""

    sample: int
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    text: str
    digest: str

    def make(self) -> Array:
        """The values. Raises UsageError when they are not those that were written."""
        values = told(self.text, self.shape, self.dtype)
        if values is None or _sha(values) != self.digest:
            raise UsageError(
                f"the input {self.name!r} as made here is not what the reproducer was written with",
                "verify with the version of bisect-trt that report.json names",
            )
        return values


def mark(proto: onnx.ModelProto, samples: tuple[Feeds, ...]) -> None:
    """Let doc strings of inputs tell only what is true of the values, with its digest, in place."""
    for info in proto.graph.input:
        lines = []
        for k, text in enumerate(info.doc_string.split("\n")):
            path = samples[k].get(info.name) if k < len(samples) else None
            values = _made(info, text) if path is not None else None
            same = values is not None and np.array_equal(values, np.load(path, mmap_mode="r"))  # type: ignore[arg-type]
            lines.append(f"{text}{_SHA}{_sha(values)}" if values is not None and same else "")
        info.doc_string = "\n".join(lines).rstrip()


def all_told(proto: onnx.ModelProto) -> Iterator[Told]:
    """What a written model tells. Raises UsageError when it asks for more than 4 GiB."""
    size = 0
    for info in proto.graph.input:
        kind = info.type.tensor_type
        for k, line in enumerate(info.doc_string.split("\n")):
            text, found, digest = line.partition(_SHA)
            if not found or not _is_static(info):
                continue
            shape = tuple(d.dim_value for d in kind.shape.dim)
            size += raw_size(kind.elem_type, shape)
            if size > _LIMIT:
                raise UsageError(f"the values of the inputs would take more than {_LIMIT:,} bytes")
            yield Told(k, info.name, helper.tensor_dtype_to_np_dtype(kind.elem_type), shape, text, digest)


def lighter(archive: Path, names: set[str]) -> bytes:
    """An `.npz` without some of its arrays."""
    place = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(place, "w") as sink:
        for entry in source.infolist():
            if entry.filename.removesuffix(".npy") not in names:
                sink.writestr(entry, source.read(entry))
    return place.getvalue()


def complete(proto: onnx.ModelProto, samples: tuple[Feeds, ...], scratch: Path) -> tuple[Feeds, ...]:
    """Samples with the values that did not travel."""
    found = [dict(sample) for sample in samples]
    store = Store(scratch)
    for one in all_told(proto):
        if one.sample < len(found) and one.name not in found[one.sample]:
            found[one.sample][one.name] = store.put(one.name, one.make())
    return tuple(found)


def row(one: Told, file: str) -> tuple[Any, ...]:
    """What `seeded.py` needs: file, input, type, shape, digest, and a recipe, a value or nothing."""
    recipe = parse(one.text)
    if recipe is not None:
        how = (recipe.seed, recipe.mean, recipe.deviation / SPREAD, recipe.points)
    else:
        how = () if one.text.endswith("ramp") else (float(one.text.split()[-1]),)  # type: ignore[assignment]
    return (file, one.name, one.dtype.name, one.shape, one.digest, *how)


def _made(info: onnx.ValueInfoProto, text: str) -> Array | None:
    if not text or not _is_static(info):
        return None
    kind = info.type.tensor_type
    shape = tuple(d.dim_value for d in kind.shape.dim)
    return told(text, shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _is_static(info: onnx.ValueInfoProto) -> bool:
    kind = info.type.tensor_type
    known = helper.tensor_dtype_to_np_dtype(kind.elem_type).name in _LOADED if kind.elem_type else False
    return known and all(d.HasField("dim_value") and d.dim_value >= 0 for d in kind.shape.dim)


def _sha(values: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
