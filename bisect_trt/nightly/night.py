"""One night: check everything, look again at surprises, then reduce what is new."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from bisect_trt.machine import limits
from bisect_trt.nightly import answers, plan
from bisect_trt.nightly.clock import Clock, Limit, next_time
from bisect_trt.nightly.config import Config, target_name
from bisect_trt.nightly.history import History
from bisect_trt.nightly.history_rows import Night, Row
from bisect_trt.nightly.moved import moved
from bisect_trt.nightly.plan import Item
from bisect_trt.nightly.retention import drop_ballast
from bisect_trt.nightly.runner import Answer, Cause, Job, Runner, Trouble
from bisect_trt.nightly.verdicts import Status

Ask = Callable[[Item, Row, float], Job]
Take = Callable[[Row, Answer], Row]

LOOK = 0.2  # seconds between two looks at clocks and signals
LEAST = 1.0  # seconds that have to be left for a job to be begun
TRIES = 3  # times that a job may be begun and take the whole night down with it
GONE = "the file is gone since the last night"
BUDGET = "the time was over"
SIGNALLED = "stopped by a signal"


class Phase(NamedTuple):
    """A phase of a night: what is to be done, what is asked of it, and what is made of the answer."""

    name: str
    todo: Callable[[], list[Row]]
    ask: Ask
    take: Take


class Work:
    """The work of one night; all of the history is written by the thread that calls `run`."""

    def __init__(
        self,
        config: Config,
        history: History,
        night: Night,
        runner: Runner,
        say: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """Nothing is started yet; `say` takes a line for the log."""
        self.config = config
        self.history = history
        self.night = night
        self.runner = runner
        self.say = say
        self.out = config.base / config.out
        until = config.budget.until
        moment = next_time(night.started, until) if until else None
        self.limit = Limit(clock, config.budget.total, moment, night.used)
        self.ended_early = ""
        self.unusable = ""  # why a target could not be used at all
        self._stop = threading.Event()
        self._said: set[tuple[str, str]] = set()  # targets that cannot be used, and why
        self._items: dict[tuple[str, str], Item] = {}

    def stop(self) -> None:
        """End the night soon; it can be gone on with."""
        self._stop.set()

    def run(self) -> None:
        """Run all phases, or as many as time allows; the rows say how far it came."""
        self._plan()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        models = ThreadPoolExecutor(self.config.workers, thread_name_prefix="model")
        with limits.handled(self._signalled, *numbers), models as threads:
            again = Phase("confirm", self._to_confirm, self._check, self._take_confirm)
            phases = (
                Phase("check", self._to_check, self._check, self._take_check),
                *[again] * (self.config.confirm - 1),
                Phase("verify", self._to_verify, self._verify, answers.verified),
                Phase("reduce", self._to_reduce, self._reduce, self._take_reduce),
            )
            for phase in phases:
                self._save_night(phase=phase.name)
                if not self._do(threads, phase):
                    break

    def _plan(self) -> None:
        names = plan.find_models(self.config)
        for old, new in moved(self.history, self.night.id, names, self.config.base):
            self.history.rename(old, new)
            self.say(f"{new} is what was {old} before: its history goes on")
        items = plan.items(self.config, names)
        self._items = {(i.name, i.target): i for i in items}
        rows = [Row(self.night.id, i.name, i.target, i.digest) for i in items]
        self.history.plan([*rows, *self._gone(set(names))])

    def _gone(self, names: set[str]) -> Iterator[Row]:
        """Yield the rows for files that were there in the night before; said once."""
        before = self.history.last_night(self.night.id)
        targets = {target_name(t) for t in self.config.target}
        for row in self.history.rows(before.id) if before else ():
            missing = row.model not in names and not (self.config.base / row.model).exists()
            if missing and row.target in targets and row.reason != GONE:
                news = not self.config.allow_missing
                known = (self.night.id, *row.name, row.settings)
                yield Row(*known, phase="done", reason=GONE, news=news)

    # Of each phase what is to be done, the job, and what is made of its answer

    def _to_check(self) -> list[Row]:
        return sorted((r for r in self._rows("planned") if r.name in self._items), key=self._cost)

    def _cost(self, row: Row) -> tuple[float, str, str]:
        """Cheap before dear: by the seconds of the last check, else by file size (100 MB/s as a guess)."""
        seconds = self.history.seconds_before(row.model, row.target, row.night)
        if not seconds:
            with suppress(OSError):
                seconds = self._items[row.name].path.stat().st_size / 1e8
        return seconds, *row.name

    def _check(self, item: Item, row: Row, limit: float) -> Job:
        limit = min(limit, self.config.budget.check)
        settings = answers.with_probe_deadline(item.settings, limit)
        return Job("check", item.slug, item.path, settings, limit, fresh=bool(row.runs))

    def _take_check(self, row: Row, answer: Answer) -> Row:
        before = self.history.last_night(self.night.id)
        last = self.history.row(before.id, row.model, row.target) if before else None
        unread = last.reason if last and last.status is Status.NOT_RUN else None
        known = isinstance(answer, Trouble) and answer.reason == unread
        missed = not known and not self.config.allow_missing
        return answers.checked(row, answer, self.history.past, self.config.confirm, missed=missed)

    def _to_confirm(self) -> list[Row]:
        return sorted(self._rows("checked"), key=lambda row: row.turn)

    def _take_confirm(self, row: Row, answer: Answer) -> Row:
        return answers.confirmed(row, answer, self.history.past, self.config.confirm)

    def _to_verify(self) -> list[Row]:
        rows = [r for r in self._rows("confirmed") if self.history.reproducer(r, self.out)]
        return sorted(rows, key=lambda row: row.turn)

    def _verify(self, item: Item, row: Row, limit: float) -> Job:
        return Job("verify", item.slug, item.path, item.settings, limit, self.out / row.repro)

    def _to_reduce(self) -> list[Row]:
        rows = plan.reduce_order(self._rows("confirmed"))
        if not self.config.one_of_each:
            return rows
        firsts, others = plan.one_of_each(rows)
        for row in others:
            self._save(answers.given_up(row, "not reduced: another model with this failure is"))
        return firsts

    def _reduce(self, item: Item, row: Row, limit: float) -> Job:
        out = self.out / answers.repro_folder(item, row)
        again = row.reduction == answers.STALE
        settings = answers.with_budget(item.settings, limit)
        return Job("reduce", item.slug, item.path, settings, limit, out, again=again)

    def _take_reduce(self, row: Row, answer: Answer) -> Row:
        folder = answers.repro_folder(self._items[row.name], row)
        taken = answers.reduced(row, answer, folder, self.out, self.history.past)
        if self._stop.is_set() and taken.reduction == "partial":
            return replace(taken, phase=row.phase)  # a signal ended it: the next start goes on with it
        return taken

    # What all phases share

    def _rows(self, phase: str) -> list[Row]:
        return [r for r in self.history.rows(self.night.id) if r.phase == phase]

    def _do(self, threads: ThreadPoolExecutor, phase: Phase) -> bool:
        """Do a phase; False when time or a signal ended it."""
        todo, later = phase.todo(), list[Row]()
        if todo:
            self.say(f"{phase.name}: {len(todo)} to do")
        return self._all(threads, phase, todo, later) and self._all(threads, phase, later, None)

    def _all(
        self, threads: ThreadPoolExecutor, phase: Phase, rows: list[Row], later: list[Row] | None
    ) -> bool:
        """Keep all threads busy; with `later` None one at a time.

        Models that met a full disk while others were at work are put into `later`.
        """
        waiting = deque(rows)
        parallel = 1 if later is None else self.config.workers
        busy: dict[Future[Answer], Row] = {}
        while busy or waiting:
            while waiting and len(busy) < parallel and not self._over():
                self._begin(threads, phase, waiting.popleft(), busy)
            if self._over():
                waiting.clear()
                self.runner.cancel()
            done, _ = wait(busy, timeout=LOOK, return_when=FIRST_COMPLETED)
            for future in done:
                self._end(phase, busy.pop(future), _answer(future), later if parallel > 1 else None)
        return not self.ended_early

    def _over(self) -> bool:
        if self._stop.is_set():
            self.ended_early = SIGNALLED
        elif not self.ended_early and self.limit.left() < LEAST:
            self.ended_early = BUDGET
        return bool(self.ended_early)

    def _begin(
        self, threads: ThreadPoolExecutor, phase: Phase, planned: Row, busy: dict[Future[Answer], Row]
    ) -> None:
        """Begin the next job of a model, unless it is given up."""
        row = self.history.row(self.night.id, planned.model, planned.target) or planned
        item = self._items.get(row.name)
        if item is None:  # the configuration changed since the night began
            return
        if phase.name == "verify" and (known := self.history.reproducer(row, self.out)):
            row = replace(row, repro=known.repro, repro_nodes=known.repro_nodes, shape=known.shape)
        limit = min(self.limit.left(), self.config.budget.per_model - row.seconds)
        if row.begun >= TRIES:
            why = f"the night was killed {TRIES} times while it was at work on this"
            self._save(answers.given_up(row, why))
        elif limit < LEAST:
            self._save(answers.given_up(row, "its time (budget.per_model) was over"))
        else:
            row = replace(row, begun=row.begun + 1)
            self._save(row)
            busy[threads.submit(self.runner.run, phase.ask(item, row, limit))] = row
            place = str(self.runner.folder(item.slug) or "")
            self.history.set_running(row.model, row.target, phase.name, place)

    def _end(self, phase: Phase, row: Row, answer: Answer, later: list[Row] | None) -> None:
        self.history.clear_running(row.model, row.target)
        if isinstance(answer, Trouble):
            if answer.cause is Cause.CANCELLED:
                self._save(replace(row, begun=row.begun - 1))
                return
            if answer.cause is Cause.TARGET:
                self.unusable = answer.reason
            if answer.cause is Cause.DISK:
                self.say(f"{phase.name} {row.model} on {row.target}: {answer.reason}")
                drop_ballast(self.out)
                if later is not None:
                    later.append(row)
                    return
        row = phase.take(replace(row, seconds=row.seconds + answer.seconds), answer)
        self._save(row)
        self._save_night()
        self._tell(phase.name, row, answer)

    def _tell(self, name: str, row: Row, answer: Answer) -> None:
        """Write a line into the log; one for all models where the target cannot be used."""
        if isinstance(answer, Trouble) and answer.cause is Cause.TARGET:
            if (row.target, answer.reason) not in self._said:
                self._said.add((row.target, answer.reason))
                self.say(f"{row.target} cannot be used, no model is run on it: {answer.reason}")
            return
        said = f": {row.reason}" if row.reason else ""
        self.say(f"{name} {row.model} on {row.target}: {row.status} ({answer.seconds:.1f} s){said}")

    def _save(self, row: Row) -> None:
        if not self.history.save(row):
            self.say("no space left for the history: it is kept in memory until there is")
            drop_ballast(self.out)

    def _save_night(self, phase: str | None = None) -> None:
        self.night = replace(self.night, used=self.limit.used, phase=phase or self.night.phase)
        self.history.save_night(self.night)

    def _signalled(self, number: int, frame: object) -> None:
        """End the night in order; a second signal ends it at once."""
        if self._stop.is_set():
            raise KeyboardInterrupt
        self.stop()


def _answer(future: Future[Answer]) -> Answer:
    """Return the job's answer; a bug of ours in one job costs its model, not the night."""
    try:
        return future.result()
    except Exception as error:
        return Trouble(Cause.BUG, f"{type(error).__name__}: {error}")
