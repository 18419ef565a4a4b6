"""External data of a model that is not trusted: found, bounds-checked, never outside its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from bisect_trt.errors import UsageError
from bisect_trt.model.graph import bodies
from bisect_trt.model.store import INLINE_LIMIT, external_info, raw_size
from bisect_trt.model.walk import copied

_AGAIN = "save the model again"
KINDS = frozenset(TensorProto.DataType.values())
"""Element types that ONNX knows, UNDEFINED included."""


def tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield all tensors of a model: initializers and attributes, in bodies and functions too."""
    for part in (proto.graph, *proto.functions):
        yield from _tensors(part)


def _tensors(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[TensorProto]:
    if isinstance(part, onnx.GraphProto):
        yield from part.initializer
        for sparse in part.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in part.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors
        for body in bodies(node):
            yield from _tensors(body)


def referenced_files(proto: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Return the model's external files by location, each checked to hold what the model takes from it.

    Raises:
        UsageError: a file is missing, too short, or outside the folder of the model.
    """
    files: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    for tensor in tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = external_info(tensor).get("location", "")
        if location not in files:
            files[location] = path if location == path.name else _resolve(location, path, tensor.name)
            sizes[location] = files[location].stat().st_size
        _check_range(tensor, files[location], sizes[location])
    return files


def _resolve(location: str, path: Path, tensor: str) -> Path:
    where = f"external data of {tensor!r} in {path.name}"
    if not location:
        raise UsageError(f"{where} has no location", _AGAIN)
    foreign = PureWindowsPath(location)
    if location.startswith("/") or foreign.is_absolute() or foreign.drive or ".." in foreign.parts:
        raise UsageError(
            f"{where} points to {location!r}, outside the model's folder",
            "save the model with external data beside it",
        )
    file = path.parent / PurePosixPath(location)
    try:
        there = file.is_file()
    except OSError as error:  # a name that no file can have
        raise UsageError(f"{where}: {error.strerror}: {location[:60]!r}", _AGAIN) from error
    if not there:
        why = "is no regular file" if file.exists() else "does not exist"
        raise UsageError(
            f"{where} is missing: {file} {why}", "put the data file beside the model, as it was exported"
        )
    # A download cache may hold links for both model and data: then the model's real folder counts.
    homes = (path.parent.resolve(), path.resolve().parent)
    if not any(file.resolve().is_relative_to(home) for home in homes):
        raise UsageError(
            f"{where} is the link {location!r}, which leaves the model's folder",
            "copy the data file beside the model",
        )
    return file


def _check_range(tensor: TensorProto, file: Path, size: int) -> None:
    info = external_info(tensor)
    where = f"external data of {tensor.name!r} in {file.name}"
    needed = tensor_size(tensor)
    try:
        offset = int(info.get("offset") or 0)
        length = int(info.get("length") or needed)
    except ValueError:
        raise UsageError(f"{where} has an offset or length that is no number", _AGAIN) from None
    if offset < 0 or length != needed:
        why = f"{length} bytes at {offset} cannot hold {list(tensor.dims)}, which takes {needed}"
        raise UsageError(f"{where}: {why}", _AGAIN)
    if offset + length > size:
        raise UsageError(
            f"{where} is truncated: bytes {offset} to {offset + length} are needed, the file has {size}",
            "copy or download the data file again",
        )


def tensor_size(tensor: TensorProto) -> int:
    """Return the bytes of a tensor in raw encoding.

    Raises:
        UsageError: its type is unknown or a dimension is negative.
    """
    kind = tensor.data_type
    if kind == TensorProto.UNDEFINED or kind not in KINDS:
        raise UsageError(f"tensor {tensor.name!r} has the unknown type {kind}", _AGAIN)
    if any(dim < 0 for dim in tensor.dims):
        raise UsageError(f"tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}", _AGAIN)
    return raw_size(kind, tensor.dims)


def embedded(tensor: TensorProto, folder: Path) -> TensorProto:
    """Return the tensor with its values in it, read without onnx, which refuses files of two hard links.

    Raises:
        OSError: its file cannot be read.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    info, made = external_info(tensor), copied(tensor)
    del made.external_data[:]
    made.data_location = TensorProto.DEFAULT
    with (folder / info["location"]).open("rb") as file:
        file.seek(int(info.get("offset") or 0))
        made.raw_data = file.read(raw_size(tensor.data_type, tensor.dims))
    return made


def inline_small(proto: onnx.ModelProto, folder: Path) -> None:
    """Read external tensors of at most `INLINE_LIMIT` bytes into the model, in place.

    Shapes and axes are among them, which inference and builders have to see. References must
    have been checked with `referenced_files`.
    """
    for tensor in tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL and tensor_size(tensor) <= INLINE_LIMIT:
            tensor.CopyFrom(embedded(tensor, folder))
