"""Whether the outputs of a model can be compared at all: they may be random, no numbers, or not finite."""

from __future__ import annotations

from msgspec.structs import replace
from onnx import TensorProto

from bisect_trt.model.graph import Graph
from bisect_trt.model.randomness import outputs_behind, random_nodes, words
from bisect_trt.outcome import Outcome
from bisect_trt.references.base import Record
from bisect_trt.results import Finding
from bisect_trt.session.finite import all_lost, described, lost_in
from bisect_trt.session.prepare import Session
from bisect_trt.settings import AccuracySettings, Settings
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.text import some_names

SHOWN = 4  # names in a note


NO_NUMBERS = "no output is a tensor of numbers, so nothing was compared"

ALL_EMPTY = "Every output is empty with these inputs: nothing but shapes was compared."


def without_numbers(graph: Graph) -> dict[str, str]:
    """Return what those outputs hold that are no tensors of numbers: sequence, map, optional, strings."""
    found = {}
    for name in graph.graph_outputs:
        kind = graph.value_info(name)
        held = kind.WhichOneof("value") if kind else "tensor_type"
        if held != "tensor_type":
            found[name] = held.removesuffix("_type")
        elif graph.elem_type(name) == TensorProto.STRING:
            found[name] = "strings"
    return found


def held_words(graph: Graph) -> list[str]:
    """Say which outputs are never compared, as sentences."""
    held = without_numbers(graph)
    named = some_names([f"{name} ({kind})" for name, kind in held.items()], SHOWN)
    what = "A tensor that it is made of would be, as an output of the model."
    return [f"Not compared, as only tensors of numbers are: {named}. {what}"] if held else []


class Doubts:
    """Why outputs of the whole model, or all of them, cannot be compared.

    They may be random, no tensors of numbers, or not finite.
    """

    def __init__(
        self, graph: Graph, accuracy: AccuracySettings, notes: list[str], *, compares: bool = True
    ) -> None:
        """Look at the graph; `notes` are sentences for the first lines; a target may `compare` nothing."""
        behind, held = outputs_behind(graph, random_nodes(graph)), without_numbers(graph)
        self.notes = [*notes, *words(graph), *(held_words(graph) if compares else [])]
        self.accuracy = replace(accuracy, ignore=tuple(dict.fromkeys((*accuracy.ignore, *behind))))
        self._compared = [name for name in graph.graph_outputs if name not in self.accuracy.ignore]
        self.why, self.finding = "", Finding.WRONG
        if behind and not self._compared:
            self.why, self.finding = "every output depends on a random node", Finding.RANDOM
        self._compared = [name for name in self._compared if name not in held]
        if compares and held and not self._compared and not self.why:
            self.why, self.finding = NO_NUMBERS, Finding.NOT_TOLD

    def look_at(self, pool: Pool, session: Session, settings: Settings, recorded: Record) -> None:
        """Look at the reference's outputs, too."""
        sizes = [0 in s for name in self._compared if name in recorded for s in recorded.tensors[name].shapes]
        if sizes and all(sizes):
            self.notes.append(ALL_EMPTY)
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
