"""Does a node get less than it needs: less than its window is wide, or too little to reflect?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx
from onnx import helper, numpy_helper

from bisect_trt.model.graph import bodies

_POOLS = ("AveragePool", "MaxPool", "LpPool")
Dims = Mapping[str, Sequence[int | None]]
Pads = Mapping[str, tuple[int, ...]]


def too_small(graph: onnx.GraphProto) -> bool | None:
    """Return whether a size in a graph is too small for the node that reads it, or nothing is left of it.

    ONNX's shape inference rounds towards zero and so gives a window at least one place; ONNX Runtime and
    TensorRT disagree about what it is then. None stands for "cannot be told": such a node reads something
    of unknown size.

    Args:
        graph: a graph after shape inference, with the weights that it has; its bodies are looked at, too.
    """
    return _any(_answers(graph, {}, {}))


def _answers(graph: onnx.GraphProto, outer: Dims, known_pads: Pads) -> Iterator[bool | None]:
    """Yield what is told of tensors and nodes; `outer` and `known_pads` are what a body sees around it."""
    made = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    values = [v for v in (*graph.value_info, *graph.output) if v.name not in made]
    dims = {**outer, **{v.name: _dims(v) for v in (*graph.input, *values)}}
    dims |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    yield any(size is not None and size <= 0 for v in values for size in dims[v.name])
    pads = {**known_pads, **dict(_integers(graph))}
    for node in graph.node:
        yield _beyond(node, dims, pads)
        for body in bodies(node):
            yield from _answers(body, dims, pads)


def _dims(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return sizes as they are inferred: below zero where nothing is left, which `dims_of` takes for open."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _integers(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield small constants of whole numbers: what can be the pads of a Pad."""
    constants = [(node.output[0], a.t) for node in graph.node for a in node.attribute if a.name == "value"]
    for name, tensor in (*((tensor.name, tensor) for tensor in graph.initializer), *constants):
        inside = tensor.data_location != onnx.TensorProto.EXTERNAL
        if inside and tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1:
            yield name, tuple(int(x) for x in numpy_helper.to_array(tensor))


def _beyond(node: onnx.NodeProto, dims: Dims, pads: Pads) -> bool | None:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    known = dims.get(node.input[0], ()) if node.input else ()
    if node.op_type == "Pad":
        return attributes.get("mode") == b"reflect" and _reflects_too_much(node, known, attributes, pads)
    if node.op_type not in (*_POOLS, "Conv"):
        return False
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return False
    weight = node.input[1] if node.op_type == "Conv" else ""
    kernel = attributes.get("kernel_shape") or dims.get(weight, ())[2:]
    rank = len(kernel)
    around = attributes.get("pads") or [0] * (2 * rank)
    apart = attributes.get("dilations") or [1] * rank
    if not 0 < len(kernel) == len(apart) == len(around) // 2 == len(known) - 2:
        return None
    sides = zip(known[2:], kernel, apart, around[:rank], around[rank:], strict=True)
    return _any(
        None if size is None or window is None else size + before + after < (window - 1) * step + 1
        for size, window, step, before, after in sides
    )


def _reflects_too_much(
    node: onnx.NodeProto, known: Sequence[int | None], attributes: Mapping[str, Sequence[int]], pads: Pads
) -> bool | None:
    """A reflection leaves out the edge itself: of n elements there are n - 1 to reflect."""
    given = attributes.get("pads") or pads.get(node.input[1] if len(node.input) > 1 else "", ())
    if not 0 < len(given) == 2 * len(known) or len(node.input) > 3:
        return None
    most = map(max, given[: len(known)], given[len(known) :])
    return _any(
        pad > 0 and (None if size is None else pad >= size) for size, pad in zip(known, most, strict=True)
    )


def _any(answers: Iterable[bool | None]) -> bool | None:
    found = set(answers)
    return True if True in found else None if None in found else False
