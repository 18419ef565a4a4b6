"""`profile`: how fast a model is over its shapes, where that jumps, and which layers take the time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import astuple, replace

from bisect_trt.errors import StoppedEarly, TargetUnavailable, UsageError
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.options import line
from bisect_trt.profiling.journaled import Work
from bisect_trt.profiling.meter import Side, Timer, require_open
from bisect_trt.profiling.other import Other, other_side
from bisect_trt.profiling.released import Installed, released
from bisect_trt.profiling.result import Profile
from bisect_trt.profiling.sizes import Sizes, Spans, sizes
from bisect_trt.profiling.versus import Duel, Versus
from bisect_trt.profiling.write import write
from bisect_trt.results import OnEvent, Step
from bisect_trt.session import folder as folders
from bisect_trt.session.prepare import load_for, prepare, resolved
from bisect_trt.session.prober import Budget
from bisect_trt.settings import Settings, Shapes, TargetSettings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.timed import FailedError
from bisect_trt.workers.stopwatch import require_clock

Install = Callable[[str, str], Installed]


class Asking(Struct, frozen=True):
    """What is measured.

    Attributes:
        shapes: least and largest size of each dimension of inputs.
        opt_shapes: shapes that TensorRT's engine is made for, between these; the largest where it is empty.
        against: another target, other options of the same one or another release, in words of the command
            line; None: nothing is compared.
        precision_of_time: how well the median has to be known, as a part of it.
        limit: how far the ratio of both sides may be from 1.
        cuda_graph: run the engine as a CUDA graph; TensorRT alone.
    """

    shapes: Spans = ()
    opt_shapes: Shapes = ()
    against: str | None = None
    limit: float = 0.05
    precision_of_time: float = 0.02
    cuda_graph: bool = False


def profile(
    model: Path,
    settings: Settings,
    asking: Asking,
    *,
    out: Path | None = None,
    force: bool = False,
    install: Install | None = None,
    on_event: OnEvent = lambda step: None,
) -> Profile:
    """Measure a model over its shapes and layers, and write what was measured.

    Args:
        model: ONNX file.
        settings: target, inputs, budget.
        asking: what is measured, and how well.
        out: folder to write to; None: `MODEL-profile` here.
        force: replace what an earlier run left there.
        install: makes an environment of a release of a target (`blaming.environments.installed`).
        on_event: gets what is being done.

    Raises:
        UsageError: the model, its inputs, an option or a folder cannot be used, or the model fails.
        TargetUnavailable: the target cannot run models here.
        StoppedEarly: stopped before anything was measured.
    """
    began = time.monotonic()
    settings = resolved(settings)
    require_clock("--target", settings.target.spec)
    other = None if asking.against is None else other_side(asking.against, settings.target)
    loaded = load_for(model, settings)
    asked = sizes(loaded, settings, asking.shapes)
    ends = [asked.high] if asked.low == asked.high else [asked.high, asked.low]
    samples = [one for size in ends for one in asked.samples(size)]
    out = out or Path.cwd() / f"{model.stem}-profile"
    head = folders.header(loaded.digest, settings, samples)
    head["profile"] = json.dumps(astuple(asking))
    folders.require_free(out, head, force=force)
    with (
        temporary_folder() as logs,
        folders.open_folder(out, head, force=force) as journal,
    ):
        side = Side(_with_profile(asked, asking.opt_shapes), settings.run, logs, asking.cuda_graph)
        with closing(side):
            info = side.describe()
            folders.require_target(journal, info.fingerprint)
            session = prepare(loaded, samples, out / folders.WORK)
            opened = require_open(side, session.original, info.title, _what_next(model, settings))
            precision, budget = asking.precision_of_time, Budget.of(settings.run, began)
            empty = Profile(model, out, settings, info, opened, precision, asked.unit)
            work = Work(side, session, asked, journal, budget, precision, on_event, empty)
            result = _measured(work, asking, other, install)
        return _handed_over(replace(result, seconds=time.monotonic() - began), work)


def _measured(work: Work, asking: Asking, other: Other | None, install: Install | None) -> Profile:
    """Measure one side, and then both in turns where there is another one."""
    if other is None:
        return work.run()
    side, settings = work.side, replace(work.sizes.settings, target=other.target)
    target = _with_profile(replace(work.sizes, settings=settings), asking.opt_shapes)
    rival = Side(target, settings.run, side.logs / "other", asking.cuda_graph)
    with _rivals(side, rival, other.release, work.empty.target, install) as rivals:
        result = work.run()
        if not result.finished or work.largest is None:
            return result
        return _against(result, work, *rivals, asking.limit, side.logs)


def _what_next(model: Path, settings: Settings) -> str:
    words = line("bisect-trt", "reduce", model, "--target", settings.target.spec)
    return f"{words} finds the part that fails"


def _handed_over(result: Profile, work: Work) -> Profile:
    """Write what was measured. Raises UsageError or StoppedEarly where that is nothing."""
    if work.largest is None:
        if why := next((point.error for point in result.points if point.error), ""):
            hint = _what_next(result.model, result.settings)
            raise UsageError(f"the model fails on {result.target.title}: {why}", hint)
        raise StoppedEarly(f"{result.stop_reason}: nothing was measured by then", "give it more time")
    write(result)
    if result.finished:
        work.journal.event(folders.DONE)
        shutil.rmtree(result.out / folders.WORK, ignore_errors=True)
    return result


@contextmanager
def _rivals(
    side: Side, rival: Side, release: str, info: TargetInfo, install: Install | None
) -> Iterator[tuple[tuple[Timer, Timer], TargetInfo]]:
    """Yield both sides, and what the other one is; it is known to be usable before anything is measured.

    Raises:
        UsageError, TargetUnavailable: it cannot.
    """
    try:
        if not release:
            other = rival.describe()
            # A program that hands nothing back has a time all the same.
            if not other.can_run and "tensorrt" in rival.target.spec:
                why = " ".join(other.notes[:1])
                hint = "its time cannot be told here"
                raise TargetUnavailable(f"--against {rival.target.spec}: {why}", hint)
            yield (side, rival), other
            return
        if install is None:
            raise UsageError(f"--against {release}: releases cannot be installed here")
        found = install(release, rival.target.spec)
        with released(release, found, rival.target, info, rival.logs) as (here, there):
            yield (here, there), there.info
    finally:
        rival.close()


def _against(
    result: Profile, work: Work, sides: tuple[Timer, Timer], info: TargetInfo, limit: float, logs: Path
) -> Profile:
    """Return the same with how the other side compares, as far as it got."""
    try:
        return replace(result, versus=_duel(result, work, sides, info, limit, logs))
    except FailedError as error:
        return replace(result, not_compared=f"the model fails on {info.title}: {error}")
    except UsageError as error:
        return replace(result, not_compared=f"{info.title}: {error.message}")
    except StoppedEarly as error:
        return replace(result, finished=False, stop_reason=error.message)
    except KeyboardInterrupt:
        return replace(result, finished=False, stop_reason="interrupted")


def _duel(
    result: Profile, work: Work, sides: tuple[Timer, Timer], info: TargetInfo, limit: float, logs: Path
) -> Versus:
    """Compare two sides at the largest size that runs. Raises FailedError, BudgetSpent."""
    size = work.largest
    assert size is not None  # where nothing runs there is nothing to compare
    duel = Duel(
        sides=sides,
        infos=(result.target, info),
        session=work.session,
        settings=result.settings,
        feeds=work.fed(size),
        size=size,
        journal=work.journal,
        budget=work.budget,
        precision=work.precision,
        limit=limit,
        out=result.out,
        logs=logs,
        tell=lambda text: work.on_event(Step("measure", text, len(work.session.graph.order))),
    )
    return duel.run()


def _with_profile(asked: Sizes, best: Shapes) -> TargetSettings:
    """Return the settings whose optimisation profile reaches from the least to the largest shapes.

    Where `best` says nothing the samples say it all, and the engine is made for the largest, the first one.
    """
    target = asked.settings.target
    if not best:
        return replace(target, shapes=())
    low, high = asked.shapes(asked.low), asked.shapes(asked.high)
    for name, shape in best:
        inside = zip(dict(low).get(name, ()), shape, dict(high).get(name, ()), strict=False)
        if name not in dict(high) or not all(a <= b <= c for a, b, c in inside):
            raise UsageError(f"--opt-shapes {name} is not within what --shapes gives", "give both")
    return replace(target, shapes=(), min_shapes=low, opt_shapes=best, max_shapes=high)
