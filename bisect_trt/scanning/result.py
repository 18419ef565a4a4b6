"""What a scan found: each tensor's own error, its effect on the model's outputs, its error in context."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.outcome import Failure, Symptom
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.writing.text import Summary, counted

FUSED = 10.0
"""How many times its own error and that of what it is made from a tensor's error in context has to be for
fusion to be the suspect."""
LITTLE = 1e-6  # an error in context that is never worth a word


def error_of(diff: TensorDiff) -> float:
    """Return one figure for a tensor: RMS error over RMS of the reference, infinite where none can be had.

    That is where finite values were lost, or shape or kind of type differ. Of integers, bools, and tensors
    that should be all zeros it is the part of the elements that differ.
    """
    if diff.symptom is Symptom.NOT_FINITE or (not diff.ok and diff.mismatches == 0):
        return math.inf
    if 0 < diff.rms_error < math.inf:
        return diff.rms_error
    return diff.mismatches / max(1, diff.elements)


class Scanned(Struct, frozen=True):
    """One row of the table: a tensor.

    Attributes:
        tensor: its name.
        node: that makes it.
        op: operator of the node.
        position: of the node in topological order, from 0.
        depth: nodes on the longest path to it from an input.
        own: what the target made of recorded inputs against the recorded value, in the worst sample; None
            when it was not measured, see `failure` and `why`.
        above_noise: whether `own` is more than rounding of the tensor's own type explains.
        effect: the model's outputs when only this tensor comes from the target; None: not run. Empty: it
            reaches no output that is compared.
        context: the tensor inside the whole engine; None when the target does not show it.
        failure: of the target, when it does not take the node.
        suspects: nodes among which the one with the failure is; 1: it is this one.
        why: why there is no own error, or no effect.
    """

    tensor: str
    node: str
    op: str
    position: int
    depth: int
    own: TensorDiff | None = None
    above_noise: bool = False
    effect: tuple[TensorDiff, ...] | None = None
    context: TensorDiff | None = None
    failure: Failure | None = None
    suspects: int = 1
    why: str = ""

    @property
    def own_error(self) -> float | None:
        """See `error_of`; None when it was not measured."""
        return None if self.own is None else error_of(self.own)

    @property
    def effect_error(self) -> float | None:
        """The largest error of an output; None when it was not run."""
        return None if self.effect is None else max(map(error_of, self.effect), default=0.0)

    @property
    def context_error(self) -> float | None:
        """See `error_of`; None when the target does not show the tensor."""
        return None if self.context is None else error_of(self.context)

    @property
    def guilty(self) -> bool:
        """Whether this tensor alone makes an output of the model disagree."""
        return any(not diff.ok for diff in self.effect or ())

    @property
    def lost(self) -> bool:
        """Whether NaN or Inf is born here: from finite values that were recorded."""
        return self.own is not None and self.own.symptom is Symptom.NOT_FINITE


class Histogram(Struct, frozen=True):
    """Values of a tensor on both sides, and how far apart they are.

    Attributes:
        tensor: its name.
        edges: of the bins of values, one more than bins.
        reference, target: finite values in each bin.
        error_powers: of ten; the first is that of |target - reference| in the first bin of `errors`.
        errors: elements whose distance is between that power of ten and the next.
        equal: elements that are bit by bit the same.
        lost: elements that are finite in the reference only.
    """

    tensor: str
    edges: tuple[float, ...] = ()
    reference: tuple[int, ...] = ()
    target: tuple[int, ...] = ()
    error_powers: tuple[int, ...] = ()
    errors: tuple[int, ...] = ()
    equal: int = 0
    lost: int = 0


class Scan(Summary, Struct, frozen=True):
    """The result of `scan`.

    Attributes:
        model: the user's file.
        out: folder with `scan.json` and `scan.html`.
        settings: with the target resolved.
        target: what it is here.
        reference: for people.
        tensors: in topological order.
        sources: tensors that each node reads, by node; weights left out.
        nodes: of the whole model, after normalisation.
        outputs: of the whole model on the target against the reference, the worst first.
        whole: why the whole model gave no outputs there; empty when it did.
        context_why: why there is no view in context; empty when there is one.
        unmapped: tensors of the engine in context that are none of the model.
        builds: that the target was asked for, the whole model's included.
        effects_left: tensors above noise whose effect was not run.
        histogram: of the worst tensor.
        seconds: by phase.
        notes: plain sentences.
        blame: that the export differs from the framework, if it does; all figures are against ONNX Runtime.
        unsure: why nothing can be said of the outputs: they agree and that says nothing, or there is nothing
            to compare them with; empty where something can be said.
    """

    model: Path
    out: Path
    settings: Settings
    target: TargetInfo
    reference: str
    tensors: tuple[Scanned, ...]
    sources: Mapping[str, tuple[str, ...]]
    nodes: int
    outputs: tuple[TensorDiff, ...] = ()
    whole: str = ""
    context_why: str = ""
    unmapped: tuple[str, ...] = ()
    builds: int = 0
    effects_left: int = 0
    histogram: Histogram | None = None
    seconds: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()
    blame: str = ""
    unsure: str = ""

    def lines(self) -> list[tuple[str, str]]:
        """Return where the error comes from first, and where all of it lies."""
        worst = [row.tensor for row in self.ranked[:3]]
        differ = [diff.name for diff in self.outputs if not diff.ok]
        return [
            ("Scan", f"{self.model}: {counted(len(self.tensors), 'tensor')} on {self.target.title}"),
            ("Outputs", f"differ: {', '.join(differ)}" if differ else self.whole or self.unsure or "agree"),
            ("Worst", ", ".join(worst) or "nothing was measured"),
            ("Builds", str(self.builds)),
            ("Page", str(self.out / "scan.html")),
        ]

    @property
    def ranked(self) -> list[Scanned]:
        """Return the rows by effect on the outputs, then by own error; what was not measured comes last."""
        return sorted(self.tensors, key=_rank)

    @property
    def first_lost(self) -> Scanned | None:
        """Find where NaN or Inf is born first, in topological order."""
        return next((t for t in self.tensors if t.lost), None)

    @property
    def guilty(self) -> list[Scanned]:
        """Tensors that by themselves make the outputs disagree, the worst first."""
        return [t for t in self.ranked if t.guilty]

    @property
    def failing(self) -> list[Scanned]:
        """Tensors whose node the target does not take."""
        return [t for t in self.tensors if t.failure is not None]

    @property
    def agrees(self) -> bool | None:
        """Whether the whole model agrees at its outputs; None when it is not known."""
        return None if self.unsure or not self.outputs else all(diff.ok for diff in self.outputs)

    @property
    def accumulates(self) -> bool:
        """Whether the outputs disagree although no tensor alone does that, and effects are enough for it."""
        if self.agrees is not False or self.guilty:
            return False
        whole = max(error_of(diff) for diff in self.outputs if not diff.ok)
        return self.effects_left > 0 or self.all_effects >= whole / 2

    @property
    def all_effects(self) -> float:
        """The sum of the effects: what they can do together, as far as errors add up."""
        return sum(item.effect_error or 0.0 for item in self.tensors)

    @property
    def only_in_context(self) -> list[Scanned]:
        """Tensors much worse inside the whole engine than by themselves and than what they are made of."""
        seen = {t.tensor: t.context_error for t in self.tensors}
        found = []
        for item in self.tensors:
            here, own = item.context_error, item.own_error
            before = [seen.get(name) or 0.0 for name in self.sources.get(item.node, ())]
            if here is not None and own is not None and here > FUSED * max(own, *before, LITTLE):
                found.append(item)
        return found


def _rank(item: Scanned) -> tuple[bool, float, float, int]:
    effect, own = (-1.0 if error is None else error for error in (item.effect_error, item.own_error))
    return item.own is None, -effect, -own, item.position
