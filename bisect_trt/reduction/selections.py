"""Connects the pure search to a problem: sublists of node names become candidates.

Looking ahead: the search is a pure function of the answers, so running it again with an assumed
answer tells what it would ask next. While a probe runs, free workers begin with the most probable
of these questions. No answer ever depends on it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import TypeVar

from bisect_trt.model.candidate import Candidate, Form
from bisect_trt.outcome import Verdict
from bisect_trt.reduction.list_search import Judge
from bisect_trt.reduction.problem import Problem

R = TypeVar("R")
Items = tuple[str, ...]

REPLAYS = 16  # of a search, for one look ahead


class _UnknownError(Exception):
    """A search that is run again asks what nobody has answered, which is `args`."""


class Selections:
    """Judges node names, all cut in one style; `verdict` is a `list_search.Judge`."""

    def __init__(self, problem: Problem, style: Form = Form.DEFAULT) -> None:
        self._problem = problem
        self._style = style
        self._known: dict[Items, Verdict] = {}
        self._cut: dict[Items, Candidate] = {}

    def run(self, search: Callable[[Judge[str]], R]) -> R:
        """Return what the search gives, asked with this judge; free workers look ahead."""
        with self._problem.looking_ahead(lambda: self.guesses(search)):
            return search(self.verdict)

    def run_apart(self, search: Callable[[Sequence[str], Judge[str]], R], nodes: Sequence[str]) -> R:
        """Return what the search makes of nodes, where a cut that has all of them again is no answer."""

        def verdict(asked: Judge[str], items: Sequence[str]) -> Verdict:
            known = self._problem.rerecord is not None
            again = known and set(nodes).issubset(self._problem.cut(items, self._style).nodes)
            return Verdict.VANISHES if again else asked(items)

        return self.run(lambda asked: search(nodes, partial(verdict, asked)))

    def verdict(self, items: Sequence[str]) -> Verdict:
        """Try these nodes; the problem keeps them when they are its best so far."""
        key = tuple(items)
        if key not in self._known:
            candidate = self._candidate(key)
            self._problem.attempt(candidate)
            self._known[key] = self._problem.verdicts[candidate.digest]
            self._cut.clear()
        return self._known[key]

    def guesses(self, search: Callable[[Judge[str]], object]) -> Iterator[Candidate]:
        """Yield what a search may ask from here on, most probable first."""
        tie = count()
        futures: list[tuple[float, int, dict[Items, Verdict]]] = [(-1.0, next(tie), {})]
        for _ in range(REPLAYS):
            if not futures:
                return
            chance, _, assumed = heapq.heappop(futures)
            try:
                search(partial(self._answered, assumed))
                continue  # this future ends here
            except _UnknownError as unknown:
                (asked,) = unknown.args
            candidate = self._candidate(asked)
            known = self._problem.peek(candidate)
            if known is None:
                yield candidate
                for answer in (Verdict.VANISHES, Verdict.REPRODUCES):
                    heapq.heappush(futures, (chance / 2, next(tie), {**assumed, asked: answer}))
            else:
                heapq.heappush(futures, (chance, next(tie), {**assumed, asked: known}))

    def _answered(self, assumed: Mapping[Items, Verdict], items: Sequence[str]) -> Verdict:
        """Return what is known, else what is assumed."""
        key = tuple(items)
        found = self._known.get(key) or assumed.get(key)
        if found is None:
            raise _UnknownError(key)
        return found

    def _candidate(self, items: Items) -> Candidate:
        if items not in self._cut:
            self._cut[items] = self._problem.cut(items, self._style)
        return self._cut[items]
