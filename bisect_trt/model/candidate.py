"""A model with its feeds, small enough to send to a worker, never changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Feeds = Mapping[str, Path]
"""Tensor name to a `.npy` file (C order, native byte order; ml_dtypes types stored as their bits,
see `model.store`)."""


@dataclass(frozen=True)
class Candidate:
    """What a probe tries.

    Attributes:
        model: serialised ONNX ModelProto. Weights above `store.INLINE_LIMIT` bytes are external
            data: `location` is a plain file name inside `folder`.
        folder: the store folder, where external data lies.
        nodes: names of the top-level nodes, in topological order.
        feeds: recorded values of each graph input, one mapping a sample.
        expected: recorded reference values of each graph output, one mapping a sample.
        cut: how it was cut (`cut.CutStyle` value), for the journal.
        bytes: size of the weights and frozen values it carries, for ordering.
    """

    model: bytes
    folder: Path
    nodes: tuple[str, ...]
    feeds: tuple[Feeds, ...] = ()
    expected: tuple[Feeds, ...] = ()
    cut: str = "default"
    bytes: int = 0

    @cached_property
    def digest(self) -> str:
        """Content key: equal digests inside one run mean equal probes."""
        h = hashlib.sha256(self.model)
        named = [
            [sorted((k, v.name) for k, v in sample.items()) for sample in side]
            for side in (self.feeds, self.expected)
        ]
        h.update(json.dumps(named).encode())
        return h.hexdigest()[:32]

    @property
    def size(self) -> tuple[int, int, int, str]:
        """Strict total order; smaller is better."""
        return (len(self.nodes), self.bytes, len(self.model), self.digest)
