"""What a search for a mixed precision hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo

MIXED_STATUS, ALL_LOW, BROKEN = "mixed", "all low", "broken"
"""Some nodes have to stay; none has; FP32 itself does not pass, and nothing was written."""


@dataclass(frozen=True)
class Kept:
    """A node that stays in FP32.

    Attributes:
        name: as the user's model has it; a nameless one has the name of its first output.
        op: operator.
        why: what goes wrong in the low precision, as far as ranges tell.
        error: how far off the outputs are when it alone is lowered, in tolerances; infinite where they are
            not finite.
    """

    name: str
    op: str
    why: str
    error: float


@dataclass(frozen=True)
class Precision:
    """The result of `precision`.

    Attributes:
        kept: nodes that must stay in FP32, in the order of the model.
        status: one of the three above.
        to: the low precision.
        nodes: float nodes of the model about which there is a choice.
        stays: float nodes that have no low form, and why; they are not counted.
        errors: of `low`, `fp32` and `mixed`: by output, RMS error over RMS.
        tolerances: how far off these are, in tolerances.
        evaluations: `first` (until the first 1-minimal set), `all`, `explicit` (by the written form).
        one_minimal: each kept node alone was lowered, and that failed.
        smallest: why nothing smaller exists, in words; empty where that is not known.
        curve: number of kept nodes and error, in tolerances, of what was tried.
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
    kept: tuple[Kept, ...] = ()
    stays: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    evaluations: Mapping[str, int] = field(default_factory=dict)
    one_minimal: bool = False
    smallest: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    casts: int = 0
    verified: int = 0
    repeats: int = 0
    finished: bool = True
    stop_reason: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
