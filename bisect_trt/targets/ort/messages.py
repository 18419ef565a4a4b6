"""What ONNX Runtime's exceptions say, in one line, and the failures that they stand for."""

from __future__ import annotations

import re

import onnx

from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Stage, Symptom
from bisect_trt.targets.signature import mask
from bisect_trt.targets.tensorrt.blame import Blame

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (?P<code>[A-Z_]+) : ")
# A library's own words, without functions, files, the host's name and the GPU's number around them.
_LIBRARY = re.compile(
    r"(?P<what>\b(?:CUDA|CUBLAS|CUDNN\w*|CUFFT|HIP\w*) failure \d+: [^;]*?) ?; GPU=.*?"
    r"(?:expr=(?P<call>[^;]*))?;?\s*$",
    re.DOTALL,
)
_WHERE_ONLY = re.compile(r"Exception from \S+:\d+:?")
_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|failed to allocate|OUT_OF_MEMORY", re.IGNORECASE)


def essence(message: str) -> str:
    """An exception of ONNX Runtime in one line, without its numbering and bare source positions."""
    library = _LIBRARY.search(message)
    if library is not None:
        return f"{library['what']} ({library['call']})" if library["call"] else library["what"]
    match = _PREFIX.match(message)
    lines = [line.strip() for line in message[match.end() if match else 0 :].splitlines()]
    telling = [line for line in lines if line and not _WHERE_ONLY.fullmatch(line)]
    return " ".join([f"{match['code']}:" if match else "", *telling[:4]]).strip() or message.strip()


def failure(candidate: Candidate, stage: Stage, message: str) -> Failure:
    """The failure that an exception of ONNX Runtime stands for, with the nodes that it names."""
    blame = Blame(onnx.load_model_from_string(candidate.model))
    text = essence(message)
    nodes = blame.nodes_in(text)
    return Failure(
        stage=stage,
        symptom=Symptom.OUT_OF_MEMORY if _OUT_OF_MEMORY.search(text) else Symptom.ERROR,
        signature=mask(text, blame.names),
        message=text,
        nodes=nodes,
        op=blame.op(nodes[0]) if nodes else "",
    )
