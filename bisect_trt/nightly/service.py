"""`bisect-trt nightly` from end to end: lock, history, the night's work, report, retention, exit code."""

from __future__ import annotations

import logging
import logging.handlers
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt.errors import StoppedEarly, TargetUnavailable, UsageError, cannot_write
from bisect_trt.nightly import blame, hooks, lock, plan, report, retention
from bisect_trt.nightly.children import Children
from bisect_trt.nightly.clock import Clock
from bisect_trt.nightly.config import Config
from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.night import GONE, SIGNALLED, Work
from bisect_trt.nightly.runner import Runner
from bisect_trt.nightly.same_bugs import Cluster, find
from bisect_trt.nightly.verdicts import Status

LOG = "nightly.log"
TMP = "tmp"
_OLD_LOGS = 3

NOTHING_NEW, NEW_FAILURES, NO_TARGET, ENDED_EARLY = 0, 1, 3, 6

MakeRunner = Callable[[Path, Path], Runner]
"""From a folder for temporary files and one for logs."""


def nightly(
    config: Config,
    tell: Callable[[str], None] = lambda line: None,
    *,
    clock: Clock | None = None,
    make_runner: MakeRunner | None = None,
) -> int:
    """Do a night, or go on with one that was killed; everything is written below `config.out`.

    Args:
        config: see `config.load`.
        tell: gets each line of the log too.
        clock: for tests.
        make_runner: for tests, and for running models elsewhere.

    Returns:
        The exit code: 0 nothing new, 1 new failures, 6 the time was over (or
        a signal came) before everything was done. New failures are told before an early end.

    Raises:
        UsageError: nothing matches, another run holds the folder, or it cannot be written.
        TargetUnavailable: not one model could be run (the report is written all the same).
        StoppedEarly: the disk is full and nothing that can go makes room.
    """
    plan.items(config, plan.find_models(config))  # says what is wrong before anything is written
    hooks.words(config.on_new)
    out = _make_folder(config.base / config.out)
    with lock.hold(out) as stale, _log(out, config.retention.log_size, tell) as say:
        if stale:
            say(f"process {stale.pid} ended in the middle of a night that began {stale.since}")
        with closing(_open(out)) as history:
            try:
                return _night(config, history, say, clock or Clock(), make_runner or _children(config))
            except sqlite3.OperationalError as error:
                why = f"the history of {out} cannot be written: {error}"
                raise StoppedEarly(why, "make room and start it again: it goes on") from error


def _night(
    config: Config, history: History, say: Callable[[str], None], clock: Clock, make_runner: MakeRunner
) -> int:
    night, resumed = history.begin_night(clock.wall(), config.resume_within)
    say(f"night {night.id} {'goes on' if resumed else 'begins'}")
    out = config.base / config.out
    retention.take_ballast(out)
    folder = retention.night_folder(out, night)
    runner = make_runner(out / TMP, folder / "logs")
    work = Work(config, history, night, runner, say, clock)
    with closing(runner):
        work.run()
    clusters = find(history.rows(night.id))
    if work.ended_early != SIGNALLED:
        _announce(work, folder, clusters)
    code = _exit_code(work)
    finished = None if work.ended_early == SIGNALLED else clock.wall()
    night = replace(work.night, finished=finished, exit_code=code, ended_early=work.ended_early, phase="")
    retention.drop_ballast(out)
    history.save_night(night)
    data = report.collect(history, night, clusters, out, skip_known=config.junit_skip_known)
    _write_report(data, out, folder, say)
    retention.clean(out, history, config.retention, say)
    early = f" ({night.ended_early})" if night.ended_early else ""
    say(report.tonight(data, out / report.PAGE) + early)
    if code == NO_TARGET:
        raise _nothing_could_be_run(work)
    return code


def _children(config: Config) -> MakeRunner:
    return lambda folder, logs: Children(folder, config.base, parallel=config.workers, logs=logs)


def _announce(work: Work, folder: Path, clusters: list[Cluster]) -> None:
    """Ask for the release and run the user's command once for each new bug, not twice after a kill."""
    config, out, say = work.config, work.out, work.say
    for cluster in clusters:
        news = [row for row in cluster.rows if row.news]
        # With {models} a known bug in another model is told, too.
        runs = bool(config.on_new) and (cluster.new or bool(news and "{models}" in config.on_new))
        first = cluster.first if cluster.new or not news else news[0]
        asks = config.blame and cluster.new and bool(first.repro)
        if runs and not first.repro and "{repro}" in config.on_new:
            say(f"on_new: not run for {first.model}: there is no reproducer")
            runs = False
        if not (runs or asks) or not work.history.announce(work.night.id, cluster.id):
            continue
        if asks:
            repro = out / first.repro
            blame.tell(repro, folder / "blame" / repro.name, config.blame_timeout, say)
        if runs:
            values = {
                "repro": str(out / first.repro) if first.repro else "",
                "model": first.model,
                "models": ", ".join(sorted({row.model for row in news})),
                "target": first.target,
                "status": first.status.value,
                "signature": first.signature,
                "report": str(folder / report.PAGE),
            }
            say(hooks.run(config.on_new, values, config.base, config.on_new_timeout))


def _nothing_could_be_run(work: Work) -> TargetUnavailable:
    if work.unusable:
        return TargetUnavailable(work.unusable, "bisect-trt doctor says what can be used here")
    reasons = Counter(row.reason for row in work.history.rows(work.night.id) if row.reason != GONE)
    often = min(reasons, key=lambda reason: (-reasons[reason], reason), default=GONE)
    return TargetUnavailable(f"not one model could be run: {often}", "see the report for each of them")


def _exit_code(work: Work) -> int:
    rows = list(work.history.rows(work.night.id))
    if not work.ended_early and all(row.status is Status.NOT_RUN for row in rows):
        return NO_TARGET
    if any(row.news for row in rows):
        return NEW_FAILURES
    return ENDED_EARLY if work.ended_early else NOTHING_NEW


def _write_report(data: Mapping[str, Any], out: Path, folder: Path, say: Callable[[str], None]) -> None:
    for place in (folder, out):
        try:
            report.write(data, place, out)
        except OSError as error:
            say(f"the report could not be written to {place}: {error.strerror}")


def _make_folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error, "choose another folder with --out") from error
    ours = (out / FILE).exists()
    if not ours and any(p.name not in (lock.FILE, LOG) for p in out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no nights", "choose another folder with --out")
    return out


def _open(out: Path) -> History:
    """Return the history; when the disk is full already the ballast goes first."""
    try:
        return History(out / FILE)
    except (UsageError, sqlite3.OperationalError):
        retention.drop_ballast(out)
        return History(out / FILE)


@contextmanager
def _log(out: Path, size: int, tell: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Yield a rotated log file; a full disk loses lines and nothing else."""
    handler = logging.handlers.RotatingFileHandler(
        out / LOG, maxBytes=size, backupCount=_OLD_LOGS, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # ENOSPC: the line is lost

    def say(line: str) -> None:
        handler.handle(logging.LogRecord("nightly", logging.INFO, "", 0, line, None, None))
        tell(line)

    try:
        yield say
    finally:
        handler.close()
