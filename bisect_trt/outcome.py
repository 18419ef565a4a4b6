"""What a probe works on and can answer: values of tensors, failures as values, and verdicts on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Self

import numpy.typing as npt
from msgspec import Struct, field
from msgspec.structs import asdict

Array = npt.NDArray[Any]
"""The values of a tensor."""
Values = Sequence[Mapping[str, Array]]
"""Values of tensors by name, one mapping for each sample."""


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


class Ended(StrEnum):
    """How a search came to its end."""

    DONE = "done"
    INTERRUPTED = "interrupted"  # by a person, or a signal
    OUT_OF_BUDGET = "out of budget"  # of the whole run
    CLUSTER_LOST = "cluster lost"
    SPENT = "spent"  # a simplification's own budget
    ROUNDS = "rounds"  # a simplification that never comes to rest
    NOT_EDITABLE = "not editable"  # the failure vanishes as soon as the model is written anew


class End(Struct, frozen=True):
    """How a search ended, and why it ended early in words; these are empty when it was done."""

    how: Ended = Ended.DONE
    why: str = ""

    @property
    def is_early(self) -> bool:
        """Whether the run was stopped from outside: then the same command can go on from here."""
        return self.how in (Ended.INTERRUPTED, Ended.OUT_OF_BUDGET, Ended.CLUSTER_LOST)


DONE = End()

BY_PARSER = re.compile(r"(?P<code>\w+):(?P<op>\w*):(?P<function>[^\s:]*): (?P<said>.*)", re.DOTALL)
"""The signature of what a parser refuses: error code, operator and the parser's own function come first."""

_TELLING = 12  # letters of a message that is not only "false"


class Failure(Struct, frozen=True):
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

    @property
    def is_mismatch(self) -> bool:
        """Whether outputs differ and are finite: that may be a fault, or rounding."""
        return self.stage is Stage.COMPARE and self.symptom is Symptom.MISMATCH

    def same_as(self, other: Failure) -> bool:
        """Return whether both are the same failure, in possibly different models."""
        return self.key == other.key

    def told_like(self, other: Failure) -> bool:
        """Return whether both are the same failure, whatever the parser's own function is called.

        That name differs between releases of TensorRT, and so do blanks. A message of a few letters says
        nothing without it.
        """
        return self.key == other.key or (self._told != "" and self._told == other._told)

    @property
    def _told(self) -> str:
        found = BY_PARSER.match(self.signature) if self.stage is Stage.PARSE else None
        said = "".join(found["said"].split()) if found else ""
        if found is None or len(said) < _TELLING:
            return ""
        return f"{self.symptom}:{found['code']}:{found['op']}:{said}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data, for the journal and the report."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        """Make it from what `to_json` gave."""
        stage, symptom, nodes = Stage(data["stage"]), Symptom(data["symptom"]), tuple(data["nodes"])
        return cls(stage, symptom, data["signature"], data["message"], nodes, data.get("op", ""))


class _Facts:
    """What is known of a probe, by name."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Make it from what `to_json` gave."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


class Measured(_Facts, Struct, frozen=True):
    """What comparing the outputs of one probe gave.

    Attributes:
        compared: number of tensors that were compared; 0 when none was.
        tensors: metrics of the tensors that agree least, the worst first, as `TensorDiff.to_json` has them.
        errors: by tensor the RMS of the difference over the RMS of the reference.
        damage: by tensor that disagrees, see `TensorDiff.damage`.
        failing_samples: runs of the model that disagree, from 0.
        own: metrics of a part's own outputs, where those of the whole model are what is compared, at the
            tolerance of each output of the model by its name; "" is the tolerance of all others.
        rounding: what rounding explains of a mismatch, see `workers.rounding.explain`.
        origin: how NaN or Inf may arise, see `references.inner_values.hazards`.
    """

    compared: int = 0
    tensors: tuple[Mapping[str, Any], ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    damage: Mapping[str, float] = field(default_factory=dict)
    failing_samples: tuple[int, ...] = ()
    own: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    rounding: Mapping[str, Any] = field(default_factory=dict)
    origin: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; empty when nothing was compared."""
        known = {k: v for k, v in asdict(self).items() if v or k not in ("own", "rounding", "origin")}
        found = {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}
        return found if self.compared or self.own else {}


class Built(_Facts, Struct, frozen=True):
    """What a target reports about the network or engine of a candidate; empty where it does not.

    Attributes:
        network_types: number of layers of the parsed network by the type of what they make.
        cast: what `--precision` cast in the graph, see `model.precision`.
        builder_seconds: that the worker took to become warm, in its first probe only.
        engine_bytes: size of the engine.
        engine: its layers with types and tactics, see `targets.tensorrt.engine`.
        local_function_stack: where in local functions the nodes that the parser refused stand, by failure.
        rounded: number of tensors that an emulation rounds.
        not_rounded: what it could not round.
        not_taken: number of nodes by operator that an execution provider left to others.
        without_gpu: names of nodes of which nothing can be said as no GPU is here.
        run_seconds: median of some runs of the engine, where a mixed precision is on trial.
        fp32_layers: layers that were constrained to FP32, where networks are weakly typed.
        said: what a reproducer's script said last, where that is what was run.
        output: all that it printed.
    """

    network_types: Mapping[str, int] = field(default_factory=dict)
    cast: Mapping[str, Any] = field(default_factory=dict)
    builder_seconds: float = 0.0
    engine_bytes: int = 0
    engine: Mapping[str, Any] = field(default_factory=dict)
    local_function_stack: Mapping[str, Any] = field(default_factory=dict)
    rounded: int = 0
    not_rounded: tuple[str, ...] = ()
    not_taken: Mapping[str, int] = field(default_factory=dict)
    without_gpu: tuple[str, ...] = ()
    run_seconds: float = 0.0
    fp32_layers: tuple[str, ...] = ()
    said: str = ""
    output: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data of what is known."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v}


class Outcome(Struct, frozen=True):
    """What one probe saw: no failures means that the candidate is fine on this target.

    A target may report several failures at once (the parser lists every node that it refuses);
    they are in the target's own order. `seconds` is the time spent inside the target and the
    reference, `log` the target's log of warnings and errors, trimmed.
    """

    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    unresolved: str = ""  # why nothing can be said, if so (the reference failed, say)
    log: str = ""
    measured: Measured = field(default_factory=Measured)
    built: Built = field(default_factory=Built)

    @property
    def facts(self) -> dict[str, Any]:
        """All that was measured and reported, as plain JSON data for a report."""
        return {**self.built.to_json(), **self.measured.to_json()}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data; the log is left out."""
        return {
            "failures": [f.to_json() for f in self.failures],
            "seconds": round(self.seconds, 6),
            "unresolved": self.unresolved,
            "measured": self.measured.to_json(),
            "built": self.built.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Make it from what `to_json` gave."""
        return cls(
            failures=tuple(Failure.from_json(f) for f in data["failures"]),
            seconds=data["seconds"],
            unresolved=data.get("unresolved", ""),
            measured=Measured.from_json(data.get("measured", {})),
            built=Built.from_json(data.get("built", {})),
        )


def judge(outcome: Outcome, wanted: Failure) -> Verdict:
    """Return the verdict of an outcome on the wanted failure.

    Any other failure is UNRESOLVED: it may hide the wanted one, and must never replace it.
    """
    if any(f.same_as(wanted) for f in outcome.failures):
        return Verdict.REPRODUCES
    if outcome.failures or outcome.unresolved:
        return Verdict.UNRESOLVED
    return Verdict.VANISHES
