"""What is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

Keep = frozenset[str]
"""Nodes that stay in FP32, by key."""
Harm = tuple[Keep, float]
"""Nodes all of which have to stay for something not to be rounded, and what that rounding alone adds to the
mean square of the error, in tolerances."""


class Answer(Struct, frozen=True):
    """What came of a set of nodes.

    Attributes:
        passes: the outputs agree with the reference.
        error: how far off the worst output is, in tolerances; infinite where none is large enough.
        errors: by output: RMS error over RMS.
    """

    passes: bool
    error: float
    errors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Answer:
        """Make it from what `msgspec.structs.asdict` gave, JSON's infinities included."""
        errors = {k: float(v) for k, v in data["errors"].items()}
        return cls(bool(data["passes"]), float(data["error"]), errors)


def not_needed(key: str, keep: Keep, known: Mapping[Keep, Answer]) -> str:
    """Say why a node is in a set of which nobody knows that it fails without the node."""
    if any(answer.passes and fewer < keep and key not in fewer for fewer, answer in known.items()):
        return "fewer nodes pass without it: the layer that it is a part of is kept whole"
    return "not tried without it"
