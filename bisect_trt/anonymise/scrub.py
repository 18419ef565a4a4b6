"""`--anonymise`: what of the original must not be shared, and texts without it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from msgspec.structs import replace

from bisect_trt.anonymise.audit import find, left, read
from bisect_trt.anonymise.secrets import TOKEN, WORD, Secrets, secrets_of
from bisect_trt.errors import Leak, UsageError
from bisect_trt.model.graph import is_onnx
from bisect_trt.model.load import LoadedModel
from bisect_trt.model.walk import inner_nodes
from bisect_trt.outcome import Failure
from bisect_trt.references.spec import parse
from bisect_trt.results import Judgement, Reduction
from bisect_trt.session.folder import SCRUBBED
from bisect_trt.settings import AccuracySettings, Settings
from bisect_trt.writing.files import written_whole
from bisect_trt.writing.text import some_names

NAME = "model.onnx"
"""What the user's model is called in anonymous texts."""

_KEPT = ("t", "event", "key", "count", "verdict", "seconds", "header")
REMOVED = "<removed>"
_SHOWN = 12  # of what is left, in a message
_TEXTS = (".csv", ".html", ".json", ".log", ".md", ".py", ".svg", ".txt", ".xml")


def anonymous(reduction: Reduction, secrets: Secrets) -> Reduction:
    """Return the same result without the names, texts and paths of the original."""
    clean = Scrubber(secrets)
    settings = reduction.settings
    inputs = {i.name for i in onnx.load_model_from_string(reduction.best.model).graph.input}
    target, fields = settings.target, ("shapes", "min_shapes", "opt_shapes", "max_shapes")
    given = {name: getattr(target, name) for name in fields}
    shapes: Any = {name: tuple(pair for pair in known if pair[0] in inputs) for name, known in given.items()}
    plugins = tuple(Path(path.name) for path in target.plugins)
    target = replace(target, verbose_log=None, timing_cache=None, plugins=plugins, **shapes)
    run = replace(settings.run, inputs=None, cache_dir=None)
    kind = parse(settings.accuracy.reference).kind
    simplified = reduction.simplification
    return replace(
        reduction,
        model=Path(NAME),
        settings=replace(settings, target=target, run=run, accuracy=_nameless(settings.accuracy)),
        compared_as=_nameless(reduction.compared_as),
        wanted=clean.failure(reduction.wanted),
        original_failure=None,
        reworded=clean.failure(reduction.reworded) if reduction.reworded else None,
        also_seen=tuple(clean.failure(failure) for failure in reduction.also_seen),
        notes=tuple(clean.text(note.replace(settings.accuracy.reference, kind)) for note in reduction.notes),
        causes=tuple(clean.text(cause) for cause in reduction.causes),
        judgement=_clean_judgement(reduction.judgement, clean),
        log=clean.text(reduction.log),
        accuracy={},
        origins=(),
        left=(*left(reduction.best.model), *_of_the_original(reduction)),
        workarounds=tuple(clean.text(said) for said in reduction.workarounds),
        simplification=simplified and replace(simplified, nodes=reduction.best.nodes),
    )


def _clean_judgement(judgement: Judgement, clean: Scrubber) -> Judgement:
    """Leave out names of nodes; figures and sentences stay."""
    sentences, advice = (tuple(map(clean.text, said)) for said in (judgement.told, judgement.advice))
    return replace(judgement, source=(), amplifier=None, told=sentences, advice=advice)


def _of_the_original(reduction: Reduction) -> Iterator[str]:
    """Yield what the reports compare the reduced model with."""
    it = reduction.original
    if it is not None:
        yield f"the original: {it.nodes:,} nodes; {it.weights:,} weights, {it.weight_bytes:,} bytes"
        yield f"its inputs: {', '.join(it.inputs)}; its outputs: {', '.join(it.outputs)}; opset {it.opset}"


def operators(models: Iterable[bytes]) -> Iterator[str]:
    """Yield the operators that are not ONNX's own, their attributes and domains: a reproducer needs them."""
    for model in models:
        for node in inner_nodes(onnx.load_model_from_string(model).graph):
            if not is_onnx(node.domain):
                yield from (node.op_type, *re.split(r"\W", node.domain), node.domain)
                yield from (attribute.name for attribute in node.attribute)


def _nameless(accuracy: AccuracySettings) -> AccuracySettings:
    """Leave out names of outputs and paths; of the reference its kind is left."""
    return replace(
        accuracy,
        rtol=tuple(pair for pair in accuracy.rtol if not pair[0]),
        atol=tuple(pair for pair in accuracy.atol if not pair[0]),
        ignore=(),
        topk=(),
        reference=parse(accuracy.reference).kind if parse(accuracy.reference).outside else accuracy.reference,
        custom_ops=tuple(Path(path.name) for path in accuracy.custom_ops),
    )


class Scrubber:
    """Takes the texts of the original out of a text."""

    def __init__(self, secrets: Secrets) -> None:
        """Take out what `audit.find` looks for."""
        self._whole = {text.lower() for text in secrets.whole}
        self._words = self._whole | secrets.parts.keys()
        self._inside = secrets.inside

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        for one in self._inside:
            text = text.replace(one, REMOVED)
        return TOKEN.sub(lambda match: self._token(match.group()), text)

    def _token(self, token: str) -> str:
        bare = token.strip(".:/\\*")
        if token.lower() in self._whole or bare.lower() in self._whole:
            return token.replace(bare, REMOVED) if bare else REMOVED
        return WORD.sub(lambda m: REMOVED if m[0].lower() in self._words else m[0], token)

    def failure(self, failure: Failure) -> Failure:
        """Return a failure without the secrets; the names of nodes are ours by then."""
        return replace(
            failure,
            message=self.text(failure.message),
            signature=self.text(failure.signature),
            nodes=tuple(self.text(name) for name in failure.nodes),
        )


def scrub_texts(folder: Path, secrets: Secrets) -> None:
    """Take the texts of the original out of all that is text in a folder."""
    clean = Scrubber(secrets)
    for path in sorted(folder.iterdir()):
        if path.suffix in _TEXTS:
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
            kept["outcome"] = {"failures": failures, "unresolved": ""}
        lines.append(json.dumps(kept))
    lines.append(json.dumps({"event": SCRUBBED}))
    with written_whole(path) as aside:
        aside.write_text("\n".join(lines) + "\n")


def require_untelling(out: Path, loaded: LoadedModel, settings: Settings) -> None:
    """Require that the name of the folder, which the archive takes over, tells nothing of the original.

    Raises:
        UsageError: it does.
    """
    secrets = secrets_of(loaded, (), settings).without(operators([loaded.proto.SerializeToString()]))
    if found := find({out.name: b""}, secrets):
        raise UsageError(
            f"--anonymise: the name of the folder tells something of the original: {found[0].what}",
            "choose another one with --out, or leave --out out",
        )


def require_clean(paths: Sequence[Path], secrets: Secrets, *, remove: bool = False) -> None:
    """Require that nothing of the original is in these files, folders and archives; else `remove` them.

    Raises:
        Leak: something is; the message names it and the file.
    """
    found = find(read(paths), secrets)
    if found:
        for path in paths if remove else ():
            path.unlink(missing_ok=True)
        some = some_names(list(map(str, found)), _SHOWN)
        raise Leak(
            f"--anonymise: {len(found)} things of the original are left: {some}",
            f"do not share {paths[0].name}; report this as a bug unless a name was yours to give (--out)",
        )
