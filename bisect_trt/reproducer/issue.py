"""`ISSUE.md`: the bug report, with the fields of NVIDIA/TensorRT's own template."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx

from bisect_trt.commandline import line
from bisect_trt.environment import ABSENT
from bisect_trt.reproducer.script import MODULES, environment
from bisect_trt.result import Reduction

_LOG = 20_000  # characters; GitHub takes 65536 in all, the whole log is attached
_ALSO = 5


def render(reduction: Reduction, document: Mapping[str, Any], zip_name: str) -> str:
    """The Markdown text; `document` is `documents.report` of the same reduction."""
    compared = reduction.outputs_compared
    templates = environment()
    templates.filters.update(fence=fence, code=code, line=flatten, cell=cell, bytes=size_text, prose=prose)
    template = templates.get_template("issue.md.j2")
    return template.render(
        {
            **document,
            "also_seen": document["also_seen"][:_ALSO],
            "count": count,
            "size": len(reduction.best.nodes),
            "operators": operators(reduction.best.model),
            "minimal": minimal(reduction),
            "verified": verified(reduction),
            "compared": "Outputs were compared with the reference."
            if compared
            else "Outputs were not compared: the target could not run here, only parse and build.",
            "fields": _fields(reduction, document["environment"]),
            "module": reduction.target.name.replace("-", "_"),
            "planted": reduction.target.name not in MODULES,
            "runs": reference_runs(reduction),
            "builder": line(*document["builder_arguments"]),
            "elsewhere": _elsewhere(reduction),
            "log": _trim(reduction.log),
            "zip": zip_name,
        }
    )


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`, `12,345 nodes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(size: int) -> str:
    """`812 bytes`, `1.2 kB`, `38.1 MB`."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"


def minimal(reduction: Reduction) -> str:
    """Whether the result is 1-minimal, as a sentence."""
    if reduction.one_minimal:
        return "1-minimal: without any single one of its nodes the failure is gone."
    why = f" ({reduction.stop_reason})" if reduction.stop_reason else ""
    return f"Not proved minimal{why}: a smaller model may fail as well."


def verified(reduction: Reduction) -> str:
    """How often the written files failed again, as a sentence."""
    if not reduction.verified and not reduction.finished:
        return "Unverified: stopped before the written files were run again."
    runs = count(reduction.repeats, "run")
    return f"Verified: {reduction.verified} of {runs} of the written files in fresh processes fail so."


def operators(model: bytes) -> str:
    """`Resize, 2 x Conv`, in the order of the graph; at most eight kinds."""
    found = Counter(node.op_type for node in onnx.load_model_from_string(model).graph.node)
    named = [f"{times} x {op}" if times > 1 else op for op, times in found.items()]
    return ", ".join(named[:8]) + (", ..." if len(named) > 8 else "")


def reference_runs(reduction: Reduction) -> bool:
    """Whether the reference has a value for every output of what is left."""
    outputs = {value.name for value in onnx.load_model_from_string(reduction.best.model).graph.output}
    expected = reduction.best.expected
    return bool(reduction.reference and expected) and all(outputs <= sample.keys() for sample in expected)


def _elsewhere(reduction: Reduction) -> str:
    if not reduction.reference:
        return "not tried"
    if reference_runs(reduction):
        return f"yes, {reduction.reference} runs it"
    return f"no, {reduction.reference} does not run it either"


def _fields(reduction: Reduction, machine: Mapping[str, str]) -> list[tuple[str, str]]:
    seen = reduction.target.versions
    return [
        ("TensorRT Version", reduction.target.title),
        ("NVIDIA GPU", seen.get("GPU", machine["gpu"])),
        ("NVIDIA Driver Version", seen.get("driver", machine["driver"])),
        ("CUDA Version", seen.get("CUDA", machine["cuda"])),
        ("CUDNN Version", machine["cudnn"]),
        ("Operating System", machine["system"]),
        ("Python Version", machine["python"]),
        ("Tensorflow Version", machine["tensorflow"]),
        ("PyTorch Version", machine["pytorch"]),
        ("Baremetal or Container", machine["container"]),
        ("ONNX Runtime Version", reduction.reference or ABSENT),
    ]


def _trim(log: str) -> str:
    if len(log) <= _LOG:
        return log
    half = _LOG // 2
    cut = f"... {len(log) - 2 * half} characters left out, all of it is in target.log ..."
    return f"{log[:half]}\n{cut}\n{log[-half:]}"


def fence(text: str) -> str:
    """A block of code that no line of the text can end."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    body = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.strip("\n"))
    return f"{ticks}\n{body or '(empty)'}\n{ticks}"


def code(text: str) -> str:
    """Code inside a line, whatever the text holds."""
    flat = flatten(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", flat)), default=0))
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{ticks}{pad}{flat}{pad}{ticks}"


def flatten(text: str) -> str:
    """One line of at most 300 printable characters."""
    flat = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return flat if len(flat) <= 300 else f"{flat[:296]} ..."


def prose(text: str) -> str:
    """One line outside of code: no HTML."""
    return flatten(text).replace("<", "&lt;")


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return prose(text).replace("|", "\\|")
