"""What must not be shared of a model: its names, texts and values, and who and where the user is."""

from __future__ import annotations

import getpass
import math
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct
from msgspec.structs import astuple, replace
from onnx import TensorProto

from bisect_trt.model.editing.attributes import option_inputs, takes_texts, values_of
from bisect_trt.model.external import tensors
from bisect_trt.model.load import LoadedModel
from bisect_trt.model.walk import inner_nodes
from bisect_trt.model.weight_values import mapped
from bisect_trt.outcome import Array
from bisect_trt.settings import Settings

SMALL = 64
"""Integers of at most so many elements are sizes, axes and the like."""

PATH = "a path"
"""What a path is called among the texts."""

TOKEN = re.compile(r"[^\s\"'`,;<>()\[\]{}=|]+")
WORD = re.compile(r"[A-Za-z0-9_]+")
_OURS = re.compile(r"(?:[xywstbcd]|body)\d+(?:_shape|_fill)?|bisect-trt")
_PART = 5  # letters of a part of a name that tells something


class Secrets(Struct, frozen=True, dict=True):
    """What must not be found.

    Attributes:
        texts: names, texts and paths of the original, with what each is.
        arrays: weights and input values with their names; a new iterator each time it is called.
        public: words in small letters that are shared all the same.
    """

    texts: Mapping[str, str]
    arrays: Callable[[], Iterable[tuple[str, Array]]]
    public: frozenset[str] = frozenset()

    @cached_property
    def parts(self) -> dict[str, str]:
        """Identifying words inside the texts, in lower case, each with its source."""
        found: dict[str, str] = {}
        for text, what in self.texts.items():
            for word in WORD.findall(text):
                if len(word) >= _PART and not word.isdigit() and not self._is_known(word):
                    found.setdefault(word.lower(), what)
        return found

    @cached_property
    def whole(self) -> dict[str, str]:
        """The texts that identify something as a whole."""
        readable = ((t, what) for t, what in self.texts.items() if len(t) > 2 and re.search(r"[^\W\d_]", t))
        return {t: what for t, what in readable if not self._is_known(t)}

    def _is_known(self, word: str) -> bool:
        """Return whether it may be found anyway: as a word, or as a name that we give a node of it."""
        return is_ours(word) or word.lower().rstrip("0123456789") in self.public

    @cached_property
    def inside(self) -> list[str]:
        """Return those of `whole` that may be a part of a word, longest first: paths, and several words."""
        found = (t for t, what in self.whole.items() if what == PATH or not TOKEN.fullmatch(t))
        return sorted(found, key=len, reverse=True)

    def without(self, public: Iterable[str]) -> Secrets:
        """Leave out what is public anyway: the user's own operators, their attributes and domains."""
        return replace(self, public=frozenset(text.lower() for text in public))


@cache
def _vocabulary() -> frozenset[str]:
    """Return the words that our files can hold whatever the model: those of our own source, and ONNX's."""
    folder = Path(__file__).parents[1]  # the whole package
    words: set[str] = set()
    for path in (path for kind in ("*.py", "*.j2", "*.css") for path in folder.rglob(kind)):
        words.update(WORD.findall(path.read_text(encoding="utf-8")))
    for schema in onnx.defs.get_all_schemas_with_history():
        words.update((schema.name, *schema.attributes, *(p.name for p in (*schema.inputs, *schema.outputs))))
        for attribute in schema.attributes.values():
            words.update(WORD.findall(attribute.description))
    return frozenset(word.lower() for word in words)


def is_ours(word: str) -> bool:
    """Return whether a word is one of ours, our own name, or a name that we give: `x0`, `conv1`."""
    plain = word.lower()
    known = not _vocabulary().isdisjoint((plain, plain.rstrip("0123456789")))
    return known or _OURS.fullmatch(word) is not None


def secrets_of(loaded: LoadedModel, samples: Sequence[Mapping[str, Array]], settings: Settings) -> Secrets:
    """Return names, texts, weights and input values of a model, and who and where the user is."""
    folder = loaded.path.resolve().parent

    def arrays() -> Iterator[tuple[str, Array]]:
        yield from _weights(loaded.proto, folder)
        for sample in samples:
            yield from ((f"input {name}", np.asarray(value)) for name, value in sample.items())

    found = [*_texts(loaded.proto), *_fed_texts(samples), *_surroundings(loaded.path, settings)]
    lines = ((line.strip(), what) for text, what in found for line in (text, *text.splitlines()))
    return Secrets({line: what for line, what in lines if line}, arrays)


def _weights(proto: onnx.ModelProto, folder: Path) -> Iterator[tuple[str, Array]]:
    """Yield all values of a model that are no options of operators, those of training too."""
    options = {name for node in _all_nodes(proto) for name in option_inputs(node)}
    trained = (graph for part in proto.training_info for graph in (part.initialization, part.algorithm))
    models = (proto, *(onnx.ModelProto(graph=graph) for graph in trained))
    for tensor in (tensor for model in models for tensor in tensors(model)):
        is_option = tensor.name in options and math.prod(tensor.dims) <= SMALL
        if tensor.data_type != TensorProto.STRING and not is_option:
            yield tensor.name or "a constant", mapped(tensor, folder)
    for node in _all_nodes(proto):
        for attribute in node.attribute:
            values = values_of(attribute)
            if values is not None and attribute.type != onnx.AttributeProto.TENSOR:
                yield f"attribute {attribute.name} of {node.op_type}", values


def _all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for part in (proto.graph, *proto.functions):
        yield from inner_nodes(part)


def _texts(message: Any, label: str = "") -> Iterator[tuple[str, str]]:
    """Collect every name and text of a protobuf message: in functions, bodies, metadata, training, wherever.

    Operators, names of attributes and what standard operators take as an attribute are none.
    """
    kind = type(message).__name__
    label = _LABELS.get(kind, label)
    for field, value in message.ListFields():
        if (kind, field.name) in _NO_TEXTS or (field.name == "domain" and value == "ai.onnx"):
            continue
        if field.name in ("s", "strings") and label == _STRUCTURAL:
            continue
        repeated = not isinstance(value, str | bytes) and hasattr(value, "extend")
        items = value if repeated else (value,)
        if isinstance(items[0], str):
            yield from ((item, f"{label} {field.name.replace('_', ' ')}") for item in items)
        elif field.name in ("s", "strings", "string_data"):  # bytes that are text
            yield from ((item.decode(errors="replace"), "a text") for item in items)
        elif hasattr(items[0], "ListFields"):
            inner = label
            if kind == "NodeProto":  # the owner of an attribute may be one of ONNX's own operators
                inner = "attribute" if takes_texts(message) else _STRUCTURAL
            for item in items:
                yield from _texts(item, inner)


_STRUCTURAL = "attribute of ONNX"
_LABELS = {
    "ModelProto": "model",
    "GraphProto": "graph",
    "FunctionProto": "function",
    "NodeProto": "node",
    "TensorProto": "weight",
    "ValueInfoProto": "tensor",
    "Dimension": "dimension",
    "StringStringEntryProto": "metadata",
    "OperatorSetIdProto": "operator set",
}
_NO_TEXTS = {("NodeProto", "op_type"), ("AttributeProto", "name"), ("TensorProto", "raw_data")}


def _fed_texts(samples: Sequence[Mapping[str, Array]]) -> Iterator[tuple[str, str]]:
    for sample in samples:
        for name, value in sample.items():
            yield name, "an input"
            if np.asarray(value).dtype.kind in "OUS":
                yield from ((str(item), "an input value") for item in np.asarray(value).flat)


def _surroundings(model: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield paths, host and user; names that many machines have identify nobody."""
    yield model.stem, "the name of the model's file"
    for path in (model, *_paths(settings)):
        yield str(path), PATH
        yield str(path.resolve().parent), PATH
        yield from ((part, "a folder or file") for part in path.resolve().parts[1:] if _identifies(part))
    yield str(Path.home()), PATH
    host = socket.gethostname()
    yield from ((name, "the host") for name in (host, host.split(".")[0]) if _identifies(name))
    with suppress(KeyError, OSError):  # nobody in particular
        yield from [(getpass.getuser(), "the user")] if _identifies(getpass.getuser()) else []


def _paths(setting: Any) -> Iterator[Path]:
    """Collect every path that settings hold, also inside of a command line."""
    if isinstance(setting, Path):
        yield setting
    elif isinstance(setting, str):
        yield from (Path(word) for word in re.split(r"[\s:=,'\"]+", setting) if "/" in word)
    elif isinstance(setting, Struct):
        yield from (path for value in astuple(setting) for path in _paths(value))
    elif isinstance(setting, tuple):
        yield from (path for item in setting for path in _paths(item))


_COMMON = frozenset({"root", "user", "admin", "ubuntu", "localhost", "home", "model", "models", "tmp", "usr"})
_COMMON |= {"bin", "lib", "opt", "python", "python3", "etc", "var", "localdomain"}


def _identifies(name: str) -> bool:
    return name.lower() not in _COMMON and not is_ours(name)
