"""What a probe can answer: failures as values, and verdicts on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """Where on its way a candidate failed."""

    PARSE = "parse"
    BUILD = "build"
    LOAD = "load"
    RUN = "run"
    COMPARE = "compare"


class Symptom(StrEnum):
    """How a failure shows."""

    ERROR = "error"
    CRASH = "crash"
    HANG = "hang"
    OUT_OF_MEMORY = "out of memory"
    NOT_FINITE = "not finite"
    MISMATCH = "mismatch"


class Verdict(StrEnum):
    """What a probe says about the wanted failure."""

    REPRODUCES = "reproduces"
    VANISHES = "vanishes"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class Failure:
    """One failure of a target.

    Two failures are the same when stage, symptom and signature are equal. `signature` is the first
    message with names, numbers and addresses masked (`signature.mask`); `nodes` are the names of
    the candidate's nodes that the target itself blamed, best guess first.
    """

    stage: Stage
    symptom: Symptom
    signature: str
    message: str
    nodes: tuple[str, ...] = ()
    op: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity: what has to be equal for two failures to be the same."""
        return (self.stage.value, self.symptom.value, self.signature)

    def same_as(self, other: Failure) -> bool:
        """Whether both are the same failure, in possibly different models."""
        return self.key == other.key

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data, for the journal and the report."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        """Inverse of `to_json`."""
        return cls(
            stage=Stage(data["stage"]),
            symptom=Symptom(data["symptom"]),
            signature=data["signature"],
            message=data["message"],
            nodes=tuple(data["nodes"]),
            op=data.get("op", ""),
        )


@dataclass(frozen=True)
class Outcome:
    """What one probe saw: no failures means that the candidate is fine on this target.

    A target may report several failures at once (the parser lists every node that it refuses);
    they are in the target's own order. `seconds` is the time spent inside the target and the
    reference. `facts` are small measured things (metrics per tensor, engine size, ...), `log` is
    the target's log of warnings and errors, trimmed.
    """

    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    unresolved: str = ""  # why nothing can be said, if so (the reference failed, say)
    log: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; the log is left out."""
        return {
            "failures": [f.to_json() for f in self.failures],
            "seconds": round(self.seconds, 6),
            "unresolved": self.unresolved,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Inverse of `to_json`."""
        return cls(
            failures=tuple(Failure.from_json(f) for f in data["failures"]),
            seconds=data["seconds"],
            unresolved=data.get("unresolved", ""),
            facts=data.get("facts", {}),
        )


def judge(outcome: Outcome, wanted: Failure) -> Verdict:
    """Whether `outcome` shows the wanted failure.

    Any other failure is UNRESOLVED: it may hide the wanted one, and must never replace it.
    """
    if any(f.same_as(wanted) for f in outcome.failures):
        return Verdict.REPRODUCES
    if outcome.failures or outcome.unresolved:
        return Verdict.UNRESOLVED
    return Verdict.VANISHES
