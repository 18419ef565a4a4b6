"""Runs in a worker: what the model's outputs are with some nodes in FP32, and how far off."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from msgspec import Struct, field
from onnx import TensorProto, helper

from bisect_trt.accuracy.diff import TensorDiff
from bisect_trt.accuracy.tolerance import differences
from bisect_trt.mixed_precision.answer import Answer
from bisect_trt.mixed_precision.hints import Range
from bisect_trt.mixed_precision.quantise import KINDS, quantised
from bisect_trt.mixed_precision.switch import FLAGS, Edge, narrowing, switched
from bisect_trt.mixed_precision.weights import Files
from bisect_trt.model.candidate import Feeds
from bisect_trt.model.graph import opset_of
from bisect_trt.model.normalise import unname_twins
from bisect_trt.model.patch import Lowered, lowered
from bisect_trt.model.store import Store
from bisect_trt.model.weight_values import values_of
from bisect_trt.outcome import Array
from bisect_trt.settings import AccuracySettings
from bisect_trt.targets.base import as_declared
from bisect_trt.targets.emulate.graph import emulate
from bisect_trt.targets.emulate.rounding import FORMATS, TYPED, Rounder
from bisect_trt.targets.roles import Roles

Values = Mapping[str, Array]
Given = Mapping[str, Array | str]


class Trial(Struct, frozen=True):
    """What an evaluation needs; it is small enough to be sent with each.

    Attributes:
        model: file with the flat model; its weights lie in `folder`, rounded ones too (`round_weights`).
        roles: what may be lowered.
        to: the narrow type.
        store: folder of the values.
        feeds, expected: one mapping a sample.
        accuracy: when outputs agree.
        scales: of tensors, where the narrow type needs one.
    """

    model: Path
    folder: Path
    roles: Roles
    to: str
    store: Path
    feeds: tuple[Feeds, ...]
    expected: tuple[Feeds, ...]
    accuracy: AccuracySettings
    scales: Mapping[str, float] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.model, self.to))


def evaluate(trial: Trial, keeps: Sequence[Collection[str]]) -> list[Answer]:
    """Answers for several sets of nodes in FP32, by key."""
    engine = engine_of(trial)
    return [engine.answer(frozenset(keep)) for keep in keeps]


@lru_cache(maxsize=1)
def engine_of(trial: Trial) -> Engine:
    """Give the one that was made for it."""
    return Engine(trial)


class Engine:
    """One session and the values that it is fed with."""

    def __init__(self, trial: Trial) -> None:
        from bisect_trt.references import ort

        self._trial = trial
        flat = onnx.load_model_from_string(trial.model.read_bytes())
        self._switch = switched(flat, trial.folder, trial.roles, trial.to, trial.scales)
        self._session = ort.Session(self._switch.model.SerializeToString(), trial.folder)
        self._feeds, self.expected = _values(trial)
        self._to_ort = ort.to_ort
        self._place = {key: k + 1 for k, key in enumerate(trial.roles.items)}
        ends = [[self._place.get(end, 0) for end in edge] for edge in self._switch.edges]
        self._ends = np.array(ends, dtype=np.int64).reshape(-1, 2)
        files = Files(flat.graph, trial.folder)
        self._weights = {
            name: (ort.to_ort(value), ort.to_ort(files.rounded(name)))
            for name, value in self._switch.values.items()
        }
        self._switch.values.clear()
        self._switch.model.Clear()

    def answer(self, keep: frozenset[str]) -> Answer:
        """Give what comes of these nodes in FP32."""
        stays = np.zeros(len(self._place) + 1, dtype=bool)  # the first stands for what is always FP32
        stays[[0, *(self._place[key] for key in keep)]] = True
        extra = self._fed(stays[self._ends[:, 0]] & stays[self._ends[:, 1]], lambda reader: reader in keep)
        given = (self._session.run_held({**feeds, **extra}) for feeds in self._feeds)
        return compared(self.expected, given, self._trial.accuracy)

    def edges(self) -> list[Edge]:
        """List along what something may be rounded, between nodes about which there is a choice."""
        known = [(maker, reader) for maker, reader in self._switch.edges]
        known += [("", reader) for _, reader in self._switch.weights.values()]
        chosen = ((*(end if end in self._place else "" for end in edge),) for edge in known)
        return [(maker, reader) for maker, reader in dict.fromkeys(chosen) if maker or reader]

    def outputs(self, rounded: Collection[Edge], sample: int) -> dict[str, Array]:
        """Give the outputs of a sample with nothing rounded but what goes along some edges."""
        names = ["", *self._place]
        wide = [(names[maker], names[reader]) not in rounded for maker, reader in self._ends.tolist()]
        extra = self._fed(np.array(wide, dtype=bool), lambda reader: ("", reader) not in rounded)
        given = self._session.run_held({**self._feeds[sample], **extra})
        return {name: value for name, value in given.items() if not isinstance(value, str)}

    def _fed(self, flags: Array, wide: Callable[[str], bool]) -> dict[str, Any]:
        """Give what is fed beside the model's inputs; `wide` says which nodes read weights as they are."""
        extra = {FLAGS: self._to_ort(flags)} if len(flags) else {}
        for name, (weight, reader) in self._switch.weights.items():
            as_is, low = self._weights[weight]
            extra[name] = as_is if not reader or wide(reader) else low
        return extra


@lru_cache(maxsize=1)
def _values(trial: Trial) -> tuple[list[dict[str, Any]], list[Values]]:
    """Feeds as ONNX Runtime holds them, and what is expected, of each sample."""
    from bisect_trt.references import ort

    graph = onnx.load_model_from_string(trial.model.read_bytes()).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    feeds = [
        {k: ort.to_ort(Store.load(path, types[k])) for k, path in sample.items() if k in types}
        for sample in trial.feeds
    ]
    expected: list[Values] = [
        {k: np.array(Store.load(path, types[k])) for k, path in sample.items() if types.get(k)}
        for sample in trial.expected
    ]
    return feeds, expected


def compared(expected: Sequence[Values], given: Iterable[Given], accuracy: AccuracySettings) -> Answer:
    """Give the answer of one set of nodes: sample by sample, until one disagrees."""
    passes, error, errors = True, 0.0, dict[str, float]()
    for due, got in zip(expected, given, strict=False):
        outputs = {k: v for k, v in got.items() if not isinstance(v, str)}
        for diff in differences([due], [outputs], accuracy):
            passes &= diff.ok
            errors[diff.name] = max(errors.get(diff.name, 0.0), diff.rms_error)
            error = max(error, _tolerances(diff, due[diff.name], outputs.get(diff.name)))
        if not passes:
            break
    return Answer(passes, error, errors)


def _tolerances(diff: TensorDiff, due: Array, given: Array | None) -> float:
    """How many times its tolerance a tensor is off; at most 1 where it agrees, infinite where all is lost."""
    if given is None or not math.isfinite(diff.agrees_at) or given.shape != due.shape:
        return 1.0 if diff.ok else math.inf
    if diff.metric == "max" and due.dtype.kind == "f" and due.size and (diff.atol or diff.rtol):
        with np.errstate(all="ignore"):
            limit = diff.atol + diff.rtol * np.abs(due.astype(np.float64))
            far = np.abs(given.astype(np.float64) - due) / np.maximum(limit, 1e-300)
        share = float(np.max(far[np.isfinite(far)], initial=0.0))
    else:
        share = diff.agrees_at / diff.rtol if diff.rtol else float(diff.mismatches)
    return min(share, 1.0) if diff.ok else max(share, 1.0 + 1e-9)


def round_weights(trial: Trial) -> None:
    """Write the files of large weights that the other functions here map. Raises OSError."""
    flat = onnx.load_model_from_string(trial.model.read_bytes())
    how = narrowing(onnx.GraphProto(), opset_of(flat), trial.to, trial.scales)
    Files(flat.graph, trial.folder).write(how.values, trial.to)


def ranges(trial: Trial) -> dict[str, Range]:
    """Give what the float tensors of the main graph are like in FP32: the worst over all samples."""
    from bisect_trt.references import ort

    flat = onnx.load_model_from_string(trial.model.read_bytes())
    floats = [t for t, kind in trial.roles.types.items() if kind == TensorProto.FLOAT]
    made = measured(flat, floats, trial.to)
    feeds = as_declared(flat.graph, trial.store, trial.feeds)
    try:
        samples = ort.run(made.SerializeToString(), trial.folder, feeds)
    except ort.OrtError:  # an empty tensor has no largest value: then there is nothing to go by
        return {}
    found: dict[str, Range] = {}
    for given in samples:
        for name in floats:
            if f"{LARGEST}{name}" not in given:
                continue
            largest, loss, size = (float(np.asarray(given[f"{p}{name}"])) for p in (LARGEST, LOSS, SIZE))
            old = found.get(name, Range(0.0, 0.0))
            found[name] = Range(max(old.largest, largest), max(old.loss, loss), max(old.size, int(size)))
    return found


LARGEST, LOSS, SIZE = "precision:largest:", "precision:loss:", "precision:size:"


def measured(flat: onnx.ModelProto, tensors: Sequence[str], to: str) -> onnx.ModelProto:
    """Give the model with three figures for each tensor as its outputs instead of its own."""
    model = onnx.ModelProto()
    model.CopyFrom(flat)
    unname_twins(model.graph)
    graph = model.graph
    there = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    there |= {t for node in graph.node for t in node.output}
    opset = opset_of(flat)
    rounder = Rounder(FORMATS[to], opset, graph, "precision:m")
    del graph.output[:]
    for name in tensors:
        if name not in there:
            continue
        low, absolute, off = (f"precision:{what}:{name}" for what in ("low", "abs", "off"))
        graph.node.extend(rounder.nodes(name, TensorProto.FLOAT, low, TensorProto.FLOAT))
        sums = [f"precision:{what}:{name}" for what in ("sum", "sumoff", "safe")]
        for op, inputs, output in (
            ("Abs", [name], absolute),
            ("Sub", [name, low], f"{off}-"),
            ("Abs", [f"{off}-"], off),
            ("ReduceMax", [absolute], f"{LARGEST}{name}"),
            ("ReduceSum", [absolute], sums[0]),
            ("ReduceSum", [off], sums[1]),
            ("Div", [sums[1], sums[0]], f"{LOSS}{name}"),
            ("Size", [name], f"{SIZE}{name}"),
        ):
            node = helper.make_node(op, inputs, [output])
            if op.startswith("Reduce"):
                node.attribute.append(helper.make_attribute("keepdims", 0))
            graph.node.append(node)
        for prefix, kind in (
            (LARGEST, TensorProto.FLOAT),
            (LOSS, TensorProto.FLOAT),
            (SIZE, TensorProto.INT64),
        ):
            graph.output.append(helper.make_tensor_value_info(f"{prefix}{name}", kind, []))
    return model


def patched(trial: Trial, flat: onnx.ModelProto, keep: Collection[str]) -> Lowered:
    """Give the model as it is written with some nodes in FP32."""
    slots = {key: some for key, some in trial.roles.slots.items() if key not in keep}

    if trial.to in KINDS:
        return quantised(flat, slots, trial.to, trial.scales, lambda tensor: values_of(tensor, trial.folder))
    return lowered(flat, slots, trial.to, Files(flat.graph, trial.folder).narrow)


def explicit(trial: Trial, keeps: Sequence[Collection[str]]) -> list[Answer]:
    """Do as `evaluate` does, by the models as they would be written, each narrow tensor rounded."""
    from bisect_trt.references import ort

    flat = onnx.load_model_from_string(trial.model.read_bytes())
    samples, expected = _values(trial)
    answers = []
    for keep in keeps:
        made = patched(trial, flat, keep).model
        unname_twins(made.graph)
        emulation = emulate(made, TYPED)
        session = ort.Session(emulation.model.SerializeToString(), trial.folder)
        given = (session.run_held({emulation.inputs[k]: v for k, v in feeds.items()}) for feeds in samples)
        answers.append(compared(expected, given, trial.accuracy))
    return answers
