"""The reference run, as far as a search needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bisect_trt.model.graph import Graph, is_random
from bisect_trt.references.base import Record, recorded_inputs
from bisect_trt.session.prepare import Session, record, record_some
from bisect_trt.settings import Settings
from bisect_trt.text import counted
from bisect_trt.workers.pool import Pool


class Recording:
    """Reference values: of inputs, of the tensors that were expected to be needed, and of all once more are.

    A failure that the target pins on a node needs no more than what is around that node. Running the
    reference that far, and keeping that little, takes a fraction of the time and of the disk.
    """

    def __init__(
        self,
        graph: Graph,
        part: Record,
        some: Callable[[list[str]], Record],
        whole: Callable[[], Record],
    ) -> None:
        """`part` holds the inputs; `some` and `whole` run the reference."""
        self._graph = graph
        self._some = some
        self._whole = whole
        self._is_whole = False
        self._expected: set[str] = set()
        self._steady = not any(is_random(node) for node in graph.nodes.values())
        self.record = part
        self.seconds = 0.0  # that the reference took

    @classmethod
    def of(cls, graph: Graph, record: Record) -> Recording:
        """Values that are known: the reference is not run again."""
        recording = cls(graph, record, lambda _: record, lambda: record)
        recording._is_whole = True
        return recording

    @classmethod
    def when_needed(
        cls, pool: Pool, session: Session, settings: Settings, tell: Callable[[str], None]
    ) -> Recording:
        """ONNX Runtime's values, of which only the inputs are known yet; `tell` hears when it runs."""

        def some(tensors: list[str]) -> Record:
            tell(f"running the reference for {counted(len(tensors), 'tensor')}")
            return record_some(pool, session, settings, tensors)

        def whole() -> Record:
            tell("running the reference")
            return record(pool, session, settings)

        graph, store, feeds = session.graph, session.store, session.feeds
        inputs = Record(store.folder, len(feeds), recorded_inputs(graph, store, feeds))
        return cls(graph, inputs, some, whole)

    def replaced(self, record: Record | None) -> Recording:
        """The same with other values of all tensors, where there are any."""
        found = Recording.of(self._graph, record or self.whole())
        found.seconds = self.seconds
        return found

    def narrowed(self, samples: Sequence[int]) -> Recording:
        """Values of some samples only, all tensors of them."""
        return self.replaced(self.whole().only(list(samples)))

    def expect(self, tensors: Iterable[str]) -> Record:
        """These are needed, and nothing else most likely; the record that has them.

        A reference that fails on the way, or that gives other values each time, is run as a whole.
        """
        self._expected |= set(tensors) - self.record.tensors.keys()
        if self._is_whole or not self._expected:
            return self.record
        part = self._timed(lambda: self._some(sorted(self._expected))) if self._steady else None
        if part is None or part.error or part.missing:
            return self.whole()
        self.record = part
        return part

    def whole(self) -> Record:
        """All tensors."""
        if not self._is_whole:
            self.record, self._is_whole = self._timed(self._whole), True
        return self.record

    def _timed(self, run: Callable[[], Record]) -> Record:
        began = time.monotonic()
        found = run()
        self.seconds += time.monotonic() - began
        return found

    def _with(self, tensor: str) -> Record:
        return self.record if tensor in self.record else self.whole()

    # What `model.cut.Cutter` asks

    @property
    def samples(self) -> int:
        """Number of recorded runs."""
        return self.record.samples

    def __contains__(self, tensor: object) -> bool:
        """Whether the tensor was recorded."""
        return tensor in self.record or tensor in self.whole()

    def path(self, sample: int, tensor: str) -> Path:
        """As `Record.path`."""
        return self._with(tensor).path(sample, tensor)

    def elem_type(self, tensor: str) -> int:
        """As `Record.elem_type`."""
        return self._with(tensor).elem_type(tensor)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """As `Record.shape`."""
        return self._with(tensor).shape(tensor)
