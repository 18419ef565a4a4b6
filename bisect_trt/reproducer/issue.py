"""`ISSUE.md`: the bug report, with the fields of the tracker's own template."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx

from bisect_trt.machine.environment import ABSENT
from bisect_trt.options import line
from bisect_trt.reproducer.command_lines import recipes
from bisect_trt.reproducer.files import LOG
from bisect_trt.reproducer.markdown import code
from bisect_trt.reproducer.picture import mermaid, picture
from bisect_trt.reproducer.script import environment, template_for
from bisect_trt.reproducer.trackers import STYLES, emulated, failure_words, style_of, title
from bisect_trt.results import Finding, Reduction
from bisect_trt.writing.text import counted

NOTE = "note.md.j2"
_LOG = 20_000  # characters; GitHub takes 65536 in all, the whole log is attached
_DRAWING = 12_000
_ALSO = 5


def render(reduction: Reduction, document: Mapping[str, Any], zip_name: str) -> str:
    """Return the Markdown text: an issue, or a note for the user's own team if the model is at fault.

    `document` is `document.report` of the same reduction.
    """
    style = style_of(reduction)
    said = (*reduction.judgement.told, *reduction.judgement.advice)
    template = NOTE if reduction.judgement.kind is Finding.SENSITIVE else f"issue-{style}.md.j2"
    words = shared_words(reduction, document)
    text = environment().get_template(template).render(
        {
            **words,
            "notes": [note for note in document["notes"] if template != NOTE or note not in said],
            "style": STYLES[style],
            "emulated": emulated(reduction),
            "also_seen": document["also_seen"][:_ALSO],
            "count": counted,
            "worst": worst(document),
            "system": platform.system(),
            "architecture": platform.machine(),
            "needs_us": template_for(reduction) == "needs_us.py.j2",
            "origins": [origin.sentence(code) for origin in reduction.origins],
            "drawing": words["mermaid"] if len(words["mermaid"]) <= _DRAWING else "",
            "runs": reference_runs(reduction),
            "reference_words": reference(reduction),
            "builder": line(*document["builder_arguments"]),
            "log": without_middle(reduction.log, _LOG),
            "zip": zip_name,
        },
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def shared_words(reduction: Reduction, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the issue and the page both say, by the names that templates have for it.

    `document` is `document.report` of the same reduction, and a part of it.
    """
    found, machine = operators(reduction.best.model), document["environment"]
    drawn = picture(reduction.best.model, reduction.wanted.nodes)
    return {
        **document,
        "title": title(reduction, found, gpu_of(reduction, machine)),
        "what": failure_words(reduction.wanted),
        "operators": found,
        "minimal": minimal(reduction),
        "verified_text": verified(reduction),
        "compared_text": compared(reduction),
        "elsewhere": elsewhere(reduction),
        "fields": fields(reduction, machine),
        "changes": changes(document),
        "recipes": recipes(reduction),
        "picture": drawn,
        "mermaid": mermaid(drawn),
    }


def minimal(reduction: Reduction) -> str:
    """Say whether the result is 1-minimal, as a sentence."""
    if reduction.one_minimal:
        return "1-minimal: without any single one of its nodes the failure is gone."
    why = f" ({reduction.stop_reason})" if reduction.stop_reason else ""
    return f"Not proved minimal{why}: a smaller model may fail as well."


def verified(reduction: Reduction) -> str:
    """Say how often the written files failed again, as a sentence."""
    if not reduction.verified and not reduction.finished:
        return "Unverified: stopped before the written files were run again."
    runs = counted(reduction.repeats, "run")
    if reduction.script_objection:
        return f"Not verified: {reduction.verified} of {runs} fail so, but {reduction.script_objection}"
    return f"Verified: {reduction.verified} of {runs} of the written files in fresh processes fail so."


def compared(reduction: Reduction) -> str:
    """Say whether outputs were compared, as a sentence."""
    if reduction.outputs_compared:
        return "Outputs were compared with the reference."
    if reduction.target.name.startswith("command:"):
        return "Outputs were not compared: the command gives none, only how it ends counts."
    return "Outputs were not compared: the target could not run here, only parse and build."


def worst(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the original model's worst tensor, with elements, as `TensorDiff.to_json`.

    None when none is known.
    """
    return next((tensor for tensor in document["accuracy"].get("tensors", ()) if tensor["worst"]), None)


def operators(model: bytes) -> str:
    """Return `Resize, 2 x Conv`, in the order of the graph; at most eight kinds."""
    named = _times(Counter(node.op_type for node in onnx.load_model_from_string(model).graph.node))
    return ", ".join(named[:8]) + (", ..." if len(named) > 8 else "")


def _times(operators: Mapping[str, int]) -> list[str]:
    return [f"{times} x {op}" if times > 1 else op for op, times in operators.items()]


def reference_runs(reduction: Reduction) -> bool:
    """Return whether the reference runs what is left: it was asked once, as `repro.py` asks it."""
    return bool(reduction.reference) and reduction.reference_error == ""


def reference(reduction: Reduction) -> str:
    """Return the reference for people; beside another provider of ONNX Runtime it is the CPU's."""
    cpu = reduction.target.name.startswith("ort:") and reduction.reference.startswith("ONNX Runtime")
    return f"the CPU provider of {reduction.reference}" if cpu else reduction.reference


def elsewhere(reduction: Reduction) -> str:
    """Return what the reference says to the reduced model."""
    if not reduction.reference or reduction.reference_error is None:
        return "not tried"
    if reference_runs(reduction) and emulated(reduction):
        return f"yes, {reference(reduction)} without the emulation"
    if reference_runs(reduction):
        return f"yes, {reference(reduction)} runs it"
    return f"no, {reference(reduction)} does not run it either"


def gpu_of(reduction: Reduction, machine: Mapping[str, str]) -> str:
    """Return the GPU as the target or the machine names it; empty when there is none."""
    gpu = reduction.target.versions.get("GPU", machine["gpu"])
    return "" if gpu == ABSENT else gpu


def fields(reduction: Reduction, machine: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what the machine was, under the names that NVIDIA's template has for it."""
    seen = reduction.target.versions
    its_own = "tensorrt" in (style_of(reduction), *reduction.target.name.split("-"))
    version = "TensorRT Version" if its_own else "Target"
    return [
        (version, reduction.target.title),
        ("NVIDIA GPU", gpu_of(reduction, machine) or ABSENT),
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


def changes(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of the table original -> reduced."""
    old, new = document["original"], document["reduced"]
    # Constants are no nodes here, as everywhere else on the page.
    rows = [("nodes", f"{document['model']['nodes']:,}", f"{new['nodes']:,}")]
    if old is None:
        return rows
    rows += [("weights", f"{old['weights']:,}", f"{new['weights']:,}")]
    rows += [("bytes of weights", f"{old['weight_bytes']:,}", f"{new['weight_bytes']:,}")]
    rows += [(name, _few(old[name]), _few(new[name])) for name in ("inputs", "outputs")]
    counts = ({op: n for op, n in side["operators"].items() if op != "Constant"} for side in (old, new))
    before, after = (_cut(", ".join(_times(count))) for count in counts)
    return [*rows, ("operators", before, after), ("opset", old["opset"], new["opset"])]


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - 4} more" if len(texts) > 4 else ""
    return _cut(", ".join(texts[:4])) + more


def _cut(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:156]} ..."


def without_middle(log: str, most: int) -> str:
    """Return a log of at most so many characters: its begin and its end."""
    if len(log) <= most:
        return log
    half = most // 2
    cut = f"... {len(log) - 2 * half} characters left out, all of it is in {LOG} ..."
    return f"{log[:half]}\n{cut}\n{log[-half:]}"
