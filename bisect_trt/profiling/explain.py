"""Which nodes make two sides differ: the fewest segments that explain most of it, each measured by itself.

Where the slower side tells times of its layers, nodes that any layer of either computes together are a
group, and groups are tried in the order of their difference; where the faster side tells none, in the order
of what the slower one takes for them, as no part can differ by more than that. Where the slower side tells
none, or its layers by themselves do not differ as they do in the model, what is left is halved, the largest
difference first; a segment whose halves differ less by themselves than it does stays whole: the
difference is what they gain together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import networkx as nx
from msgspec import Struct, field

from bisect_trt.profiling.rounds import Ratio
from bisect_trt.targets.timed import Layer
from bisect_trt.writing.text import some_names

ENOUGH = 0.8
"""The part of the difference that segments have to explain."""
MOST = 40  # measurements
_IN_VAIN = 8  # groups one after the other that do not differ by themselves
_SMALL = 0.02  # the part of the difference below which a group is not tried

Nodes = tuple[str, ...]


class Part(Struct, frozen=True):
    """A segment by itself on both sides; `more` is how many seconds longer the slower side takes for it.

    `operators`: how often the segment has each, the most frequent first.
    """

    nodes: Nodes
    ratio: Ratio
    more: float
    operators: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """Its nodes and what they are: `a, b (LRN)`."""
        kinds = [op if count == 1 else f"{count} {op}" for op, count in self.operators]
        return f"{some_names(self.nodes, 3)} ({some_names(kinds, 3)})"


class Explained(Struct):
    """Segments that differ beyond the limit by themselves, the largest difference first.

    `part`: how much of the whole difference they explain. `untold`: how many others were measured of which
    nothing can be said, as their interval is neither within nor beyond the limit.
    """

    parts: tuple[Part, ...] = ()
    part: float = 0.0
    untold: int = 0
    measured: int = 0
    tried: dict[Nodes, Part | None] = field(default_factory=dict)


Measure = Callable[[Nodes], Part | None]
"""A segment by itself on both sides; None where either refuses it."""


def groups(
    order: Sequence[str], slow: Iterable[Layer], fast: Iterable[Layer]
) -> list[tuple[Nodes, float]]:
    """Return groups of nodes that either side fuses, with the extra seconds that the slow side takes.

    The largest difference comes first.
    """
    graph = nx.Graph()
    sides = [[layer for layer in side if layer.nodes] for side in (slow, fast)]
    for layer in (*sides[0], *sides[1]):
        nx.add_path(graph, layer.nodes)
        graph.add_nodes_from(layer.nodes)
    place = {name: at for at, name in enumerate(order)}
    owner = {node: k for k, part in enumerate(nx.connected_components(graph)) for node in part}
    more: dict[int, float] = dict.fromkeys(owner.values(), 0.0)
    for sign, side in zip((1, -1), sides, strict=True):
        for layer in side:
            more[owner[layer.nodes[0]]] += sign * layer.seconds
    members: Mapping[int, list[str]] = {k: [] for k in more}
    for node, k in owner.items():
        members[k].append(node)
    found = [(tuple(sorted(members[k], key=lambda n: place.get(n, 0))), more[k]) for k in more]
    return sorted(found, key=lambda group: (-group[1], group[0]))


def explain(
    order: Nodes, hints: Sequence[tuple[Nodes, float]], total: float, measure: Measure, limit: float
) -> Explained:
    """Find the fewest segments that explain the difference of `total` seconds (slow less fast, above 0)."""
    found = Explained()
    smaller = [hint for hint in hints if len(hint[0]) < len(order) / 2]
    chosen = _by_layers(smaller, total, measure, limit, found)
    if (left := total - _sum(chosen)) > (1 - ENOUGH) * total:
        known = {node for part in chosen for node in part.nodes}
        rest = tuple(node for node in order if node not in known)
        more = _by_halves(rest, left, measure, found)
        chosen += [part for part in more if _differs(part, limit) and known.isdisjoint(part.nodes)]
    found.parts = tuple(_fewest(chosen, ENOUGH * total))
    found.part = _sum(found.parts) / total
    tried = [part.ratio for part in found.tried.values() if part is not None]
    found.untold = sum(not ratio.within(limit) and not ratio.beyond(limit) for ratio in tried)
    return found


def _by_layers(
    hints: Sequence[tuple[Nodes, float]], total: float, measure: Measure, limit: float, found: Explained
) -> list[Part]:
    """Return the groups that differ by themselves as well, until they explain enough."""
    kept: list[Part] = []
    in_vain = 0
    for nodes, more in hints:
        if more < _SMALL * total or _sum(kept) >= ENOUGH * total:
            break
        if in_vain >= _IN_VAIN or found.measured >= MOST // 2:
            break
        part = _ask(nodes, measure, found)
        if part is not None and _differs(part, limit):
            kept.append(part)
        in_vain = 0 if part in kept else in_vain + 1
    return kept


def _by_halves(order: Nodes, total: float, measure: Measure, found: Explained) -> list[Part]:
    """Return the segments of the model, halved as long as the halves differ as much as the whole."""
    open_parts: list[tuple[Nodes, float]] = [(order, total)]
    leaves: list[Part] = []
    while open_parts and found.measured + 2 <= MOST:
        open_parts.sort(key=lambda item: -item[1])
        nodes, more = open_parts.pop(0)
        whole = found.tried.get(nodes)
        if len(nodes) == 1 or more < _SMALL * total:
            leaves += [whole] if whole else []
            continue
        middle = len(nodes) // 2
        halves = [_ask(half, measure, found) for half in (nodes[:middle], nodes[middle:])]
        good = [part for part in halves if part is not None and part.more > 0]
        if sum(part.more for part in good) < ENOUGH * more:
            leaves += [whole] if whole else good
        else:
            open_parts += [(part.nodes, part.more) for part in good]
    return leaves + [part for nodes, _ in open_parts if (part := found.tried.get(nodes)) is not None]


def _ask(nodes: Nodes, measure: Measure, found: Explained) -> Part | None:
    if nodes not in found.tried:
        found.measured += 1
        found.tried[nodes] = measure(nodes)
    return found.tried[nodes]


def _fewest(parts: Iterable[Part], least: float) -> list[Part]:
    """Return the fewest of them that add up to so many seconds; all where they do not."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: (-part.more, part.nodes)):
        if _sum(kept) < least and part.more > 0:
            kept.append(part)
    return kept


def _differs(part: Part, limit: float) -> bool:
    return part.more > 0 and part.ratio.beyond(limit)


def _sum(parts: Iterable[Part]) -> float:
    return sum(part.more for part in parts)
