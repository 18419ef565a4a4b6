"""The precision of each layer where networks are weakly typed: up to TensorRT 10."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

_FREE = ("CONSTANT", "SHAPE", "CAST", "QUANTIZE", "DEQUANTIZE", "CONDITION", "TRIP_LIMIT", "RECURRENCE")
"""Layers without a precision of their own: they hold values, change types, belong to scales or loops."""
_NAMELESS = "node_of_"
"""What the parser puts before the first output of a nameless node."""


def constrain(
    trt: Any, network: Any, config: Any, keep: Collection[str], nodes: Collection[str], low: Any
) -> list[str]:
    """Fix the precision of the layers of `nodes`, and have the builder obey; gives those kept in FP32.

    Layers of the nodes in `keep` compute in FP32, those of all other nodes in the type `low`: left to itself
    the builder takes FP32 where that is quicker for it, and the same nodes would fail in its next build.
    The parser names a layer as its node, a nameless one's `node_of_` and its first output, and further ones
    of the same node with a number behind it. Outputs of the network keep their type. A layer that works on
    integers, bools or shapes, or that holds a constant, has no precision to be set.
    """
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    wide, known = {*keep, *(f"{_NAMELESS}{name}" for name in keep)}, set(nodes)
    outputs = {network.get_output(k).name for k in range(network.num_outputs)}
    found = []
    for k in range(network.num_layers):
        layer = network.get_layer(k)
        kept = _is_of(layer.name, wide, known)
        lowered = layer.name.startswith(_NAMELESS) or _is_of(layer.name, known, ())
        if layer.type.name in _FREE or not (kept or lowered):
            continue
        made = [layer.get_output(i) for i in range(layer.num_outputs)]
        floats = [i for i, t in enumerate(made) if t.dtype == trt.float32 and not t.is_shape_tensor]
        if not floats:
            continue
        layer.precision = trt.float32 if kept else low
        for i in floats:
            if kept or made[i].name not in outputs:
                layer.set_output_type(i, trt.float32 if kept else low)
        if kept:
            found.append(layer.name)
    return found


def _is_of(layer: str, names: Collection[str], others: Collection[str]) -> bool:
    return layer in names or (layer not in others and re.sub(r"(_\d+| \[.*\])$", "", layer) in names)
