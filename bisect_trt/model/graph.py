"""Read-only index of a model: order, producers, consumers, boundaries of selections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import onnx

if TYPE_CHECKING:  # a quarter of the time that a worker takes to start, and hardly ever needed there
    import networkx as nx

Selection = frozenset[str]
"""Names of top-level nodes."""

Dims = tuple[int | str | None, ...]
"""Known, symbolic and unknown dimensions."""

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""Operators that give another value each time; Dropout is one when its training mode is wired."""

_BODIES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_HEAVY = {"Conv": 24.0, "ConvTranspose": 24.0, "ConvInteger": 24.0, "QLinearConv": 24.0, "DeformConv": 24.0}
_HEAVY |= {"MatMul": 12.0, "Gemm": 12.0, "Einsum": 12.0, "MatMulInteger": 12.0, "QLinearMatMul": 12.0}
_HEAVY |= {"LSTM": 40.0, "GRU": 40.0, "RNN": 40.0, "Attention": 40.0, "MultiHeadAttention": 40.0}
_HEAVY |= {"Loop": 8.0, "Scan": 8.0, "If": 8.0, "NonMaxSuppression": 8.0, "TopK": 4.0, "Resize": 4.0}
_HEAVY |= {"MaxPool": 4.0, "AveragePool": 4.0, "Softmax": 3.0, "LayerNormalization": 4.0}


def is_onnx(domain: str) -> bool:
    """Return whether a domain is ONNX's own, which has two names."""
    return domain in ("", "ai.onnx")


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model imports; without an import it is the first."""
    return max((entry.version for entry in model.opset_import if is_onnx(entry.domain)), default=1)


class Boundary(NamedTuple):
    """The tensors that enter and leave a selection."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def bodies(node: onnx.NodeProto) -> Sequence[onnx.GraphProto]:
    """Return the graphs that a control flow node carries as attributes (not those nested deeper)."""
    if not (held := [a for a in node.attribute if a.type in _BODIES]):  # this is asked again and again
        return ()
    return [body for a in held for body in ((a.g,) if a.type == _BODIES[0] else a.graphs)]


def captures(body: onnx.GraphProto) -> list[str]:
    """Return the names that a body takes from the scopes around it, each once, in order of first use."""
    own = {i.name for i in body.input} | {t.name for t in body.initializer}
    own |= {t.values.name for t in body.sparse_initializer}
    own.update(name for node in body.node for name in node.output)
    used = [name for node in body.node for name in consumed(node)] + [o.name for o in body.output]
    return [name for name in dict.fromkeys(used) if name and name not in own]


def consumed(node: onnx.NodeProto) -> list[str]:
    """Return the tensors that a node reads, captures of its bodies included, without '' and each once."""
    names = list(node.input)
    for body in bodies(node):
        names += captures(body)
    if len(names) == 1 and names[0]:  # as most have it
        return names
    return [name for name in dict.fromkeys(names) if name]


def topological(nodes: Sequence[onnx.NodeProto], reads: Iterable[Sequence[str]] | None = None) -> list[int]:
    """Return `nodes` in topological order, as indices; `reads` is what `consumed` gives for each, if known.

    Raises:
        networkx.NetworkXUnfeasible: the nodes form a cycle.
    """
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    tensors = map(consumed, nodes) if reads is None else reads
    makers = [[producer[name] for name in names if name in producer] for names in tensors]
    if all(source < i for i, sources in enumerate(makers) for source in sources):
        return list(range(len(nodes)))
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(nodes)))
    graph.add_edges_from((source, i) for i, sources in enumerate(makers) for source in sources)
    return list(nx.lexicographical_topological_sort(graph))


def dims_of(kind: onnx.TypeProto) -> Dims | None:
    """Return the dimensions of a tensor type; None when even the rank is unknown (or it is no tensor)."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(d) for d in kind.tensor_type.shape.dim)


def without_symbols(dims: Dims | None) -> tuple[int | None, ...] | None:
    """Return dimensions with None for all that are no numbers."""
    return None if dims is None else tuple(d if isinstance(d, int) else None for d in dims)


def is_static(dims: Dims | None) -> TypeGuard[tuple[int, ...]]:
    """Return whether the rank and every dimension is known as a number."""
    return dims is not None and all(isinstance(d, int) for d in dims)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None  # some exporters write -1
    return dim.dim_param or None


UNSTEADY = "bisect-trt: gave two values"
"""Key of the metadata of a node that was seen to give different values for the same inputs."""


def is_unsteady(node: onnx.NodeProto) -> bool:
    """Return whether a node was seen to give different values for the same inputs."""
    return any(entry.key == UNSTEADY for entry in node.metadata_props)


def is_random(node: onnx.NodeProto) -> bool:
    """Return whether a node may give another value each time it runs, in its bodies too."""
    trains = node.op_type == "Dropout" and len(node.input) > 2
    if node.op_type in RANDOM_OPS or trains or is_unsteady(node):
        return True
    return bool(node.attribute) and any(is_random(inner) for body in bodies(node) for inner in body.node)


class Graph:
    """Index of a normalised model (unique node names); neither it nor the model is ever changed.

    Attributes:
        proto: the model.
        nodes: all nodes by name, generators included.
        order: names of the nodes in topological order, generators left out.
        producer: tensor to the name of the node that makes it; generators are included.
        consumers: tensor to the names of the nodes that read it, in order, generators left out.
        initializers: dense top-level initializers by name.
        generators: names of the ConstantOfShape nodes that make a weight from an initializer.
            They are deterministic, count as weights, and travel with their consumers.
        graph_inputs: names of the model's inputs, initializers left out.
        graph_outputs: names of the model's outputs.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        """Index `proto`.

        Raises:
            ValueError: node names are empty or not unique: the model is not normalised.
            networkx.NetworkXUnfeasible: the nodes form a cycle.
        """
        graph = proto.graph
        self.proto = proto
        nodes = list(graph.node)
        reads = [tuple(consumed(node)) for node in nodes]
        order = topological(nodes, reads)
        self.nodes: Mapping[str, onnx.NodeProto] = {nodes[i].name: nodes[i] for i in order}
        if len(self.nodes) != len(nodes) or "" in self.nodes:
            raise ValueError("node names are not unique; normalise the model first")
        self.initializers: Mapping[str, onnx.TensorProto] = {t.name: t for t in graph.initializer}
        sparse = {t.values.name for t in graph.sparse_initializer}
        self._weights = sparse | self.initializers.keys()
        self.graph_inputs = tuple(i.name for i in graph.input if i.name not in self._weights)
        self.graph_outputs = tuple(o.name for o in graph.output)
        self._outputs = frozenset(self.graph_outputs)
        self._reads = dict(zip(self.nodes, (reads[i] for i in order), strict=True))
        self._makes = {name: tuple(filter(None, node.output)) for name, node in self.nodes.items()}
        self.producer: Mapping[str, str] = {t: name for name, made in self._makes.items() for t in made}
        self.generators = frozenset(n for n, node in self.nodes.items() if self._is_generator(node))
        self._index()

    def _is_generator(self, node: onnx.NodeProto) -> bool:
        return (
            node.op_type == "ConstantOfShape"
            and is_onnx(node.domain)
            and all(name in self._weights for name in node.input)
            and not self._outputs.intersection(node.output)
        )

    def _index(self) -> None:
        self.order = tuple(name for name in self.nodes if name not in self.generators)
        self._position = {name: i for i, name in enumerate(self.order)}
        made = {tensor for name in self.generators for tensor in self.nodes[name].output}
        carried = self._weights | made
        self._flows = {name: tuple(t for t in self._reads[name] if t not in carried) for name in self.order}
        consumers: dict[str, list[str]] = {}
        for name in self.order:
            for tensor in self._reads[name]:
                consumers.setdefault(tensor, []).append(name)
        self.consumers: Mapping[str, tuple[str, ...]] = {t: tuple(names) for t, names in consumers.items()}

    @cached_property
    def _readers(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the nodes that read what a node makes, one for each tensor that they read."""
        return {
            name: tuple(chain.from_iterable(self.consumers.get(t, ()) for t in self._makes[name]))
            for name in self.order
        }

    def node(self, name: str) -> onnx.NodeProto:
        """Return the node of that name. Raises KeyError when there is none."""
        return self.nodes[name]

    def inputs_of(self, name: str) -> tuple[str, ...]:
        """Return the tensors that a node reads: weights and captures of its bodies included, '' left out."""
        return self._reads[name]

    def outputs_of(self, name: str) -> tuple[str, ...]:
        """Return the tensors that a node makes, '' (omitted optional outputs) left out."""
        return self._makes[name]

    @cached_property
    def constants(self) -> frozenset[str]:
        """Tensors with the same value whatever the inputs: weights and all that follows from them."""
        known = set(self._weights)
        for name in (*self.generators, *self.order):
            node = self.nodes[name]
            if all(t in known for t in self._reads[name]) and not is_random(node):
                known.update(self._makes[name])
        return frozenset(known)

    @cached_property
    def _types(self) -> Mapping[str, onnx.TypeProto]:
        graph = self.proto.graph
        return {v.name: v.type for part in (graph.value_info, graph.output, graph.input) for v in part}

    def value_info(self, tensor: str) -> onnx.TypeProto | None:
        """Return the declared or inferred type; None when unknown. Weights have none, see `elem_type`."""
        kind = self._types.get(tensor)
        return kind if kind is not None and kind.WhichOneof("value") else None

    def elem_type(self, tensor: str) -> int | None:
        """Return `TensorProto.DataType` of a tensor; None when it is unknown or no (dense) tensor."""
        if tensor in self.initializers:
            return self.initializers[tensor].data_type
        kind = self.value_info(tensor)
        if kind is None or not kind.HasField("tensor_type"):
            return None
        return kind.tensor_type.elem_type or None

    def shape(self, tensor: str) -> Dims | None:
        """Return the dimensions: int, symbol or None each; None when even the rank is unknown."""
        if tensor in self.initializers:
            return tuple(self.initializers[tensor].dims)
        kind = self.value_info(tensor)
        return None if kind is None else dims_of(kind)

    def sorted(self, names: Iterable[str]) -> list[str]:
        """Return these names in topological order, generators dropped. Raises KeyError for unknown names."""
        place = self._position
        return [self.order[k] for k in sorted([place[n] for n in set(names).difference(self.generators)])]

    def boundary(self, names: Sequence[str]) -> Boundary:
        """Return the tensors that enter a selection (weights left out) and tensors that leave it.

        `names` are nodes in the order in which `sorted` gives them. A tensor leaves when a node outside reads
        it or when it is an output of the model; the outputs of a node that nobody at all reads leave too.
        Inputs and outputs of the model come first, in its order, then the rest in topological order of what
        makes them.
        """
        inside = frozenset(names)
        made: set[str] = set()
        leaving: list[str] = []
        for name in names:
            outputs = self._makes[name]
            made.update(outputs)
            readers = self._readers[name]
            if not readers and self._outputs.isdisjoint(outputs):
                leaving += outputs
            elif not inside.issuperset(readers):
                leaving += [t for t in outputs if not inside.issuperset(self.consumers.get(t, ()))]
        entering = set(chain.from_iterable(map(self._flows.__getitem__, names))).difference(made)
        first_inputs = [t for t in self.graph_inputs if t in entering]
        rest = sorted(entering.difference(first_inputs), key=self._made_at)
        first_outputs = [t for t in self.graph_outputs if self.producer.get(t) in inside]
        return Boundary(
            (*first_inputs, *rest),
            (*first_outputs, *(t for t in leaving if t not in self._outputs)),
        )

    def _made_at(self, tensor: str) -> tuple[int, int, str]:
        name = self.producer.get(tensor)
        if name is None:
            return (-1, 0, tensor)
        return (self._position[name], list(self.nodes[name].output).index(tensor), tensor)

    @cached_property
    def digraph(self) -> nx.DiGraph[str]:
        """Nodes (generators left out) and who feeds whom."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.order)
        for name in self.order:
            graph.add_edges_from((source, name) for source in self.sources_of(name))
        return graph

    def behind(self, names: Iterable[str]) -> set[str]:
        """Return the nodes that what some nodes make flows into, however far."""
        return _reached(names, self._readers.__getitem__)

    def before(self, name: str) -> set[str]:
        """Return the nodes that what a node makes comes from, however far."""
        return _reached([name], self.sources_of)

    def sources_of(self, name: str) -> tuple[str, ...]:
        """Return the nodes (generators left out) that make what a node reads, each once."""
        made = (self.producer[t] for t in self._flows[name] if t in self.producer)
        return tuple(dict.fromkeys(made))

    def neighbourhood(self, names: Iterable[str], radius: int) -> Selection:
        """Return all nodes within `radius` steps of `names`, against or along the flow."""
        seen = frozenset(self.sorted(names))
        edge = seen
        for _ in range(radius):
            near = {n for name in edge for n in (*self.sources_of(name), *self._readers[name])}
            edge = frozenset(near) - seen
            seen |= edge
        return seen

    def weight(self, name: str) -> float:
        """Return the rough cost of building a node, at least 1 (an elementwise operator)."""
        return _weight(self.nodes[name])


def _reached(names: Iterable[str], step: Callable[[str], Iterable[str]]) -> set[str]:
    """Follow steps as far as they lead. By hand: to import networkx takes as long as numpy."""
    found, edge = set[str](), list(names)
    while edge:
        new = set(step(edge.pop())) - found
        found |= new
        edge += new
    return found


def _weight(node: onnx.NodeProto) -> float:
    inner = sum(_weight(n) for body in bodies(node) for n in body.node)
    return _HEAVY.get(node.op_type, 1.0) + inner
