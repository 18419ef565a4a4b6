"""Nodes of which nothing can be said without a GPU: the search goes round them to what can be said."""

from __future__ import annotations

from collections.abc import Callable

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.graph import Graph
from bisect_trt.outcome import Outcome
from bisect_trt.writing.text import some_names

Cut = Callable[[tuple[str, ...]], Candidate]


def go_round(
    graph: Graph, cut: Cut, observe: Callable[[Candidate], Outcome], seen: Outcome
) -> tuple[Outcome, tuple[str, ...]]:
    """Return what the rest of a model shows, and the nodes that were left out of it.

    Args:
        graph: the model.
        cut: makes a candidate of the nodes that are named.
        observe: asks the target.
        seen: what the whole model showed. Where it shows failures, or names no node that needs a GPU, it is
            given back as it is.
    """
    out: set[str] = set()
    outcome = seen
    while not outcome.failures:
        new = {name for name in outcome.built.without_gpu if name in graph.nodes} - out
        out |= new
        rest = tuple(name for name in graph.order if name not in out)
        if not new or not rest:
            break
        outcome = observe(cut(rest))
    found = outcome if outcome.failures else seen
    return found, tuple(name for name in graph.order if name in out)


def left_out_words(graph: Graph, names: tuple[str, ...]) -> str:
    """Return a note on the nodes that were left out."""
    named = some_names([f"{name} ({graph.nodes[name].op_type})" for name in names])
    return f"Without a GPU nothing can be said of {named}: the rest of the model was looked at."
