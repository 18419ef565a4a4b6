"""Values of weights that lie in files, read without onnx: it refuses files that have a second hard link."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.model.external import embedded, tensors
from bisect_trt.model.store import (
    INLINE_LIMIT,
    append_weight,
    bits_per_element,
    external_info,
    initializers,
    raw_size,
)
from bisect_trt.outcome import Array

EMBED_LIMIT = 1_500_000_000
"""Bytes of weights above which they are written beside a model: a protobuf message has at most 2 GiB."""


def values_of(tensor: TensorProto, folder: Path) -> Array:
    """Return the values of a weight, wherever they lie. Raises OSError when its file cannot be read."""
    return numpy_helper.to_array(embedded(tensor, folder))


def mapped(tensor: TensorProto, folder: Path) -> Array:
    """Return the values of a weight, read-only: mapped where they lie in a file, each in bytes of its own.

    Raises:
        OSError: its file cannot be read.
    """
    outside, shape = tensor.data_location == TensorProto.EXTERNAL, tuple(tensor.dims)
    if outside and bits_per_element(tensor.data_type) >= 8 and math.prod(shape):
        info, dtype = external_info(tensor), helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.memmap(folder / info["location"], dtype, "r", int(info.get("offset") or 0), shape)
    array = np.asarray(values_of(tensor, folder))
    array.flags.writeable = False
    return array


def embed_all(model: onnx.ModelProto, folder: Path, *, besides: str = "") -> None:
    """Take all external data, but that of the file `besides`, into the message, in place.

    Raises:
        OSError: a file cannot be read.
    """
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL and external_info(tensor)["location"] != besides:
            tensor.CopyFrom(embedded(tensor, folder))


def save_whole(model: onnx.ModelProto, folder: Path, place: Path, *, outside: bool = False) -> None:
    """Write a model with all of its weights: in the file, or beside it in `NAME.data` where they do not fit.

    Args:
        model: is changed; its external data lies in `folder`.
        folder: of its external data; nothing is written there.
        place: of the file.
        outside: weights are written beside it in any case.

    Raises:
        OSError: a file cannot be read or written.
    """
    beside = place.with_name(f"{place.name}.data")
    beside.unlink(missing_ok=True)
    if outside or weight_bytes(model) > EMBED_LIMIT:
        with beside.open("wb") as file:
            for tensor in initializers(model.graph):
                if raw_size(tensor.data_type, tensor.dims) > INLINE_LIMIT:  # one is in memory at a time
                    append_weight(tensor, embedded(tensor, folder), file, beside.name)
    embed_all(model, folder, besides=beside.name)
    place.write_bytes(model.SerializeToString())


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of all tensors that a model carries or refers to."""
    return sum(raw_size(tensor.data_type, tensor.dims) for tensor in tensors(model))
