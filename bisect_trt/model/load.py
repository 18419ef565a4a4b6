"""Load a model and refuse what is broken, before a target is asked.

Targets report a truncated or cyclic file as an ordinary parse error; such a file must never be
reduced. So all that could be wrong with the file itself is found here, and is a `UsageError`.


Reads a model without the weights embedded in its file, which may be 2 GB of it.

A weight above `store.INLINE_LIMIT` comes back as external data that lies in the model's own file: nothing
after this holds it in memory, and there is one kind of big weight only.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from msgspec import Struct
from onnx import ModelProto, TensorProto

from bisect_trt.errors import UsageError
from bisect_trt.machine import native
from bisect_trt.model.candidate import Content, hash_of, state_of
from bisect_trt.model.external import KINDS, inline_small, referenced_files
from bisect_trt.model.lenient import SHOWN, read_as_the_reference
from bisect_trt.model.operators import beside_the_standard
from bisect_trt.model.store import INLINE_LIMIT, point_to, raw_size
from bisect_trt.model.validate import validate
from bisect_trt.model.walk import copied
from bisect_trt.model.wire import Buffer, Field, field, fields
from bisect_trt.writing.text import some_names

_EXPORT = "export the model to ONNX and pass the .onnx file"
_AGAIN = "export or download the model again"
_MAGIC = (  # where it stands, and what it is of
    (0, b"PK\x03\x04", "a zip archive (a PyTorch checkpoint or a packed folder)", _EXPORT),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"ftrt", "a TensorRT engine", "pass the ONNX model that it was built from"),
    (0, b"ptrt", "a TensorRT engine", "pass the ONNX model that it was built from"),
    (0, b"\x80\x02", "a Python pickle (a PyTorch checkpoint)", _EXPORT),
    (0, b"\x89HDF", "an HDF5 file (a Keras model)", _EXPORT),
    (0, b"version https://git-lfs", "a Git LFS pointer", "run: git lfs pull"),
    (4, b"TFL3", "a TensorFlow Lite model", _EXPORT),
    (4, b"ORTM", "in ONNX Runtime's ORT format", _EXPORT),
)


class LoadedModel(Struct, frozen=True):
    """A model that was found to be sound.

    Attributes:
        path: where it came from; its folder holds the external data.
        proto: the parsed file, as the reference reads it (see `lenient`); no weight above
            `store.INLINE_LIMIT` is loaded: what the file itself embeds is external data that lies in it.
        digest: BLAKE3 in hex of the content: the file's bytes and those of its external data.
        notes: what runtimes take in it although the letter of ONNX does not, as sentences.
    """

    path: Path
    proto: ModelProto
    digest: str
    notes: tuple[str, ...] = ()


def load(path: Path, *, allow_unknown: bool = False) -> LoadedModel:
    """Read and check an ONNX file; big weights are hashed but never held in memory.

    Args:
        path: the file.
        allow_unknown: accept operators that neither ONNX nor ONNX Runtime knows (plugins).

    Raises:
        UsageError: the file is missing, no ONNX model, truncated, or invalid; its external data is
            missing, too short, or outside the model's folder. The message says what and where.
    """
    native.forget_strikes()
    _check_file(path)
    proto = _parse(path)
    digest = hash_of(path)
    for location, file in sorted(referenced_files(proto, path).items()):
        if location == path.name:
            continue
        digest.update(location.encode() + b"\0")
        digest.update(hash_of(file).digest())
    inline_small(proto, path.parent)
    notes = read_as_the_reference(proto)
    validate(proto, path.name, allow_unknown=allow_unknown)
    return LoadedModel(path, proto, digest.hexdigest(), (*notes, *beside_the_standard(proto), *_twins(proto)))


def _twins(proto: onnx.ModelProto) -> list[str]:
    """Say which names several nodes have: TensorRT takes that, and who reads "Fine" should know."""
    times = Counter(node.name for node in proto.graph.node if node.name)
    twins = [name for name, count in times.items() if count > 1]
    if not twins:
        return []
    named = some_names(twins, SHOWN)
    return [f"Several nodes are called {named}: ONNX Runtime refuses such a file. Names may be left empty."]


def _check_file(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:  # a model refers to its data by names, which are text
        raise UsageError(f"{path.name!a} is no name in UTF-8", "rename the file") from error
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.glob("*.onnx"))
            raise UsageError(
                f"{path} is a folder, not an ONNX file",
                f"did you mean {path / inside[0]}?" if inside else "pass the .onnx file",
            )
        if not path.exists():
            raise UsageError(f"{path} does not exist", "check the path of the model")
        if not path.is_file():
            raise UsageError(f"{path} is no regular file", "pass an .onnx file")
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}", "check path and rights"
        ) from error
    if not head:
        raise UsageError(f"{path} is empty", _AGAIN)
    for place, magic, what, hint in _MAGIC:
        if head.startswith(magic, place):
            raise UsageError(f"{path} is {what}, not an ONNX model", hint)


def _parse(path: Path) -> ModelProto:
    try:
        proto = read_light(path)
    except DecodeError as error:
        raise UsageError(f"{path} is {_damage(path)}", _AGAIN) from error
    if not proto.HasField("ir_version") and not proto.HasField("graph"):
        raise UsageError(f"{path} is not an ONNX model", _EXPORT)
    for name, missing in (("ir_version", "IR version"), ("graph", "graph")):
        if not proto.HasField(name):
            raise UsageError(f"{path} has no {missing}: it is truncated or damaged", _AGAIN)
    return proto


def _damage(path: Path) -> str:
    """Return what a file is that protobuf cannot read; a ModelProto begins with its IR version."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head[0] == 0x08 and 0 < (head[1:2] or b"\1")[0] < 0x80:
        return f"truncated or damaged (read {path.stat().st_size} bytes as ONNX {onnx.__version__})"
    text = all(32 <= byte < 127 or byte in b"\t\n\r\f" for byte in head)
    return "a text file, not an ONNX model" if text else "not an ONNX model"


_GRAPH, _FUNCTION = 7, 25  # of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_FUNCTION_NODE = 7
_OPERATOR, _ATTRIBUTE, _DOMAIN = 4, 5, 7  # of NodeProto
_TENSOR, _BODY, _BODIES = 5, 6, 11  # of AttributeProto
_FLOATS, _RAW, _DOUBLES = 4, 9, 10  # of TensorProto

_KINDS = KINDS - {TensorProto.UNDEFINED, TensorProto.STRING}

_Rewrite = Callable[["_Reader", Field], bytes | None]


def read_without_weights(content: Content) -> ModelProto:
    """Return a candidate's model; of one that lies in a file without the large weights.

    A file is read again when it changed: four look at the user's own in one probe.

    Raises:
        DecodeError, OSError: as `read_light`.
    """
    if isinstance(content, Path):
        return copied(_read_once(content, state_of(content)))
    return onnx.load_model_from_string(content)


@lru_cache(maxsize=1)
def _read_once(path: Path, state: tuple[int, ...]) -> ModelProto:
    return read_light(path)


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
    return onnx.load_model_from_string(light)


class _Reader:
    """Rewrites messages of one file; what is small is taken over as it is, unread."""

    def __init__(self, data: Buffer, location: str) -> None:
        self.data = data
        self.location = location

    def rewritten(self, start: int, stop: int, inside: dict[int, _Rewrite]) -> bytes:
        """Return the message in `data[start:stop]`, fields of `inside` rewritten. Raises ValueError."""
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
    """Return the tensor as external data; None when it is better left to those who know all encodings."""
    inside = fields(reader.data, found.start, found.stop)
    values = [field for field in inside if field.number in (_FLOATS, _RAW, _DOUBLES)]
    if len(values) != 1:
        return None
    (value,) = values
    tensor = TensorProto.FromString(
        reader.data[found.start : value.at] + reader.data[value.stop : found.stop]
    )
    kind = {_FLOATS: TensorProto.FLOAT, _DOUBLES: TensorProto.DOUBLE}.get(value.number, tensor.data_type)
    length = value.stop - value.start
    plain = tensor.data_type == kind in _KINDS and tensor.data_location != TensorProto.EXTERNAL
    if not plain or raw_size(kind, tensor.dims) != length:
        return None
    point_to(tensor, reader.location, value.start, length)
    return bytes(tensor.SerializeToString())


_CONSTANT: dict[int, _Rewrite] = {_TENSOR: _tensor}
_GRAPH_FIELDS: dict[int, _Rewrite] = {_NODE: _node, _INITIALIZER: _tensor}
_CONTROL: dict[int, _Rewrite] = dict.fromkeys((_BODY, _BODIES), _message(_GRAPH_FIELDS))
_MODEL: dict[int, _Rewrite] = {
    _GRAPH: _message(_GRAPH_FIELDS),
    _FUNCTION: _message({_FUNCTION_NODE: _node}),
}
