"""Whether the outputs of a model can be compared at all: they may be random, or not finite."""

from __future__ import annotations

from msgspec.structs import replace

from bisect_trt.model.graph import Graph
from bisect_trt.model.randomness import outputs_behind, random_nodes, words
from bisect_trt.outcome import Outcome
from bisect_trt.references.base import Record
from bisect_trt.results import Finding
from bisect_trt.session.finite import all_lost, described, lost_in
from bisect_trt.session.prepare import Session
from bisect_trt.settings import AccuracySettings, Settings
from bisect_trt.workers.pool import Pool


class Doubts:
    """Why outputs of the whole model, or all of them, cannot be compared: it is random, or not finite."""

    def __init__(self, graph: Graph, accuracy: AccuracySettings, notes: list[str]) -> None:
        """Look at the graph; `notes` are sentences for the first lines."""
        behind = outputs_behind(graph, random_nodes(graph))
        self.notes = [*notes, *words(graph)]
        self.accuracy = replace(accuracy, ignore=tuple(dict.fromkeys((*accuracy.ignore, *behind))))
        self._compared = [name for name in graph.graph_outputs if name not in self.accuracy.ignore]
        self.why, self.finding = "", Finding.WRONG
        if behind and not self._compared:
            self.why, self.finding = "every output depends on a random node", Finding.RANDOM

    def look_at(self, pool: Pool, session: Session, settings: Settings, recorded: Record) -> None:
        """Look at the reference's outputs, too."""
        lost = lost_in(recorded, self._compared)
        if not lost.count:
            return
        self.notes.insert(0, described(pool, session, settings, lost))
        if why := all_lost(lost, self._compared):
            self.why, self.finding = why, Finding.REFERENCE_NOT_FINITE

    def applied_to(self, outcome: Outcome) -> Outcome:
        """Return the outcome, or one that says nothing where nothing could be compared.

        Numbers of the target where the reference has NaN are no mismatch.
        """
        certain = any(not failure.is_mismatch for failure in outcome.failures)
        silent = certain or outcome.unresolved or not self.why
        return outcome if silent else replace(outcome, failures=(), unresolved=self.why)
