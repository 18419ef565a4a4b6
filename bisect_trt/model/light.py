"""Reads a model without the weights embedded in its file, which may be 2 GB of it.

A weight above `store.INLINE_LIMIT` comes back as external data that lies in the model's own file: nothing
after this holds it in memory, and there is one kind of big weight only.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from bisect_trt.model.candidate import Content
from bisect_trt.model.store import INLINE_LIMIT, point_to, raw_size
from bisect_trt.model.wire import Buffer, Field, field, fields

_GRAPH, _FUNCTION = 7, 25  # of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_FUNCTION_NODE = 7
_OPERATOR, _ATTRIBUTE, _DOMAIN = 4, 5, 7  # of NodeProto
_TENSOR, _BODY, _BODIES = 5, 6, 11  # of AttributeProto
_FLOATS, _RAW, _DOUBLES = 4, 9, 10  # of TensorProto

_KINDS = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING}

_Rewrite = Callable[["_Reader", Field], bytes | None]


def read(content: Content) -> ModelProto:
    """A candidate's model; of one that lies in a file without the large weights.

    Raises:
        DecodeError, OSError: as `read_light`.
    """
    return read_light(content) if isinstance(content, Path) else ModelProto.FromString(content)


def read_light(path: Path) -> ModelProto:
    """Parse a file; initializers and Constants with more than `INLINE_LIMIT` bytes refer to it.

    Raises:
        DecodeError: it is no ONNX model, or it is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            light = _Reader(data, path.name).rewritten(0, len(data), _MODEL)
        except ValueError as error:
            raise DecodeError(str(error)) from error
    proto = ModelProto()
    proto.ParseFromString(light)
    return proto


class _Reader:
    """Rewrites messages of one file; what is small is taken over as it is, unread."""

    def __init__(self, data: Buffer, location: str) -> None:
        self.data = data
        self.location = location

    def rewritten(self, start: int, stop: int, inside: dict[int, _Rewrite]) -> bytes:
        """The message in `data[start:stop]` with the fields of `inside` rewritten. Raises ValueError."""
        parts: list[bytes] = []
        done = start
        for found in fields(self.data, start, stop):
            rewrite = inside.get(found.number)
            if rewrite is None or found.stop - found.start <= INLINE_LIMIT:
                continue
            light = rewrite(self, found)
            if light is not None:
                parts += [self.data[done : found.at], field(found.number, light)]
                done = found.stop
        return b"".join([*parts, self.data[done:stop]])


def _message(inside: dict[int, _Rewrite]) -> _Rewrite:
    return lambda reader, found: reader.rewritten(found.start, found.stop, inside)


def _node(reader: _Reader, found: Field) -> bytes | None:
    inside = list(fields(reader.data, found.start, found.stop))
    texts = {f.number: reader.data[f.start : f.stop] for f in inside if f.number in (_OPERATOR, _DOMAIN)}
    constant = texts.get(_OPERATOR) == b"Constant" and texts.get(_DOMAIN, b"") in (b"", b"ai.onnx")
    attribute = _CONSTANT if constant else _CONTROL
    return reader.rewritten(found.start, found.stop, {_ATTRIBUTE: _message(attribute)})


def _tensor(reader: _Reader, found: Field) -> bytes | None:
    """The tensor as external data; None when it is better left to those who know all encodings."""
    values = [
        f for f in fields(reader.data, found.start, found.stop) if f.number in (_FLOATS, _RAW, _DOUBLES)
    ]
    if len(values) != 1:
        return None
    (value,) = values
    tensor = TensorProto.FromString(
        reader.data[found.start : value.at] + reader.data[value.stop : found.stop]
    )
    kind = {_FLOATS: TensorProto.FLOAT, _DOUBLES: TensorProto.DOUBLE}.get(value.number, tensor.data_type)
    length = value.stop - value.start
    if tensor.data_type != kind or kind not in _KINDS or raw_size(kind, tensor.dims) != length:
        return None
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    point_to(tensor, reader.location, value.start, length)
    data: bytes = tensor.SerializeToString()
    return data


_CONSTANT: dict[int, _Rewrite] = {_TENSOR: _tensor}
_GRAPH_FIELDS: dict[int, _Rewrite] = {_NODE: _node, _INITIALIZER: _tensor}
_CONTROL: dict[int, _Rewrite] = dict.fromkeys((_BODY, _BODIES), _message(_GRAPH_FIELDS))
_MODEL: dict[int, _Rewrite] = {
    _GRAPH: _message(_GRAPH_FIELDS),
    _FUNCTION: _message({_FUNCTION_NODE: _node}),
}
