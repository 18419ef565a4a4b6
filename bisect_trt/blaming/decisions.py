"""Which decisions of the builder a reproducer's failure depends on, and what helps the user's whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.blaming.whole import Helps, Whole, fed_shapes, whole_model
from bisect_trt.errors import BisectError
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.patch import exposed, fixed, inner_tensors
from bisect_trt.model.skeleton import inferred
from bisect_trt.outcome import Failure, Outcome, Verdict, judge
from bisect_trt.reduction.decisions import Decided, Trial, decide
from bisect_trt.reduction.list_search import asked_once, minimise, turned
from bisect_trt.reproducer import models
from bisect_trt.session import folder as folders
from bisect_trt.session.journal import Journal
from bisect_trt.session.oracle import Oracle
from bisect_trt.session.prepare import LONGEST_START, describe
from bisect_trt.session.prober import Budget, BudgetSpent, Prober
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.knobs import Knob
from bisect_trt.targets.registry import knobs_of
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

MOST_TENSORS = 64
"""So many inner tensors of a reproducer are tried as outputs; one with more was not reduced."""

Say = Callable[[str], None]


class Decisions(Struct, frozen=True):
    """What was found on one target.

    Attributes:
        target: its title.
        shows: whether the failure showed at all; nothing else is known when it did not.
        decided: decisions that make it go, and that keep it.
        outputs: the fewest tensors of the reproducer that, marked as outputs, make it go.
        fixed: whether fixed shapes of its inputs make it go.
        whole: what helps on the user's whole model.
        stopped: why not all was tried, if so.
        notes: sentences.
    """

    target: str
    shows: bool
    decided: Decided = field(default_factory=Decided)
    outputs: tuple[str, ...] = ()
    fixed: bool = False
    whole: Whole | None = None
    stopped: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        found = self.decided
        return {
            "target": self.target,
            "shows": self.shows,
            "helps": [_plain(knob) for knob in found.helps],
            "keeps": [_plain(knob) for knob in found.keeps],
            "helps_too": [_plain(knob) for knob in found.also],
            "knobs": found.knobs,
            "builds": found.builds,
            "more_builds": found.more,
            "outputs": list(self.outputs),
            "fixed_shapes": self.fixed,
            "whole_model": self.whole.to_json() if self.whole else None,
            "stopped": self.stopped,
            "notes": list(self.notes),
        }


def _plain(knob: Knob) -> dict[str, Any]:
    return {"name": knob.name, "told": knob.told, "paste": dict(knob.paste)}


class _Bench(Struct, frozen=True):
    """A reproducer on its target, ready to be probed."""

    candidate: Candidate
    wanted: Failure
    prober: Prober
    pool: Pool
    info: TargetInfo
    runs: int

    def judge(self, outcome: Outcome) -> Verdict:
        return judge(outcome, self.wanted)

    def trial(self, candidate: Candidate) -> Trial:
        return Trial(self.prober, candidate, self.judge, self.runs)


def decisions(
    folder: Path,
    wanted: Failure,
    settings: Settings,
    journal: Journal,
    scratch: Path,
    *,
    on: Path | None = None,
    out: Path,
    nodes: Sequence[str] = (),
    deadline: float | None = None,
    say: Say = lambda text: None,
) -> Decisions:
    """Find what a reproducer's failure depends on; `settings` are resolved, `folder` is an opened reproducer.

    Args:
        folder: of the reproducer.
        wanted: its failure.
        settings: on which target, how outputs are compared, how often and how long a probe may run.
        journal: what it has is not asked again.
        scratch: an empty folder.
        on: the user's whole model, or None.
        out: where a patched model is written.
        nodes: names of the nodes that were found, as the user's model has them.
        deadline: moment of `time.monotonic` after which nothing new is begun.
        say: called with what is going on.

    Raises:
        TargetUnavailable: the target cannot be used here.
        UsageError: the journal is of another version of it.
    """
    candidate = models.read_model(folder, scratch)
    limit = settings.run.memory_limit
    with Pool(1, log_dir=scratch / "logs", memory_limit=limit, devices=settings.run.devices[:1]) as pool:
        info = describe(pool, settings)
        folders.require_target(journal, info.fingerprint)
        oracle = Oracle(pool, settings.target, settings.run.timeout, settings.accuracy)
        prober = Prober(oracle, journal, budget=Budget(deadline, settings.run.max_probes))
        bench = _Bench(candidate, wanted, prober, pool, info, settings.run.repeats)
        prober.judge = bench.judge
        try:
            found = _on_reproducer(bench, settings, say)
        finally:
            prober.close()
    if on is None or not found.shows:
        return found
    try:
        helps = Helps(found.decided, found.outputs, found.fixed, tuple(nodes))
        whole = whole_model(on, settings, helps, out, say)
    except BisectError as error:
        return replace(found, notes=(*found.notes, f"The whole model was not tried: {error.message}."))
    return replace(found, whole=whole)


def _on_reproducer(bench: _Bench, settings: Settings, say: Say) -> Decisions:
    title = bench.info.title
    trial = bench.trial(bench.candidate)
    try:
        runs = (bench.prober.observe(bench.candidate, run) for run in range(bench.runs))
        shown = any(bench.judge(outcome) is Verdict.REPRODUCES for outcome in runs)
    except BudgetSpent as over:
        return Decisions(title, False, stopped=over.message)
    if not shown:
        return Decisions(title, False, notes=(f"The failure does not show on {title}.",))
    reply = bench.pool.submit(jobs.inside, settings.target, timeout=LONGEST_START).result()
    routes = reply.value if reply.death is None else []
    knobs = knobs_of(settings.target, routes)
    say(f"{len(knobs)} decisions of {title}")
    found, stopped = Decided(), ""
    outputs: tuple[str, ...] = ()
    fixed_helps = False
    try:
        found = decide(knobs, trial)
        say("fixed shapes and extra outputs")
        fixed_helps = _fixed_helps(bench)
        outputs = _breakers(bench)
    except BudgetSpent as over:
        stopped = over.message
    notes = () if routes or not settings.target.spec.startswith("tensorrt") else (_NO_ROUTES,)
    return Decisions(title, True, found, outputs, fixed_helps, stopped=stopped, notes=notes)


_NO_ROUTES = "This builder names no build routes (TensorRT has them from 11.1 on, TensorRT-RTX has none)."


def _fixed_helps(bench: _Bench) -> bool:
    """Return whether the failure goes when the inputs have the shapes that they are fed with."""
    proto = onnx.load_model_from_string(bench.candidate.model)
    made = fixed(proto, fed_shapes(bench.candidate))
    if made == proto:
        return False
    candidate = replace(bench.candidate, content=made.SerializeToString())
    return bench.trial(candidate)(()) is Verdict.VANISHES


def _breakers(bench: _Bench) -> tuple[str, ...]:
    """Return the fewest inner tensors that, marked as outputs, make the failure go; none where none do."""
    proto = onnx.load_model_from_string(bench.candidate.model)
    names = inner_tensors(proto)
    # The reference is asked anew for what is exposed; where its word is not what the files say is right,
    # nothing can be told.
    plain = replace(bench.candidate, expected=(), edited=True)
    if not names or len(names) > MOST_TENSORS or bench.trial(plain)(()) is not Verdict.REPRODUCES:
        return ()
    types = inferred(proto)

    def without(marked: Sequence[str]) -> Verdict:
        made = exposed(proto, marked, types)
        return turned(bench.trial(replace(plain, content=made.SerializeToString()))(()))

    judged = asked_once(without)
    if judged(names) is Verdict.REPRODUCES:
        return tuple(minimise(names, judged))
    return next(((name,) for name in names if judged([name]) is Verdict.REPRODUCES), ())
