"""The reference run, as far as a search needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from bisect_trt.model.graph import Graph, is_random
from bisect_trt.references.base import Record


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
        self._some = some
        self._whole = whole
        self._is_whole = False
        self._expected: set[str] = set()
        self._steady = not any(is_random(node) for node in graph.nodes.values())
        self.record = part

    def expect(self, tensors: Iterable[str]) -> Record:
        """These are needed, and nothing else most likely; the record that has them.

        A reference that fails on the way, or that gives other values each time, is run as a whole.
        """
        self._expected |= set(tensors) - self.record.tensors.keys()
        if self._is_whole or not self._expected:
            return self.record
        part = self._some(sorted(self._expected)) if self._steady else None
        if part is None or part.error or part.missing:
            return self.whole()
        self.record = part
        return part

    def whole(self) -> Record:
        """All tensors."""
        if not self._is_whole:
            self.record, self._is_whole = self._whole(), True
        return self.record

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
