"""`reduce --all`: every different failure of a model, one reproducer for each."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from bisect_trt.errors import StoppedEarly
from bisect_trt.outcome import Failure, Outcome
from bisect_trt.reduction.context import Run
from bisect_trt.reduction.finish import finish
from bisect_trt.reduction.menu import SEARCH
from bisect_trt.reduction.passes.localise import resolve
from bisect_trt.reduction.reduce import open_run, reduce_one
from bisect_trt.reduction.schedule import search
from bisect_trt.results import OnEvent, Reduction
from bisect_trt.session.prober import BudgetSpent
from bisect_trt.settings import Settings

LONGEST_SLUG = 40


def reduce_all(
    model: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    force: bool = False,
    on_event: OnEvent = lambda step: None,
) -> tuple[Reduction, ...]:
    """Reduce each different failure of a model, into `out/1-SLUG`, `out/2-SLUG`, ...

    Different means another stage, symptom or signature. One failure may hide another (a model that
    does not parse is not built), so after each round the nodes that fail are set aside, and what the
    rest shows is reduced too, until it shows nothing new. An unfinished last one (budget, Ctrl-C)
    ends the list; the same call goes on from there.

    Raises:
        As `reduction.reduce` does; StoppedEarly also when only nothing of a later failure was found.
    """
    with open_run(model, settings, out=out, force=force, on_event=on_event, every=True) as run:
        return tuple(finish(run, _Failures(run).reduce()))


class _Failures:
    """What was found of a model, and what is left of it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rest = set(run.session.graph.order)
        self._known: dict[tuple[str, str, str], Failure] = {}
        self._results: list[Reduction] = []

    def reduce(self) -> list[Reduction]:
        """Return all reductions, in the order in which the failures show."""
        run = self._run
        shown = run.failures(run.problem(None))
        scope = run.scope or run.session.graph.order
        self._rest &= set(scope)
        while new := self._new(shown):
            for failure in new:
                if not self._reduce_one(failure, scope):
                    return self._results
            scope, shown = self._what_is_left()
        return self._results

    def _new(self, shown: tuple[Failure, ...]) -> list[Failure]:
        """Return those of another kind than all before, each once."""
        found = {f.key: self._run.wanted(f) for f in shown if f.key not in self._known}
        self._known |= found
        return list(found.values())

    def _reduce_one(self, failure: Failure, scope: tuple[str, ...]) -> bool:
        """Return whether the search may go on."""
        # What the target says may hold names of the model: an anonymous folder's own name tells nothing.
        anonymous = self._run.settings.run.anonymise
        name = f"{failure.stage}-{failure.symptom}".replace(" ", "-") if anonymous else slug(failure)
        place = self._run.out / f"{len(self._results) + 1}-{name}"
        problem = self._run.problem(failure, scope)
        result = reduce_one(self._run, problem, place)
        self._results.append(result)
        self._known.setdefault(result.wanted.key, failure)
        self._rest.difference_update(result.nodes)
        return result.finished

    def _what_is_left(self) -> tuple[tuple[str, ...], tuple[Failure, ...]]:
        """Return the nodes that are left, and what they show; nothing, when that is nothing new.

        Whatever shows a known failure again is set aside too: it may hide a new one.
        """
        run, graph = self._run, self._run.session.graph
        while self._rest:
            scope = tuple(graph.sorted(self._rest))
            problem = run.problem(None, scope)
            problem.begin("what is left")
            try:
                outcome = problem.observe(run.continued(problem.cut(scope)))
            except BudgetSpent as spent:
                raise StoppedEarly(f"{spent.message}; other failures may be left", spent.hint) from spent
            if any(f.key not in self._known for f in outcome.failures):
                run.confirm_by(outcome)
                return scope, outcome.failures
            again = self._again(outcome, scope)
            if not again:
                break
            self._rest -= again
        return (), ()

    def _again(self, outcome: Outcome, scope: tuple[str, ...]) -> set[str]:
        """Return nodes of what is left that show a known failure: as the target says, else by searching."""
        graph = self._run.session.graph
        blamed = {name for f in outcome.failures for name in resolve(graph, f.nodes[:1])} & self._rest
        if blamed or not outcome.failures:
            return blamed
        problem = self._run.problem(self._run.wanted(outcome.failures[0]), scope)
        search(problem, SEARCH)
        return set(problem.best.nodes) if problem.best else set()


def slug(failure: Failure) -> str:
    """Return a failure as a part of a file name: `parse-resize-antialiasing-is-not-supported`."""
    words = re.sub(r"<\w+>|[^A-Za-z0-9]+", " ", f"{failure.stage} {failure.op} {failure.message}").lower()
    few = textwrap.shorten(words, LONGEST_SLUG, placeholder="", break_long_words=False)
    return few.replace(" ", "-") or "failure"
