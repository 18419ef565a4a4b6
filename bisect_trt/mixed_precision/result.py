"""What a search for a mixed precision hands back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.writing.text import Summary, counted, some_names

MIXED_STATUS, ALL_LOW, BROKEN = "mixed", "all low", "broken"
"""Some nodes have to stay; none has; FP32 itself does not pass, and nothing was written."""

LOST = "outputs are lost (NaN or Inf, other integers or another shape)"
"""What is said where no tolerance is large enough."""


LUCK = (
    "A set was seen to fail that has all nodes of one that passes: rounding is so near the tolerance here "
    "that what passes on these inputs may fail on others. Give several samples, or a tighter tolerance."
)


class Kept(Struct, frozen=True):
    """A node that stays in FP32.

    Attributes:
        name: as the user's model has it; a nameless one has the name of its first output.
        op: operator.
        why: what goes wrong in the low precision, as far as that is known, or what else keeps it.
        error: how far off the outputs are when it alone is lowered, in tolerances; infinite where they are
            `LOST`.
    """

    name: str
    op: str
    why: str
    error: float


class Precision(Summary, Struct, frozen=True):
    """The result of `precision`.

    Attributes:
        kept: nodes that must stay in FP32, in the order of the model.
        status: one of the three above.
        to: the low precision.
        cost: what was made small, `nodes`, `bytes` or `time`.
        nodes: float nodes of the model about which there is a choice.
        stays: float nodes that have no low form, and why; they are not counted.
        activations: bytes of FP32 tensors that `kept` nodes give, and that `all` float nodes would.
        errors: of `low`, `fp32` and `mixed`: by output, RMS error over RMS.
        tolerances: how far off these are, in tolerances.
        run_seconds: of `low`, `fp32` and `mixed`, where a card measured it: what one run takes.
        evaluations: `first` (until the first 1-minimal set), `all`, `explicit` (by the written form).
        one_minimal: each kept node alone was lowered, and that failed.
        smallest: why nothing smaller exists, in words; empty where that is not known.
        curve: number of kept nodes and error, in tolerances, of what was tried.
        raised: the model was in FP16 itself, and was raised to FP32 first.
        verified: runs of the written file in fresh processes that passed, of `repeats`.
        finished: False when a budget or a signal ended the search.
    """

    model: Path
    out: Path
    settings: Settings
    target: TargetInfo
    reference: str
    to: str
    status: str
    nodes: int
    cost: str = "nodes"
    kept: tuple[Kept, ...] = ()
    stays: Mapping[str, str] = field(default_factory=dict)
    activations: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    run_seconds: Mapping[str, float] = field(default_factory=dict)
    evaluations: Mapping[str, int] = field(default_factory=dict)
    one_minimal: bool = False
    smallest: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    casts: int = 0
    raised: bool = False
    verified: int = 0
    repeats: int = 0
    finished: bool = True
    stop_reason: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def all_low(self) -> str:
        """That nothing has to stay in FP32, in words, but what the user asked to keep."""
        return f"all {'else' if self.kept else 'of it'} may be {self.to.upper()}"

    def lines(self) -> list[tuple[str, str]]:
        """Give the set, what it is of, how sure it is, and where the files are."""
        count = counted(len(self.kept), "node")
        instead = {ALL_LOW: self.all_low, BROKEN: "wrong in FP32 already"}
        of = f"{count} in FP32, of {self.nodes:,} float nodes"
        lines = [
            ("Keep", instead.get(self.status, of)),
            ("Model", str(self.model)),
            ("Nodes", some_names([item.name for item in self.kept]) or "none"),
        ]
        if self.status == BROKEN:
            return lines
        minimal = "1-minimal, " if self.one_minimal and self.kept else ""
        proof = f"{minimal}{self.verified} of {self.repeats} fresh runs of the written file pass"
        return [*lines, ("Believe it", proof), ("Folder", str(self.out))]
