"""What ONNX Runtime's exceptions say, and the failures that they stand for.

A provider's own text comes through as it is. OpenVINO's is a list of the nodes that were not converted, in
no order that counts, or the description of a node of its own graph with all that flows into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from msgspec import Struct

from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.targets.narrow import Source
from bisect_trt.targets.signature import bounded, mask
from bisect_trt.targets.tensorrt.blame import Blame

TELLING_LINES = 4
"""Lines of a message of unknown form that make its signature: further ones are lists and contexts."""

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (?P<code>[A-Z_]+) : ")
# A library's own words, without functions, files, the host's name and the GPU's number around them.
_LIBRARY = re.compile(
    r"(?P<what>\b(?:CUDA|CUBLAS|CUDNN\w*|CUFFT|HIP\w*) failure \d+: [^;]*?) ?; GPU=.*?"
    r"(?:expr=(?P<call>[^;]*))?;?\s*$",
    re.DOTALL,
)
_NO_NEWS = re.compile(
    r"\s*|Exception from \S+:\d+:?|FrontEnd API failed with \w+:?|Summary:|-- Conversion is failed.*"
)
_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|failed to allocate|OUT_OF_MEMORY", re.IGNORECASE)
# OpenVINO's list of what it did not convert: `-- Resize-18 with a message:` and lines up to the next entry.
_ENTRY = re.compile(r"^-- (?P<op>[\w.:]+?)(?:-\d+)? with a message:\s*$", re.MULTILINE)
_END = re.compile(r"^Summary:\s*$", re.MULTILINE)
_AT_NODE = re.compile(r"While validating ONNX node '<Node\((?P<op>[^)]*)\)(?:: (?P<name>[^>']*))?>':?\s*")
_CHECK = re.compile(r"Check '.*?' failed at \S+:\d+:?\s*")
_RANK = re.compile(r"\brank\b[^.]*\b(?:known|static|dynamic)|\b(?:known|static|dynamic)\b[^.]*\brank\b", re.I)
# A node of OpenVINO's graph: type, a name with an id, what flows in and out.
_INNER = re.compile(r"(?P<kind>\bopset\d+::\w+) \S+ \([^()]*\) -> \([^()]*\)")
_THROWN = re.compile(
    r"(?P<task>\[\w+\]) END: node: opset\d+::(?P<kind>\w+).*?CALLBACK HAS THROWN: ?(?P<why>.*)", re.DOTALL
)


class Fault(Struct, frozen=True):
    """One fault that a message tells of: its cause, the whole text, and who it is about where it says so."""

    cause: str
    text: str
    node: str = ""
    kind: str = ""


def session_of(runtime: Any, source: Source, options: Any, **more: Any) -> Any:
    """Return a session of ONNX Runtime, which reads a file itself: that takes half the time and the memory.

    What it says of a file names it, unlike what it says of a part of the model: then it is asked again.
    """
    file = source.content
    if isinstance(file, Path) and file.parent == source.folder and file.suffix != ".ort":
        try:
            return runtime.InferenceSession(str(file), options, **more)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            if str(file) not in str(error):
                raise
    return runtime.InferenceSession(source.model, options, **more)


def essence(message: str) -> str:
    """Return an exception of ONNX Runtime in one line, without its numbering and bare source positions."""
    return next(_read(message)).cause


def failures(candidate: Candidate, stage: Stage, message: str) -> tuple[Failure, ...]:
    """Return the failures that an exception of ONNX Runtime stands for, with the nodes that it names."""
    blame = Blame(onnx.load_model_from_string(candidate.model))
    return tuple(_failure(blame, stage, fault) for fault in _read(message))


def _failure(blame: Blame, stage: Stage, fault: Fault) -> Failure:
    nodes = blame.nodes_in(fault.node) if fault.node else ()
    nodes = nodes or blame.with_operator_like(fault.kind) or blame.nodes_in(fault.cause)
    return Failure(
        stage=stage,
        symptom=Symptom.OUT_OF_MEMORY if _OUT_OF_MEMORY.search(fault.text) else Symptom.ERROR,
        signature=mask(fault.cause, blame.names),
        message=bounded(fault.text),
        nodes=nodes,
        op=blame.op(nodes[0]) if nodes else "",
    )


def _read(message: str) -> Iterator[Fault]:
    library = _LIBRARY.search(message)
    entries = list(_entries(message))
    thrown = _THROWN.search(message)
    if library is not None:
        text = f"{library['what']} ({library['call']})" if library["call"] else library["what"]
        yield Fault(text, text)
    elif entries:
        causes = [entry for entry in entries if not _RANK.search(entry.cause)]
        yield from causes or entries  # a rank is not known where the node before was not converted
    elif thrown is not None:
        cause = f"{thrown['task']} {_one_line(thrown['why'])}"
        yield Fault(cause, f"{cause}\n{_one_line(thrown[0])}", kind=thrown["kind"])
    else:
        yield _plain(message)


def _entries(message: str) -> Iterator[Fault]:
    starts = list(_ENTRY.finditer(message))
    end = next((m.start() for m in _END.finditer(message)), len(message))
    for k, start in enumerate(starts):
        body = message[start.end() : starts[k + 1].start() if k + 1 < len(starts) else end]
        at = _AT_NODE.search(body)
        where = " ".join(m[0].strip() for pattern in (_AT_NODE, _CHECK) for m in pattern.finditer(body))
        cause = _INNER.sub(r"\g<kind>", _one_line(_CHECK.sub("", _AT_NODE.sub("", body)))) or where
        name, kind = (at["name"] or "", at["op"]) if at else ("", start["op"].rpartition("::")[2])
        yield Fault(cause, f"{cause}\n{where}".strip(), name, kind)


def _plain(message: str) -> Fault:
    match = _PREFIX.match(message)
    lines = [line.strip() for line in message[match.end() if match else 0 :].splitlines()]
    telling = [line for line in lines if not _NO_NEWS.fullmatch(line)]
    code = f"{match['code']}:" if match else ""
    cause = _INNER.sub(r"\g<kind>", " ".join([code, *telling[:TELLING_LINES]]).strip())
    text = " ".join([code, *telling]).strip() or message.strip()
    return Fault(cause or text, text)


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if not _NO_NEWS.fullmatch(line))


def refusal(text: str, op: str, nodes: Sequence[str]) -> Failure:
    """Say that a provider does not take an operator."""
    some = ", ".join(nodes[:4]) + (", ..." if len(nodes) > 4 else "")
    message = f"{text} ({some})" if some else text
    return Failure(Stage.BUILD, Symptom.ERROR, text, message, tuple(nodes), op)
