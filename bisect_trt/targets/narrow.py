"""`--precision` where types are taken as they stand: what a target gets instead of the model."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Content, Form, Serialised
from bisect_trt.model.precision import narrowed
from bisect_trt.targets.roles import with_casts


class Source(Struct, dict=True):
    """What a target is given, and what is known of it so far."""

    candidate: Candidate
    content: Content
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> Serialised:
        """The model; one that lies in a file is read when it is first asked for."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


class Narrower:
    """Casts candidates to a precision; without one they stay as they are."""

    def __init__(self, precision: str) -> None:
        """Cast to `precision`: `fp16`, `bf16`, or empty for none."""
        self._precision = precision
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def source(self, candidate: Candidate) -> Source:
        """Return the candidate as the target gets it.

        Raises:
            UsageError: nothing in the user's own model computes in float32.
        """
        if not self._precision:
            return Source(candidate, candidate.content, candidate.folder)
        if candidate.keep is not None:
            mixed = with_casts(candidate.model, candidate.folder, self._precision, candidate.keep)
            return Source(candidate, mixed.SerializeToString(), candidate.folder)
        self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="bisect-trt-narrow-")
        made = narrowed(candidate.model, candidate.folder, self._precision, Path(self._scratch.name))
        if candidate.form is Form.ORIGINAL and not made.narrow:
            message = f"--precision {self._precision}: nothing in this model computes in float32"
            raise UsageError(message, "Leave it out.")
        return Source(candidate, made.model, made.folder, {"cast": made.facts()})
