"""A model with its feeds, small enough to send to a worker, never changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

Feeds = Mapping[str, Path]
"""Tensor name to a `.npy` file (C order, native byte order; ml_dtypes types stored as their bits,
see `model.store`)."""

Serialised = bytes
"""An ONNX ModelProto."""

Content = Serialised | Path
"""A model, or the file that holds it."""

DELTA = "#delta"
"""Ends the name of an input of `Rest.model` that takes a difference."""


_READ = 1 << 18  # bytes of a file that are held at once


def state_of(path: Path) -> tuple[int, ...]:
    """Return what is another once a file was changed or replaced. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def hash_of(path: Path) -> blake3:
    """Return the BLAKE3 hash of a file, to be gone on with; it is read again when it changed. Raises OSError.

    Weights may be gigabytes, and sha256 takes more than twice as long.
    """
    return _hash(path.absolute(), state_of(path)).copy()


@lru_cache(maxsize=4)
def _hash(path: Path, state: tuple[int, ...]) -> blake3:
    made = blake3()
    with path.open("rb") as file:
        while data := file.read(_READ):
            made.update(data)
    return made


class Form(StrEnum):
    """How a candidate was made; the first six are ways of cutting a selection out."""

    DEFAULT = "default"
    """Recorded static shapes; shape-like cut tensors become constants; all that leaves is an output."""
    UNFROZEN = "unfrozen"
    """As DEFAULT, but shape-like cut tensors stay inputs."""
    DYNAMIC = "dynamic"
    """As DEFAULT, but inputs keep declared and inferred symbolic dimensions."""
    HIDDEN = "hidden"
    """As DEFAULT, but tensors that are read inside as well are not exposed (that would stop
    fusion), unless the model itself exposes them."""
    NARROW = "narrow"
    """As DEFAULT, but also cut through edges of types that builders do not take as inputs everywhere;
    sequences, optionals and strings may be outputs (they are not compared)."""
    UNTYPED = "untyped"
    """As DEFAULT, but types of interior tensors and shapes of outputs are left out: a target may take
    them for more than a hint."""
    ORIGINAL = "original"  # the user's own file
    SIMPLIFIED = "simplified"  # edited
    VARIANT = "variant"  # the same model in another form: names, versions, declared shapes
    PADDED = "padded"  # with unrelated nodes in front
    SEGMENTS = "segments"  # many cuts side by side
    WRITTEN = "written"  # read back from a reproducer

    @property
    def is_cut(self) -> bool:
        """Whether it was cut out of the model, and nothing else was done to it."""
        return self in _CUT


_CUT = frozenset({Form.DEFAULT, Form.UNFROZEN, Form.DYNAMIC, Form.HIDDEN, Form.NARROW, Form.UNTYPED})


class Rest(Struct, frozen=True):
    """What lies between a candidate's outputs and the outputs of the whole model, see `cutting.continuation`.

    Attributes:
        outputs: outputs of the whole model that the candidate has an influence on.
        model: serialised; from the candidate's outputs to these. Empty when they are the candidate's own.
        feeds: recorded values of its inputs, one mapping a sample; what the target gives replaces those
            that the candidate makes.
        expected: recorded reference values of `outputs`, one mapping a sample.
        deltas: outputs of the candidate that the rest computes too (the candidate has gaps): what is put
            in is the difference that the target made, as the input `NAME#delta`.
        inner: whether `outputs` has tensors inside the model, of which only the size of errors is asked.
    """

    outputs: tuple[str, ...] = ()
    model: bytes = b""
    feeds: tuple[Feeds, ...] = ()
    expected: tuple[Feeds, ...] = ()
    deltas: tuple[str, ...] = ()
    inner: bool = False


class Candidate(Struct, frozen=True, dict=True):
    """What a probe tries.

    Attributes:
        content: serialised ONNX ModelProto, in which weights above `store.INLINE_LIMIT` bytes are external
            data: `location` is a plain file name inside `folder`. Or the file that holds the model (the
            user's own, which may have 2 GB): it is read where it is used.
        folder: the store folder, where external data lies.
        nodes: names of the top-level nodes, in topological order.
        feeds: recorded values of each graph input, one mapping a sample.
        expected: recorded reference values of each graph output, one mapping a sample.
        form: how it was made.
        bytes: size of the weights and frozen values it carries, for ordering.
        simplicity: how far a *simplified* candidate is from the simplest one, see `edit.simplicity`;
            empty for one that was only cut.
        edited: its values are not those of the recorded run, so a probe asks the reference first: when
            that cannot run it, the edit was wrong and nothing can be said.
        parse_only: only whether the target's parser takes it is asked: nothing else can be the failure.
        keep: where the target computes in a low precision: names of the nodes that stay in FP32 (of nameless
            ones their first outputs), all others being lowered; None: the target lowers as it does.
        rest: how its outputs go on to those of the whole model, where that is what is compared; None:
            its own outputs are.
    """

    content: Content
    folder: Path
    nodes: tuple[str, ...]
    feeds: tuple[Feeds, ...] = ()
    expected: tuple[Feeds, ...] = ()
    form: Form = Form.DEFAULT
    bytes: int = 0
    simplicity: tuple[int, ...] = ()
    edited: bool = False
    parse_only: bool = False
    rest: Rest | None = None
    keep: tuple[str, ...] | None = None

    @property
    def model(self) -> Serialised:
        """What is in `content`, or in its file."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def moved(self, move: Callable[[Path], Path]) -> Candidate:
        """Return the same with all its files elsewhere: `move` takes the folder too."""

        def feeds(samples: tuple[Feeds, ...]) -> tuple[Feeds, ...]:
            return tuple({name: move(path) for name, path in sample.items()} for sample in samples)

        rest = self.rest
        rest = rest and replace(rest, feeds=feeds(rest.feeds), expected=feeds(rest.expected))
        return replace(
            self,
            content=move(self.content) if isinstance(self.content, Path) else self.content,
            folder=move(self.folder),
            feeds=feeds(self.feeds),
            expected=feeds(self.expected),
            rest=rest,
        )

    @cached_property
    def digest(self) -> str:
        """Content key: equal digests inside one run mean equal probes."""
        content = self.content
        h = hashlib.sha256(content if isinstance(content, bytes) else hash_of(content).digest())
        h.update(b"parse only" * self.parse_only)
        h.update(b"written" * (self.form is Form.WRITTEN))  # more is told of such an engine
        named = [
            [sorted((k, v.name) for k, v in sample.items()) for sample in side]
            for side in (self.feeds, self.expected)
        ]
        h.update(json.dumps(named).encode())
        if self.keep is not None:
            h.update(json.dumps(["keep", *self.keep]).encode())
        if self.rest is not None:
            h.update(json.dumps([self.rest.outputs, self.rest.deltas]).encode())
            h.update(self.rest.model)
        return h.hexdigest()[:32]

    @property
    def size(self) -> tuple[int, bool, tuple[int, ...], int, int, str]:
        """Strict total order; smaller is better.

        Nodes count first. Of equally many, a simplified candidate is before one that was only cut, and
        a simpler one before a less simple one.
        """
        plain = not self.simplicity
        content = self.content
        length = len(content) if isinstance(content, bytes) else content.stat().st_size
        return (len(self.nodes), plain, self.simplicity, self.bytes, length, self.digest)
