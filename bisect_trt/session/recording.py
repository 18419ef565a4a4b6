"""The reference run, as far as a search needs it."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import onnx
import psutil
from onnx import TensorProto

from bisect_trt.model.candidate import Feeds
from bisect_trt.model.graph import Graph, is_random, is_static
from bisect_trt.model.store import Store, raw_size, type_name
from bisect_trt.model.walk import copied
from bisect_trt.references.base import Record, recorded_inputs
from bisect_trt.references.spec import parse
from bisect_trt.session.oracle import LONGEST_DEADLINE
from bisect_trt.session.prepare import RECORD, Session
from bisect_trt.settings import Settings
from bisect_trt.workers import jobs, reference
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.files import written_whole
from bisect_trt.writing.text import counted

AT_ONCE = 1 << 28
"""Bytes of all tensors that are recorded in one run, where only the outputs are needed at first: to keep so
little takes less than a second run."""
_IN_FLOAT32 = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


class Recording:
    """Reference values: of inputs, of the tensors that were expected to be needed, and of all once more are.

    A failure that the target pins on a node needs no more than what is around that node. Running the
    reference that far, and keeping that little, takes a fraction of the time and of the disk.
    """

    def __init__(self, graph: Graph, part: Record, run: Callable[[list[str] | None], Record]) -> None:
        """Begin with the inputs, which `part` holds; `run` runs the reference for some tensors or for all."""
        self._graph = graph
        self._run = run
        self._is_whole = False
        self._expected: set[str] = set()
        self._steady = not any(is_random(node) for node in graph.nodes.values())
        self.record = part
        self.seconds = 0.0  # that the reference took

    @classmethod
    def of(cls, graph: Graph, record: Record) -> Recording:
        """Return the values that are known: the reference is not run again."""
        recording = cls(graph, record, lambda _: record)
        recording._is_whole = True
        return recording

    @classmethod
    def when_needed(
        cls, pool: Pool, session: Session, settings: Settings, tell: Callable[[str], None]
    ) -> Recording:
        """Record ONNX Runtime's values on demand; only the inputs are known yet. `tell` hears of runs."""

        def run(tensors: list[str] | None) -> Record:
            some = "" if tensors is None else f" for {counted(len(tensors), 'tensor')}"
            tell(f"running the reference{some}")
            return record_model(pool, session, settings, tensors)

        graph, store, feeds = session.graph, session.store, session.feeds
        inputs = Record(store.folder, len(feeds), recorded_inputs(graph, store, feeds))
        return cls(graph, inputs, run)

    def replaced(self, record: Record | None) -> Recording:
        """Return the same with other values of all tensors, where there are any."""
        found = Recording.of(self._graph, record or self.whole())
        found.seconds = self.seconds
        return found

    def narrowed(self, samples: Sequence[int]) -> Recording:
        """Return the values of some samples only, all tensors of them."""
        return self.replaced(self.whole().only(list(samples)))

    def expect(self, tensors: Iterable[str]) -> Record:
        """Record these tensors, as nothing else will most likely be needed; gives the record that has them.

        A reference that fails on the way, or that gives other values each time, is run as a whole.
        """
        lacking = set(tensors) - self.record.tensors.keys()
        if self._is_whole or not lacking:
            return self.record
        self._expected |= lacking
        part = self._timed(sorted(self._expected)) if self._steady else None
        if part is None or part.error or part.missing:
            return self.whole()
        self.record = part
        return part

    def outputs(self) -> Record:
        """Return a record that has the model's outputs, and all tensors where these are few."""
        return self.whole() if self._is_small else self.expect(self._graph.graph_outputs)

    @cached_property
    def _is_small(self) -> bool:
        """Whether all tensors take little room.

        None may be a 16-bit float: ONNX Runtime computes such in float32, and rounds those that are recorded.
        """
        graph, left = self._graph, AT_ONCE
        for tensor in graph.producer:
            kind, shape = graph.elem_type(tensor), graph.shape(tensor)
            if not kind or kind in _IN_FLOAT32 or not is_static(shape):
                return False
            left -= self.samples * raw_size(kind, shape)
        return left >= 0

    def whole(self) -> Record:
        """Return all tensors."""
        if not self._is_whole:
            self.record, self._is_whole = self._timed(None), True
        return self.record

    def _timed(self, tensors: list[str] | None) -> Record:
        began = time.monotonic()
        found = self._run(tensors)
        self.seconds += time.monotonic() - began
        return found

    def _with(self, tensor: str) -> Record:
        return self.record if tensor in self.record else self.whole()

    # What `model.cutting.cutter.Cutter` asks

    @property
    def samples(self) -> int:
        """Number of recorded runs."""
        return self.record.samples

    def __contains__(self, tensor: object) -> bool:
        """Return whether the tensor was recorded."""
        return tensor in self.record or tensor in self.whole()

    @property
    def hidden(self) -> frozenset[str]:
        """Tensors at which nothing can be cut, of those that were recorded."""
        return self.record.hidden

    def path(self, sample: int, tensor: str) -> Path:
        """Do as `Record.path` does."""
        return self._with(tensor).path(sample, tensor)

    def elem_type(self, tensor: str) -> int:
        """Do as `Record.elem_type` does."""
        return self._with(tensor).elem_type(tensor)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Do as `Record.shape` does."""
        return self._with(tensor).shape(tensor)


def record_model(
    pool: Pool, session: Session, settings: Settings, tensors: Sequence[str] | None = None
) -> Record:
    """Run the reference in a worker and keep every tensor; the second time, what was kept.

    With `tensors` only these are recorded, and again each time: that takes little. A reference that cannot
    run the model, or dies of it, gives a record with an error.
    """
    place = session.store.folder / RECORD
    if place.exists():  # of a run that was stopped, too
        return Record.from_json(json.loads(place.read_text()))
    graph, folder = session.graph, session.store.folder
    if parse(settings.accuracy.reference).kind == "target-at":
        recorded = _record_on_target(pool, session, settings, tensors)
    else:
        recorded = record_in_worker(pool, folder, graph.proto, session.feeds, settings, tensors=tensors)
    if tensors is None:
        _keep(recorded, place)
    return recorded


def record_derived(
    pool: Pool, session: Session, settings: Settings, proto: onnx.ModelProto, feeds: Sequence[Feeds]
) -> Record:
    """Record a model that was made of parts of the session's; its weights lie in the store."""
    names = json.dumps([sorted((k, v.name) for k, v in sample.items()) for sample in feeds])
    key = hashlib.sha256(proto.SerializeToString(deterministic=True) + names.encode()).hexdigest()[:16]
    place = session.store.folder / f"record-{key}.json"
    if place.exists():
        return Record.from_json(json.loads(place.read_text()))
    recorded = record_in_worker(pool, session.store.folder, proto, feeds, settings, stem=f"{key}-")
    _keep(recorded, place)
    return recorded


def _keep(recorded: Record, place: Path) -> None:
    with written_whole(place) as aside:
        aside.write_text(json.dumps(recorded.to_json()))


SHORTEST = 600.0
"""Seconds that the reference has at least."""


def _record_on_target(
    pool: Pool, session: Session, settings: Settings, tensors: Sequence[str] | None
) -> Record:
    """Return the target in FP32 as the reference: what nodes make is exposed, as much of it as has a type."""
    proto = copied(session.graph.proto)
    if tensors is None:
        there = {output.name for output in proto.graph.output}
        proto.graph.output.extend(v for v in proto.graph.value_info if v.name not in there)
    arguments = (settings.target, proto.SerializeToString(), session.store.folder, session.feeds)
    reply = pool.submit(jobs.record_on_target, *arguments, timeout=None).result()
    if reply.death is None:
        recorded: Record = reply.value
        return recorded
    return Record(session.store.folder, len(session.feeds), error=reply.death.message)


def record_in_worker(
    pool: Pool,
    folder: Path,
    proto: onnx.ModelProto,
    feeds: Sequence[Feeds],
    settings: Settings,
    *,
    tensors: Sequence[str] | None = None,
    stem: str = "r",
) -> Record:
    """Record in a worker. A reference that takes its worker with it gives a record with an error.

    It has ten times what a probe has, and ten minutes at least: it runs all samples, and ONNX Runtime may
    never come back. Raises StoppedEarly when the disk is full.
    """
    model, run = proto.SerializeToString(), settings.run
    budget = run.record_budget or psutil.virtual_memory().total // 4
    arguments = (model, folder, tuple(feeds), tensors, budget, settings.accuracy, stem)
    deadline = max(10 * (run.timeout or LONGEST_DEADLINE), SHORTEST)
    reply = pool.submit(reference.record, *arguments, timeout=deadline).result()
    if reply.death is None:
        recorded: Record = reply.value
        return recorded
    ended = f"the reference ended its process: {reply.death.message} {reply.death.detail}".strip()
    inputs = recorded_inputs(Graph(proto), Store(folder), feeds)
    return Record(folder, len(feeds), inputs, error=ended)


_NO_KERNEL = re.compile(r"\bCould not find an implementation for (?P<op>\w+)\(.*?'(?P<name>[^']*)'")


def cannot_run(recorded: Record, settings: Settings, graph: Graph) -> list[str]:
    """Say why the reference cannot run the whole model, as notes; empty when it can."""
    if not recorded.error:
        return []
    if missing := _NO_KERNEL.search(recorded.error):
        return [f"{_without_kernel(missing, graph)} --reference python:FILE.py:FUNCTION takes another."]
    made_up = "The input values are random: the model may need others, from --inputs or --input-range."
    return [recorded.error, *([made_up] if settings.run.inputs is None else [])]


def _without_kernel(missing: re.Match[str], graph: Graph) -> str:
    """Say that ONNX Runtime has no code for a node on the CPU, with the type that it lacks it for."""
    inputs = graph.inputs_of(missing["name"]) if missing["name"] in graph.nodes else ()
    known = (graph.elem_type(tensor) for tensor in inputs)
    kind = next((type_name(elem) for elem in known if elem), "")
    return f"ONNX Runtime has no {f'{kind} ' if kind else ''}{missing['op']} on the CPU ({missing['name']})."
