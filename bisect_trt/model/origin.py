"""Where a node comes from in the user's own code, as far as the exporter wrote it down.

Read are, in this order: what PyTorch's exporter (2.5 and later, `dynamo=True`) leaves in
`metadata_props`, the doc strings of its predecessor (`verbose=True`), and node names that are paths of
scopes (`/attn/Softmax`). All of it is text of a stranger: it is matched, never evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import onnx
from msgspec import Struct
from msgspec.structs import asdict

_LONGEST_TRACE = 200_000  # characters of a trace that are looked at
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in [^\n]*(?:\n[ \t]++(?!File ")([^\n]*))?')
_OLD_FRAME = re.compile(r"^([^\n]*\.py)\((\d+)\): ", re.MULTILINE)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
# What lies here was not written by the user.
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]python\d|^<")


class Origin(Struct, frozen=True):
    """Where one node comes from; what is not known is empty.

    Attributes:
        node: name of the node.
        file: path of the source file as the exporter wrote it, on the machine of the export.
        line: of the file, from 1; 0 when unknown.
        code: the source line.
        module: class of the model and path of the module, `Model.attn`; else the scopes of the name.
    """

    node: str
    file: str = ""
    line: int = 0
    code: str = ""
    module: str = ""

    @property
    def short_file(self) -> str:
        """The file's name without its folder."""
        return re.split(r"[/\\]", self.file)[-1]

    def sentence(self, mark: Callable[[str], str] = str) -> str:
        """Return ``softmax, from `model.py` line 6, in `M.attn`: `return ...` ``.

        `mark` marks text as code.
        """
        parts = [mark(self.node)]
        if self.file:
            parts.append(f"from {mark(self.short_file)} line {self.line}")
        if self.module:
            parts.append(f"in {mark(self.module)}")
        return ", ".join(parts) + (f": {mark(self.code)}" if self.code else "")

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data.

        Of the file only the name, as its folder is the user's own business.
        """
        return {**asdict(self), "file": self.short_file}


def origin_of(node: onnx.NodeProto) -> Origin | None:
    """Return what the exporter says of a node; None when it says nothing."""
    metadata = {entry.key: entry.value[:_LONGEST_TRACE] for entry in node.metadata_props}
    trace = metadata.get("pkg.torch.onnx.stack_trace", "")
    file, line, code = _source(trace, node.doc_string[:_LONGEST_TRACE])
    # else what stands before the last slash of a name such as `/attn/Softmax`
    module = _module(metadata) or ".".join(part for part in node.name.split("/")[:-1] if part)
    return Origin(node.name, file, line, code, module) if file or module else None


def origins(nodes: Iterable[onnx.NodeProto]) -> tuple[Origin, ...]:
    """Return those that are known, in the order of the nodes."""
    return tuple(found for found in map(origin_of, nodes) if found is not None)


def _source(trace: str, doc_string: str) -> tuple[str, int, str]:
    """Return the innermost line of the user's own code; of a library's, when there is no other."""
    frames = [(file, int(line[:9]), code.strip()) for file, line, code in _FRAME.findall(trace)][::-1]
    frames = frames or [(file, int(line[:9]), "") for file, line in _OLD_FRAME.findall(doc_string)]
    own = (frame for frame in frames if not _LIBRARY.search(frame[0]))
    return next(own, frames[0] if frames else ("", 0, ""))


def _module(metadata: dict[str, str]) -> str:
    """Return the class of the whole model and path of the innermost module."""
    classes = _list(metadata.get("pkg.torch.onnx.class_hierarchy", ""))
    scopes = _list(metadata.get("pkg.torch.onnx.name_scopes", ""))
    if not classes or len(classes) != len(scopes):
        pairs = [part.partition(": ") for part in metadata.get("namespace", "").split("/") if ": " in part]
        scopes, classes = [name for name, _, _ in pairs], [kind for _, _, kind in pairs]
    if not classes:
        return ""
    modules = scopes[:-1] if len(scopes) > 1 else scopes  # the last one is the operation itself
    path = modules[-1]
    return classes[0].rpartition(".")[2] + (f".{path}" if path else "")


def _list(text: str) -> list[str]:
    """Return the strings in a Python list that was written as text."""
    return [one or other for one, other in _QUOTED.findall(text)]
