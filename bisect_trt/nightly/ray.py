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
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt._version import __version__
from bisect_trt.errors import BisectError, TargetUnavailable, UsageError
from bisect_trt.nightly.children import GRACE, Children
from bisect_trt.nightly.runner import ENDED, Answer, Cause, Job, Trouble
from bisect_trt.settings import Settings
from bisect_trt.workers.ray import node
from bisect_trt.workers.ray.cluster import Cluster

Files = dict[str, bytes]
_SENT = "sent-"


class OnRay:
    """See `runner.Runner`; `slots` is the number of jobs that the cluster can take at the same time."""

    def __init__(self, address: str, specs: tuple[str, ...] = ("auto",)) -> None:
        """Join the cluster, see `Cluster`, for jobs on these targets."""
        self._cluster = Cluster(address)
        self.slots = max(self._cluster.slots(spec) for spec in specs)
        self._cancelled = threading.Event()

    def run(self, job: Job) -> Answer:
        """Do a job on some node; the folder of a reduction is fetched when it is done."""
        if self._cancelled.is_set():
            return ENDED
        answer, made = self._sent(job)
        if made:
            shutil.rmtree(job.repro, ignore_errors=True)
            _write(made, job.repro)
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

    def _sent(self, job: Job) -> tuple[Answer, Files]:
        settings, inputs = _packed(job.settings)
        there = {} if job.kind == "check" or job.again else _folder_files(job.repro)
        try:
            files = {**(_model_files(job.model) if job.kind != "verify" else {}), **inputs}
            sent = {name: self._cluster.send(path) for name, path in files.items()}
        except OSError as error:
            return Trouble(Cause.USAGE, f"cannot read {job.model}: {error.strerror}"), {}
        asked = replace(job, settings=settings)
        spec, run = settings.target.spec, self._cluster.run
        task = self._cluster.start(spec, on_node, run, __version__, asked, sent, there)
        try:
            # a node ends a reduction in order, which takes a while
            answer: tuple[Answer, Files] = self._cluster.wait(task, self._cancelled.is_set, grace=GRACE + 5)
        except CancelledError:
            return ENDED, {}
        except TargetUnavailable as error:
            return Trouble(Cause.TARGET, f"{error.message} ({error.hint})"), {}
        except BisectError as error:
            return Trouble(Cause.DIED, error.message), {}
        finally:
            self._cluster.forget(files.values())
        return answer


def on_node(
    run: str, version: str, job: Job, sent: Mapping[str, Any], there: Files
) -> tuple[Answer, Files]:
    """Run one job on a node, in a scratch folder; gives the answer and, of `reduce`, the files it left.

    `sent` are the model and files beside it, `there` is what there is of the reproducer.
    """
    node.require_version(version)
    with tempfile.TemporaryDirectory(dir=node.folder(run), ignore_cleanup_errors=True) as scratch:
        models, out = Path(scratch, "model"), Path(scratch, f"{job.slug}-repro")
        models.mkdir()
        node.receive(sent, models)
        if there:
            _write(there, out)
        settings = _unpacked(job.settings, models)
        here = replace(job, model=models / job.model.name, repro=out, settings=settings, fresh=True)
        runner = Children(Path(scratch, "jobs"), models, parallel=1, logs=Path(scratch, "logs"))
        with ThreadPoolExecutor(1) as thread, closing(runner):
            running = thread.submit(runner.run, here)
            try:
                answer = running.result()
            except KeyboardInterrupt:  # the night ends: see `Cluster.wait`
                runner.cancel()
                answer = running.result()
        return answer, _folder_files(out) if job.kind == "reduce" else {}


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
