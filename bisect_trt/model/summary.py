"""How large a model is, in the few figures that a report compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import onnx
from msgspec import Struct
from msgspec.structs import asdict

from bisect_trt.model.graph import dims_of
from bisect_trt.model.store import raw_size, type_name


class Figures(Struct, frozen=True):
    """The figures of one model.

    Attributes:
        nodes: of the graph, those in bodies of If and Loop left out.
        operators: kinds with their counts, the most frequent first.
        inputs, outputs: `x float32[1,3,8,8]`, weights left out.
        weights: number of initializers.
        weight_bytes: of them, external data included.
        opset: versions of the operator sets, `19, com.microsoft 1`.
    """

    nodes: int
    operators: tuple[tuple[str, int], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: int
    weight_bytes: int
    opset: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {**asdict(self), "operators": dict(self.operators)}


def figures(proto: onnx.ModelProto, *, names: bool = True) -> Figures:
    """Return the figures of a model; without `names` nothing in them was chosen by its author."""
    graph = proto.graph
    constant = {tensor.name for tensor in graph.initializer}
    sets = (f"{o.domain} {o.version}" if o.domain and names else str(o.version) for o in proto.opset_import)
    return Figures(
        nodes=len(graph.node),
        operators=tuple(Counter(node.op_type for node in graph.node if names).most_common()),
        inputs=_listed((value for value in graph.input if value.name not in constant), names),
        outputs=_listed(graph.output, names),
        weights=len(graph.initializer),
        weight_bytes=sum(raw_size(t.data_type, t.dims) for t in graph.initializer),
        opset=", ".join(sets),
    )


def type_text(kind: onnx.TypeProto, *, names: bool = True) -> str:
    """Return `float32[1,batch]`; `?` for what is not known, without `names` for named dimensions too."""
    which = kind.WhichOneof("value")
    if which != "tensor_type":
        return (which or "?").removesuffix("_type")
    elem = type_name(kind.tensor_type.elem_type)
    dims = dims_of(kind)
    name = {"float": "float32", "double": "float64"}.get(elem, elem)
    unknown = (None,) if names else (None, *(d for d in dims or () if isinstance(d, str)))
    # Shape inference makes up names for what it does not know.
    shown = ["?" if d in unknown or str(d).startswith("unk__") else str(d) for d in dims or ()]
    return name if dims is None else f"{name}[{','.join(shown)}]"


def _listed(values: Iterable[onnx.ValueInfoProto], names: bool) -> tuple[str, ...]:
    return tuple(f"{v.name} {type_text(v.type)}" if names else type_text(v.type, names=False) for v in values)
