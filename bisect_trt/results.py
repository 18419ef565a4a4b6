"""What the library hands back: progress steps, the result of a reduction and of a check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import asdict, replace

from bisect_trt.accuracy.amplifiers import Amplifier
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.origin import Origin
from bisect_trt.model.summary import Figures
from bisect_trt.options import export_line, reduce_line
from bisect_trt.outcome import End, Ended, Failure, Outcome
from bisect_trt.settings import AccuracySettings, Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.writing.text import Summary, counted


class Step(Struct, frozen=True):
    """One event on the way; `accepted` marks the ones that made the best candidate smaller."""

    phase: str
    text: str
    nodes: int
    probes: int = 0
    cached: int = 0
    unresolved: int = 0
    target_seconds: float = 0.0
    accepted: bool = False
    builder: str = ""  # how far running builds are; such a step has no phase and says nothing else


class Finding(StrEnum):
    """What was found: a fault, or a reason why nothing is to blame.

    `NOT_TOLD`: outputs differ, and whether by a fault or by rounding was not found out.
    """

    WRONG = "wrong"
    SENSITIVE = "sensitive"
    RANDOM = "random"
    REFERENCE_NOT_FINITE = "reference not finite"
    NOT_TOLD = "not told"


CANNOT_RUN = "The reference cannot run the whole model"
"""How the note begins that puts all else in doubt: these shapes or values may be no input of the model."""

LONGEST_LINE = 160  # characters of a line of a result's text
OnEvent = Callable[[Step], None]


class Tally(Struct):
    """What one pass of the simplification tried and won.

    Attributes:
        tried: edits that it proposed.
        invalid: those that ONNX's own checks refused, so that no probe was needed.
        kept: those that still fail in the same way and are simpler.
        seconds: inside target and reference.
        won: what became smaller, in words, one entry for each edit that was kept.
    """

    tried: int = 0
    invalid: int = 0
    kept: int = 0
    seconds: float = 0.0
    won: list[str] = field(default_factory=list)


class Simplification(Struct, frozen=True):
    """What the simplification of a reduced model did.

    Attributes:
        nodes: of the reduced model before, with the names that the user's model has.
        rows: what each pass tried and won, in the order in which they first ran.
        probes: that it took.
        seconds: inside target and reference.
        budget: seconds that it was allowed, infinite when it was not limited.
        end: how it ended, and why before nothing changed any more, if so.
        before: bytes of the model and its input values, with all weights; `after`: the same at the end.
    """

    nodes: tuple[str, ...]
    rows: tuple[tuple[str, Tally], ...] = ()
    probes: int = 0
    seconds: float = 0.0
    budget: float = 0.0
    end: End = field(default_factory=End)
    before: int = 0
    after: int = 0
    sizes: tuple[str, ...] = ()

    @property
    def had_its_time(self) -> bool:
        """Whether it ended with its budget, and not because nothing changed any more."""
        return self.end.how is Ended.SPENT

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        rows = [{"pass": name, **asdict(row), "seconds": round(row.seconds, 3)} for name, row in self.rows]
        return {
            "passes": rows,
            "probes": self.probes,
            "seconds": round(self.seconds, 3),
            "budget": round(self.budget, 3) if math.isfinite(self.budget) else None,
            "ended": self.end.why,
            "bytes_before": self.before,
            "bytes_after": self.after,
        }


class Judgement(Struct, frozen=True):
    """What a failure is, in figures and words. See docs/judging.md.

    Attributes:
        kind: a fault of the target, or why it is none.
        arithmetic: of the target, `FP16` for example; empty where nothing was computed.
        error: of the worst element; `bound`: what rounding explains of it.
        source: nodes whose error it is.
        amplifier: the node that makes errors largest, where one does.
        told: what was found, as sentences.
        advice: what helps, as sentences.
    """

    kind: Finding = Finding.WRONG
    arithmetic: str = ""
    error: float | None = None
    bound: float | None = None
    source: tuple[str, ...] = ()
    amplifier: Amplifier | None = None
    told: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data, without the kind."""
        return {key: value for key, value in to_builtins(self).items() if key != "kind"}


class Reduction(Summary, Struct, frozen=True):
    """The result of `reduce`.

    `verified` of `repeats` runs of the written files in fresh processes showed the wanted failure.
    `wanted` is the failure as the reproducer shows it; where the target words that of the whole model
    differently, `original_failure` has those words, and `reworded` those in which it tells the same of the
    written file when it reads that itself. `end` says how the search ended. `compared_as` is how the
    outputs of the written files are compared,
    `accuracy` what is known of the differences, see `at_outputs.facts`, `built` what was built of the written
    files (types of the network, layers and tactics of the engine), as far as the target tells. After a
    simplification `best` and `wanted` have names of their own, and `original_failure` is told with those of
    the user's model.
    `original` are the figures of the user's model, `places` the positions of `nodes` in its topological
    order, `script_objection` what `repro.py` says other than that it fails: then nothing is verified,
    `reference_error` why the reference cannot run the written model (empty: it runs it; None: not asked),
    `origins` where these come from in the user's code, `workarounds` what was seen to avoid the
    failure, as sentences; `causes`, also among the `notes`, what the failure depends on where no node is to
    blame; `left`, after `--anonymise`, what of the original is told all the same; `judgement` whether it is a
    fault.
    """

    model: Path
    out: Path
    settings: Settings
    target: TargetInfo
    reference: str
    wanted: Failure
    best: Candidate
    original_nodes: int
    script_objection: str = ""
    reference_error: str | None = None
    original_failure: Failure | None = None
    reworded: Failure | None = None
    also_seen: tuple[Failure, ...] = ()
    one_minimal: bool = False
    verified: int = 0
    repeats: int = 0
    end: End = field(default_factory=End)
    counts: Mapping[str, int | float] = field(default_factory=dict)
    phases: tuple[Mapping[str, Any], ...] = ()
    log: str = ""
    outputs_compared: bool = False
    notes: tuple[str, ...] = ()
    archive: Path | None = None
    simplification: Simplification | None = None
    left: tuple[str, ...] = ()
    compared_as: AccuracySettings = field(default_factory=AccuracySettings)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    built: Mapping[str, Any] = field(default_factory=dict)
    original: Figures | None = None
    places: tuple[int, ...] = ()
    origins: tuple[Origin, ...] = ()
    workarounds: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    judgement: Judgement = field(default_factory=Judgement)

    def lines(self) -> list[tuple[str, str]]:
        """Return what fails, where, how small it is, why to believe it, and where it lies."""
        what = f"{self.wanted.stage.value} {self.wanted.symptom.value} on {self.target.title}"
        minimal = "1-minimal; " if self.one_minimal else ""
        paper = "NOTE.md for your team" if self.judgement.kind is Finding.SENSITIVE else "ISSUE.md to paste"
        return [
            ("Fails", f"{what}: {self.wanted.message}"[:LONGEST_LINE]),
            ("Where", ", ".join(self.nodes[:4]) + (", ..." if len(self.nodes) > 4 else "")),
            ("Size", f"{self.original_nodes:,} -> {counted(len(self.best.nodes), 'node')}"),
            ("Believe it", f"{minimal}{self.verified} of {self.repeats} fresh runs fail in this way"),
            ("Folder", f"{self.out} ({paper}, report.html to look at)"),
        ]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: neither a budget nor a signal ended the search early."""
        return not self.end.is_early

    @property
    def stop_reason(self) -> str:
        """Why the search ended early, in words; empty when it did not."""
        return self.end.why

    @property
    def sure(self) -> bool:
        """Whether the search ended, every node was tried without, and all fresh runs and the script agree."""
        agree = 0 < self.repeats == self.verified and not self.script_objection
        return self.finished and self.one_minimal and agree

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that were found, as the user's model has them."""
        return self.simplification.nodes if self.simplification else self.best.nodes


class Check(Summary, Struct, frozen=True):
    """The result of `check`: one probe of the whole model.

    With `export_differs` the target was not asked: ONNX Runtime and the outside reference disagree.
    """

    model: Path
    settings: Settings
    target: TargetInfo
    reference: str
    outcome: Outcome
    nodes: int
    seconds: float
    outputs_compared: bool
    notes: tuple[str, ...] = ()
    export_differs: bool = False
    finding: Finding = Finding.WRONG

    def lines(self) -> list[tuple[str, str]]:
        """Return what was seen, on what, against what, and what to do next."""
        shown, unresolved = self.outcome.failures, self.outcome.unresolved
        fine = "agrees with the reference" if self.outputs_compared else "builds; outputs were not compared"
        what = f"{shown[0].stage.value} {shown[0].symptom.value}: {shown[0].message}" if shown else fine
        return [
            ("Fails" if shown else "Unclear" if unresolved else "Fine", (unresolved or what)[:LONGEST_LINE]),
            ("Model", f"{self.model} ({counted(self.nodes, 'node')})"),
            ("Target", self.target.title),
            ("Reference", self.reference or "none"),
            ("Next", self.next_line or "nothing to reduce"),
        ]

    @property
    def next_line(self) -> str:
        """The command that reduces what was seen; empty when all is well."""
        if not self.outcome.failures:
            return ""
        run = replace(self.settings.run, save_inputs=None, save_outputs=None)  # they were written
        line = export_line if self.export_differs else reduce_line
        return line(self.model, replace(self.settings, run=run))
