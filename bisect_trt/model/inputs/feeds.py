"""Input values from the user's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from onnx import TensorProto, helper

from bisect_trt.errors import UsageError
from bisect_trt.model.graph import Dims, dims_of
from bisect_trt.model.store import type_name
from bisect_trt.outcome import Array
from bisect_trt.writing.text import nearest


class GraphInput(Struct, frozen=True):
    """An input of a model.

    Attributes:
        name: of the input.
        elem_type: `TensorProto.DataType`; 0 when the input is no tensor.
        dims: a number, a symbol or None (unknown) each; None when even the rank is unknown.
    """

    name: str
    elem_type: int
    dims: Dims | None

    @classmethod
    def from_value_info(cls, value: onnx.ValueInfoProto) -> GraphInput:
        """Make it from a model's declaration."""
        dims = dims_of(value.type)
        known = dims and tuple(None if d == "?" else d for d in dims)  # PaddlePaddle's word for no size
        return cls(value.name, value.type.tensor_type.elem_type, known)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of arrays for this input (of ml_dtypes where numpy has none; object for strings).

        Raises:
            UsageError: the input is no tensor.
        """
        if self.elem_type == 0:
            hint = "sequences, optionals and maps as inputs are not supported"
            raise UsageError(f"the input {self.name} is no tensor", hint)
        return helper.tensor_dtype_to_np_dtype(self.elem_type)

    def takes(self, shape: Sequence[int]) -> bool:
        """Return whether a value may have this shape: as many dimensions, and the sizes that are declared."""
        if self.dims is None:
            return True
        pairs = zip(self.dims, shape, strict=False)
        return len(self.dims) == len(shape) and all(d == s for d, s in pairs if isinstance(d, int))

    def shape_text(self) -> str:
        """Return declared dimensions for messages: `1x3xHx?`."""
        if self.dims is None:
            return "any shape"
        return "x".join("?" if d is None else str(d) for d in self.dims) or "a scalar"


def fit(
    path: Path,
    samples: Sequence[Mapping[str, Array]],
    inputs: Sequence[GraphInput],
    notes: list[str] | None = None,
) -> list[dict[str, Array]]:
    """Return the samples that were read from `path` (named in messages) as the model declares its inputs.

    Arrays of another type are converted where no value changes; `notes` gets a sentence for each.

    Raises:
        UsageError: a name is no input; an input has no array; a shape or type does not fit.
    """
    sentences: list[str] = []
    found = [_fit(path, sample, inputs, sentences) for sample in samples]
    if notes is not None:
        notes += dict.fromkeys(sentences)
    return found


def _fit(
    path: Path, arrays: Mapping[str, Array], inputs: Sequence[GraphInput], notes: list[str]
) -> dict[str, Array]:
    known = {item.name: item for item in inputs}
    for name in arrays:
        if name not in known:
            raise no_input(str(path), name, list(known))
    sample = {}
    sizes: dict[str, tuple[int, str]] = {}
    for item in inputs:
        if item.name not in arrays:
            there = ", ".join(arrays) or "nothing"
            raise UsageError(f"{path}: no value for the input {item.name}", f"the file holds: {there}")
        array = arrays[item.name]
        if not item.takes(array.shape):
            given, declared = "x".join(map(str, array.shape)) or "a scalar", item.shape_text()
            raise UsageError(f"{path}: {item.name} has the shape {given}, but the model declares {declared}")
        _note_symbols(item, array, sizes, notes)
        sample[item.name] = _cast(path, item, array, notes)
    return sample


def no_input(where: str, name: str, known: Sequence[str]) -> UsageError:
    """Return the error for a name that is none of a model's inputs; `where` says who gave it."""
    hint = nearest(name, known, f"its inputs are: {', '.join(known) or 'none'}")
    return UsageError(f"{where}: the model has no input {name}", hint)


def _note_symbols(
    item: GraphInput, array: Array, sizes: dict[str, tuple[int, str]], notes: list[str]
) -> None:
    """Note unequal sizes for equal symbols (in `sizes`, with who set it): TensorRT may not take them."""
    for want, have in zip(item.dims or (), array.shape, strict=False):
        if isinstance(want, str):
            size, other = sizes.setdefault(want, (have, item.name))
            if size != have:
                notes.append(f"The dimension {want} is {size} in {other} but {have} in {item.name}.")


def _cast(path: Path, item: GraphInput, array: Array, notes: list[str]) -> Array:
    """Return the array in the declared type, if that keeps every value."""
    dtype = item.dtype
    if array.dtype == dtype:
        return array
    message = f"{path}: {item.name} is {array.dtype}, but the model declares {type_name(item.elem_type)}"
    if item.elem_type == TensorProto.STRING:
        if array.dtype.kind not in "US":
            raise UsageError(message)
        return array.astype(np.str_).astype(object)
    bits = array.dtype == np.dtype(f"u{dtype.itemsize}") and dtype.isbuiltin != 1
    if (array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize) or bits:
        return array.view(dtype)  # how numpy.savez keeps bfloat16 and the like
    if array.dtype.kind not in "biuf":
        raise UsageError(message)
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        same = np.array_equal(cast.astype(array.dtype), array, equal_nan=array.dtype.kind == "f")
        if path.suffix.lower() == ".json" and array.dtype.kind == "f" and "float" in dtype.name:
            same = bool(np.all(np.isfinite(cast.astype(np.float64)) == np.isfinite(array)))  # digits, no bits
    if not same:
        raise UsageError(message, "converting it would change values; convert it yourself if that is meant")
    kind = type_name(item.elem_type)
    notes.append(f"{item.name} was converted from {array.dtype} to {kind}; no value changed.")
    return cast
