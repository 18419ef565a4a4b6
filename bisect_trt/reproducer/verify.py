"""Runs a written reproducer from its own files, each time in a fresh process."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any

import onnx
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from bisect_trt.errors import BisectError, TargetUnavailable
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.model.candidate import Candidate
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom, judge
from bisect_trt.outcome import Verdict as V
from bisect_trt.reproducer import files, models
from bisect_trt.session.cluster import seats_of
from bisect_trt.session.oracle import LONGEST_DEADLINE, outcome_of
from bisect_trt.session.prepare import describe, resolved
from bisect_trt.settings import Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.tensorrt.timing import OTHER
from bisect_trt.workers import jobs
from bisect_trt.workers.comparing import GIVEN
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.text import Summary, seconds

_HANG = 60.0  # seconds for what hung before


class Status(StrEnum):
    """What became of a failure."""

    SAME = "same failure"
    OTHER = "other failure"
    FIXED = "fixed"
    ELSEWHERE = "does not fail"  # on another target than the one it was seen on: nothing was fixed
    UNKNOWN = "cannot tell"


class Verification(Summary, Struct, frozen=True):
    """What one reproducer does now.

    Attributes:
        name: of its folder or zip.
        status: what became of the failure.
        target: on which it was tried; empty when that could not be found out.
        wanted: the failure that was seen when it was written.
        seen: the failure that is seen now, if any.
        why: in words, when it cannot be told; else what was not used, if anything.
        runs: fresh processes that were needed.
        seconds: in all.
    """

    name: str
    status: Status
    target: str = ""
    wanted: Failure | None = None
    seen: Failure | None = None
    why: str = ""
    runs: int = 0
    seconds: float = 0.0

    def lines(self) -> list[tuple[str, str]]:
        """Return what became of the failure, and where and how that was seen."""
        messages = [failure.message if failure else "-" for failure in (self.wanted, self.seen)]
        return [
            (self.status.value.capitalize(), self.name),
            ("Target", self.target or "none"),
            ("Was", messages[0]),
            ("Is", self.why or messages[1]),
            ("Runs", f"{self.runs} in {seconds(self.seconds)}"),
        ]

    def exit_code(self, *, until_fixed: bool = False) -> int:
        """0 it does not fail, 1 the same failure, 4 another one, 3 cannot tell.

        With `until_fixed`, for a job that waits: 0 the same failure, 1 fixed; that another target does not
        fail says nothing of it.
        """
        codes = {Status.FIXED: 0, Status.ELSEWHERE: 0, Status.SAME: 1, Status.OTHER: 4}
        if until_fixed:
            codes = {Status.FIXED: 1, Status.SAME: 0, Status.OTHER: 4}
        return codes.get(self.status, TargetUnavailable.exit_code)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {**to_builtins(self), "seconds": round(self.seconds, 3)}


def verify(
    path: Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    target: str | None = None,
    on_result: Callable[[Verification], None] = lambda result: None,
) -> list[Verification]:
    """Run a reproducer, or each one in a folder of them, again: on this machine, with what is installed.

    Each runs until its failure shows, `repeats` times at most; parsing is deterministic and done once. A
    reproducer that cannot be tried among several has the status UNKNOWN; one alone raises.

    Args:
        path: folder or zip of a reproducer, or a folder that holds some.
        settings: fresh runs before the failure counts as gone (`repeats`), seconds for one (`timeout`; as its
            report says, else 10 min, 1 min for what hung), bytes for one (`memory_limit`); and what no report
            may ask for: `plugins`, `ep_libraries`, `fail_regex`, `timing_cache` and `custom_ops`.
        target: other than the one of its report.
        on_result: called with each as it comes.

    Raises:
        UsageError: there is no reproducer, or it is broken or asks for what is not safe.
        TargetUnavailable: the target cannot be used here.
    """
    from bisect_trt.reproducer import untrusted  # a reduction opens nothing of strangers

    found = untrusted.find(path)
    results = []
    for place in found:
        began = time.monotonic()
        try:
            result = _verify_one(place, target, settings)
        except BisectError as error:
            if place == path:
                raise
            why = f"{error.message} ({error.hint})" if error.hint else error.message
            result = Verification(place.name, Status.UNKNOWN, why=why, seconds=time.monotonic() - began)
        on_result(result)
        results.append(result)
    return results


def exit_code(results: Sequence[Verification], *, until_fixed: bool = False) -> int:
    """Return the exit code of several: 1 when any has it, else 4, else 3, else 0."""
    codes = {result.exit_code(until_fixed=until_fixed) for result in results}
    return next((code for code in (1, 4, 3) if code in codes), 0)


def _verify_one(place: Path, spec: str | None, given: Settings) -> Verification:
    began = time.monotonic()
    with temporary_folder() as scratch:
        from bisect_trt.reproducer import untrusted

        folder, report = untrusted.opened(place, scratch)
        run, custom_ops = given.run, given.accuracy.custom_ops
        accuracy = replace(report.accuracy, custom_ops=custom_ops)
        untrusted.require_custom_ops(folder, report, custom_ops)
        settings = resolved(Settings(report.target(spec, given.target), run, accuracy))
        seen_on = report.spec
        with Pool(1, log_dir=scratch / "logs") as pool:
            info = describe(pool, settings)
        wanted, name = report.wanted, place.absolute().name
        known = [wanted, *([report.reworded] if report.reworded else [])]
        longest = _HANG if wanted.symptom is Symptom.HANG else LONGEST_DEADLINE
        timeout = run.timeout or report.timeout or longest
        most = 1 if wanted.stage is Stage.PARSE else run.repeats
        seen, runs = until_shown(folder, settings, timeout, most, known)
    shown = next((one for one in known if judge(seen, one) is V.REPRODUCES), wanted)
    status, why = _status(seen, shown, info)
    why = why or (OTHER if OTHER in seen.log else "")
    if status is Status.FIXED and _platform(settings.target.spec) != _platform(seen_on):
        status, why = Status.ELSEWHERE, f"it failed on {seen_on}, and whether it is fixed there is not known"
    first = next((f for f in seen.failures if f.same_as(shown)), next(iter(seen.failures), None))
    return Verification(name, status, info.title, wanted, first, why, runs, time.monotonic() - began)


def until_shown(
    folder: Path, settings: Settings, timeout: float, most: int, known: Sequence[Failure]
) -> tuple[Outcome, int]:
    """Run `repro.onnx` until it shows one of these failures, `most` times at most; gives the runs, too."""
    seen, runs = Outcome(), 0
    while runs < max(1, most) and not any(judge(seen, one) is V.REPRODUCES for one in known):
        seen, runs = _as_known(verify_files(folder, settings, timeout, 1)[0], known), runs + 1
    return seen, runs


def _as_known(seen: Outcome, known: Sequence[Failure]) -> Outcome:
    """Return the same with the signature of a known failure where another release tells it like that one."""
    pairs = ((f, next((one for one in known if f.told_like(one)), f)) for f in seen.failures)
    return replace(seen, failures=tuple(replace(f, signature=one.signature) for f, one in pairs))


def _platform(spec: str) -> tuple[str, str]:
    """Return what runs the model: a later version of it may have a fix, another platform cannot."""
    kind, _, argument = spec.partition(":")
    return kind, argument.partition("?")[0] if kind in ("ort", "emulate") else ""


def _status(outcome: Outcome, wanted: Failure, info: TargetInfo) -> tuple[Status, str]:
    if judge(outcome, wanted) is V.REPRODUCES:
        return Status.SAME, ""
    if outcome.failures:
        return Status.OTHER, ""
    if outcome.unresolved:
        return Status.UNKNOWN, outcome.unresolved
    if not info.can_run and wanted.stage not in (Stage.PARSE, Stage.BUILD):
        return Status.UNKNOWN, f"it builds, but to see a failure of stage {wanted.stage} it has to run: " + (
            " ".join(info.notes) or "this target is build only here"
        )
    return Status.FIXED, ""


def verify_files(
    out: Path,
    settings: Settings,
    timeout: float,
    repeats: int,
    *,
    keep_outputs_of: Failure | None = None,
    reworded: list[Failure] | None = None,
    ready: Sequence[Pool] = (),
) -> list[Outcome]:
    """Run `repro.onnx` in `out` `repeats` times, `settings.run.workers` at a time, and return the outcomes.

    `timeout` is in seconds, for each run. With `keep_outputs_of`, `actual.npz` is what the target gave for
    the first sample in the first run with that failure of comparing: another run of what comes and goes may
    give what is right. `reworded` gets the failure as the target tells it in other words when it reads
    the file itself. `ready` are pools of `fresh_pool` for the first runs, which are closed then; the others
    get theirs here.
    """
    with (
        temporary_folder() as scratch,
        ThreadPoolExecutor(max(1, min(repeats, settings.run.workers))) as threads,
    ):
        candidate = models.read_model(out, scratch)
        lacking = missing_inputs(candidate)
        kept = keep_outputs_of if keep_outputs_of and keep_outputs_of.stage is Stage.COMPARE else None
        places = [scratch / f"run-{number}" for number in range(max(1, repeats))]

        def fresh(number: int) -> Outcome:
            logs = places[number]
            with ready[number] if number < len(ready) else fresh_pool(settings, logs, number) as pool:
                save = logs / "values" if kept else None
                arguments = (settings.target, candidate, settings.accuracy, save)
                outcome = outcome_of(pool.submit(jobs.probe, *arguments, timeout=timeout).result())
                if reworded is not None and number == 0:
                    reworded.extend(_other_words(pool, settings, candidate, out, outcome, timeout))
                return _as_far_as_fed(outcome, lacking)

        outcomes = list(threads.map(fresh, range(len(places))))
        for outcome, place in zip(outcomes, places, strict=True):
            if kept and judge(outcome, kept) is V.REPRODUCES:
                shutil.copyfile(place / "values" / GIVEN, out / files.ACTUAL)
                break
        return outcomes


def fresh_pool(settings: Settings, logs: Path, number: int) -> Pool:
    """Return a pool of one process for one fresh run; where starting takes long it becomes warm at once."""
    gpus, limit = settings.run.devices, settings.run.memory_limit
    one = gpus[number % len(gpus) :][:1] if gpus else ()
    seats, warm = seats_of(settings), jobs.warm_job(settings.target)
    return Pool(1, log_dir=logs, memory_limit=limit, devices=one, seats=seats, warm=warm)


def _other_words(
    pool: Pool, settings: Settings, candidate: Candidate, out: Path, outcome: Outcome, timeout: float
) -> list[Failure]:
    """Ask how the target words a failure to parse or build when it reads the written file itself."""
    shown = next((f for f in outcome.failures if f.stage in (Stage.PARSE, Stage.BUILD)), None)
    if shown is None or shown.symptom is not Symptom.ERROR or settings.run.cluster:
        return []
    arguments = (settings.target, candidate, (out / files.MODEL).absolute(), shown)
    reply = pool.submit(jobs.reworded, *arguments, timeout=timeout).result()
    return [reply.value] if reply.death is None and reply.value is not None else []


def missing_inputs(candidate: Candidate) -> list[str]:
    """Return the inputs of a written model that some sample, or the only one, has no value for."""
    graph = onnx.load_model_from_string(candidate.model).graph
    constant = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constant]
    return [name for name in names if not candidate.feeds or any(name not in s for s in candidate.feeds)]


def _as_far_as_fed(outcome: Outcome, lacking: list[str]) -> Outcome:
    """Say nothing of what comes after the build, where a model has no inputs to be fed with."""
    seen = tuple(f for f in outcome.failures if f.stage in (Stage.PARSE, Stage.BUILD))
    if not lacking or seen:
        return replace(outcome, failures=seen) if lacking else outcome
    return replace(outcome, failures=(), unresolved=f"there is no value for the input {lacking[0]}")
