"""Layers that stay in FP32 where networks are weakly typed: up to TensorRT 10."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any


def keep_wide(
    trt: Any, network: Any, config: Any, names: Collection[str], nodes: Collection[str]
) -> list[str]:
    """Constrain the layers of some of the `nodes` to FP32, and the builder to obey; gives the layers' names.

    The parser names a layer as its node, a nameless one's `node_of_` and its first output, and further ones
    of the same node with a number behind it. A layer that works on integers, bools or shapes, or that holds
    a constant, has no precision to be set.
    """
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    wanted = {*names, *(f"node_of_{name}" for name in names)}
    known, found = set(nodes), []
    for k in range(network.num_layers):
        layer = network.get_layer(k)
        fixed = layer.type.name in ("CONSTANT", "SHAPE")
        if fixed or not _is_of(layer.name, wanted, known):
            continue
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        floats = [i for i, t in enumerate(outputs) if t.dtype == trt.float32 and not t.is_shape_tensor]
        if not floats:
            continue
        layer.precision = trt.float32
        for i in floats:
            layer.set_output_type(i, trt.float32)
        found.append(layer.name)
    return found


def _is_of(layer: str, names: Collection[str], nodes: Collection[str]) -> bool:
    return layer in names or (layer not in nodes and re.sub(r"(_\d+| \[.*\])$", "", layer) in names)
