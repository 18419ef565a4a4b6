"""Runs in a worker: what the rounding of each tensor does alone, all else in FP32.

A node that stays alone in FP32 changes little: what it reads and gives is rounded all the same. What is
rounded goes from a maker to a reader, and stays as it is when both do. So harm belongs to such edges, a few
hundred of them, one run each. Where edges that meet do the very same harm (a sum of squares, its mean, its
root) the number that is rounded is the same, and counts once: all of their nodes have to stay to spare it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

import numpy as np

from bisect_trt.accuracy.tolerance import differences
from bisect_trt.mixed_precision.answer import Harm
from bisect_trt.mixed_precision.evaluate import Trial, Values, engine_of
from bisect_trt.mixed_precision.switch import Edge
from bisect_trt.outcome import Array
from bisect_trt.settings import AccuracySettings

ELEMENTS, NUMBERS = 4096, 4_000_000
"""So many elements of the outputs tell enough; what is held of all edges together."""
LARGEST = 100.0
"""Tolerances: what is off by more is as wrong as can be."""
ALIKE, LEAST_ALIKE = 0.9, 0.8
"""From this cosine and this ratio of sizes on two errors are the same."""


def harms(trial: Trial, most: int, twins: Mapping[str, str]) -> tuple[int, list[Harm]]:
    """Give how many runs it took, and what the rounding along each edge adds to the mean square of the error.

    Where there are more edges than `most`, those between twins are rounded together, see `by_groups`. Nothing
    is run, and 0 and nothing given, where that is more than `most`, too.
    """
    engine = engine_of(trial)
    edges = engine.edges()
    limits = [_limits(due, trial.accuracy) for due in engine.expected]
    enough = max(1, min(ELEMENTS, NUMBERS // max(1, len(edges))))
    step = 1 + sum(limit.size for some in limits for limit in some.values()) // enough

    @cache
    def right(sample: int) -> dict[str, Array]:  # of a model with too many classes nothing is run
        return engine.outputs((), sample)

    def error(some: Collection[Edge]) -> Array:
        parts = [_error(right(k), engine.outputs(some, k), limit) for k, limit in enumerate(limits)]
        return np.concatenate(parts)[::step]

    runs, errors = by_groups(edges, error, most, twins)
    return runs, grouped(edges, errors) if runs else []


def by_groups(
    edges: Sequence[Edge], error: Callable[[Collection[Edge]], Array], most: int, twins: Mapping[str, str]
) -> tuple[int, Array]:
    """Give how often `error` was asked, at most so often, and a row for each edge.

    Edges between twins are asked about together, then those that do most harm by halves (in the order of the
    model), until each is alone or `most` is reached. As errors add up like lengths at right angles each of a
    group is taken for an equal part of its square. 0 and nothing where there are more classes than `most`.
    """
    alone = len(edges) <= most
    classes: dict[tuple[str, str, int], list[int]] = {}
    for k, (maker, reader) in enumerate(edges):
        alike = twins.get(maker, maker), twins.get(reader, reader), k if alone else 0
        classes.setdefault(alike, []).append(k)
    if len(classes) > most:
        return 0, np.zeros((0, 0))
    todo: list[tuple[float, list[int], Array]] = []

    def ask(some: list[int]) -> None:
        off = error([edges[k] for k in some])
        heapq.heappush(todo, (-float(np.mean(off**2)) if len(some) > 1 else 0.0, some, off))

    for some in classes.values():
        ask(some)
    runs = len(classes)
    while todo and todo[0][0] < 0 and runs + 2 <= most:
        _, some, _ = heapq.heappop(todo)
        ask(some[: len(some) // 2])
        ask(some[len(some) // 2 :])
        runs += 2
    rows = {k: off / math.sqrt(len(some)) for _, some, off in todo for k in some}
    return runs, np.array([rows[k] for k in range(len(edges))]).reshape(len(edges), -1)


def _limits(expected: Values, accuracy: AccuracySettings) -> dict[str, Array]:
    """Give what each element of the float outputs may be off by."""
    found = {}
    for diff in differences([expected], [expected], accuracy):
        due = np.asarray(expected[diff.name])
        if due.dtype.kind == "f" and due.size:
            size = np.abs(due.astype(np.float64))
            size = size if diff.metric == "max" else np.full_like(size, np.sqrt(np.mean(size**2)))
            found[diff.name] = np.maximum(diff.atol + diff.rtol * size, 1e-30)
    return found


def _error(right: Values, given: Values, limits: Mapping[str, Array]) -> Array:
    """Give how far off outputs are, in tolerances."""
    with np.errstate(all="ignore"):
        off = [
            ((given[name].astype(np.float64) - right[name]) / limit).ravel() for name, limit in limits.items()
        ]
    known: Array = np.nan_to_num(np.concatenate([*off, np.zeros(1)]), nan=LARGEST)
    return known.clip(-LARGEST, LARGEST)


def grouped(edges: Sequence[Edge], errors: Array) -> list[Harm]:
    """Put edges together that meet and do the same; `errors` has a row for each."""
    size = np.sqrt(np.sum(errors**2, axis=1))
    group = list(range(len(edges)))
    at: dict[str, list[int]] = {}
    for k, edge in enumerate(edges):
        for end in filter(None, edge):
            for other in at.setdefault(end, []):
                least, largest = sorted((size[k], size[other]))
                if least > LEAST_ALIKE * largest and errors[k] @ errors[other] > ALIKE * least * largest:
                    old, new = group[k], group[other]
                    group = [new if g == old else g for g in group]
            at[end].append(k)
    nodes: dict[int, set[str]] = {}
    for k, edge in enumerate(edges):
        nodes.setdefault(group[k], set()).update(filter(None, edge))
    square = np.mean(errors**2, axis=1)
    most = dict.fromkeys(nodes, 0.0)
    for k, g in enumerate(group):
        most[g] = max(most[g], float(square[k]))
    return [(frozenset(some), most[g]) for g, some in nodes.items() if most[g] > 0]
