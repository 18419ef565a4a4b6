"""Looks for anything of the original in files that are to be shared. It trusts nothing that wrote them.

What counts as found: a name or text of the original (whole, or a part of it that is no word of ours); 4
consecutive elements of a weight or an input value (16 of 8-bit types, 8 of 16-bit ones), in whatever
file, type and place, also printed as numbers. Out of scope, and said so: values that were reordered,
scaled or rounded, rows of fewer elements than that, and what is no secret of its own: one repeated value,
counting numbers, and integers of at most 64 elements (sizes, axes), which `left` lists instead.
"""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from msgspec import Struct
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.anonymise.audit_values import find_values, strings
from bisect_trt.anonymise.secrets import SMALL, TOKEN, WORD, Secrets
from bisect_trt.model.graph import dims_of
from bisect_trt.model.store import type_name
from bisect_trt.model.walk import inner_nodes

_BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}")
_SHORT_LIST = 8
_LONGEST_VALUE = 200  # characters of an attribute's value


class Finding(Struct, frozen=True):
    """Something of the original in a file."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.what} in {self.file}"


def find(files: Mapping[str, bytes], secrets: Secrets) -> list[Finding]:
    """Return all that is found of the original, by file; an archive counts as the files in it."""
    opened = dict(_opened(files))
    found = list(_find_texts(opened, secrets))
    values = find_values(opened, secrets.arrays)
    return found + [Finding(file, f"values of {shown(name)}") for name, file in values]


def read(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the files with what is in them; those of folders too."""
    found: dict[str, bytes] = {}
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            found[str(file.relative_to(path.parent))] = file.read_bytes()
    return found


def _opened(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for name, data in files.items():
        yield name, data
        if data[:2] != b"PK":
            yield from _decoded(name, data)
        else:
            try:
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    entries = archive.infolist()
                    inside = {f"{name}:{e.filename}": archive.read(e) for e in entries}
                    notes = b"\n".join([archive.comment, *(e.comment + b"\n" + e.extra for e in entries)])
            except zipfile.BadZipFile:
                continue
            yield f"comments of {name}", notes
            yield from _opened(inside)


def _decoded(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what a page embeds as base64: the numbers of its plots."""
    runs = _BASE64.findall(data.replace(b"\\/", b"/"))
    if runs:
        yield f"base64 in {name}", b"\n".join(base64.b64decode(run[: len(run) // 4 * 4]) for run in runs)


def _find_texts(files: Mapping[str, bytes], secrets: Secrets) -> Iterator[Finding]:
    """Find each text once a file; names of files count as text of theirs."""
    whole, parts = secrets.whole, secrets.parts
    simple = {text.lower(): text for text in whole if TOKEN.fullmatch(text)}
    for name, data in files.items():
        text = f"{name}\n" + "\n".join(strings(data))
        low = text.lower()
        tokens = set(TOKEN.findall(low))
        tokens |= {token.strip(".:/\\*") for token in tokens}
        words = set(WORD.findall(low))
        hits = {simple[t]: whole[simple[t]] for t in simple.keys() & (tokens | words)}
        hits |= {t: whole[t] for t in secrets.inside if t in text}
        hits |= {w: f"part of {parts[w]}" for w in words & parts.keys()}
        yield from (Finding(name, f"{what} {shown(t)}") for t, what in sorted(hits.items()))


def shown(text: str) -> str:
    """Return a text in quotes, short."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def left(model: bytes) -> list[str]:
    """Return what a model still reveals of the original: operators, attributes, shapes, sizes.

    One line each.
    """
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
            name = type_name(info.type.tensor_type.elem_type)
            lines.append(f"{kind} of {name}, shape {shape or 'scalar'}")
    for tensor in proto.graph.initializer:
        shape = "x".join(map(str, tensor.dims)) or "scalar"
        lines.append(f"constant of {type_name(tensor.data_type)}, shape {shape}{_values(tensor)}")
    return lines


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return f"{attribute.name} ({type_name(value.data_type)} tensor)"
    if isinstance(value, list) and len(value) > _SHORT_LIST and all(item == value[0] for item in value):
        return f"{attribute.name}={len(value)} times {value[0]}"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return f"{attribute.name}={text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + '...'}"


def _values(tensor: TensorProto) -> str:
    """Return values where there are few: sizes, axes, and the like."""
    few = np.prod(tensor.dims) <= SMALL and tensor.data_type != TensorProto.STRING
    if not few or tensor.data_location == TensorProto.EXTERNAL:
        return ""
    values = numpy_helper.to_array(tensor).reshape(-1)
    if values.size > 1 and (values == values[0]).all():
        return f", all {values[0].item()}"
    return f", values {values.tolist()}"
