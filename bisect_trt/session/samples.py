"""Where the input values of a model come from: the user's file, his function, or made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from bisect_trt.errors import UsageError
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.model.inputs import formats
from bisect_trt.model.inputs.feeds import GraphInput, fit, no_input
from bisect_trt.model.inputs.generate import generate
from bisect_trt.model.inputs.indices import accepted_values, require_inside
from bisect_trt.model.inputs.made_up import MadeUp, Value
from bisect_trt.model.inputs.sizes import fitting_shapes
from bisect_trt.model.load import LoadedModel
from bisect_trt.outcome import Array
from bisect_trt.references.self_check import rows_alike
from bisect_trt.references.spec import SELF, python_loader
from bisect_trt.settings import Settings, Shapes
from bisect_trt.workers import user_values
from bisect_trt.workers.pool import Pool

Samples = list[dict[str, Value]]
_LONGEST_TRY = 60.0  # seconds: what ONNX Runtime has for finding a size that it takes


def read_samples(
    loaded: LoadedModel, settings: Settings, notes: list[str] | None = None
) -> Samples:
    """Return input values, a mapping for each sample: read from the user's file, or seeded random ones.

    `notes` gets a sentence for each array of another type than declared, which was converted.

    Raises:
        UsageError: inputs or shapes do not fit the model.
    """
    inputs = graph_inputs(loaded.proto)
    shapes = _known_shapes(settings, inputs)
    accepted = accepted_values(loaded.proto, shapes)
    run = settings.run
    samples: Samples
    if run.inputs is None:
        ranges = _known_ranges(settings, inputs)

        def made_up(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, MadeUp]:
            return generate(inputs, run.seed, shapes, ranges, accepted)

        def first(some: Sequence[Mapping[str, tuple[int, ...]]]) -> int | None:
            return _first_that_runs(loaded, [made_up(shapes) for shapes in some])

        samples = [{**made_up(fitting_shapes(loaded.proto, inputs, shapes, first))}]
    else:
        names = [item.name for item in inputs]
        named = python_loader(run.inputs)
        given = run_loader(run.inputs) if named else formats.read_samples(run.inputs, names)
        read = fit(run.inputs, given, inputs, notes)
        for name, slot in accepted.items():
            for sample in read:
                require_inside(str(run.inputs), name, sample[name], slot)
        samples = [{**sample} for sample in read]
    if settings.accuracy.reference == SELF and (alike := rows_alike(samples[0])) is not None:
        samples.append(alike)
    if run.save_inputs is not None:
        _in_a_worker(f"--save-inputs {run.save_inputs}", user_values.save_inputs, run.save_inputs, samples)
    return samples


def read_with_notes(loaded: LoadedModel, settings: Settings) -> tuple[Samples, list[str]]:
    """Return input values as `read_samples` gives them, and a sentence for each array that was converted."""
    notes: list[str] = []
    return read_samples(loaded, settings, notes), notes


def graph_inputs(proto: onnx.ModelProto) -> tuple[GraphInput, ...]:
    """Return the inputs of a model that are not initializers, sparse ones neither."""
    constant = {tensor.name for tensor in proto.graph.initializer}
    constant |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    return tuple(
        GraphInput.from_value_info(value) for value in proto.graph.input if value.name not in constant
    )


def _known_shapes(settings: Settings, inputs: tuple[GraphInput, ...]) -> dict[str, tuple[int, ...]]:
    """Return shapes from the options: static ones first, else the optimum of the profile.

    Raises:
        UsageError: a name is no input of the model, or a shape does not fit its declaration.
    """
    declared = {item.name: item for item in inputs}
    target = settings.target
    given: Shapes = (*target.opt_shapes, *target.shapes)
    for option, shapes in (
        ("--shapes", target.shapes),
        ("--min-shapes", target.min_shapes),
        ("--opt-shapes", target.opt_shapes),
        ("--max-shapes", target.max_shapes),
    ):
        for name, shape in shapes:
            if name not in declared:
                raise no_input(option, name, list(declared))
            _require_fit(option, declared[name], shape)
    return dict(given)


def _known_ranges(settings: Settings, inputs: tuple[GraphInput, ...]) -> dict[str, tuple[float, float]]:
    """Raises UsageError when a name is no input of the model."""
    declared = [item.name for item in inputs]
    for name, _, _ in settings.run.input_ranges:
        if name not in declared:
            raise no_input("--input-range", name, declared)
    return {name: (low, high) for name, low, high in settings.run.input_ranges}


def run_loader(path: Path) -> list[dict[str, Array]]:
    """Return what the user's own function yields, run in a process of its own. Raises UsageError."""
    found: list[dict[str, Array]] = _in_a_worker(f"--inputs {path}", user_values.load_inputs, str(path))
    return found


def _first_that_runs(loaded: LoadedModel, samples: Sequence[Mapping[str, Value]]) -> int | None:
    """Return which input values are the first on which ONNX Runtime runs the model, if any in time."""
    folder = loaded.path.absolute().parent
    job = user_values.first_that_runs, loaded.proto.SerializeToString(), folder, samples
    with temporary_folder() as logs, Pool(1, log_dir=logs) as pool:
        reply = pool.submit(*job, timeout=_LONGEST_TRY).result()
    found: int | None = reply.value if reply.death is None else None
    return found


def _in_a_worker(what: str, job: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a job gives that belongs to an option. Raises UsageError, too, when it ends its process."""
    with temporary_folder() as logs, Pool(1, log_dir=logs) as pool:
        reply = pool.submit(job, *arguments, timeout=None).result()
    if reply.death is not None:
        raise UsageError(f"{what} ends its process: {reply.death.message}")
    return reply.value


def _require_fit(option: str, declared: GraphInput, shape: tuple[int, ...]) -> None:
    if not declared.takes(shape):
        given, dims = "x".join(map(str, shape)), declared.shape_text()
        text = f"{option} {declared.name}:{given} does not fit the model, which declares {dims}"
        raise UsageError(text, "numbers of the model are fixed: export it with a name in their place")
