"""What TensorRT says: collected, trimmed for the report, and copied to the user's verbose log.

From what TensorRT says to failures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bisect_trt.errors import UsageError
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.targets.base import to_worker_log
from bisect_trt.targets.signature import bounded, mask
from bisect_trt.targets.tensorrt.blame import Blame

_HEAD, _TAIL = 24 * 1024, 40 * 1024  # characters kept of a probe's log: 64 KB in all
_ERRORS = ("INTERNAL_ERROR", "ERROR")
_KEPT = (*_ERRORS, "WARNING")


class LogEntry(NamedTuple):
    """One message, as TensorRT gave it; `severity` is the name of an `ILogger.Severity`."""

    severity: str
    message: str


class Log:
    """The messages of one probe at a time, warnings and worse; everything goes to `verbose`."""

    def __init__(self) -> None:
        self.records: list[LogEntry] = []
        self._verbose: TextIO | None = None

    def write_all_to(self, file: Path | None) -> None:
        """Append every message of any severity to `file` from now on.

        Raises:
            UsageError: the file cannot be written.
        """
        if self._verbose is not None:
            self._verbose.close()
        self._verbose = None
        if file is None:
            return
        try:
            # Line buffered and appending: several workers may share one file.
            self._verbose = file.open("a", buffering=1, encoding="utf-8")
        except OSError as e:
            raise UsageError(
                f"--verbose-log {file}: {e.strerror}", "Name a file in a writable folder."
            ) from e

    def clear(self) -> None:
        """Forget the messages of the last probe."""
        self.records = []

    def add(self, severity: str, message: str) -> None:
        """Take one message; called by TensorRT, from any of its threads, so it must never raise."""
        if severity in _KEPT:
            self.records.append(LogEntry(severity, message))
            to_worker_log(f"[{severity}] {message}")  # all that is left should this process die
        if self._verbose is not None:
            try:
                self._verbose.write(f"[{severity}] {message}\n")
            except OSError:  # disk full: the probe is worth more than its log
                self._verbose = None

    def errors(self, since: int = 0) -> list[str]:
        """Return the messages of error severity from record number `since` on."""
        return [r.message for r in self.records[since:] if r.severity in _ERRORS and r.message.strip()]

    def text(self) -> str:
        """Return warnings and errors, one a line; the middle of a very long log is left out."""
        return trim(f"[{r.severity}] {r.message}" for r in self.records)


def trim(lines: Iterable[str]) -> str:
    """Return lines joined, at most 64 KB: the head says what went wrong first, the tail how it ended."""
    text = "\n".join(lines)
    if len(text) > _HEAD + _TAIL:  # no line is so long that head or tail would hold none
        most = _HEAD // 2
        text = "\n".join(one if len(one) <= most else f"{one[:most]} ..." for one in text.split("\n"))
    if len(text) <= _HEAD + _TAIL:
        return text
    head, tail = text[:_HEAD].rpartition("\n")[0], text[-_TAIL:].partition("\n")[2]
    left_out = text.count("\n") - head.count("\n") - tail.count("\n") - 1
    return f"{head}\n... {left_out} messages left out ...\n{tail}"


_loggers: dict[str, tuple[Any, Log]] = {}


def logger_for(trt: Any) -> tuple[Any, Log]:
    """Return TensorRT's logger and where its messages arrive: one a process and TensorRT module.

    TensorRT's plugin registry keeps a pointer to the first logger that it was given: a second one,
    with the first collected, ends in a segmentation fault (seen with RoiAlign in TensorRT-RTX 1.7.1).
    """
    if trt.__name__ not in _loggers:
        log = Log()
        names: dict[Any, str] = {}  # to ask a severity for it takes long; 10,000 nodes make 50,000 messages

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                log.add(names.get(severity) or names.setdefault(severity, severity.name), msg)

        _loggers[trt.__name__] = (Logger(), log)
    return _loggers[trt.__name__]


_OUT_OF_MEMORY = re.compile(
    r"out of (?:device |host |gpu )?memory|CUDA Error: 2\b"
    r"|OutOfMemory|bad_alloc|MEM_ALLOC_FAILED|cannot allocate memory"
    r"|insufficient (?:memory|workspace)|could not be allocated|(?:memory|workspace) (?:is )?too small",
    re.IGNORECASE,
)
_NEEDS_GPU = re.compile(r"\bCuda Runtime \(In |\bcudaError 35\b")
_NO_DRIVER = re.compile(r"\bcudaError 35\b|driver version is insufficient|no CUDA-capable device")
_ASKS = "This step of the builder asks for a GPU, and none is here."
_CREATOR = re.compile(r"Cuda Error in (\w+): (?:35|100)\b")  # no driver, no device
# Messages that are the same for every operator: without it, two causes would have one signature.
_SAYS_ONLY_WHO = re.compile(r" has no runners|any implementation for node (?!\{?ForeignNode)")


def parse_failure(error: Any, blame: Blame, title: str) -> Failure:
    """Return an error of the parser of `title`, such as TensorRT-RTX."""
    desc, name, op = str(error.desc()), detail(error, "node_name", ""), detail(error, "node_operator", "")
    # The driver that is missing says nothing of the model, and no maintainer should be told of it.
    desc = "\n".join(line for line in desc.split("\n") if not _NO_DRIVER.search(line)) or desc
    index, func = int(error.node()), detail(error, "func", "")
    code = _name_of(error.code())
    place = f"{detail(error, 'file', '')}:{detail(error, 'line', '')}"
    inner = bool(detail(error, "local_function_stack", ()))
    # "false" is an assertion that nothing can satisfy: the operator is known, and not there.
    said = f"{title} has no {op} ({func})" if desc.strip() == "false" else desc
    # The name is surest, but inside a function or a subgraph it is not a node of the graph.
    node = name if name and not inner and blame.has(name) else blame.node_at(index)
    return Failure(
        stage=Stage.PARSE,
        symptom=symptom(f"{code} {desc}"),
        signature=f"{code}:{op}:{func}: {mask(desc, blame.names)}",
        message=f"{bounded(said)}\n{place} {func}".rstrip(" :\n"),
        nodes=(node,) if node else (),
        op=op or blame.op(node),
    )


def _name_of(code: Any) -> str:
    """Return `UNSUPPORTED_NODE`; the codes of 8.6 have a method of that name, which gives something else."""
    name = getattr(code, "name", None)
    return name if isinstance(name, str) else str(code).rpartition(".")[2]


def failure(model: bytes, stage: Stage, message: str) -> Failure:
    """Return a failure that is known by a message of the log only. `model` is the candidate's."""
    blame = blame_of(model)
    nodes = blame.nodes_in(message)
    op = blame.op(nodes[0]) if nodes else ""
    signature = mask(message, blame.names)
    if op and _SAYS_ONLY_WHO.search(message):
        signature = f"{op}: {signature}"
    return Failure(stage, symptom(message), signature, bounded(message), nodes, op)


def first_that_matters(errors: Sequence[str], silent: str, *, here: bool) -> str:
    """Return the error that made a build fail: the first.

    Where no GPU is `here`, TensorRT also complains of the missing driver, which says nothing of the model.
    """
    about_model = errors if here else [e for e in errors if not _NEEDS_GPU.search(e)]
    if errors and not about_model:
        return f"{errors[0]}\n{_ASKS}"
    return first(about_model, silent)


def asks_for_gpu(failed: Failure, errors: Sequence[str]) -> bool:
    """Return whether a failure on a machine without a GPU says only that none is here.

    A plugin whose creator cannot start without a driver says so in the log, and counts as not found then
    (RoiAlign, with TensorRT-RTX 1.7.1).
    """
    if _ASKS in failed.message:
        return True
    said = failed.message.lower()
    creators = (found for error in errors for found in _CREATOR.findall(error))
    return "plugin" in said and any(re.sub(r"V\d+$", "", name).lower() in said for name in creators)


def symptom(message: str) -> Symptom:
    """Return the symptom of a message: lack of memory is one of its own."""
    return Symptom.OUT_OF_MEMORY if _OUT_OF_MEMORY.search(message) else Symptom.ERROR


def detail(error: Any, method: str, default: Any) -> Any:
    """Return a detail of a parser error; TensorRT 8.6 lacks some."""
    found = getattr(error, method, None)
    return default if found is None else found()


def blame_of(model: bytes) -> Blame:
    """Blame nodes of a serialised model."""
    try:
        return Blame(onnx.load_model_from_string(model))
    except DecodeError:  # what TensorRT refused is no model at all
        return Blame(onnx.ModelProto())


def first(messages: Sequence[str], default: str) -> str:
    """Return the first message, else the default."""
    return messages[0] if messages else default
