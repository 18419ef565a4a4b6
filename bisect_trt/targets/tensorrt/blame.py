"""From what TensorRT calls a layer back to the nodes of the candidate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property

import onnx

from bisect_trt.model.graph import consumed
from bisect_trt.model.walk import inner_nodes, tensor_names
from bisect_trt.targets.signature import TOKEN, is_plain, named_in

_FOREIGN = re.compile(r"\{?ForeignNode\[(.*?)\.\.\.(.*?)\](?:\}|$)")
_FOREIGN_ONE = re.compile(r"\{?ForeignNode\[([^\]]*?)\]\}?")
_SUFFIX = re.compile(r"(?:_\d+|_[A-Z][A-Za-z]*|_clone_\d+)$")


class Blame:
    """Finds nodes in messages. `model` is the candidate as TensorRT parsed it.

    A node that has no name of its own, or shares it, goes by its first output.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._order = labels(self._graph)
        self._op: dict[str, str] = {
            label: node.op_type for label, node in zip(self._order, self._graph.node, strict=True)
        }
        self._at = {name: at for at, name in enumerate(self._order) if name}
        self._maker = {out: at for at, node in enumerate(self._graph.node) for out in node.output if out}
        self._users: dict[str, list[int]] = {}
        for at, node in enumerate(self._graph.node):
            for tensor in consumed(node):
                if tensor not in self._maker:
                    self._users.setdefault(tensor, []).append(at)

    @cached_property
    def names(self) -> frozenset[str]:
        """Return all names of nodes and tensors, those of subgraphs too, for `signature.mask`."""
        nodes = filter(None, (node.name for node in inner_nodes(self._graph)))
        return frozenset((*tensor_names(self._graph), *nodes))

    def node_at(self, index: int) -> str:
        """Return the name of a node of the graph by its index; empty when there is none."""
        return self._order[index] if 0 <= index < len(self._order) else ""

    def has(self, node: str) -> bool:
        """Return whether the graph has a node of this name."""
        return node in self._at

    def op(self, node: str) -> str:
        """Return the operator of a node, empty when unknown."""
        return self._op.get(node, "")

    def nodes_in(self, message: str) -> tuple[str, ...]:
        """Return the nodes that a message of the builder names, best guess first.

        When it names none but an operator that the graph has (`Attention operation was not
        supported`), the nodes with that operator.
        """
        words = {word for word in _tokens(_FOREIGN.sub(" ", message)) if word[:1].isupper()}
        return self.named_in(message) or tuple(name for name in self._order if self._op.get(name) in words)

    def named_in(self, message: str) -> tuple[str, ...]:
        """Return the nodes that a message, or the name of a layer, has by name."""
        found: list[int] = []
        for first, last in _FOREIGN.findall(message):
            ends = [at for at in map(self._resolve, (first, last)) if at is not None]
            found += range(min(ends), max(ends) + 1) if len(ends) == 2 else ends
        rest = _FOREIGN.sub(" ", message)
        found += [at for name in _FOREIGN_ONE.findall(rest) if (at := self._resolve(name)) is not None]
        words = [*named_in(rest), *(word for word in _tokens(rest) if not is_plain(word))]
        found += [at for at in map(self._resolve, words) if at is not None]
        found += [at for word in words for at in self._users.get(word, ())]
        return tuple(name for at in dict.fromkeys(found) if (name := self._order[at]))

    def with_operator_like(self, kind: str) -> tuple[str, ...]:
        """Return the nodes whose operator is `kind` or a prefix of it: `LSTM` for LSTMSequence."""
        exact = tuple(name for name in self._order if name and self._op.get(name) == kind)
        if exact or not kind:
            return exact
        longest = max((op for op in self._op.values() if kind.startswith(op)), key=len, default="")
        return tuple(name for name in self._order if name and longest and self._op.get(name) == longest)

    def _resolve(self, word: str) -> int | None:
        """Return the index of the node that a layer name stands for."""
        for name in dict.fromkeys((word, word.removeprefix("node_of_"))):
            for candidate in dict.fromkeys((name, _SUFFIX.sub("", name))):
                at = self._at.get(candidate, self._maker.get(candidate))
                if at is not None:
                    return at
        return None


def labels(graph: onnx.GraphProto) -> list[str]:
    """Return what each node is called: its name where no other node has it, else its first output."""
    times = Counter(node.name for node in graph.node)
    return [
        node.name if node.name and times[node.name] == 1 else next(filter(None, node.output), "")
        for node in graph.node
    ]


def _tokens(message: str) -> Iterator[str]:
    for match in TOKEN.finditer(message):
        token = match.group()
        yield token
        bare = token.rstrip(".:;!?")
        if bare != token:
            yield bare
