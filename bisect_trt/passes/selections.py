"""Connects the pure search to a problem: sublists of node names become candidates."""

from __future__ import annotations

from collections.abc import Sequence

from bisect_trt.model.cut import CutStyle
from bisect_trt.outcome import Verdict
from bisect_trt.problem import Problem


class Selections:
    """A `search.Judge` of node names, all cut in one style."""

    def __init__(self, problem: Problem, style: CutStyle = CutStyle.DEFAULT) -> None:
        self._problem = problem
        self._style = style

    def verdict(self, items: Sequence[str]) -> Verdict:
        """Try these nodes; the problem keeps them when they are its best so far."""
        candidate = self._problem.cut(items, self._style)
        self._problem.attempt(candidate)
        return self._problem.verdicts[candidate.digest]

    def prefetch(self, sublists: Sequence[Sequence[str]]) -> None:
        """Let free workers begin; cutting is skipped when there is only one."""
        if self._problem.workers > 1:
            self._problem.prefetch(self._problem.cut(items, self._style) for items in sublists)
