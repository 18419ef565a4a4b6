"""What every command starts from: the checked model, its feeds, and its target."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx
from msgspec import Struct
from msgspec.structs import replace
from onnx.helper import make_tensor_type_proto

from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.model.candidate import Candidate, Feeds, Form, Rest
from bisect_trt.model.graph import Graph
from bisect_trt.model.inputs.made_up import MadeUp, Value
from bisect_trt.model.load import LoadedModel, load
from bisect_trt.model.normalise import normalise
from bisect_trt.model.randomness import pinned
from bisect_trt.model.store import Store
from bisect_trt.outcome import Array
from bisect_trt.references.base import Record
from bisect_trt.references.spec import parse
from bisect_trt.session.cluster import on_cluster
from bisect_trt.session.samples import Samples
from bisect_trt.settings import AccuracySettings, Settings
from bisect_trt.targets.base import TargetInfo
from bisect_trt.targets.registry import resolve
from bisect_trt.workers import jobs, user_values
from bisect_trt.workers.pool import Pool
from bisect_trt.writing.text import nearest

LONGEST_START = 300.0  # seconds for a worker to import its libraries and describe the target
RECORD = "record.json"


class Session(Struct, frozen=True):
    """One model, normalised and indexed, with input values; `original` is the user's own file."""

    loaded: LoadedModel
    graph: Graph
    store: Store
    feeds: tuple[Feeds, ...]
    without_random: bool = False  # `graph` is what is left of a random model

    def make_values(self, pool: Pool) -> None:
        """Let a worker make what is only promised of the input values. Raises UsageError as it does."""
        reply = pool.submit(user_values.make_values, self.feeds, timeout=None).result()
        if reply.death is not None:
            raise UsageError(f"making up input values ends a worker: {reply.death.message}", "give --inputs")

    def values(self) -> list[dict[str, Array]]:
        """Return the input values of each sample, read from the store."""
        load, kind = self.store.load, self.graph.elem_type
        return [{name: load(path, kind(name) or 0) for name, path in one.items()} for one in self.feeds]

    def recorded(self, known: Record, names: Sequence[str]) -> list[dict[str, Array]]:
        """Return what was recorded of some tensors, for each sample."""
        load, samples = self.store.load, range(known.samples)
        return [{n: load(known.path(k, n), known.elem_type(n)) for n in names} for k in samples]

    def pinned(self, recorded: Record) -> Session:
        """Return the model with the recorded values of its random nodes as inputs."""
        types = {
            t: make_tensor_type_proto(recorded.elem_type(t), recorded.shape(t)) for t in recorded.tensors
        }
        graph = Graph(pinned(self.graph, types))
        return replace(self, graph=graph, feeds=recorded.values(graph.graph_inputs), without_random=True)

    @property
    def original(self) -> Candidate:
        """The file as the user has it, not normalised: this is what has to fail."""
        nodes, file = self.graph.order, self.loaded.path.absolute()
        if self.without_random:
            return Candidate(self.graph.proto.SerializeToString(), self.store.folder, nodes, self.feeds)
        return Candidate(file, file.parent, nodes, self.feeds, form=Form.ORIGINAL)

    def with_outputs(self, recorded: Record) -> Candidate:
        """Return `original`, to be compared at its outputs, one by one."""
        values = recorded.values(self.graph.graph_outputs)
        known = tuple(values[0]) if values else ()
        return replace(self.original, expected=values, rest=Rest(outputs=known, expected=values))


def prepare(loaded: LoadedModel, samples: Samples, folder: Path) -> Session:
    """Normalise the model into a store in `folder`, beside its input values, or what they are to be.

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
        feeds = tuple({name: kept_value(store, name, v) for name, v in one.items()} for one in samples)
    return Session(loaded, graph, store, feeds)


def kept_value(store: Store, name: str, value: Value) -> Path:
    """Keep an input value in the store, one that is not made yet as a promise; give its file."""
    return store.promise(value) if isinstance(value, MadeUp) else store.put(name, value)


def resolved(settings: Settings) -> Settings:
    """Return it with `auto` replaced by the target that it stands for here, and the reference checked.

    Without ONNX Runtime's values for all of the model, parts of it are compared by themselves.

    Raises:
        TargetUnavailable: there is no target, or no cluster.
        UsageError: no reference of that name, a target that takes no `--precision`, or an option that a
            cluster cannot have.
    """
    if parse(settings.accuracy.reference).kind in ("self", "target-at"):
        settings = replace(settings, accuracy=replace(settings.accuracy, judge="local"))
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
            hint = nearest(name, outputs, f"its outputs are: {', '.join(outputs) or 'none'}")
            raise UsageError(f"{option}: the model has no output {name}", hint)
    if outputs and set(outputs) <= set(accuracy.ignore):
        raise UsageError("--ignore leaves no output to compare", "leave one of them out")


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
