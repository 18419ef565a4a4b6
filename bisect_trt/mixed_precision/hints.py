"""What is known of nodes before any set is tried: ranges, twins, neighbours."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import onnx
from msgspec import Struct
from onnx import TensorProto

from bisect_trt.mixed_precision.search import Hints
from bisect_trt.model.graph import consumed
from bisect_trt.model.patch import key_of
from bisect_trt.targets.roles import Roles

LARGEST_NUMBER = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
_SCALED = ("fp8", "int8")
LOST = 0.05
"""Mean relative error of a rounded tensor from which on it is lost: values too small for the format."""
CANCELS = 1 / 64
"""What is that much smaller than what it was made of has lost six bits of its precision."""
ROUNDS = 3
"""How far around a node its twins have to look alike."""


class Range(Struct, frozen=True):
    """One tensor in FP32: largest magnitude, what rounding it loses (mean of errors over mean), elements."""

    largest: float
    loss: float
    size: int = 0


def reasons(model: onnx.ModelProto, known: Roles, ranges: Mapping[str, Range], to: str) -> dict[str, str]:
    """Nodes that ranges alone condemn, and why."""
    found: dict[str, str] = {}
    makers = {t: key_of(node) for node in model.graph.node for t in node.output if t}
    limit = LARGEST_NUMBER.get(to, math.inf)
    for node in model.graph.node:
        key = key_of(node)
        if key not in known.slots or key in known.neutral:
            continue
        inputs, outputs = known.slots[key]
        made = [ranges[node.output[k]] for k in outputs if node.output[k] in ranges]
        read = [(node.input[k], ranges[node.input[k]]) for k in inputs if node.input[k] in ranges]
        why = _reason(node.op_type, made, [r for _, r in read], limit)
        if to in _SCALED and why:
            why = "its values are spread too widely for one scale"
        if why:
            found[key] = why
            if why.startswith("cancellation"):
                for maker in (makers.get(name, "") for name, _ in read):
                    if maker in known.slots and maker not in known.neutral:
                        found.setdefault(maker, "it makes what is cancelled")
    return found


def _reason(op: str, made: Sequence[Range], read: Sequence[Range], limit: float) -> str:
    over = [r.largest for r in made if limit < r.largest < math.inf]
    if over:
        return f"overflow: its values reach {max(over):.3g}"
    over = [r.largest for r in read if limit < r.largest < math.inf]
    if over:
        return f"overflow: it reads values up to {max(over):.3g}"
    if any(r.loss > LOST for r in (*made, *read)):
        return "underflow: its values are too small for the format"
    if op in ("Add", "Sub", "Sum") and made and len(read) > 1:
        most = max(r.largest for r in read)
        if 0 < made[0].largest < CANCELS * most:
            return f"cancellation: {most:.3g} becomes {made[0].largest:.3g}"
    return ""


def activations(model: onnx.ModelProto, known: Roles, ranges: Mapping[str, Range]) -> dict[str, int]:
    """Bytes that the float outputs of each node take in FP32; one number where that is not known."""
    found = {}
    for node in model.graph.node:
        key = key_of(node)
        if key in known.slots and key not in known.neutral:
            made = [node.output[k] for k in known.slots[key][1]]
            found[key] = 4 * max(1, sum(ranges[t].size for t in made if t in ranges))
    return found


def hints(model: onnx.ModelProto, known: Roles, ranges: Mapping[str, Range], why: Mapping[str, str]) -> Hints:
    """Put all hints together."""
    place = {item: k for k, item in enumerate(known.items)}
    loss: dict[str, float] = {}
    for node in model.graph.node:
        own = [ranges[t].loss for t in node.output if t in ranges]
        loss[key_of(node)] = min(max((v for v in own if not math.isnan(v)), default=0.0), 1e9)
    rank = sorted(place, key=lambda item: (item not in why, -loss.get(item, 0.0), place[item]))
    return Hints(
        suspects=tuple(item for item in rank if item in why),
        rank=tuple(rank),
        twins=twins(model, known),
        near=neighbours(model, known),
    )


def neighbours(model: onnx.ModelProto, known: Roles) -> dict[str, tuple[str, ...]]:
    """Nodes that give to or take from each other."""
    maker = {t: key_of(node) for node in model.graph.node for t in node.output if t}
    near: dict[str, dict[str, None]] = {item: {} for item in known.items}
    for node in model.graph.node:
        key = key_of(node)
        for source in (maker.get(t, "") for t in consumed(node)):
            if key in near and source in near:
                near[key][source] = None
                near[source][key] = None
    return {key: tuple(some) for key, some in near.items()}


def twins(model: onnx.ModelProto, known: Roles) -> dict[str, str]:
    """Nodes to the hash of what they and their surroundings look like, whatever names and values are."""
    weights = {t.name: t for t in model.graph.initializer}
    label = {key_of(node): _own_label(node, weights) for node in model.graph.node}
    maker = {t: key_of(node) for node in model.graph.node for t in node.output if t}
    before = {key_of(n): [maker[t] for t in n.input if t in maker] for n in model.graph.node}
    after: dict[str, list[str]] = {key: [] for key in label}
    for key, sources in before.items():
        for source in sources:
            after[source].append(key)
    for _ in range(ROUNDS):
        label = {
            key: _hash(own, [label[k] for k in before[key]], sorted(label[k] for k in after[key]))
            for key, own in label.items()
        }
    return {item: label[item] for item in known.items}


def _own_label(node: onnx.NodeProto, weights: Mapping[str, TensorProto]) -> str:
    attributes = sorted(a.SerializeToString() for a in node.attribute if a.ByteSize() < 4096)
    shapes = [list(weights[t].dims) for t in node.input if t in weights]
    return _hash(node.op_type, [a.hex() for a in attributes], [str(shape) for shape in shapes])


def _hash(own: str, first: Sequence[str], second: Sequence[str]) -> str:
    return hashlib.sha256(repr((own, list(first), list(second))).encode()).hexdigest()[:16]
