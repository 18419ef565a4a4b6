"""What every target provides. Targets are made and used inside worker processes only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import onnx
from msgspec import Struct, field

from bisect_trt.machine.limits import WORKER
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.model.load import read_without_weights
from bisect_trt.model.store import Store
from bisect_trt.outcome import Array, Failure, Stage
from bisect_trt.writing.files import written_whole


class TargetInfo(Struct, frozen=True):
    """What a target is on this machine.

    Attributes:
        name: as users write it, `tensorrt-rtx`.
        title: for people, `TensorRT-RTX 1.7.1.116`.
        can_run: False for a *build only* target: outputs cannot be compared.
        notes: plain sentences for the header (why build only, which option is off, ...).
        versions: library name to version; GPU and driver when there.
    """

    name: str
    title: str
    can_run: bool
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """What a cached outcome depends on, besides candidate and settings."""
        parts = [self.name, str(self.can_run), *(f"{k}={v}" for k, v in sorted(self.versions.items()))]
        return "|".join(parts)


class TargetResult(Struct, frozen=True):
    """What the target gave: failures, or outputs (one mapping a sample; None when build only).

    `unresolved` says why nothing can be said about the candidate, if so: not a failure, not a success.
    """

    failures: tuple[Failure, ...] = ()
    outputs: tuple[Mapping[str, Array], ...] | None = None
    log: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    unresolved: str = ""


class Target(Protocol):
    """Takes a candidate and gives tensors or failures; raises only `errors.BisectError`."""

    def info(self) -> TargetInfo:
        """Describe the target on this machine."""

    def run(self, candidate: Candidate) -> TargetResult:
        """Parse, build and (when possible) run the candidate on each of its samples."""


def report_progress(text: str) -> None:
    """Tell how far a long call is, for people; empty when it is over. Such a call heeds `asked_to_stop`."""
    place = os.environ.get(WORKER)
    if not place:
        return
    file = Path(f"{place}.progress")
    with suppress(OSError):  # a full disk must not fail a build
        if text:
            with written_whole(file) as aside:
                aside.write_text(text)
        else:
            file.unlink(missing_ok=True)


def asked_to_stop() -> bool:
    """Return whether somebody wants the present job ended.

    Whoever cannot do that is killed a little later.
    """
    place = os.environ.get(WORKER)
    return bool(place) and Path(f"{place}.stop").exists()


STAGE_MARK = "\x02stage:"
_REFERENCE = "reference"
_STACK = re.compile(r"\s+(Binary f|F)ile \"|(Current t|T)hread .*:$|Extension modules: |Current thread's C ")


def announce(stage: Stage) -> None:
    """Tell whoever reads this worker's output after a crash or hang which stage was reached.

    Written to file descriptor 2 directly: it must be there even when the next call never returns.
    """
    os.write(2, f"{STAGE_MARK}{stage.value}\n".encode())


def to_worker_log(line: str) -> None:
    """Write what should be known of this worker should it die; nothing happens in any other process."""
    if os.environ.get(WORKER):
        with suppress(OSError):  # a full disk must not fail a build
            os.write(2, f"{line}\n".encode(errors="replace"))


def announce_reference() -> None:
    """Tell that it is the reference that runs now: a death is none of the target's."""
    os.write(2, f"{STAGE_MARK}{_REFERENCE}\n".encode())


def last_stage(worker_log: str) -> Stage | None:
    """Return the stage of the target that the worker announced last; None: none, or the reference ran."""
    last = _last_mark(worker_log)
    return Stage(last) if last not in ("", _REFERENCE) else None


def was_in_reference(worker_log: str) -> bool:
    """Return whether the worker died while the reference ran."""
    return _last_mark(worker_log) == _REFERENCE


def readable(worker_log: str) -> str:
    """Return what a dead worker wrote, for people: stages in words, and nothing of our own code.

    Python's `faulthandler` adds a stack that is ours and names folders of this machine.
    """
    text = re.sub(rf"{STAGE_MARK}(\w+)", r"-- \1 --", worker_log)
    return "\n".join(line for line in text.splitlines() if not _STACK.match(line)).strip("\n")


def _last_mark(worker_log: str) -> str:
    _, mark, rest = worker_log.rpartition(STAGE_MARK)
    return rest.split("\n", 1)[0].strip() if mark else ""


def fed(candidate: Candidate) -> list[dict[str, Array]]:
    """Return the values of each sample as arrays of the types that the model declares for its inputs.

    Raises:
        UsageError: they were to be made up, and are too large for that.
    """
    return as_declared(read_without_weights(candidate.content).graph, candidate.folder, candidate.feeds)


def as_declared(graph: onnx.GraphProto, folder: Path, feeds: Sequence[Feeds]) -> list[dict[str, Array]]:
    """Return values of samples that lie in `folder`, for the inputs of a graph; what is no input is left out.

    Raises:
        UsageError: they were to be made up, and are too large for that.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    return [
        {name: Store.load(path, types[name]) for name, path in sample.items() if name in types}
        for sample in feeds
    ]
