"""The user's model as casts are put into it: functions inlined, nodes in order; all else as it was."""

from __future__ import annotations

import onnx

from bisect_trt.model.graph import topological
from bisect_trt.model.normalise import inline_functions, replace_nodes


def flat(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without functions whose nodes are in topological order."""
    model = inline_functions(proto)
    nodes = list(model.graph.node)
    replace_nodes(model.graph, [nodes[k] for k in topological(nodes)])
    return model
