"""The reference as a worker asks it: recorded once for a model, and run on the spot for a candidate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import onnx
from msgspec.structs import replace

from bisect_trt.errors import StoppedEarly, is_full
from bisect_trt.model.candidate import Candidate, Feeds, state_of
from bisect_trt.outcome import Values
from bisect_trt.references.base import Record
from bisect_trt.settings import DEFAULT_ACCURACY, AccuracySettings
from bisect_trt.workers import continue_rest

KEPT = 1 << 24  # bytes of values that are kept until the next run


def use(accuracy: AccuracySettings) -> None:
    """Set up ONNX Runtime as the reference of this process; nothing is imported for the usual one."""
    plain = DEFAULT_ACCURACY
    given = (accuracy.reference_provider, accuracy.custom_ops)
    if given != (plain.reference_provider, plain.custom_ops) or "bisect_trt.references.ort" in sys.modules:
        from bisect_trt.references import ort

        ort.use(*given)


def record(
    model: bytes,
    folder: Path,
    feeds: Sequence[Feeds],
    tensors: Sequence[str] | None,
    budget: int | None,
    accuracy: AccuracySettings = DEFAULT_ACCURACY,
    stem: str = "r",
) -> Record:
    """See `references.recorder.record`. Raises StoppedEarly when the disk is full."""
    from bisect_trt.references import recorder

    use(accuracy)
    try:
        return recorder.record(model, folder, feeds, tensors=tensors, budget=budget, stem=stem)
    except OSError as error:
        if is_full(error):
            hint = "make room, or use --out on another disk"
            raise StoppedEarly(f"no space left for recorded tensors in {folder}", hint) from error
        raise


def values(candidate: Candidate) -> tuple[Values, str]:
    """Return what the reference gives for a candidate, or why it cannot run it."""
    from bisect_trt.references import ort

    try:
        feeds = continue_rest.load(candidate, candidate.feeds)
        found = ort.run(candidate.model, candidate.folder, feeds)
        _ran.clear()
        if sum(value.nbytes for sample in found for value in sample.values()) <= KEPT:
            _ran[_question(candidate)] = found
        return found, ""
    except ort.OrtError as error:
        return [], f"the reference cannot run it: {error}"
    except ValueError as error:  # what flows is of another type than the model declares
        return [], f"the model does not declare what flows in it: {error}"


_ran: dict[object, Values] = {}
"""What the reference gave for the last candidate, where it is little."""


def _question(candidate: Candidate) -> object:
    """Return what its answer follows from. Raises OSError where a file is gone."""
    from bisect_trt.references import ort

    content, sides = candidate.content, [tuple(sample.items()) for sample in candidate.feeds]
    files = [path for side in sides for _, path in side] + ([content] if isinstance(content, Path) else [])
    return content, candidate.folder, tuple(sides), tuple(map(state_of, files)), ort.used()


def ran(candidate: Candidate) -> Values:
    """Return what the reference gave for a candidate, if that is the last one that it was asked to run."""
    return _ran.get(_question(candidate), []) if _ran else []


def expected(candidate: Candidate) -> tuple[Values, str]:
    """Return reference values for each sample, or why there are none."""
    if candidate.expected and all(candidate.expected):
        try:
            return continue_rest.load(candidate, candidate.expected), ""
        except ValueError as error:
            return [], f"the model does not declare what flows in it: {error}"
    return values(candidate)


def error(candidate: Candidate, accuracy: AccuracySettings) -> str:
    """Say why the reference cannot run a candidate; empty when it can, whatever kind of values come out.

    A candidate that ran before is not run again: repeats and other options of the target change nothing here.
    """
    use(accuracy)
    feeds = tuple(tuple(sample.items()) for sample in candidate.feeds)
    given = accuracy.reference_provider, accuracy.custom_ops
    try:
        _require_runs(candidate.model, candidate.folder, feeds, given)
    except _RefusedError as why:
        return str(why)
    return ""


class _RefusedError(Exception):
    """The reference cannot run it."""


@lru_cache(maxsize=32)
def _require_runs(
    model: bytes, folder: Path, feeds: tuple[tuple[tuple[str, Path], ...], ...], given: tuple[object, ...]
) -> None:
    """Run a model on the reference that `given` says; what is raised is not kept. Raises _RefusedError."""
    candidate = Candidate(content=model, folder=folder, nodes=(), feeds=tuple(map(dict, feeds)))
    if why := values(candidate)[1]:
        raise _RefusedError(why)


def shapes(candidate: Candidate, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return shapes that tensors have in a run of the reference, where they are the same in all samples."""
    model = onnx.load_model_from_string(candidate.model)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    given, unresolved = values(replace(candidate, content=model.SerializeToString()))
    if unresolved:
        return {}
    found = {name: {sample[name].shape for sample in given if name in sample} for name in names}
    return {name: some.pop() for name, some in found.items() if len(some) == 1}
