"""`precision`: the smallest set of nodes that must stay in FP32, and the model that has it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt._version import __version__
from bisect_trt.accuracy.tolerance import precision_rtol
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.mixed_precision.handover import write_beside
from bisect_trt.mixed_precision.quantise import KINDS
from bisect_trt.mixed_precision.result import BROKEN, Precision
from bisect_trt.mixed_precision.work import COSTS, Work
from bisect_trt.mixed_precision.write import write_document
from bisect_trt.model.patch import NARROW
from bisect_trt.results import OnEvent
from bisect_trt.session import folder as folders
from bisect_trt.session.doubts import Doubts
from bisect_trt.session.export_trial import Truth, ask
from bisect_trt.session.pools import describing, target_pool, with_timing_cache
from bisect_trt.session.prepare import Session, describe, load_for, prepare, resolved
from bisect_trt.session.recording import cannot_run, record_model
from bisect_trt.session.samples import read_with_notes
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.workers.pool import Pool
from bisect_trt.workers.stopwatch import require_clock

AUTO = "auto"


class Asking(Struct, frozen=True):
    """What is looked for.

    Attributes:
        to: what all other nodes compute in, `fp16` or `bf16`; `fp8` or `int8`: what convolutions and
            products of matrices read.
        cost: what is made small, `nodes` (their number), `bytes` (of what they give) or `time` (measured).
        keep, lower: names of nodes that stay in FP32 in any case, or in none.
        start: names of nodes that are tried first, of an earlier run, say.
    """

    to: str = "fp16"
    cost: str = "nodes"
    keep: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    start: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What two runs must share for one to go on with the other's journal."""
        return json.dumps([self.to, self.cost, *map(sorted, (self.keep, self.lower, self.start))])


def precision(
    model: Path,
    settings: Settings,
    asking: Asking,
    *,
    out: Path | None = None,
    force: bool = False,
    on_event: OnEvent = lambda step: None,
) -> Precision:
    """Find the smallest set of nodes that must stay in FP32 and write the model that has it.

    Args:
        model: ONNX file.
        settings: target, inputs, tolerances.
        asking: what is looked for.
        out: folder to write to; None: `MODEL-precision` here.
        force: replace what an earlier run left there.
        on_event: gets what is being done.

    Raises:
        UsageError: the model, its inputs, an option, a name or a folder cannot be used.
        TargetUnavailable: the target cannot be used here, or no output can be compared.
        StoppedEarly: stopped before any set was found.
    """
    began = time.monotonic()
    settings = _resolved(settings, asking)
    loaded = load_for(model, settings)
    samples, converted = read_with_notes(loaded, settings)
    out = out or Path.cwd() / f"{model.stem}-precision"
    head = folders.header(loaded.digest, settings, samples) | {"precision": asking.text}
    folders.require_free(out, head, force=force)
    with (
        _leaving_nothing(out),
        temporary_folder() as logs,
        Pool(settings.run.workers, log_dir=logs, memory_limit=settings.run.memory_limit) as pool,
        target_pool(pool, settings, logs, 1) as there,
        folders.open_folder(out, head, force=force) as journal,
    ):
        info = _that_runs(describe(describing(pool, there, settings), settings))
        session = prepare(loaded, samples, out / folders.WORK)
        truth, doubts = _truth(pool, session, settings)
        target = with_timing_cache(settings.target, out / folders.WORK)
        settings = replace(settings, accuracy=doubts.accuracy, target=target)
        expected = truth.record.values(session.graph.graph_outputs)
        to, cost = asking.to, asking.cost
        work = Work(settings, session, pool, there, journal, out, to, cost, on_event, began, expected, info)
        result = work.run(frozenset(asking.keep), frozenset(asking.lower), asking.start)
        notes = (*converted, *doubts.notes, *result.notes, *filter(None, (truth.note, truth.blame)))
        result = replace(result, model=model, reference=truth.record.reference, notes=notes)
        _hand_over(result, work)
    if result.status == BROKEN:
        shutil.rmtree(out, ignore_errors=True)
    return result


def _hand_over(result: Precision, work: Work) -> None:
    """Write what was found, and leave nothing that a next run does not need."""
    if result.status != BROKEN:
        write_beside(result, work.trial.roles, __version__)
        write_document(result, __version__)
    if result.finished:
        work.journal.event(folders.DONE)
        shutil.rmtree(work.out / folders.WORK, ignore_errors=True)


def _that_runs(info: TargetInfo) -> TargetInfo:
    """Give the same. Raises TargetUnavailable where the target only builds: no set would be proven."""
    if info.can_run:
        return info
    raise TargetUnavailable(
        f"precision compares outputs, and {info.title} cannot run here. {' '.join(info.notes)}".strip(),
        "without a GPU: precision without --target, which rounds on the CPU (emulate:fp16, or as --to says)",
    )


def _truth(pool: Pool, session: Session, settings: Settings) -> tuple[Truth, Doubts]:
    """Give what is right for the model, and what cannot be judged.

    Raises:
        TargetUnavailable: the reference cannot run the model, or no output can be compared.
    """
    truth = ask(pool, session, settings, record_model(pool, session, settings, session.graph.graph_outputs))
    if truth.record.error:
        raise TargetUnavailable(*cannot_run(truth.record, settings, session.graph)[:2])
    doubts = Doubts(session.graph, settings.accuracy, [])
    doubts.look_at(pool, session, settings, truth.record)
    if doubts.why:
        raise TargetUnavailable(f"nothing can be said: {doubts.why}", " ".join(doubts.notes))
    return truth, doubts


@contextmanager
def _leaving_nothing(out: Path) -> Iterator[None]:
    """Remove the folder where nothing can be found, unless it was there before."""
    there = out.exists()
    try:
        yield
    except (UsageError, TargetUnavailable):
        if not there:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _resolved(settings: Settings, asking: Asking) -> Settings:
    """Give it with a target and tolerances that do not depend on who judges.

    Raises:
        UsageError: there is no such precision or cost.
    """
    to = asking.to
    if asking.cost not in COSTS:
        raise UsageError(f"--cost {asking.cost!r} is not known", f"write --cost {' or '.join(COSTS)}")
    if to not in (*NARROW, *KINDS):
        raise UsageError(f"--to {to!r} is not known", "write --to fp16, bf16, fp8 or int8")
    if settings.target.spec == AUTO:
        settings = replace(settings, target=replace(settings.target, spec=f"emulate:{to}"))
    kind, _, other = settings.target.spec.partition(":")
    if kind not in ("emulate", "ort", "tensorrt", "tensorrt-rtx"):
        raise UsageError(f"--target {settings.target.spec} computes in no precision that can be chosen")
    if to in KINDS and kind != "emulate":
        message = f"--to {to} is found by an emulation, and --target {settings.target.spec} is none"
        raise UsageError(message, "leave --target out: what is written runs in ONNX Runtime and TensorRT")
    if asking.cost == "time":
        require_clock("--cost time: --target", settings.target.spec)
    if kind == "emulate" and other != to:
        hint = f"leave it out, or write --to {other}" if other in (*NARROW, *KINDS) else "leave it out"
        raise UsageError(f"--target {settings.target.spec} does not go with --to {to}", hint)
    if kind != "emulate":
        settings = replace(settings, target=replace(settings.target, precision=to))
    settings = resolved(settings)
    least = precision_rtol(replace(settings.target, precision=to))
    accuracy = replace(settings.accuracy, judge="outputs")
    if "" not in dict(accuracy.rtol):
        accuracy = replace(accuracy, rtol=(*accuracy.rtol, ("", least)))
    return replace(settings, accuracy=accuracy)
