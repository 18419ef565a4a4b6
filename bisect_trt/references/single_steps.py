"""Compares each node's outputs with what it should compute from the target's own inputs. Workers only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from msgspec import Struct
from onnx import helper

from bisect_trt.accuracy.arithmetic import Arithmetic
from bisect_trt.model.graph import bodies, consumed
from bisect_trt.model.walk import copied, refill
from bisect_trt.outcome import Array
from bisect_trt.references import ort
from bisect_trt.references.inner_values import Unknown
from bisect_trt.references.noise import Noise


class Step(Struct, frozen=True):
    """A node whose outputs are not what rounding allows it to make of its inputs.

    `made` is what the target gave, `due` what the reference makes of the same inputs.
    """

    node: str
    made: Mapping[str, Array]
    due: Mapping[str, Array]


def beyond(
    model: onnx.ModelProto,
    folder: Path,
    known: Mapping[str, Array],
    arithmetic: Arithmetic,
    times: float = 1.0,
) -> Iterator[Step]:
    """Yield the nodes whose error exceeds a multiple of their bound; `known` has the target's values.

    Nodes with bodies are passed over: what happens in these is not seen.

    Raises:
        Unknown: a node cannot be run by itself.
    """
    for node in model.graph.node:
        if any(bodies(node)):
            continue
        look = Noise(arithmetic)
        look.prepare(*_as_model(model, node, folder, known))
        look.run()
        made = {t: known[t] for t in node.output if t in known and t in look.spreads}
        due = {t: look.spreads[t].reference for t in made}
        fits = {t: _without_overflows(value, due[t], arithmetic.largest) for t, value in made.items()}
        if not all(look.spreads[t].explains(value, times) for t, value in fits.items()):
            yield Step(node.name, made, due)


def with_only(
    step: Step,
    model: onnx.ModelProto,
    folder: Path,
    feeds: Mapping[str, Array],
    reference: Mapping[str, Array],
) -> dict[str, Array] | None:
    """Return the model's values with the own error of one node put in; None if it does not fit.

    Args:
        step: the node, with what it gave and what was due.
        model: all nodes.
        folder: of its weights.
        feeds: values of the inputs.
        reference: what the reference computes of all tensors.

    Raises:
        Unknown: ONNX Runtime does not run it so.
    """
    part = copied(model)
    del part.graph.value_info[:]
    refill(part.graph.node, [node for node in part.graph.node if node.name != step.node])
    given = dict(feeds)
    for name, made in step.made.items():
        due, value = step.due[name], reference.get(name)
        if value is None or value.shape != made.shape or due.shape != made.shape:
            return None
        given[name] = _moved(value, due, made)
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        part.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
    try:
        [found] = ort.run(part.SerializeToString(), folder, [given])
    except ort.OrtError as error:
        raise Unknown(f"the reference does not run it without {step.node}: {error}") from error
    return found


def _without_overflows(made: Array, due: Array, largest: float) -> Array:
    """Return what the target made, but what is due where that does not fit and became Inf."""
    if made.dtype.kind != "f" or made.shape != due.shape:
        return made
    return np.where(np.isinf(made) & (np.sign(made) * due > largest), due, made)


def _moved(value: Array, due: Array, made: Array) -> Array:
    """Return a value with the error that another one has."""
    if value.dtype.kind not in "fc":
        return np.where(made == due, value, made)
    with np.errstate(all="ignore"):
        moved = value + (made - due)
        return np.asarray(np.where(made == due, value, moved), value.dtype)


def _as_model(
    model: onnx.ModelProto, node: onnx.NodeProto, folder: Path, known: Mapping[str, Array]
) -> tuple[onnx.ModelProto, Path, dict[str, Array]]:
    """Write one node as a model; gives its folder and its inputs."""
    feeds = {t: known[t] for t in consumed(node) if t in known}
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    part = copied(model)
    del part.graph.value_info[:]
    refill(part.graph.node, [node])
    refill(part.graph.initializer, [w for w in part.graph.initializer if w.name in consumed(node)])
    inputs = (helper.make_tensor_value_info(t, kind, feeds[t].shape) for t, kind in kinds.items())
    refill(part.graph.input, inputs)
    refill(part.graph.output, [onnx.ValueInfoProto(name=t) for t in node.output if t])
    return part, folder, feeds
