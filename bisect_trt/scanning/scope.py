"""Which tensors a scan looks at, and which of them can be compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.graph import Graph
from bisect_trt.references.base import Record
from bisect_trt.references.spec import SELF
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.writing.text import nearest

HIDDEN = "it does not fit into float16: the reference computes on in float32, and shows Inf to who looks"


def require_reference(settings: Settings) -> None:
    """Raise UsageError when there is nothing to compare tensors with."""
    if settings.accuracy.reference == SELF:
        raise UsageError(
            "scan compares every tensor with a reference, and --reference self is none",
            "leave it out, or use --reference target-at:fp32",
        )


def require_outputs(info: TargetInfo) -> None:
    """Raise TargetUnavailable for a target that builds only."""
    if not info.can_run:
        why = " ".join(info.notes) or "It builds only."
        raise TargetUnavailable(
            f"scan compares tensors, and {info.title} cannot run here. {why}",
            "it needs a GPU that can run the engines; without one, scan --target emulate:fp16 or "
            "--target ort:PROVIDER, and for failures of parser and builder use reduce",
        )


def chosen(graph: Graph, names: Sequence[str]) -> list[str]:
    """Return the tensors to look at, in topological order: all that somebody reads, or those of these names.

    Raises:
        UsageError: no node makes a tensor of that name.
    """
    made = [t for node in graph.order for t in graph.outputs_of(node)]
    for name in names:
        if name not in made:
            known = name in graph.graph_inputs or name in graph.constants
            what = "is an input or a weight" if known else "is no tensor of this model"
            hint = nearest(name, made, "name tensors that nodes of the model make")
            raise UsageError(f"--tensors: {name!r} {what}", hint)
    asked = set(names) or {*graph.graph_outputs, *graph.consumers}
    return [t for t in made if t in asked]


def no_value(tensor: str, graph: Graph, record: Record, random: Collection[str]) -> str:
    """Say why there is nothing to compare a tensor with; empty when there is. `random` are nodes."""
    if graph.producer[tensor] in random:
        return "it is random"
    if tensor in record.hidden:
        return HIDDEN
    if tensor not in record:
        return f"the reference has no value: {record.missing.get(tensor, 'it was not recorded')}"
    return ""
