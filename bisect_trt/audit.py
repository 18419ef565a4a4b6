"""Looks for anything of the original in files that are to be shared. It trusts nothing that wrote them.

What counts as found: a name or text of the original (whole, or a part of it that is no word of ours); 4
consecutive elements of a weight or an input value (16 of 8-bit types, 8 of 16-bit ones), in whatever
file, type and place, also printed as numbers. Out of scope, and said so: values that were reordered,
scaled or rounded, rows of fewer elements than that, and what is no secret of its own: one repeated value,
counting numbers, and integers of at most 64 elements (sizes, axes), which `left` lists instead.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.graph import dims_of
from bisect_trt.model.edit_bodies import inner_nodes
from bisect_trt.model.external import tensors

Array = npt.NDArray[Any]

SMALL = 64
"""Integers of at most so many elements are sizes, axes and the like."""

_CHUNK = 1 << 22  # elements looked at at once
_SHOWN = 12
TOKEN = re.compile(r"[^\s\"'`,;<>()\[\]{}=|]+")
WORD = re.compile(r"[A-Za-z0-9_]+")
_PRINTABLE = re.compile(rb"[\x20-\x7e\x80-\xff]{3,}")
_NUMBERS = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_OURS = re.compile(r"(?:[xywstbcd]|body)\d+(?:_shape|_fill)?")
_PART = 5  # letters of a part of a name that tells something
_NAMELESS = {"root", "user", "admin", "ubuntu", "localhost", "localdomain", "home", "model", "models"}


@dataclass(frozen=True)
class Finding:
    """Something of the original in a file."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.what} in {self.file}"


@dataclass(frozen=True)
class Secrets:
    """What must not be found.

    Attributes:
        texts: names, texts and paths of the original, with what each is.
        arrays: weights and input values with their names; a new iterator each time it is called.
    """

    texts: Mapping[str, str]
    arrays: Any

    def parts(self) -> dict[str, str]:
        """Words inside the texts that tell something, with what they are of."""
        found: dict[str, str] = {}
        for text, what in self.texts.items():
            for word in WORD.findall(text):
                if len(word) >= _PART and not word.isdigit() and not is_ours(word):
                    found.setdefault(word, what)
        return found

    def whole(self) -> dict[str, str]:
        """The texts that tell something as a whole."""
        told = ((t, what) for t, what in self.texts.items() if len(t) > 2 and re.search(r"[^\W\d_]", t))
        return {t: what for t, what in told if not is_ours(t)}


def find(files: Mapping[str, bytes], secrets: Secrets) -> list[Finding]:
    """All that is found of the original, by file; an archive counts as the files in it."""
    opened = dict(_opened(files))
    found = list(_find_texts(opened, secrets))
    return found + list(_find_values(opened, secrets))


def read(paths: Iterable[Path]) -> dict[str, bytes]:
    """Files with what is in them; those of folders too."""
    found: dict[str, bytes] = {}
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            name = str(file.relative_to(path.parent)) if path.is_dir() else file.name
            found[name] = file.read_bytes()
    return found


@cache
def _vocabulary() -> frozenset[str]:
    """Words that our files can hold whatever the model: those of our own source, and ONNX's."""
    folder = Path(__file__).parent
    words: set[str] = set()
    for path in (*folder.rglob("*.py"), *folder.rglob("*.j2")):
        words.update(WORD.findall(path.read_text(encoding="utf-8")))
    for schema in onnx.defs.get_all_schemas_with_history():
        words.update((schema.name, *schema.attributes, *(p.name for p in (*schema.inputs, *schema.outputs))))
        for attribute in schema.attributes.values():
            words.update(WORD.findall(attribute.description))
    return frozenset(word.lower() for word in words)


def is_ours(word: str) -> bool:
    """Whether a word is one of ours, or a name that we give: `x0`, `conv1`."""
    plain = word.lower()
    return (
        plain in _vocabulary()
        or _OURS.fullmatch(word) is not None
        or (word == plain and plain.rstrip("0123456789") in _vocabulary())
    )


def _opened(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for name, data in files.items():
        yield name, data
        if data[:2] == b"PK":
            try:
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    inside = {f"{name}:{e.filename}": archive.read(e) for e in archive.infolist()}
            except zipfile.BadZipFile:
                continue
            yield from _opened(inside)


def _find_texts(files: Mapping[str, bytes], secrets: Secrets) -> Iterator[Finding]:
    """Each text once a file; names of files count as text of theirs."""
    whole, parts = secrets.whole(), secrets.parts()
    simple = {text for text in whole if TOKEN.fullmatch(text)}
    odd = [text for text in whole if text not in simple]
    for name, data in files.items():
        text = f"{name}\n" + "\n".join(_strings(data))
        tokens = set(TOKEN.findall(text))
        tokens |= {token.strip(".:/\\*") for token in tokens}
        words = set(WORD.findall(text))
        hits = {t: whole[t] for t in simple & (tokens | words)}
        hits |= {t: whole[t] for t in odd if t in text}
        hits |= {w: f"part of {parts[w]}" for w in words & parts.keys()}
        yield from (Finding(name, f"{what} {shown(t)}") for t, what in sorted(hits.items()))


def shown(text: str) -> str:
    """A text in quotes, short."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _strings(data: bytes) -> Iterator[str]:
    for match in _PRINTABLE.finditer(data):
        yield match.group().decode("utf-8", errors="replace")


def _find_values(files: Mapping[str, bytes], secrets: Secrets) -> Iterator[Finding]:
    """Runs of elements of the original, anywhere."""
    where: dict[int, tuple[Array, list[str]]] = {}
    for width in (16, 32):
        where[width] = _index(files, width)
    for name, array in secrets.arrays():
        if not _is_secret(array):
            continue
        keys, sources = where[32 if array.dtype.itemsize >= 8 else 16]
        hit = _lookup(array, keys)
        if hit is not None:
            yield Finding(sources[int(hit)], f"values of {shown(name)}")


def _is_secret(array: Array) -> bool:
    kind = array.dtype.kind
    if kind in "OUS" or array.size < 4:
        return False
    return kind not in "iub" or array.size > SMALL


def _index(files: Mapping[str, bytes], width: int) -> tuple[Array, list[str]]:
    """Hashes of all windows in all files, sorted, each with the number of its file in the low bits."""
    names, parts = list(files), []
    for number, (name, data) in enumerate(files.items()):
        for blob, step in _blobs(name, data):
            keys = _windows(blob, width, step)
            if keys.size:
                parts.append((keys & ~np.uint64(0xFFFF)) | np.uint64(number & 0xFFFF))
    return (np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)), names


def _blobs(name: str, data: bytes) -> Iterator[tuple[bytes, int]]:
    """Bytes to look at, and at every how many of them a window may begin."""
    arrays = list(_arrays(name, data))
    if not arrays or len(data) < 1 << 20:
        yield data, 1  # whatever it is
    for array in arrays:
        yield np.ascontiguousarray(array).tobytes(), array.dtype.itemsize
        if array.dtype.kind == "f" or "float" in array.dtype.name:
            for other in (np.float16, np.float32, np.float64):
                if other != array.dtype:
                    with np.errstate(all="ignore"):
                        yield np.ascontiguousarray(array).astype(other).tobytes(), np.dtype(other).itemsize
    if not arrays and data[:2] != b"PK":
        numbers = [float(n) for n in _NUMBERS.findall("\n".join(_strings(data)))]
        for kind in (np.float16, np.float32, np.float64, np.int8, np.int32, np.int64):
            with np.errstate(all="ignore"):
                yield np.array(numbers).astype(kind).tobytes(), np.dtype(kind).itemsize


def _arrays(name: str, data: bytes) -> Iterator[Array]:
    """The tensors of an ONNX model, the array of a `.npy`."""
    if data[:6] == b"\x93NUMPY":
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError:
            return
        if array.dtype.kind not in "OUS":
            yield array
    elif name.endswith(".onnx"):
        try:
            proto = onnx.load_model_from_string(data)
        except DecodeError:
            return
        for tensor in tensors(proto):
            if tensor.data_location != TensorProto.EXTERNAL and tensor.data_type != TensorProto.STRING:
                yield numpy_helper.to_array(tensor)


def _windows(blob: bytes, width: int, step: int) -> Array:
    """Hashes of `width` bytes from each `step`-th place on."""
    raw = np.frombuffer(blob, np.uint8)
    if raw.size < width:
        return np.zeros(0, np.uint64)
    count = (raw.size - width) // step + 1
    keys = np.zeros(count, np.uint64)
    for at in range(0, width, 8):
        for shift in range(8):
            part = raw[at + shift : at + shift + (count - 1) * step + 1 : step].astype(np.uint64)
            keys += part << np.uint64(8 * shift)
        keys = _mixed(keys)
    return keys


def _mixed(keys: Array) -> Array:
    with np.errstate(over="ignore"):
        keys = (keys ^ (keys >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    mixed: Array = keys ^ (keys >> np.uint64(29))
    return mixed


def _lookup(array: Array, keys: Array) -> int | None:
    """Number of a file that holds some run of the array; None when none does."""
    if not keys.size:
        return None
    flat = array.reshape(-1)
    elements = max(4, 16 // array.dtype.itemsize)
    for start in range(0, flat.size - elements + 1, _CHUNK):
        chunk = np.ascontiguousarray(flat[start : start + _CHUNK])
        chunk = chunk[: chunk.size // elements * elements]
        rows = chunk.reshape(-1, elements)
        rows = rows[_tells(rows)]
        if not rows.size:
            continue
        width = elements * array.dtype.itemsize
        wanted = _windows(rows.tobytes(), width, width) & ~np.uint64(0xFFFF)
        places = np.searchsorted(keys, wanted)
        places[places == keys.size] = keys.size - 1
        hits = np.flatnonzero(keys[places] & ~np.uint64(0xFFFF) == wanted)
        if hits.size:
            return int(keys[places[hits[0]]] & np.uint64(0xFFFF))
    return None


def _tells(rows: Array) -> Array:
    """Rows that are no coincidence: three different elements at least, that do not just count."""
    with np.errstate(all="ignore"):
        wide = np.asarray(rows, dtype=np.float64)
        ordered = np.sort(wide, axis=1)
        different = (np.diff(ordered, axis=1) > 0).sum(axis=1) >= 2
        steps = np.diff(wide, axis=1)
        counts = (np.abs(steps - steps[:, :1]) <= 1e-12).all(axis=1)
    found: Array = different & ~counts & np.isfinite(wide).all(axis=1)
    return found


def left(model: bytes) -> list[str]:
    """What of the original a model still tells: operators, attributes, shapes, sizes; one line each."""
    proto = onnx.load_model_from_string(model)
    lines = []
    for node in inner_nodes(proto.graph):
        attributes = [_attribute(a) for a in node.attribute if a.type not in (5, 10)]
        domain = f"{node.domain}." if node.domain else ""
        given = f" with {', '.join(attributes)}" if attributes else ""
        lines.append(f"operator {domain}{node.op_type}{given}")
    for kind, infos in (("input", proto.graph.input), ("output", proto.graph.output)):
        for info in infos:
            dims = dims_of(info.type)
            shape = "x".join("?" if d is None else str(d) for d in dims) if dims is not None else "unknown"
            name = _type_name(info.type.tensor_type.elem_type)
            lines.append(f"{kind} of {name}, shape {shape or 'scalar'}")
    for tensor in proto.graph.initializer:
        shape = "x".join(map(str, tensor.dims)) or "scalar"
        lines.append(f"constant of {_type_name(tensor.data_type)}, shape {shape}{_integers(tensor)}")
    return lines


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return f"{attribute.name} ({_type_name(value.data_type)} tensor)"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return f"{attribute.name}={text[:60]}"


def _integers(tensor: TensorProto) -> str:
    """Values of sizes and axes."""
    whole = tensor.data_type in (TensorProto.INT64, TensorProto.INT32) and np.prod(tensor.dims) <= SMALL
    if not whole or tensor.data_location == TensorProto.EXTERNAL:
        return ""
    return f", values {numpy_helper.to_array(tensor).reshape(-1).tolist()}"


def summary(found: list[Finding]) -> str:
    """The findings as one sentence."""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(map(str, found[:_SHOWN])) + more
