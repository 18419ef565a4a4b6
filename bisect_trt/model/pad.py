"""A candidate with unrelated nodes in front, to see what depends on the size of a network alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import onnx
from onnx import TensorProto, helper

from bisect_trt.model.candidate import Candidate

PADDING = 32
"""Nodes; TensorRT-RTX 1.7.1 was seen to word a shape error differently below 17 layers."""

_NAME = "bisect_trt_padding"


def padded(candidate: Candidate) -> Candidate:
    """`PADDING` Relu nodes on an input and to an output of their own, before everything else.

    The new input has no feed: this is for stages before the run.
    """
    proto = onnx.load_model_from_string(candidate.model)
    names = [f"{_NAME}_{k}" for k in range(PADDING + 1)]
    nodes = [
        helper.make_node("Relu", [source], [result], f"{result}_node")
        for source, result in pairwise(names)
    ]
    kept = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *kept])
    proto.graph.input.append(helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [1]))
    proto.graph.output.append(helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [1]))
    return replace(candidate, content=proto.SerializeToString(deterministic=True), cut="padded", expected=())
