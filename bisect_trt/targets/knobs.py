"""Decisions of a builder that can be taken otherwise, to see which of them a failure depends on.

Each target has its table in a file of its own: `targets/tensorrt/knobs.py`, `targets/ort/knobs.py` and
`targets/ort/openvino_knobs.py`. A knob says what changes in the settings of the target, how people call it,
and what to write into one's own program to have it so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.settings import TargetSettings

Decisions = tuple[tuple[str, str], ...]

PYTHON, TRTEXEC, POLYGRAPHY, US = "Python", "trtexec", "Polygraphy", "bisect-trt"
"""For whom a line to paste is."""


class Knob(Struct, frozen=True):
    """One decision, taken otherwise than by default.

    Attributes:
        name: for people, `ReshapeFusion`.
        told: a phrase for the other decision, `without the optimiser ReshapeFusion`.
        decisions: what `TargetSettings.decisions` gets; the target's adapter knows the words.
        changes: fields of the settings that get other values.
        paste: by tool, a line that does the same.
        coarse: it changes much at once: asked only when no finer ones help.
    """

    name: str
    told: str
    decisions: Decisions = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    paste: Mapping[str, str] = field(default_factory=dict)
    coarse: bool = False

    def __hash__(self) -> int:
        return hash((self.name, self.decisions))


def switched(target: TargetSettings, knobs: Sequence[Knob]) -> TargetSettings:
    """Return the settings with these decisions taken otherwise."""
    taken = set(target.decisions)
    for knob in knobs:
        target = replace(target, **knob.changes)
        taken |= set(knob.decisions)
    return replace(target, decisions=tuple(sorted(taken)))
