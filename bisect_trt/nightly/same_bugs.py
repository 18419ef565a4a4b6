"""One bug in many models is one entry.

The shape of a reduced graph, the same for every model that has one bug.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import onnx
from msgspec import Struct

from bisect_trt.nightly.history_rows import Row
from bisect_trt.nightly.verdicts import Key, Status


class Cluster(Struct, frozen=True):
    """Failures with one signature and one shape of the reduced graph.

    `rows` begin with the one to show: it has a reproducer if any has, and the smallest one. Rows that
    were not reduced are put where most of the same signature are.
    """

    key: Key
    shape: str
    rows: tuple[Row, ...]

    @property
    def id(self) -> str:
        """The same every night."""
        return hashlib.sha256("\0".join((*self.key, self.shape)).encode()).hexdigest()[:12]

    @property
    def first(self) -> Row:
        """The one to show."""
        return self.rows[0]

    @property
    def new(self) -> bool:
        """Return whether no model is known to have it from nights before."""
        return all(row.news for row in self.rows)


def find(rows: Iterable[Row]) -> list[Cluster]:
    """Return the clusters of all failing rows: those with news first, then those with most models."""
    by_key: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        if row.key is not None and row.status not in (Status.FIXED, Status.PASSING, Status.NOT_RUN):
            by_key[row.key].append(row)
    found = [
        Cluster(key, shape, tuple(sorted(members, key=_merit)))
        for key, of_key in by_key.items()
        for shape, members in _by_shape(of_key).items()
    ]
    return sorted(found, key=lambda c: (not c.new, not any(r.news for r in c.rows), -len(c.rows), c.id))


def _by_shape(rows: list[Row]) -> dict[str, list[Row]]:
    counts = Counter(row.shape for row in rows if row.shape)
    usual = min(counts, key=lambda shape: (-counts[shape], shape)) if counts else ""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.shape or usual].append(row)
    return groups


def _merit(row: Row) -> tuple[bool, bool, int, float, str, str]:
    return not row.repro, row.reduction == "partial", row.repro_nodes, *row.turn


_NAMED = 6  # ops that are written out


def describe(model: Path) -> str:
    """Return `MatMul+Relu#1f3c5d7e`: the op types, and a hash of how they are joined.

    Names, sizes, weights, attributes and the order of nodes in the file do not matter; which output
    feeds which input slot does. The hash is Weisfeiler-Lehman's, as networkx has it.
    """
    return of(onnx.load(model, load_external_data=False).graph)


def of(graph: onnx.GraphProto) -> str:
    """Return the shape of a graph, see `describe`."""
    import networkx as nx  # takes a while, and a night without failures needs none of it

    drawn = nx.DiGraph()
    makers = {
        name: (k, slot) for k, node in enumerate(graph.node) for slot, name in enumerate(node.output) if name
    }
    for k, node in enumerate(graph.node):
        drawn.add_node(k, op=f"{node.domain}:{node.op_type}")
    for k, node in enumerate(graph.node):
        for slot, name in enumerate(node.input):
            if name in makers:
                maker, output = makers[name]
                known = drawn.edges.get((maker, k), {}).get("slots", "")
                drawn.add_edge(maker, k, slots=f"{known} {output}>{slot}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # networkx 3.5 says that 3.4 had other hashes
        hashed = nx.weisfeiler_lehman_graph_hash(drawn, node_attr="op", edge_attr="slots", digest_size=4)
    counts = Counter(node.op_type for node in graph.node)
    names = [f"{n}x{op}" if n > 1 else op for op, n in sorted(counts.items())]
    more = f"+{len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{'+'.join(names[:_NAMED])}{more}#{hashed}"
