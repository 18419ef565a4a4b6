"""Values of a reproducer that are made where they are needed and never travel.

Random weights: the doc string of a tensor tells its values (`model.seeded_values`). Where the bytes are those
that it tells, the model refers to `seeded.bin`; `seeded.py` (which `repro.py` runs) and `models.read_model`
write that file. A digest in the model's metadata says what has to be in it: other values are never taken for
them.

Input values that a line describes are in `inputs.npz`, but not in that of the zip. The doc string of a graph
input has a line for each sample (`model.seeded_values.description`). Where it describes the values exactly,
`write_model` adds their digest to the line; `seeded.py` and `read_model` put such values where they are
missing, and take no others for them.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Feeds
from bisect_trt.model.external import tensor_size, tensors
from bisect_trt.model.seeded_values import DESCRIBED_FROM, MIDDLE, SPREAD, Recipe, described_values, parse
from bisect_trt.model.store import Store, external_info, point_to
from bisect_trt.model.walk import drop
from bisect_trt.outcome import Array

FILE = "seeded.bin"
SCRIPT = "seeded.py"
DIGEST = "sha256 of seeded.bin"

_INDENT: Any = {"initial_indent": "    ", "subsequent_indent": "     ", "break_long_words": False}
_ALIGNMENT = 64
_LIMIT = 4 << 30  # bytes that somebody else's file may make us write
_SEEDS = 1 << 31
_KINDS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT32} | {
    TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16
}  # types that numpy knows and whose numbers a double holds

Raw = Callable[[TensorProto], bytes]


def leave_out(proto: onnx.ModelProto, every: Sequence[TensorProto], raw: Raw, place: Path) -> set[int]:
    """Let weights that have a recipe refer to `seeded.bin`, in place, and write that file to `place`.

    `every` are the model's tensors, `raw` gives the bytes of one; which of them are left out is returned.
    Nothing is written when there are none.

    Raises:
        OSError: a weight cannot be read or `place` not be written.
    """
    whole, left = bytearray(), set()
    for k, tensor in enumerate(every):
        recipe = _recipe(tensor)
        if recipe is not None and (data := _make(tensor, recipe)) == raw(tensor):
            whole += bytes(-len(whole) % _ALIGNMENT)
            point_to(tensor, FILE, len(whole), len(data))
            whole += data
            left.add(k)
    if left:
        drop(proto.metadata_props, lambda prop: prop.key == DIGEST)
        proto.metadata_props.add(key=DIGEST, value=hashlib.sha256(whole).hexdigest())
        place.write_bytes(whole)
    return left


def share(owner: onnx.ModelProto, every: Sequence[TensorProto], raw: Raw) -> set[int]:
    """Do as `leave_out` does, into the `seeded.bin` of another model of the folder with the same values."""
    known = {_identity(tensor): external_info(tensor) for tensor in _seeded(owner)}
    left = set()
    for k, tensor in enumerate(every):
        recipe, info = _recipe(tensor), known.get(_identity(tensor))
        if recipe is not None and info is not None and _make(tensor, recipe) == raw(tensor):
            point_to(tensor, FILE, int(info["offset"]), int(info["length"]))
            left.add(k)
    return left


def write(proto: onnx.ModelProto, place: Path) -> bool:
    """Make the `seeded.bin` that a model describes; False and no file if it has no such weights.

    Raises:
        UsageError: the recipes are missing, are for other bytes, or ask for more than 4 GiB.
        OSError: the file cannot be written.
    """
    found = list(_seeded(proto))
    if not found:
        return False
    if sum(tensor_size(tensor) for tensor in found) > _LIMIT:
        raise UsageError(f"the seeded weights would take more than {_LIMIT:,} bytes")
    whole = bytearray()
    for tensor in found:
        recipe = _recipe(tensor)
        if recipe is None:
            raise UsageError(f"the weight {tensor.name!r} is in {FILE}, and nothing tells how to make that")
        whole += bytes(-len(whole) % _ALIGNMENT) + _make(tensor, recipe)
    digests = {prop.value for prop in proto.metadata_props if prop.key == DIGEST}
    if digests != {hashlib.sha256(whole).hexdigest()}:
        raise UsageError(
            f"{FILE} as made here is not what the reproducer was written with",
            "verify with the version of bisect-trt that report.json names",
        )
    place.write_bytes(whole)
    return True


def words(proto: onnx.ModelProto, inputs: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Return the values of the template of `seeded.py`: the digest, and a row for each weight and input."""
    rows = []
    for tensor in _seeded(proto):
        recipe = _recipe(tensor)
        assert recipe is not None  # as left out here
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = tensor_size(tensor) // dtype.itemsize
        rows.append((dtype.name, count, recipe.seed, recipe.mean, recipe.deviation / SPREAD, recipe.points))
    return {
        "weights": _lines(rows),
        "inputs": _lines(inputs),
        "digest": next((prop.value for prop in proto.metadata_props if prop.key == DIGEST), ""),
        "middle": MIDDLE,
        "alignment": _ALIGNMENT,
        "file": FILE,
        "script": SCRIPT,
    }


def _lines(rows: Sequence[tuple[Any, ...]]) -> str:
    return "\n".join(line for row in rows for line in wrap(f"{row!a},", 110, **_INDENT))


def _seeded(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    outside = (t for t in tensors(proto) if t.data_location == TensorProto.EXTERNAL)
    return (t for t in outside if external_info(t).get("location") == FILE)


def _recipe(tensor: TensorProto) -> Recipe | None:
    if tensor.data_type not in _KINDS or tensor_size(tensor) <= DESCRIBED_FROM:
        return None
    recipe = parse(tensor.doc_string)
    if recipe is None or recipe.seed >= _SEEDS:
        return None
    return recipe if np.isfinite((recipe.mean, recipe.deviation, *recipe.points)).all() else None


def _make(tensor: TensorProto, recipe: Recipe) -> bytes:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    with np.errstate(all="ignore"):  # numbers of somebody else's file
        return recipe.make(tuple(tensor.dims), dtype).tobytes()


def _identity(tensor: TensorProto) -> tuple[str, int, tuple[int, ...]]:
    return tensor.doc_string, tensor.data_type, tuple(tensor.dims)


_SHA = " sha256:"
_LOADED = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


class SeededInput(NamedTuple):
    """Values of one input in one sample: how they are made, and their digest."""

    sample: int
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    text: str
    digest: str

    def make(self) -> Array:
        """Return the values. Raises UsageError when they are not those that were written."""
        values = described_values(self.text, self.shape, self.dtype)
        if values is None or _sha(values) != self.digest:
            raise UsageError(
                f"the input {self.name!r} as made here is not what the reproducer was written with",
                "verify with the version of bisect-trt that report.json names",
            )
        return values


def mark(proto: onnx.ModelProto, samples: tuple[Feeds, ...]) -> None:
    """Keep in the doc strings of inputs only descriptions that are exact, with a digest, in place."""
    for info in proto.graph.input:
        lines = []
        for k, text in enumerate(info.doc_string.split("\n")):
            path = samples[k].get(info.name) if k < len(samples) else None
            values = _made(info, text) if path is not None else None
            if values is not None and (values == values.flat[:1]).all():  # a file of one value is no burden
                values = None
            same = values is not None and np.array_equal(values, np.load(path, mmap_mode="r"))  # type: ignore[arg-type]
            lines.append(f"{text}{_SHA}{_sha(values)}" if values is not None and same else "")
        info.doc_string = "\n".join(lines).rstrip()


def seeded_inputs(proto: onnx.ModelProto) -> Iterator[SeededInput]:
    """Yield the inputs that a written model describes. Raises UsageError above 4 GiB in all."""
    size = 0
    for info in proto.graph.input:
        static = _static(info)
        for k, line in enumerate(info.doc_string.split("\n")):
            text, found, digest = line.partition(_SHA)
            if not found or static is None:
                continue
            shape, dtype = static
            size += math.prod(shape) * dtype.itemsize
            if size > _LIMIT:
                raise UsageError(f"the values of the inputs would take more than {_LIMIT:,} bytes")
            yield SeededInput(k, info.name, dtype, shape, text, digest)


def lighter(archive: Path, names: set[str]) -> bytes:
    """Return an `.npz` without some of its arrays."""
    place = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(place, "w") as sink:
        for entry in source.infolist():
            if entry.filename.removesuffix(".npy") not in names:
                sink.writestr(entry, source.read(entry))
    return place.getvalue()


def complete(proto: onnx.ModelProto, samples: tuple[Feeds, ...], scratch: Path) -> tuple[Feeds, ...]:
    """Return the samples with the values that did not travel."""
    found = [dict(sample) for sample in samples]
    store = Store(scratch)
    for one in seeded_inputs(proto):
        if one.sample < len(found) and one.name not in found[one.sample]:
            found[one.sample][one.name] = store.put(one.name, one.make())
    return tuple(found)


def row(one: SeededInput, file: str) -> tuple[Any, ...]:
    """Return what `seeded.py` needs: file, input, type, shape, digest, and a recipe, a value or nothing."""
    recipe = parse(one.text)
    if recipe is not None:
        how = (recipe.seed, recipe.mean, recipe.deviation / SPREAD, recipe.points)
    else:
        how = () if one.text.endswith("ramp") else (float(one.text.split()[-1]),)  # type: ignore[assignment]
    return (file, one.name, one.dtype.name, one.shape, one.digest, *how)


def _made(info: onnx.ValueInfoProto, text: str) -> Array | None:
    static = _static(info) if text else None
    return None if static is None else described_values(text, *static)


def _static(info: onnx.ValueInfoProto) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Return the shape and type of an input of which values can be made; None for any other."""
    kind, dims = info.type.tensor_type.elem_type, info.type.tensor_type.shape.dim
    dtype = helper.tensor_dtype_to_np_dtype(kind or TensorProto.STRING)
    if dtype.name not in _LOADED or not all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims):
        return None
    return tuple(d.dim_value for d in dims), dtype


def _sha(values: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
