"""Two runs of a reference: which custom operators are random, which outputs of a framework."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from bisect_trt.accuracy.tolerance import differences
from bisect_trt.errors import TargetUnavailable
from bisect_trt.model.randomness import marked, unknown_nodes
from bisect_trt.outcome import Array, Values
from bisect_trt.references.base import Record
from bisect_trt.references.spec import SELF
from bisect_trt.session.prepare import Session
from bisect_trt.session.recording import record_in_worker
from bisect_trt.settings import Settings
from bisect_trt.workers.pool import Pool

EVALUATE = "Put the framework's model into evaluation mode (model.eval() in PyTorch) and fix its seeds."


def with_marks(pool: Pool, session: Session, settings: Settings) -> Session:
    """Return the session whose graph notes which custom operators are random: the reference makes them twice.

    ONNX's own operators and those of ONNX Runtime are told by the graph alone, so most models are not run
    again. What is made twice is what such nodes read and give, nothing behind them: a node that reads what
    differs is not random itself.
    """
    graph = session.graph
    unknown = unknown_nodes(graph)
    if not unknown or settings.accuracy.reference == SELF:
        return session
    return replace(session, graph=marked(graph, unsteady(pool, session, settings, unknown)))


def unsteady(pool: Pool, session: Session, settings: Settings, nodes: Sequence[str]) -> list[str]:
    """Find the nodes that give other values in a second run although what they read is the same."""
    graph, folder = session.graph, session.store.folder
    near = {t for name in nodes for t in (*graph.inputs_of(name), *graph.outputs_of(name))}
    tensors = sorted(near & graph.producer.keys())
    # In one session: another one may begin with the same seed.
    count, feeds = len(session.feeds), session.feeds * 2
    found = record_in_worker(
        pool, folder, graph.proto, feeds, settings, tensors=tensors, stem="twice-"
    )
    differ = {
        tensor
        for tensor in tensors
        if tensor in found
        and any(_bytes(found, k, tensor) != _bytes(found, k + count, tensor) for k in range(count))
    }
    made = ((name, differ.intersection(graph.outputs_of(name))) for name in nodes)
    return [name for name, outputs in made if outputs and not differ.intersection(graph.inputs_of(name))]


def _bytes(recorded: Record, sample: int, tensor: str) -> bytes:
    return recorded.path(sample, tensor).read_bytes()


def steady(
    first: list[dict[str, Array]], second: Values, settings: Settings, outputs: Sequence[str]
) -> tuple[list[dict[str, Array]], str]:
    """Return the values that two runs of a reference agree on, and a sentence on those that differ.

    Raises:
        TargetUnavailable: that is all of its outputs.
    """
    common = [{k: v for k, v in one.items() if k in other} for one, other in zip(first, second, strict=True)]
    random = {diff.name for diff in differences(common, second, settings.accuracy) if not diff.ok}
    random |= {name for one, other in zip(first, common, strict=True) for name in one.keys() - other.keys()}
    if not random:
        return first, ""
    name, named = f"--reference {settings.accuracy.reference}", ", ".join(sorted(random)[:4])
    sentence = f"{name} is random: two runs with the same inputs give different values of {named}."
    kept = [{k: v for k, v in one.items() if k not in random} for one in first]
    if not any(k in kept[0] for k in outputs):
        raise TargetUnavailable(f"nothing can be said of this model: {sentence}", EVALUATE)
    return kept, f"{sentence} These were not compared with it. {EVALUATE}"
