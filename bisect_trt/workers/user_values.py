"""What brings values in, in a worker: input values, and what a reference outside of us gives for them.

Programs and functions of the user run here, which may end the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Feeds
from bisect_trt.model.inputs import formats
from bisect_trt.model.inputs.made_up import Value, made
from bisect_trt.model.store import keep_promise
from bisect_trt.outcome import Array, Values
from bisect_trt.references.spec import Spec, split_function


def load_inputs(text: str) -> list[dict[str, Array]]:
    """Return what the loader `FILE.py:FUNCTION` yields. Raises UsageError."""
    from bisect_trt.references import python

    return python.load_inputs(*split_function(text))


def save_inputs(path: Path, samples: Sequence[Mapping[str, Value]]) -> None:
    """Write input values, made now where they are only described. Raises UsageError."""
    formats.write_samples(path, [{name: made(value) for name, value in one.items()} for one in samples])


def first_that_runs(model: bytes, folder: Path, samples: Sequence[Mapping[str, Value]]) -> int | None:
    """Return which is the first of these input values on which ONNX Runtime runs a model; None: on none."""
    from bisect_trt.references import ort

    try:
        session = ort.Session(model, folder)
    except ort.OrtError:
        return None
    for k, sample in enumerate(samples):
        try:
            session.run({name: made(value) for name, value in sample.items()})
        except (ort.OrtError, UsageError):  # it refuses them, or they are too large to be made up
            continue
        return k
    return None


def make_values(feeds: Sequence[Feeds]) -> None:
    """Make what is only promised of some input values. Raises UsageError."""
    for sample in feeds:
        for path in sample.values():
            keep_promise(path)


def outside(
    reference: Spec, model: Path, samples: Values, inputs: Sequence[str], outputs: Sequence[str]
) -> list[dict[str, Array]]:
    """Return what an outside reference gives for the whole model. Raises UsageError or TargetUnavailable."""
    if reference.kind == "python":
        from bisect_trt.references import python

        return python.run(*split_function(reference.argument), samples, outputs)
    if reference.kind == "torchscript":
        from bisect_trt.references import torchscript

        return torchscript.run(Path(reference.argument), samples, inputs, outputs)
    if reference.kind == "command":
        from bisect_trt.references import command

        return command.run(reference.argument, model, samples, outputs)
    from bisect_trt.references import outputs as saved

    return saved.read(Path(reference.argument), len(samples), outputs)


def outside_twice(
    reference: Spec, model: Path, samples: Values, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[list[dict[str, Array]], Values]:
    """Return the values of two runs: a user's program may be random. Saved values are read once.

    Raises:
        UsageError, TargetUnavailable: as `outside`.
    """
    first = outside(reference, model, samples, inputs, outputs)
    if reference.kind == "outputs":
        return first, first
    return first, outside(reference, model, samples, inputs, outputs)
