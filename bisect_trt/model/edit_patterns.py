"""Operators whose dimensions a line of letters tells, and attributes that are dimensions."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper

from bisect_trt.model.edit_ties import Rule, Var, axis

PATTERNS = {
    "Conv": "NC*,MC*,M->NM*",
    "ConvTranspose": "NC*,CM*,M->NM*",
    "ConvInteger": "NC*,MC*->NM*",
    "DeformConv": "NC*,MC*,NO*,M,NP*->NM*",
    "BatchNormalization": "NC*,C,C,C,C->NC*",
    "InstanceNormalization": "NC*,C,C->NC*",
    "GroupNormalization": "NC*,C,C->NC*",
    "RoiAlign": "NCHW,R4,R->RCPQ",
    "MaxRoiPool": "NCHW,R5->RCPQ",
    "NonMaxSuppression": "NB4,NCB->",
    "GridSample": "NCHW,NPQ2->NCPQ",
    "Upsample": "NC*->NC*",
    "LSTM": "SBI,DFI,DFH,DE,B,DBH,DBH,DP->SDBH,DBH,DBH",
    "GRU": "SBI,DFI,DFH,DE,B,DBH->SDBH,DBH",
    "RNN": "SBI,DHI,DHH,DE,B,DBH->SDBH,DBH",
    "OneHot": "",
    "Shape": "",
    "Size": "",
    "ConstantOfShape": "",
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), "NC*->NC*"),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), "NC*->NC*"),
}
ATTRIBUTES = {
    "RoiAlign": (("output_height", 0, 2), ("output_width", 0, 3)),
    "MaxRoiPool": (("pooled_shape", 0, 2), ("pooled_shape", 1, 3)),
    "LSTM": (("hidden_size", 0, 3),),
    "GRU": (("hidden_size", 0, 3),),
    "RNN": (("hidden_size", 0, 3),),
}
"""Attribute, element of it, axis of the first output."""

_GATES = {"LSTM": 4, "GRU": 3}


def tie_pattern(rule: Rule, pattern: str) -> None:
    """`NC*,MC*->NM*`: axes of one letter are equal, digits stay; `*` stands for any further axes."""
    left, _, right = pattern.partition("->")
    seen: dict[str, Var] = {}
    sides = ((rule.node.input, left), (rule.node.output, right))
    for tensors, texts in sides:
        for tensor, letters in zip(tensors, texts.split(","), strict=False):
            for k, letter in enumerate(letters.rstrip("*")):
                if tensor and letter.isdigit():
                    rule.ties.fixed.add(axis(tensor, k))
                elif tensor:
                    rule.ties.tie(axis(tensor, k), seen.setdefault(letter, axis(tensor, k)))
    _extra(rule)


def _extra(rule: Rule) -> None:
    op, node, ties = rule.node.op_type, rule.node, rule.ties
    if op in ("Conv", "ConvTranspose") and len(node.input) > 1:
        weight, group = node.input[1], rule.attribute("group", 1)
        for k in range(rule.rank(weight) - 2):
            ties.tie(axis(weight, 2 + k), rule.of("kernel_shape", k))
        if group > 1:
            inner = 1 if op == "Conv" else 0
            outer = axis(node.input[0], 1) if op == "Conv" else axis(node.output[0], 1)
            ties.product([outer], [rule.of("group"), axis(weight, 1)])
            if inner == 1 and rule.ties.sizes.get(axis(weight, 0)) == group:
                ties.tie(axis(weight, 0), rule.of("group"))
    if op in _GATES and len(node.input) > 2:
        ties.product([axis(node.input[1], 1)], [rule.of("hidden_size")], _GATES[op])
        if len(node.input) > 3 and node.input[3]:
            ties.product([axis(node.input[3], 1)], [rule.of("hidden_size")], 2 * _GATES[op])
    if op in ("BatchNormalization", "InstanceNormalization", "GroupNormalization"):
        same_axes(rule, node.input[0], node.output[0])


def same_axes(rule: Rule, one: str, other: str) -> None:
    """Axes of the same number are equal."""
    for k in range(min(rule.rank(one), rule.rank(other))):
        rule.ties.tie(axis(one, k), axis(other, k))


def attribute_sizes(nodes: Iterable[onnx.NodeProto]) -> dict[Var, int]:
    """Integer attributes that are dimensions."""
    names = {name for rows in ATTRIBUTES.values() for name, _, _ in rows}
    names |= {"kernel_shape", "group", "q_num_heads", "kv_num_heads"}
    found: dict[Var, int] = {}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in names:
                value = helper.get_attribute_value(attribute)
                for k, size in enumerate(value if isinstance(value, list) else [value]):
                    found[Var("attribute", node.name, k, attribute.name)] = int(size)
    return found
