"""Seeded random weights of a reproducer: `seeded.bin` is made where it is needed and never travels.

The doc string of a tensor tells its values (`model.edit_synthetic`). Where the bytes are those that it
tells, the model refers to `seeded.bin`; `seeded.py` (which `repro.py` runs) and `models.read_model` write
that file. A digest in the model's metadata says what has to be in it: other values are never taken for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.edit_synthetic import MIDDLE, SPREAD, TOLD_FROM, Recipe, parse
from bisect_trt.model.external import tensor_size, tensors
from bisect_trt.model.store import external_info, point_to

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
    """Let weights that a recipe tells refer to `seeded.bin`, in place, and write that to `place`.

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
        kept = [prop for prop in proto.metadata_props if prop.key != DIGEST]
        del proto.metadata_props[:]
        proto.metadata_props.extend(kept)
        proto.metadata_props.add(key=DIGEST, value=hashlib.sha256(whole).hexdigest())
        place.write_bytes(whole)
    return left


def share(owner: onnx.ModelProto, every: Sequence[TensorProto], raw: Raw) -> set[int]:
    """As `leave_out`, but into the `seeded.bin` of another model of the folder, where that has the same."""
    known = {_told(tensor): external_info(tensor) for tensor in _seeded(owner)}
    left = set()
    for k, tensor in enumerate(every):
        recipe, info = _recipe(tensor), known.get(_told(tensor))
        if recipe is not None and info is not None and _make(tensor, recipe) == raw(tensor):
            point_to(tensor, FILE, int(info["offset"]), int(info["length"]))
            left.add(k)
    return left


def write(proto: onnx.ModelProto, place: Path) -> bool:
    """Make `seeded.bin` as the model tells it; False and no file when the model has no such weights.

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
    wanted = {prop.value for prop in proto.metadata_props if prop.key == DIGEST}
    if wanted != {hashlib.sha256(whole).hexdigest()}:
        raise UsageError(
            f"{FILE} as made here is not what the reproducer was written with",
            "verify with the version of bisect-trt that report.json names",
        )
    place.write_bytes(whole)
    return True


def words(proto: onnx.ModelProto, inputs: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """What the template of `seeded.py` needs: the digest, a row for each weight, and those of the inputs."""
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
    if tensor.data_type not in _KINDS or tensor_size(tensor) <= TOLD_FROM:
        return None
    recipe = parse(tensor.doc_string)
    if recipe is None or recipe.seed >= _SEEDS:
        return None
    return recipe if np.isfinite((recipe.mean, recipe.deviation, *recipe.points)).all() else None


def _make(tensor: TensorProto, recipe: Recipe) -> bytes:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    with np.errstate(all="ignore"):  # numbers of somebody else's file
        return recipe.make(tuple(tensor.dims), dtype).tobytes()


def _told(tensor: TensorProto) -> tuple[str, int, tuple[int, ...]]:
    return tensor.doc_string, tensor.data_type, tuple(tensor.dims)
