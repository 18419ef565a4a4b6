"""What helps a reproducer, tried on the user's whole model: does it help there, and what does it cost?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.blaming.patched import SCRIPT, Patch, Written, outputs_patch
from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.skeleton import inferred
from bisect_trt.model.store import shape_of
from bisect_trt.outcome import Outcome
from bisect_trt.reduction.decisions import Decided
from bisect_trt.session.check import check, pool_for
from bisect_trt.session.prepare import load_for, prepare
from bisect_trt.session.samples import read_samples
from bisect_trt.settings import Settings
from bisect_trt.targets.knobs import PYTHON, Knob, switched
from bisect_trt.workers import jobs

_FIXED = "with fixed shapes of the inputs"
_MEASURED = 600.0  # seconds for measuring
_SAME = 1.05  # times as slow, below which nothing is told
Say = Callable[[str], None]


class Tried(Struct, frozen=True):
    """One way around the failure, on the whole model.

    Attributes:
        told: what is done otherwise.
        agrees: whether the model is fine then; None when nothing can be told.
        said: what it shows otherwise.
        times: how much slower it runs, 1.3 times say; None where it is not run.
        paste: by tool, lines that do the same.
        patched: whether it is a model that was written.
    """

    told: str
    agrees: bool | None
    said: str = ""
    times: float | None = None
    paste: tuple[tuple[str, str], ...] = ()
    patched: bool = False

    @property
    def sentence(self) -> str:
        """`without TF32: the whole model agrees; 1.3x slower`."""
        if self.agrees is None:
            return f"{self.told}: nothing can be told of the whole model: {self.said}"
        if not self.agrees:
            return f"{self.told}: the whole model still fails ({self.said})"
        slower = ""
        if self.times is not None:
            slower = f"; {self.times:.1f}x slower" if self.times > _SAME else "; not slower"
        return f"{self.told}: the whole model agrees{slower}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {
            "told": self.told,
            "agrees": self.agrees,
            "said": self.said,
            "times_slower": self.times and round(self.times, 2),
            "paste": dict(self.paste),
            "patched": self.patched,
        }


class Whole(Struct, frozen=True):
    """The user's whole model: whether it fails, and what was tried on it."""

    model: str
    fails: bool
    said: str
    tried: tuple[Tried, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {
            "model": self.model,
            "fails": self.fails,
            "said": self.said,
            "tried": [tried.to_json() for tried in self.tried],
        }


class Helps(Struct, frozen=True):
    """What helps the reproducer.

    Attributes:
        decided: decisions of the builder.
        outputs: tensors of the reproducer that help when they are outputs.
        fixed: whether fixed shapes of the inputs help.
        nodes: the reproducer's nodes by their names in the user's model, whose tensors may have other names.
    """

    decided: Decided
    outputs: tuple[str, ...] = ()
    fixed: bool = False
    nodes: tuple[str, ...] = ()


def whole_model(model: Path, settings: Settings, helps: Helps, out: Path, say: Say) -> Whole:
    """Try on the whole model what helps its reproducer; a patched model is written to `out`.

    Args:
        model: the user's file.
        settings: resolved; those of the reproducer, with the user's input values.
        helps: what is tried.
        out: a folder that is there.
        say: called with what is going on.

    Raises:
        UsageError: the model or its inputs cannot be used.
        TargetUnavailable: the target cannot be used.
    """
    settings = replace(settings, accuracy=replace(settings.accuracy, judge="outputs"))
    say(f"the whole model {model.name}")
    plain = check(model, settings)
    fails, said = bool(plain.outcome.failures), _said(plain.outcome)
    if not fails:
        return Whole(model.name, False, said or "it agrees with these input values as it is")
    before = _seconds(model, settings)
    tried = []
    for knobs in [knobs for knobs in (helps.decided.helps, helps.decided.also) if knobs]:
        say(", ".join(knob.told for knob in knobs))
        tried.append(_with_knobs(model, settings, knobs, before))
    bench = _Bench(model, onnx.load_model(str(model), load_external_data=False), out, before)
    if helps.fixed:
        say("fixed shapes")
        fed = read_samples(load_for(model, settings), settings)[0]
        sizes = tuple((name, tuple(value.shape)) for name, value in fed.items())
        tried.append(bench.patched(Patch(_FIXED, shapes=sizes), settings, keep=True))
    if helps.outputs:
        say("extra outputs")
        patch = outputs_patch(bench.proto, helps.outputs, helps.nodes)
        if patch is None:
            why = "its tensors have other names than the reproducer's"
            tried.append(Tried("further outputs", None, why))
        else:
            accuracy = settings.accuracy
            ignored = tuple(dict.fromkeys((*accuracy.ignore, *patch.tensors)))
            other = replace(settings, accuracy=replace(accuracy, ignore=ignored))
            keep = not any(one.patched for one in tried)
            tried.append(bench.patched(patch, other, keep=keep))
    return Whole(model.name, True, said, tuple(tried))


def _with_knobs(model: Path, settings: Settings, knobs: Sequence[Knob], before: float | None) -> Tried:
    other = replace(settings, target=switched(settings.target, knobs))
    how = " and ".join(knob.told for knob in knobs)
    paste: dict[str, str] = {}
    for knob in knobs:
        for tool, line in knob.paste.items():
            paste[tool] = f"{paste[tool]}\n{line}" if tool in paste else line
    agrees, said = _agrees(check(model, other).outcome)
    times = _times(before, _seconds(model, other)) if agrees else None
    return Tried(how, agrees, said, times, tuple(paste.items()))


class _Bench(Struct, frozen=True):
    """The whole model, where it is patched, and the seconds that it takes as it is."""

    model: Path
    proto: onnx.ModelProto
    out: Path
    before: float | None

    def patched(self, patch: Patch, settings: Settings, *, keep: bool) -> Tried:
        """Try a patched model; it stays in `out` when it helps and is to be kept."""
        try:
            written = Written(self.model, patch.of(self.proto, inferred(self.proto)), self.out)
        except OSError as error:
            why = f"it was not patched: {(error.strerror or str(error)).lower()}"
            return Tried(patch.told, None, why)
        try:
            agrees, said = _agrees(check(written.place, settings).outcome)
            times = _times(self.before, _seconds(written.place, settings)) if agrees else None
            keep = keep and bool(agrees)
            if keep:
                written.keep(patch.script())
        finally:
            written.close()
        paste = ((PYTHON, f"python {SCRIPT} model.onnx patched.onnx"),) if keep else ()
        return Tried(patch.told, agrees, said, times, paste, patched=keep)


def fed_shapes(candidate: Candidate) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the first sample feeds."""
    sample = candidate.feeds[0] if candidate.feeds else {}
    return {name: shape_of(path) for name, path in sample.items()}


def _agrees(outcome: Outcome) -> tuple[bool | None, str]:
    if outcome.failures:
        return False, _said(outcome)
    return (None, outcome.unresolved) if outcome.unresolved else (True, "")


def _said(outcome: Outcome) -> str:
    return " ".join(outcome.failures[0].message.split())[:200] if outcome.failures else outcome.unresolved


def _times(before: float | None, after: float | None) -> float | None:
    return after / before if before and after else None


def _seconds(model: Path, settings: Settings) -> float | None:
    """Return the seconds of one run, without the build; None where it is not run."""
    loaded = load_for(model, settings)
    samples = read_samples(loaded, settings)
    with temporary_folder() as place:
        session = prepare(loaded, samples[:1], place / "work")
        with pool_for(settings, place / "logs") as pool:
            task = pool.submit(jobs.run_seconds, settings.target, session.original, timeout=_MEASURED)
            reply = task.result()
    found: float | None = reply.value if reply.death is None else None
    return found
