"""The shape of a reduced graph, the same for every model that has one bug."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import networkx as nx
import onnx

_NAMED = 6  # ops that are written out


def describe(model: Path) -> str:
    """`MatMul+Relu#1f3c5d7e`: the op types, and a hash of how they are joined.

    Names, sizes, weights, attributes and the order of nodes in the file do not matter; which output
    feeds which input slot does. The hash is Weisfeiler-Lehman's, as networkx has it.
    """
    return of(onnx.load(model, load_external_data=False).graph)


def of(graph: onnx.GraphProto) -> str:
    """The shape of a graph, see `describe`."""
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
