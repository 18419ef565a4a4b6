"""Models on the machines of a Ray cluster that exists.

Each job is one Ray task (`workers.ray.cluster`), and inside it the node's own `Children` isolate the model:
deadlines, memory limits and deaths are the same as locally, and so are the results. Models, input values
and reproducers travel through Ray's object store.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bisect_trt._version import __version__
from bisect_trt.errors import BisectError, TargetUnavailable, UsageError
from bisect_trt.nightly import options
from bisect_trt.nightly.children import GRACE, Children
from bisect_trt.nightly.runner import Cause, Checked, Reduced, Trouble
from bisect_trt.settings import Settings
from bisect_trt.workers.ray import node
from bisect_trt.workers.ray.cluster import Cluster

Files = dict[str, bytes]
Answer = Checked | Reduced | Trouble
_SENT = "sent-"


@dataclass(frozen=True)
class Job:
    """What a node is asked: `sent` are files beside the model, `out` what there is of the reproducer."""

    kind: str
    slug: str
    settings: Any
    limit: float
    model: str = ""
    again: bool = False
    sent: dict[str, Any] = field(default_factory=dict)
    out: Files = field(default_factory=dict)


class OnRay:
    """See `runner.Runner`; `slots` is the number of jobs that the cluster can take at the same time."""

    def __init__(self, address: str, specs: tuple[str, ...] = ("auto",)) -> None:
        """Join the cluster, see `Cluster`, for jobs on these targets."""
        self._cluster = Cluster(address)
        self.slots = max(self._cluster.slots(spec) for spec in specs)
        self._cancelled = threading.Event()

    def check(
        self, slug: str, model: Path, settings: Settings, limit: float, *, fresh: bool = True
    ) -> Checked | Trouble:
        """Run the whole model on the target, on some node."""
        answer, _ = self._run(Job("check", slug, None, limit, model.name), settings, model)
        assert isinstance(answer, Checked | Trouble)
        return answer

    def verify(self, slug: str, repro: Path, settings: Settings, limit: float) -> Checked | Trouble:
        """Run a stored reproducer on some node."""
        answer, _ = self._run(Job("verify", slug, None, limit, out=_folder_files(repro)), settings, None)
        assert isinstance(answer, Checked | Trouble)
        return answer

    def reduce(
        self, slug: str, model: Path, settings: Settings, out: Path, limit: float, *, again: bool
    ) -> Reduced | Trouble:
        """Reduce on some node; the folder is fetched when it is done."""
        there = {} if again else _folder_files(out)
        job = Job("reduce", slug, None, limit, model.name, again, out=there)
        answer, made = self._run(job, settings, model)
        if made:
            shutil.rmtree(out, ignore_errors=True)
            _write(made, out)
        assert isinstance(answer, Reduced | Trouble)
        return answer

    def cancel(self) -> None:
        """End all that runs; calls from now on answer at once."""
        self._cancelled.set()

    def folder(self, slug: str) -> Path | None:
        """Progress stays on the node."""
        return None

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self.cancel()
        self._cluster.close(node.sweep)

    def _run(self, job: Job, settings: Settings, model: Path | None) -> tuple[Answer, Files]:
        ended = Trouble(Cause.CANCELLED, "the night was ended"), dict[str, bytes]()
        if self._cancelled.is_set():
            return ended
        settings, inputs = _packed(settings)
        try:
            files = {**(_model_files(model) if model else {}), **inputs}
            sent = {name: self._cluster.send(path) for name, path in files.items()}
        except OSError as error:
            return Trouble(Cause.USAGE, f"cannot read {model}: {error.strerror}"), {}
        job = replace(job, settings=options.to_json(settings), sent=sent)
        task = self._cluster.start(
            settings.target.spec, on_node, self._cluster.run, __version__, job
        )
        try:
            # a node ends a reduction in order, which takes a while
            answer: tuple[Answer, Files] = self._cluster.wait(task, self._cancelled.is_set, grace=GRACE + 5)
        except CancelledError:
            return ended
        except TargetUnavailable as error:
            return Trouble(Cause.TARGET, f"{error.message} ({error.hint})"), {}
        except BisectError as error:
            return Trouble(Cause.DIED, error.message), {}
        finally:
            self._cluster.forget(files.values())
        return answer


def on_node(run: str, version: str, job: Job) -> tuple[Answer, Files]:
    """Run one job on a node, in a scratch folder; gives the answer and, of `reduce`, the files it left."""
    node.require_version(version)
    with tempfile.TemporaryDirectory(dir=node.folder(run), ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        out = place / f"{job.slug}-repro"
        node.receive(job.sent, place / "model")
        if job.out:
            _write(job.out, out)
        (place / "model").mkdir(exist_ok=True)
        runner = Children(place / "jobs", place / "model", parallel=1, logs=place / "logs")
        with ThreadPoolExecutor(1) as thread:
            try:
                running = thread.submit(_do, runner, job, place / "model", out)
                try:
                    answer = running.result()
                except KeyboardInterrupt:  # the night ends: see `Cluster.wait`
                    runner.cancel()
                    answer = running.result()
            finally:
                runner.close()
        return answer, _folder_files(out) if job.kind == "reduce" else {}


def _do(runner: Children, job: Job, models: Path, out: Path) -> Answer:
    settings = _unpacked(options.from_json(job.settings), models)
    model = models / job.model
    if job.kind == "check":
        return runner.check(job.slug, model, settings, job.limit)
    if job.kind == "verify":
        return runner.verify(job.slug, out, settings, job.limit)
    return runner.reduce(job.slug, model, settings, out, job.limit, again=job.again)


def _model_files(model: Path) -> dict[str, Path]:
    """Return the model and its external data, by path relative to its folder; a broken model alone."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from bisect_trt.model.external import referenced_files
    from bisect_trt.model.load import read_light

    found = {model.name: model}
    with suppress(UsageError, ValueError, DecodeError):  # the check on the node says what is wrong
        found |= referenced_files(read_light(model), model)
    return found


def _folder_files(folder: Path) -> Files:
    """Return the files of a reproducer; recorded tensors are not worth the way."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} if folder.is_dir() else {}


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _packed(settings: Settings) -> tuple[Settings, dict[str, Path]]:
    """Input values travel with the job; other files of the settings (plugins, ...) must be on the nodes.

    Whole models are sent, so their probes stay where they are.
    """
    run = replace(settings.run, cluster="")
    inputs = run.inputs
    if not isinstance(inputs, Path) or not inputs.is_file():
        return replace(settings, run=run), {}
    name = f"{_SENT}{inputs.name}"
    return replace(settings, run=replace(run, inputs=Path(name))), {name: inputs}


def _unpacked(settings: Settings, folder: Path) -> Settings:
    inputs = settings.run.inputs
    if not isinstance(inputs, Path) or not inputs.name.startswith(_SENT):
        return settings
    return replace(settings, run=replace(settings.run, inputs=folder / inputs.name))
