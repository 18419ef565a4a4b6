"""`--anonymise`: what of the original must not be shared, and papers without it."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.audit import SMALL, TOKEN, WORD, Secrets, find, is_ours, left, read, summary
from bisect_trt.errors import Leak
from bisect_trt.graph import bodies
from bisect_trt.model.edit_bodies import inner_nodes
from bisect_trt.model.edit_measure import level
from bisect_trt.model.edit_synthetic import Recipe
from bisect_trt.model.external import tensors
from bisect_trt.model.load import LoadedModel
from bisect_trt.model.store import external_info, raw_size
from bisect_trt.outcome import Failure
from bisect_trt.problem import Problem
from bisect_trt.result import Reduction, Simplification
from bisect_trt.settings import Settings, Shapes

Array = npt.NDArray[Any]

NAME = "model.onnx"
"""What the user's model is called in anonymous papers."""

_KEPT = ("t", "event", "key", "count", "verdict", "seconds", "header")
REMOVED = "<removed>"
_SYNTHETIC = 4  # highest `level` of values that tell nothing but statistics
_UNSHARED = (
    "nothing was written; send the figures told here, or run it again without --anonymise if the values may "
    "be shared"
)
_HALF = 65504.0  # largest float16


def secrets_of(loaded: LoadedModel, samples: Sequence[Mapping[str, Array]], settings: Settings) -> Secrets:
    """Names, texts, weights and input values of a model, and who and where the user is."""

    def arrays() -> Iterator[tuple[str, Array]]:
        for tensor in tensors(loaded.proto):
            if tensor.data_type != TensorProto.STRING:
                yield tensor.name or "a constant", _value(tensor, loaded.path.resolve().parent)
        for sample in samples:
            yield from ((f"input {name}", np.asarray(value)) for name, value in sample.items())

    texts = dict(_texts(loaded.proto)) | dict(_surroundings(loaded.path, settings))
    return Secrets({text: what for text, what in texts.items() if text}, arrays)


def require_synthetic(problem: Problem, simplified: Simplification | None) -> None:
    """All values are simple or made by a recipe; integers of at most 64 elements are sizes and axes.

    Raises:
        Leak: some are not: which, and why.
    """
    state = problem.simplifying
    if simplified is None or state.draft is None:
        why = state.ended or "only the file as it is fails, or its error accumulates"
        raise Leak(f"--anonymise: the model cannot be simplified: {why}", _UNSHARED)
    draft = state.draft[1]
    reasons = []
    for name, array in draft.weights.items():
        reasons += _reasons(f"weight {name}", array, draft.recipes.get(name))
    for k, sample in enumerate(draft.samples):
        for name, array in sample.items():
            reasons += _reasons(f"input {name}", array, draft.fed.get((k, name)))
    for node in inner_nodes(draft.graph):
        inside = [t for body in bodies(node) for t in body.initializer]
        inside += [a.t for a in node.attribute if a.HasField("t")]
        for tensor in inside:
            if tensor.data_type != TensorProto.STRING and raw_size(tensor.data_type, tensor.dims) > 16:
                value = _value(tensor, draft.folder)
                reasons += _reasons(f"constant inside {node.op_type}", value, None)
    if reasons and state.ended:
        why = f"the simplification ended early ({state.ended}) before other values were found for "
        raise Leak(f"--anonymise: {why}{'; '.join(reasons)}", "give it more time with --simplify-budget")
    if reasons:
        raise Leak("--anonymise: the failure needs values of the original: " + "; ".join(reasons), _UNSHARED)


def _reasons(what: str, array: Array, recipe: Recipe | None) -> list[str]:
    """Why a value is one of the original, if it is."""
    whole = array.dtype.kind in "iub"
    if level(array, recipe)[1] <= _SYNTHETIC or (whole and array.size <= SMALL):
        return []
    shape = "x".join(map(str, array.shape)) or "scalar"
    tried = "zeros, ones, one value, and random values of its mean and deviation, range and distribution"
    return [f"{what} ({array.dtype.name} {shape}{_figures(array)}): it was not reproduced with {tried}"]


def _figures(array: Array) -> str:
    """Statistics that can be told instead of the values, and what stands out in them."""
    if array.dtype.kind in "OU" or array.size == 0:
        return ""
    with np.errstate(all="ignore"):
        wide = np.asarray(array, dtype=np.float64)
        finite = wide[np.isfinite(wide)]
    if not finite.size:
        return ", nothing in it is finite"
    text = f", mean {finite.mean():.3g}, deviation {finite.std():.3g}"
    text += f", {finite.min():.3g} to {finite.max():.3g}"
    if finite.size < wide.size:
        text += f", {wide.size - finite.size} elements are not finite"
    if np.abs(finite).max() > _HALF:
        above = np.count_nonzero(np.abs(finite) > _HALF)
        text += f", {above} elements are above {_HALF:.0f}, the largest float16"
    return text


def anonymous(reduction: Reduction, secrets: Secrets) -> Reduction:
    """The same result told without the names, texts and paths of the original."""
    clean = Scrubber(secrets)
    settings = reduction.settings
    inputs = {i.name for i in onnx.load_model_from_string(reduction.best.model).graph.input}
    target = replace(
        settings.target,
        verbose_log=None,
        timing_cache=None,
        plugins=tuple(Path(path.name) for path in settings.target.plugins),
        shapes=_of(settings.target.shapes, inputs),
        min_shapes=_of(settings.target.min_shapes, inputs),
        opt_shapes=_of(settings.target.opt_shapes, inputs),
        max_shapes=_of(settings.target.max_shapes, inputs),
    )
    run = replace(settings.run, inputs=None, cache_dir=None)
    simplification = reduction.simplification
    if simplification is not None:
        simplification = replace(simplification, nodes=reduction.best.nodes)
    return replace(
        reduction,
        model=Path(NAME),
        settings=replace(settings, target=target, run=run),
        wanted=clean.failure(reduction.wanted),
        original_failure=None,
        also_seen=tuple(clean.failure(failure) for failure in reduction.also_seen),
        notes=tuple(clean.text(note) for note in reduction.notes),
        causes=tuple(clean.text(cause) for cause in reduction.causes),
        log=clean.text(reduction.log),
        accuracy={},
        origins=(),
        left=tuple(left(reduction.best.model)),
        workarounds=tuple(clean.text(said) for said in reduction.workarounds),
        simplification=simplification,
    )


def _of(shapes: Shapes, inputs: set[str]) -> Shapes:
    """Shapes of inputs that are left."""
    return tuple((name, dims) for name, dims in shapes if name in inputs)


class Scrubber:
    """Takes the texts of the original out of a text."""

    def __init__(self, secrets: Secrets) -> None:
        """Take out what `audit.find` looks for."""
        self._whole, self._parts = secrets.whole(), secrets.parts()
        self._odd = sorted((t for t in self._whole if not TOKEN.fullmatch(t)), key=len, reverse=True)

    def text(self, text: str) -> str:
        """Without them."""
        for odd in self._odd:
            text = text.replace(odd, REMOVED)
        return TOKEN.sub(lambda match: self._token(match.group()), text)

    def _token(self, token: str) -> str:
        bare = token.strip(".:/\\*")
        if token in self._whole or bare in self._whole:
            return token.replace(bare, REMOVED) if bare else REMOVED
        return WORD.sub(lambda m: REMOVED if m[0] in self._parts or m[0] in self._whole else m[0], token)

    def failure(self, failure: Failure) -> Failure:
        """Without them; the names of nodes are ours by then."""
        return replace(
            failure,
            message=self.text(failure.message),
            signature=self.text(failure.signature),
            nodes=tuple(self.text(name) for name in failure.nodes),
        )


def scrub_papers(folder: Path, secrets: Secrets) -> None:
    """Take the texts of the original out of all that is text in a folder."""
    clean = Scrubber(secrets)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".md", ".json", ".log", ".html", ".py", ".txt", ".xml"):
            path.write_text(clean.text(path.read_text(encoding="utf-8")), encoding="utf-8")


def scrub_journal(path: Path) -> None:
    """Leave the verdicts and times of a journal, and nothing that names anything."""
    lines = []
    for line in path.read_text().splitlines():
        event = json.loads(line)
        kept = {k: event[k] for k in _KEPT if k in event}
        if event["event"] == "end":
            failures = [
                {**failure, "signature": "", "message": "", "nodes": []}
                for failure in event["outcome"].get("failures", ())
            ]
            kept["outcome"] = {"failures": failures, "unresolved": "", "facts": {}}
        lines.append(json.dumps(kept))
    draft = path.with_suffix(".writing")
    draft.write_text("\n".join(lines) + "\n")
    draft.replace(path)


def require_clean(paths: Sequence[Path], secrets: Secrets) -> None:
    """Nothing of the original is in these files, folders and archives.

    Raises:
        Leak: something is; the message names it and the file.
    """
    found = find(read(paths), secrets)
    if found:
        raise Leak(
            f"--anonymise: {len(found)} things of the original are left: {summary(found)}",
            f"do not share {paths[0].name}; report this as a bug unless a name was yours to give (--out)",
        )


def require_clean_archives(archives: Sequence[Path], secrets: Secrets) -> None:
    """As `require_clean`; archives that are not clean are removed."""
    try:
        require_clean(archives, secrets)
    except Leak:
        for archive in archives:
            archive.unlink(missing_ok=True)
        raise


def _value(tensor: TensorProto, folder: Path) -> Array:
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    info = external_info(tensor)
    size = raw_size(tensor.data_type, tensor.dims)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if size == 0 or raw_size(tensor.data_type, (2,)) != 2 * dtype.itemsize:
        return np.zeros(0, np.uint8)  # narrower than a byte: too short to tell anything
    return np.memmap(folder / info["location"], dtype, "r", int(info.get("offset", 0)), tuple(tensor.dims))


def _texts(proto: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Every name and text of a model; operators, their attributes' names and values are none."""
    yield proto.producer_name, "the producer"
    yield proto.producer_version, "the producer's version"
    yield proto.domain, "the domain"
    yield from _holder(proto)
    yield from ((entry.domain, "a domain") for entry in proto.opset_import if entry.domain != "ai.onnx")
    yield from _graph_texts(proto.graph)
    for function in proto.functions:
        yield from _holder(function)
        yield function.name, "a function"
        yield from ((name, "a tensor") for name in (*function.input, *function.output))
        yield from (pair for node in function.node for pair in _node_texts(node))
    for tensor in tensors(proto):
        yield tensor.name, "a weight"
        yield external_info(tensor).get("location", ""), "a file"
        yield from _holder(tensor)
        if tensor.data_type == TensorProto.STRING:
            yield from ((text.decode(errors="replace"), "a text in a tensor") for text in tensor.string_data)


def _graph_texts(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    yield graph.name, "the graph"
    yield from _holder(graph)
    for info in (*graph.input, *graph.output, *graph.value_info):
        yield info.name, "a tensor"
        yield from _holder(info)
        for dim in info.type.tensor_type.shape.dim:
            yield dim.dim_param, "a dimension"
            yield dim.denotation, "a denotation"
    for node in graph.node:
        yield from _node_texts(node)


def _node_texts(node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    yield node.name, "a node"
    yield from _holder(node)
    yield from ((name, "a tensor") for name in (*node.input, *node.output))
    yield from ((a.doc_string, "a doc string") for a in node.attribute)
    for body in bodies(node):
        yield from _graph_texts(body)


def _holder(holder: Any) -> Iterator[tuple[str, str]]:
    """Doc string and metadata: whole, and line by line."""
    texts = [holder.doc_string] + [p.value for p in getattr(holder, "metadata_props", ())]
    yield from ((p.key, "a metadata key") for p in getattr(holder, "metadata_props", ()))
    for text in texts:
        yield from ((line.strip(), "a text") for line in (text, *text.splitlines()) if line.strip())


def _surroundings(model: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    """Paths, host and user; names that many machines have tell nothing."""
    yield model.stem, "the name of the model's file"
    target, run = settings.target, settings.run
    files = (model, run.inputs, run.cache_dir, target.verbose_log, *target.plugins)
    for path in (p.resolve() for p in files if p is not None):
        yield str(path), "a path"
        yield str(path.parent), "a path"
        yield from ((part, "a folder or file") for part in path.parts[1:] if _told(part))
    yield str(Path.home()), "a path"
    for name in (socket.gethostname(), socket.gethostname().split(".")[0]):
        yield from [(name, "the host")] if _told(name) else []
    try:
        yield from [(getpass.getuser(), "the user")] if _told(getpass.getuser()) else []
    except (KeyError, OSError):  # nobody in particular
        return


_COMMON = frozenset({"root", "user", "admin", "ubuntu", "localhost", "home", "model", "models", "tmp"})


def _told(name: str) -> bool:
    return name.lower() not in _COMMON and not is_ours(name)
