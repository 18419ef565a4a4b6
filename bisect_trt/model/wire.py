"""Protobuf's wire format, as far as models need it: see protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


Buffer = bytes | mmap
"""Bytes, or a file that is mapped."""


class Field(NamedTuple):
    """A length-delimited field: its number, where its tag begins, and where its content lies."""

    number: int
    at: int
    start: int
    stop: int


def varint(value: int) -> bytes:
    """Return a number that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    """Return the bytes of a length-delimited field."""
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def fields(data: Buffer, start: int, stop: int) -> Iterator[Field]:
    """Yield the length-delimited fields of the message in `data[start:stop]`; others are skipped.

    Raises:
        ValueError: this is no message.
    """
    at = start
    while at < stop:
        tag, after = _read(data, at, stop)
        kind = tag & 7
        if kind == _BYTES:
            length, begin = _read(data, after, stop)
            end = begin + length
            if end <= stop:
                yield Field(tag >> 3, at, begin, end)
        elif kind == _VARINT:
            end = _read(data, after, stop)[1]
        elif kind in (_FIXED32, _FIXED64):
            end = after + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError(f"wire type {kind}")
        if end > stop:
            raise ValueError("a field is longer than its message")
        at = end


def _read(data: Buffer, at: int, stop: int) -> tuple[int, int]:
    """Return the varint at a place, and the place behind it."""
    value = shift = 0
    while at < stop and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number does not end")
