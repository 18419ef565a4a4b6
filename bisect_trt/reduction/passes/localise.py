"""Without a usable hint: halve the model by cost.

The target often names the culprit: try it alone, then growing surroundings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from bisect_trt.model.graph import Graph
from bisect_trt.reduction import list_search
from bisect_trt.reduction.list_search import Judge
from bisect_trt.reduction.problem import Problem
from bisect_trt.reduction.selections import Selections


def localise(problem: Problem) -> None:
    """Find a small part of the whole model that reproduces, unless a hint already gave one."""
    if problem.best is None:
        Selections(problem).run(halving(problem))


def halving(problem: Problem) -> Callable[[Judge[str]], list[str]]:
    """Return the search of this pass, to be run or to be looked ahead in."""
    return lambda judge: list_search.localise(problem.scope, judge, problem.graph.weight)


NEAR_ANCESTORS, FAR_ANCESTORS = 8, 32


def follow_hints(problem: Problem) -> None:
    """Keep the first neighbourhood of the blamed nodes that reproduces, smallest first."""
    graph = problem.graph
    blamed = resolve(graph, problem.wanted.nodes) if problem.wanted else []
    if blamed:
        problem.attempt_first(problem.cut(nodes) for nodes in _worth_trying(problem, blamed))


def _worth_trying(problem: Problem, blamed: list[str]) -> Iterator[frozenset[str]]:
    """Yield different surroundings, within what is searched and no more than half of it."""
    scope, tried = frozenset(problem.scope), set[frozenset[str]]()
    for around in _surroundings(problem.graph, blamed):
        nodes = around & scope
        if nodes and nodes not in tried and 2 * len(nodes) <= len(scope) + 1:
            tried.add(nodes)
            yield nodes


def resolve(graph: Graph, names: tuple[str, ...]) -> list[str]:
    """Blamed names as nodes of the graph; a tensor's name stands for its producer."""
    found = (name if name in graph.nodes else graph.producer.get(name) for name in names)
    return list(dict.fromkeys(name for name in found if name is not None and name in graph.nodes))


def close_by(graph: Graph, names: tuple[str, ...]) -> frozenset[str]:
    """Return the nodes of the first hints: what is left in the end is most often among them."""
    blamed = resolve(graph, names)
    if not blamed:
        return frozenset()
    above = _upstream(graph, blamed[0], NEAR_ANCESTORS)
    return frozenset(blamed).union(above, graph.neighbourhood(blamed[:1], 1))


def _surroundings(graph: Graph, blamed: list[str]) -> Iterator[frozenset[str]]:
    """Yield the first blamed node, all of them, what feeds them, what is around them."""
    yield frozenset(blamed[:1])
    yield frozenset(blamed)
    yield frozenset(_upstream(graph, blamed[0], NEAR_ANCESTORS))
    yield graph.neighbourhood(frozenset(blamed[:1]), 1)
    yield frozenset(_upstream(graph, blamed[0], FAR_ANCESTORS))
    yield graph.neighbourhood(frozenset(blamed), 3)


def _upstream(graph: Graph, node: str, count: int) -> list[str]:
    """Return the node and its nearest ancestors, `count` at most."""
    found = {node: None}
    todo = deque(found)
    while todo and len(found) < count:
        new = [name for name in graph.sources_of(todo.popleft()) if name not in found]
        found |= dict.fromkeys(new)
        todo += new
    return list(found)[:count]
