"""What every command starts from: the checked model, its feeds, and its target."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.graph import Graph
from bisect_trt.inputs.feeds import GraphInput, read_inputs
from bisect_trt.inputs.generate import generate
from bisect_trt.model.candidate import Candidate, Feeds, Rest
from bisect_trt.model.load import LoadedModel, load
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.references.base import Record
from bisect_trt.settings import Settings, Shapes
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.registry import resolve
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool

Array = npt.NDArray[Any]

LONGEST_START = 300.0  # seconds for a worker to import its libraries and describe the target
RECORD = "record.json"


@dataclass(frozen=True)
class Session:
    """One model, normalised and indexed, with input values; `original` is the user's own file."""

    loaded: LoadedModel
    graph: Graph
    store: Store
    feeds: tuple[Feeds, ...]

    @property
    def original(self) -> Candidate:
        """The file as the user has it, not normalised: this is what has to fail."""
        return Candidate(
            model=self.loaded.path.read_bytes(),
            folder=self.loaded.path.absolute().parent,
            nodes=self.graph.order,
            feeds=self.feeds,
            cut="original",
        )

    def with_outputs(self, recorded: Record) -> Candidate:
        """`original`, to be compared at its outputs, one by one."""
        values = recorded.values(self.graph.graph_outputs)
        known = tuple(values[0]) if values else ()
        return replace(self.original, expected=values, rest=Rest(outputs=known, expected=values))


def read_samples(loaded: LoadedModel, settings: Settings) -> list[dict[str, Array]]:
    """Input values from the user's file, else seeded random ones: a mapping for each sample.

    Raises:
        UsageError: inputs or shapes do not fit the model.
    """
    inputs = graph_inputs(loaded.proto)
    shapes = _known_shapes(settings, inputs)
    if settings.run.inputs is not None:
        return read_inputs(settings.run.inputs, inputs)
    return [generate(inputs, settings.run.seed, shapes)]


def prepare(loaded: LoadedModel, samples: list[dict[str, Array]], folder: Path) -> Session:
    """Normalise the model into a store in `folder`, beside its input values.

    A folder in which the reference run was already recorded is used again as it is.
    """
    again = (folder / RECORD).exists()
    if not again and folder.exists():
        shutil.rmtree(folder)
    store = Store(folder)
    proto = normalise(loaded.proto)
    store.adopt(proto, loaded.path.absolute().parent)
    graph = Graph(proto)
    if again:
        known = Record.from_json(json.loads((folder / RECORD).read_text()))
        feeds = known.values(graph.graph_inputs)
    else:
        feeds = tuple({name: store.put(name, value) for name, value in one.items()} for one in samples)
    return Session(loaded, graph, store, feeds)


def record(pool: Pool, session: Session, settings: Settings, *, outputs_only: bool = False) -> Record:
    """Run the reference in a worker and keep every tensor; the second time, what was kept.

    A reference that cannot run the model, or dies of it, gives a record with an error.
    """
    place = session.store.folder / RECORD
    if place.exists():
        return Record.from_json(json.loads(place.read_text()))
    graph, folder = session.graph, session.store.folder
    tensors = graph.graph_outputs if outputs_only else None
    recorded = jobs.record_in(pool, folder, graph.proto, session.feeds, settings.run, tensors=tensors)
    if not outputs_only:
        draft = place.with_suffix(".writing")
        draft.write_text(json.dumps(recorded.to_json()))
        draft.replace(place)
    return recorded


def resolved(settings: Settings) -> Settings:
    """With `auto` replaced by the target that it stands for here. Raises TargetUnavailable."""
    return replace(settings, target=replace(settings.target, spec=resolve(settings.target.spec)))


def load_for(model: Path, settings: Settings) -> LoadedModel:
    """Read and check a model; ops that nobody knows are allowed only with plugins."""
    return load(model, allow_unknown=bool(settings.target.plugins))


def describe(pool: Pool, settings: Settings) -> TargetInfo:
    """Open the target in a worker.

    Raises:
        TargetUnavailable: it cannot be used here, or opening it kills the worker.
    """
    reply = pool.submit(jobs.describe, settings.target, timeout=LONGEST_START).result()
    if reply.death is not None:
        raise TargetUnavailable(
            f"opening the target {settings.target.spec} ends its process: {reply.death.message}",
            "bisect-trt doctor says what can be used here",
        )
    info: TargetInfo = reply.value
    return info


def graph_inputs(proto: onnx.ModelProto) -> tuple[GraphInput, ...]:
    """Inputs of a model that are not initializers."""
    constant = {tensor.name for tensor in proto.graph.initializer}
    return tuple(
        GraphInput.from_value_info(value) for value in proto.graph.input if value.name not in constant
    )


def _known_shapes(settings: Settings, inputs: tuple[GraphInput, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes from the options: static ones first, else the optimum of the profile.

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
                known = ", ".join(declared) or "none"
                raise UsageError(f"{option}: the model has no input {name}", f"its inputs are: {known}")
            _require_fit(option, declared[name], shape)
    return dict(given)


def _require_fit(option: str, declared: GraphInput, shape: tuple[int, ...]) -> None:
    if declared.dims is None:
        return
    fits = len(declared.dims) == len(shape) and all(
        not isinstance(d, int) or d == s for d, s in zip(declared.dims, shape, strict=True)
    )
    if not fits:
        wanted = "x".join(str(d if d is not None else "?") for d in declared.dims)
        given = "x".join(map(str, shape))
        raise UsageError(f"{option} {declared.name}:{given} does not fit the model, which declares {wanted}")
