"""From what TensorRT says to failures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.signature import mask
from bisect_trt.targets.blame import Blame

_OUT_OF_MEMORY = re.compile(
    r"out of (?:device |host |gpu )?memory|OutOfMemory|bad_alloc|MEM_ALLOC_FAILED|cannot allocate memory"
    r"|insufficient (?:memory|workspace)|could not be allocated|(?:memory|workspace) (?:is )?too small",
    re.IGNORECASE,
)
_NEEDS_GPU = re.compile(r"\bCuda Runtime \(In |\bcudaError 35\b")
# Messages that are the same for every operator: without it, two causes would have one signature.
_SAYS_ONLY_WHO = re.compile(r" has no runners|any implementation for node (?!\{?ForeignNode)")


def parse_failure(error: Any, blame: Blame) -> Failure:
    """An error of the parser."""
    desc, name, op = str(error.desc()), detail(error, "node_name", ""), detail(error, "node_operator", "")
    index, func = int(error.node()), detail(error, "func", "")
    code = getattr(error.code(), "name", str(error.code()))
    inner = bool(detail(error, "local_function_stack", ()))
    # The name is surest, but inside a function or a subgraph it is not a node of the graph.
    node = name if name and not inner and blame.has(name) else blame.node_at(index)
    return Failure(
        stage=Stage.PARSE,
        symptom=symptom(f"{code} {desc}"),
        signature=f"{code}:{op}:{func}: {mask(desc, blame.names)}",
        message=f"{desc}\n{detail(error, 'file', '')}:{detail(error, 'line', '')} {func}".rstrip(" :\n"),
        nodes=(node,) if node else (),
        op=op or blame.op(node),
    )


def failure(model: bytes, stage: Stage, message: str) -> Failure:
    """A failure that is known by a message of the log only. `model` is the candidate's."""
    blame = blame_of(model)
    nodes = blame.nodes_in(message)
    op = blame.op(nodes[0]) if nodes else ""
    signature = mask(message, blame.names)
    if op and _SAYS_ONLY_WHO.search(message):
        signature = f"{op}: {signature}"
    return Failure(stage, symptom(message), signature, message, nodes, op)


def first_that_matters(errors: Sequence[str], silent: str, *, here: bool) -> str:
    """The error that made a build fail: the first.

    Where no GPU is `here`, TensorRT also complains of the missing driver, which says nothing of the model.
    """
    about_model = errors if here else [e for e in errors if not _NEEDS_GPU.search(e)]
    if errors and not about_model:
        return f"{errors[0]}\nThis step of the builder asks for a GPU, and none is here."
    return first(about_model, silent)


def symptom(message: str) -> Symptom:
    """Lack of memory is a symptom of its own."""
    return Symptom.OUT_OF_MEMORY if _OUT_OF_MEMORY.search(message) else Symptom.ERROR


def detail(error: Any, method: str, default: Any) -> Any:
    """A detail of a parser error; TensorRT 8.6 lacks some."""
    found = getattr(error, method, None)
    return default if found is None else found()


def blame_of(model: bytes) -> Blame:
    """Of a serialised model."""
    try:
        return Blame(onnx.load_model_from_string(model))
    except DecodeError:  # what TensorRT refused is no model at all
        return Blame(onnx.ModelProto())


def first(messages: Sequence[str], default: str) -> str:
    """The first message, else the default."""
    return messages[0] if messages else default
