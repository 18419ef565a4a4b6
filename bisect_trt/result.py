"""What the library hands back: progress steps, the result of a reduction and of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Outcome
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo


@dataclass(frozen=True)
class Step:
    """One event on the way; `accepted` marks the ones that made the best candidate smaller."""

    phase: str
    text: str
    nodes: int
    probes: int = 0
    cached: int = 0
    unresolved: int = 0
    target_seconds: float = 0.0
    accepted: bool = False


OnEvent = Callable[[Step], None]


@dataclass(frozen=True)
class Reduction:
    """The result of `reduce`.

    `verified` of `repeats` runs of the written files in fresh processes showed the wanted failure.
    `wanted` is the failure as the reproducer shows it; where the target words that of the whole model
    differently, `original_failure` has those words. `finished` is False when a budget or a signal
    ended the search early, see `stop_reason`.
    """

    model: Path
    out: Path
    settings: Settings
    target: TargetInfo
    reference: str
    wanted: Failure
    best: Candidate
    original_nodes: int
    original_failure: Failure | None = None
    also_seen: tuple[Failure, ...] = ()
    one_minimal: bool = False
    verified: int = 0
    repeats: int = 0
    finished: bool = True
    stop_reason: str = ""
    counts: Mapping[str, int | float] = field(default_factory=dict)
    phases: tuple[Mapping[str, Any], ...] = ()
    log: str = ""
    outputs_compared: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """The result of `check`: one probe of the whole model."""

    model: Path
    settings: Settings
    target: TargetInfo
    reference: str
    outcome: Outcome
    nodes: int
    seconds: float
    outputs_compared: bool
    notes: tuple[str, ...] = ()
