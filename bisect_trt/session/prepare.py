"""What every command starts from: the checked model, its feeds, and its target."""

from __future__ import annotations

import difflib
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx.helper import make_tensor_type_proto

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.candidate import Candidate, Feeds, Form, Rest
from bisect_trt.model.graph import Graph
from bisect_trt.model.inputs.feeds import GraphInput, fit, read_inputs
from bisect_trt.model.inputs.formats import write_samples
from bisect_trt.model.inputs.generate import generate
from bisect_trt.model.inputs.indices import accepted_values, require_inside
from bisect_trt.model.load import LoadedModel, load
from bisect_trt.model.normalise import normalise
from bisect_trt.model.randomness import pinned
from bisect_trt.model.store import Store
from bisect_trt.references.base import Record
from bisect_trt.references.self_check import rows_alike
from bisect_trt.references.spec import SELF, parse, python_loader
from bisect_trt.session.cluster import on_cluster
from bisect_trt.settings import AccuracySettings, Settings, Shapes
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
    without_random: bool = False  # `graph` is what is left of a random model

    def pinned(self, recorded: Record) -> Session:
        """The model with the recorded values of its random nodes as inputs."""
        types = {
            t: make_tensor_type_proto(recorded.elem_type(t), recorded.shape(t)) for t in recorded.tensors
        }
        graph = Graph(pinned(self.graph, types))
        return replace(
            self, graph=graph, feeds=recorded.values(graph.graph_inputs), without_random=True
        )

    @property
    def original(self) -> Candidate:
        """The file as the user has it, not normalised: this is what has to fail."""
        if self.without_random:
            return Candidate(
                content=self.graph.proto.SerializeToString(),
                folder=self.store.folder,
                nodes=self.graph.order,
                feeds=self.feeds,
            )
        return Candidate(
            content=self.loaded.path.absolute(),
            folder=self.loaded.path.absolute().parent,
            nodes=self.graph.order,
            feeds=self.feeds,
            form=Form.ORIGINAL,
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
    accepted = accepted_values(loaded.proto, shapes)
    run = settings.run
    if run.inputs is None:
        ranges = _known_ranges(settings, inputs)
        samples = [generate(inputs, run.seed, shapes, ranges, accepted)]
    else:
        loader = python_loader(run.inputs)
        given = run_loader(run.inputs) if loader else None
        samples = read_inputs(run.inputs, inputs) if given is None else fit(run.inputs, given, inputs)
        for name, slot in accepted.items():
            for sample in samples:
                require_inside(str(run.inputs), name, sample[name], slot)
    if settings.accuracy.reference == SELF and (alike := rows_alike(samples[0])) is not None:
        samples.append(alike)
    if run.save_inputs is not None:
        write_samples(run.save_inputs, samples)
    return samples


def prepare(loaded: LoadedModel, samples: list[dict[str, Array]], folder: Path) -> Session:
    """Normalise the model into a store in `folder`, beside its input values.

    A folder in which the reference run was already recorded is used again as it is.
    """
    again = (folder / RECORD).exists()
    if not again and folder.exists():
        shutil.rmtree(folder)
    store = Store(folder)
    proto = normalise(loaded.proto)
    store.adopt(proto, loaded.path.absolute().parent, model_file=loaded.path.name)
    graph = Graph(proto)
    if again:
        known = Record.from_json(json.loads((folder / RECORD).read_text()))
        feeds = known.values(graph.graph_inputs)
    else:
        feeds = tuple({name: store.put(name, value) for name, value in one.items()} for one in samples)
    return Session(loaded, graph, store, feeds)


def resolved(settings: Settings) -> Settings:
    """Give it with `auto` replaced by the target that it stands for here, and the reference checked.

    Without ONNX Runtime's values for all of the model, parts of it are compared by themselves.

    Raises:
        TargetUnavailable: there is no target, or no cluster.
        UsageError: no reference of that name, a target that takes no `--precision`, or an option that a
            cluster cannot have.
    """
    kind = parse(settings.accuracy.reference).kind
    accuracy = settings.accuracy
    if kind in ("self", "target-at"):
        accuracy = replace(accuracy, judge="local")
    settings = replace(settings, accuracy=accuracy)
    if settings.run.cluster:
        settings = on_cluster(settings)
    else:
        settings = replace(settings, target=replace(settings.target, spec=resolve(settings.target.spec)))
    target = settings.target
    name = target.spec.partition(":")[0]
    if target.precision and name not in ("tensorrt", "tensorrt-rtx", "ort"):
        hint = f"--target emulate:{target.precision} shows what it would do"
        raise UsageError(f"--precision is for TensorRT and ort: targets, not for {target.spec}", hint)
    return settings


def load_for(model: Path, settings: Settings) -> LoadedModel:
    """Read and check a model; ops that nobody knows are allowed with plugins, and for a program of the user.

    Raises:
        UsageError: the model cannot be used, or an option names a tensor that it has not.
    """
    target = settings.target
    others = bool(target.plugins or settings.accuracy.custom_ops) or target.spec.startswith("command:")
    loaded = load(model, allow_unknown=others)
    _require_names(loaded.proto.graph, settings.accuracy)
    return loaded


def _require_names(graph: onnx.GraphProto, accuracy: AccuracySettings) -> None:
    """Raises UsageError for tolerances of outputs that are none, or when no output is left to compare.

    Parts that are judged locally have outputs that are interior tensors of the model.
    """
    outputs = [value.name for value in graph.output]
    inner = [t for node in graph.node for t in node.output] if accuracy.judge == "local" else []
    options = (("--rtol", accuracy.rtol), ("--atol", accuracy.atol), ("--topk", accuracy.topk))
    named = [(option, name) for option, pairs in options for name, _ in pairs if name]
    for option, name in (*named, *(("--ignore", name) for name in accuracy.ignore)):
        if name not in (*outputs, *inner):
            raise UsageError(f"{option}: the model has no output {name}", _known(name, outputs))
    if outputs and set(outputs) <= set(accuracy.ignore):
        raise UsageError("--ignore leaves no output to compare", "leave one of them out")


def _known(name: str, outputs: list[str]) -> str:
    close = difflib.get_close_matches(name, outputs, n=1)
    return f"did you mean {close[0]}?" if close else f"its outputs are: {', '.join(outputs) or 'none'}"


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


def _known_ranges(settings: Settings, inputs: tuple[GraphInput, ...]) -> dict[str, tuple[float, float]]:
    """Raises UsageError when a name is no input of the model."""
    declared = [item.name for item in inputs]
    for name, _, _ in settings.run.input_ranges:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise UsageError(f"--input-range: the model has no input {name}", f"its inputs are: {known}")
    return {name: (low, high) for name, low, high in settings.run.input_ranges}


def run_loader(path: Path) -> list[dict[str, Array]]:
    """What the user's own function yields, run in a process of its own. Raises UsageError."""
    with tempfile.TemporaryDirectory(prefix="bisect-trt-") as logs, Pool(1, log_dir=Path(logs)) as pool:
        reply = pool.submit(jobs.load_inputs, str(path), timeout=None).result()
    if reply.death is not None:
        raise UsageError(f"--inputs {path} ends its process: {reply.death.message}")
    found: list[dict[str, Array]] = reply.value
    return found


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
