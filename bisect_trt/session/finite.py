"""Is the reference finite, where does its first NaN or Inf come from, and would other made-up masks help?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.model.graph import Graph
from bisect_trt.model.inputs.made_up import MadeUp, Value
from bisect_trt.model.load import LoadedModel
from bisect_trt.model.store import Store
from bisect_trt.outcome import Array
from bisect_trt.references.base import Record
from bisect_trt.session.prepare import Session, prepare
from bisect_trt.session.recording import record_model
from bisect_trt.session.samples import Samples
from bisect_trt.session.twice import with_marks
from bisect_trt.settings import Settings
from bisect_trt.workers.pool import Pool


class Lost(Struct, frozen=True):
    """Elements of recorded tensors that are NaN or Inf: how many of how many, by tensor, over all samples."""

    tensors: Mapping[str, tuple[int, int]]

    @property
    def count(self) -> int:
        """Return the number of elements in all."""
        return sum(lost for lost, _ in self.tensors.values())

    def wholly(self, outputs: Iterable[str]) -> bool:
        """Return whether of these tensors none has a finite element."""
        known = [self.tensors.get(name, (0, 1)) for name in outputs]
        return bool(known) and all(lost == size for lost, size in known)


def lost_in(recorded: Record, names: Iterable[str]) -> Lost:
    """Return what is not finite of some recorded tensors."""
    found = {}
    for name in names:
        if name not in recorded:
            continue
        kind, samples = recorded.elem_type(name), range(recorded.samples)
        values = [Store.load(recorded.path(k, name), kind) for k in samples]
        lost = sum(_lost(value) for value in values)
        if lost:
            found[name] = (lost, sum(value.size for value in values))
    return Lost(found)


def _lost(value: Array) -> int:
    if value.dtype.kind in "biuOSU":
        return 0
    wide = value if value.dtype.kind in "fc" else value.astype(np.float32)
    return int(value.size - np.count_nonzero(np.isfinite(wide)))


def described(pool: Pool, session: Session, settings: Settings, lost: Lost) -> str:
    """Return what is not finite and where that begins, as a sentence.

    The reference runs once more, as a whole.
    """
    return loss_sentence(session.graph, record_model(pool, session, settings), lost)


def loss_sentence(graph: Graph, recorded: Record, lost: Lost) -> str:
    """Return what is not finite of some tensors and where that begins in what was recorded, as a sentence."""
    name, (count, size) = next(iter(lost.tensors.items()))
    more = f" (and {len(lost.tensors) - 1} more outputs)" if len(lost.tensors) > 1 else ""
    origin = first_origin(graph, recorded)
    begins = f"; it begins at {origin}" if origin else ""
    return (
        f"The reference is not finite: {count:,} of {size:,} elements of {name}{more} are NaN or Inf"
        f"{begins}. Nothing was compared there. The model may need other values: --inputs, --input-range."
    )


def first_origin(graph: Graph, recorded: Record) -> str:
    """Return the first node that gives NaN or Inf although nothing that it reads is, in words; else empty."""
    lost = lost_in(recorded, [*graph.graph_inputs, *graph.producer]).tensors
    for name in graph.order:
        made = [tensor for tensor in graph.outputs_of(name) if tensor in lost]
        if made and not any(tensor in lost for tensor in graph.inputs_of(name)):
            return f"{made[0]}, made by {name} ({graph.node(name).op_type})"
    return next((f"the input {name}" for name in graph.graph_inputs if name in lost), "")


def with_other_masks(
    pool: Pool, loaded: LoadedModel, samples: Samples, settings: Settings, folder: Path, compares: bool
) -> tuple[Session, str]:
    """Prepare the model in `folder`; made-up bool inputs are inverted where that loses fewer elements.

    Where no outputs are compared nothing is run, and nothing inverted. Custom operators that are random are
    marked as such (`twice`). Nobody can know whether True in a mask means to keep: both are tried.
    """
    if not compares:
        return prepare(loaded, samples, folder), ""
    session = with_marks(pool, prepare(loaded, samples, folder), settings)
    masks = [name for name, value in samples[0].items() if value.dtype.kind == "b"]
    if not masks or settings.run.inputs is not None:
        return session, ""
    before = _lost_outputs(pool, session, settings)
    if before is None or not before.count:
        return session, ""
    turned = [_turned(sample) for sample in samples]
    other = prepare(loaded, turned, folder)
    after = _lost_outputs(pool, other, settings)
    if after is not None and after.count < before.count:
        names = ", ".join(masks)
        note = f"The made-up values of {names} were turned round: else the reference is NaN or Inf."
        return with_marks(pool, other, settings), note
    return with_marks(pool, prepare(loaded, samples, folder), settings), ""


def _turned(sample: Mapping[str, Value]) -> dict[str, Value]:
    return {
        name: replace(value, turned=True) if isinstance(value, MadeUp) and value.dtype.kind == "b" else value
        for name, value in sample.items()
    }


def _lost_outputs(pool: Pool, session: Session, settings: Settings) -> Lost | None:
    """Return what is lost of the model's outputs; None where the reference cannot run it."""
    recorded = record_model(pool, session, settings, session.graph.graph_outputs)
    return None if recorded.error else lost_in(recorded, session.graph.graph_outputs)


def all_lost(lost: Lost, outputs: Sequence[str]) -> str:
    """Return why nothing can be said when no output that is compared has a finite number.

    Empty where one has.
    """
    return "the reference gives no finite number, so nothing was compared" if lost.wholly(outputs) else ""
