"""What a child process does: see `child.Child`.

The child gets everything ready, then waits for one line of JSON on standard input: a child can be
started before it is needed. Its answer is one line of JSON on standard output; all that libraries
print goes to `FOLDER/log`. After a model that passed it takes another one, with a worker that is warm;
after anything else it ends. It dies with its parent.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import convert, to_builtins

from bisect_trt.errors import BisectError, is_full
from bisect_trt.machine import limits, server
from bisect_trt.nightly import same_bugs
from bisect_trt.nightly.moved import digest as digest_of
from bisect_trt.nightly.runner import Answer, Cause, Checked, Job, Reduced, Trouble
from bisect_trt.outcome import Failure, Outcome, Stage, Symptom
from bisect_trt.session.check import check, pool_for
from bisect_trt.settings import Settings
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.files import written_whole

PROGRESS = "progress.json"
LONGEST_MESSAGE = 3000  # characters of a message: an answer has to fit into a pipe
MOST_FAILURES = 5  # failures of one check
_PROBE = 600.0  # seconds for a stored reproducer, when no deadline is set

_CAUSES = {2: Cause.USAGE, 3: Cause.TARGET, 4: Cause.STEADY, 5: Cause.STEADY, 6: Cause.DEADLINE}
"""By the exit code of an error."""


def line_of(message: Job | Answer) -> bytes:
    """Return what goes through a pipe as a line of JSON."""
    return json.dumps(to_builtins(message, enc_hook=str)).encode() + b"\n"


def job_in(line: str | bytes) -> Job:
    """Return the job that `line_of` wrote. Raises ValueError or msgspec.ValidationError."""
    return convert(json.loads(line), Job, dec_hook=_path)


def answer_in(line: bytes) -> Answer:
    """Return the answer that `line_of` wrote. Raises ValueError or msgspec.ValidationError."""
    answer: Answer = convert(json.loads(line), Checked | Reduced | Trouble)
    return answer


def _path(kind: Any, text: str) -> Any:
    return kind(text)


def main() -> None:
    """Wait for requests, do them, answer, end."""
    folder, parent, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with os.fdopen(os.dup(1), "wb") as sink:
        try:
            limits.prepare_worker(folder / "log", folder / "pid", parent, threads)
            server.from_here()  # the heavy libraries are the workers' own business
        except OSError as error:
            _say(sink, _trouble(error))
            return
        for line in sys.stdin:
            answer = run(job_in(line), folder)
            _say(sink, answer)
            if not clean(answer):
                break
    _end_worker()


def clean(answer: Answer) -> bool:
    """Return whether the process may take another model.

    After one that passed, and after one that the parser or builder refused with a message: a search asks
    hundreds of those of one worker, too. What crashes, hangs, runs or is not known may leave something.
    """
    if not isinstance(answer, Checked) or answer.unresolved:
        return False
    return all(f.symptom is Symptom.ERROR and f.stage in (Stage.PARSE, Stage.BUILD) for f in answer.failures)


def _say(sink: BinaryIO, answer: Answer) -> None:
    sink.write(line_of(answer))
    sink.flush()


_kept: dict[tuple[Any, ...], Pool] = {}
"""The isolated worker that is kept for the next model on the same target, by what it was made for."""


def _worker(settings: Settings, folder: Path) -> Pool:
    """Return a warm one, if it was made for the like."""
    target, run, accuracy = settings.target, settings.run, settings.accuracy
    libraries = target.plugins, target.ep_libraries, accuracy.custom_ops
    asked = (target.spec, *libraries, accuracy.reference_provider, run.memory_limit, run.devices)
    if asked not in _kept:
        _end_worker()
        _kept[asked] = pool_for(settings, folder / "logs")
    return _kept[asked]


def _end_worker() -> None:
    while _kept:
        _kept.popitem()[1].close(kill=True)


def run(job: Job, folder: Path) -> Answer:
    """Do one job; every error is an answer too."""
    began = time.monotonic()
    try:
        return _KINDS[job.kind](job, folder)
    except BisectError as error:
        cause = Cause.DISK if _disk_full(error) else _CAUSES.get(error.exit_code, Cause.BUG)
        hint = f" ({error.hint})" if error.hint else ""
        return Trouble(cause, f"{error.message}{hint}"[:LONGEST_MESSAGE], time.monotonic() - began)
    except MemoryError:
        return Trouble(Cause.MEMORY, "the model needs more memory than there is", time.monotonic() - began)
    except Exception as error:  # a bug of ours must cost this model only
        traceback.print_exc()
        return _trouble(error)


def _trouble(error: Exception) -> Trouble:
    if _disk_full(error):
        return Trouble(Cause.DISK, "no space left on the disk")
    return Trouble(Cause.BUG, f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE])


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and (is_full(error) or _numpy_says_full(error)):
            return True
        if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _numpy_says_full(error: OSError) -> bool:
    """`ndarray.tofile` raises OSError without a number: it looks for free space first, or counts after."""
    said = str(error)
    return error.errno is None and ("Not enough free space" in said or "requested and" in said)


def _check(job: Job, folder: Path) -> Checked:
    began = time.monotonic()
    digest = digest_of(job.model)
    seen = check(job.model, job.settings, warm=_worker(job.settings, folder))
    return _seen(seen.outcome, began, nodes=seen.nodes, version=seen.target.title, digest=digest)


def _verify(job: Job, folder: Path) -> Checked:
    from bisect_trt.reproducer.verify import until_shown

    _end_worker()
    began = time.monotonic()
    run = job.settings.run
    timeout = min(run.timeout or _PROBE, job.limit)
    report = json.loads((job.repro / "report.json").read_text())
    known = [Failure.from_json(report[name]) for name in ("failure", "reworded") if report.get(name)]
    outcome, _ = until_shown(job.repro, job.settings, timeout, run.repeats, known)
    shows = any(f.same_as(one) for f in outcome.failures for one in known)
    return _seen(outcome, began, shows=shows)


def _seen(outcome: Outcome, began: float, **told: Any) -> Checked:
    failures = tuple(_short(f) for f in outcome.failures[:MOST_FAILURES])
    told |= {"seconds": time.monotonic() - began, "target_seconds": outcome.seconds}
    return Checked(failures, outcome.unresolved[:LONGEST_MESSAGE], **told)


def _reduce(job: Job, folder: Path) -> Reduced:
    from bisect_trt.reduction.reduce import reduce
    from bisect_trt.results import Step

    _end_worker()
    began = time.monotonic()
    if not job.again and (done := _finished(job.repro)) is not None:
        return done  # the night was killed between this and the row in the history
    flaky = False

    def tell(step: Step) -> None:
        nonlocal flaky
        flaky = flaky or step.text.startswith("flaky")  # `Problem.repeat_probes` says so
        seen = {"phase": step.phase, "text": step.text, "nodes": step.nodes, "probes": step.probes}
        with written_whole(folder / PROGRESS) as aside:
            aside.write_text(json.dumps(seen))

    with limits.terminable():  # as a night ends a reduction that takes too long
        result = reduce(job.model, job.settings, out=job.repro, force=job.again, on_event=tell)
    return Reduced(
        failure=_short(result.original_failure or result.wanted),
        nodes=len(result.best.nodes),
        shape=same_bugs.describe(job.repro / "repro.onnx"),
        verified=result.verified,
        repeats=result.repeats,
        finished=result.finished,
        flaky=flaky,
        seconds=time.monotonic() - began,
        stop_reason=result.stop_reason,
    )


def _finished(out: Path) -> Reduced | None:
    try:
        report = json.loads((out / "report.json").read_text())
    except (OSError, ValueError):
        return None
    if not report["finished"]:
        return None
    return Reduced(
        failure=_short(Failure.from_json(report["failure"])),
        nodes=len(report["nodes"]),
        shape=same_bugs.describe(out / "repro.onnx"),
        verified=report["verified"],
        repeats=report["repeats"],
        finished=True,
    )


def _short(failure: Failure) -> Failure:
    """Shorten an answer so that it fits into a pipe whatever the target said."""
    signature = failure.signature
    if len(signature) > LONGEST_MESSAGE:
        signature = f"{signature[:LONGEST_MESSAGE]}#{hashlib.sha256(signature.encode()).hexdigest()[:16]}"
    nodes = tuple(n[:200] for n in failure.nodes[:10])
    return Failure(
        failure.stage, failure.symptom, signature, failure.message[:LONGEST_MESSAGE], nodes, failure.op[:200]
    )


_KINDS: dict[str, Callable[[Job, Path], Checked | Reduced]] = {
    "check": _check,
    "verify": _verify,
    "reduce": _reduce,
}
