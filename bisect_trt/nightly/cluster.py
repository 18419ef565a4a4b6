"""Models on the machines of a Ray cluster that exists; the only module that imports `ray`.

Each job is one Ray task, and inside it the node's own `Children` isolate the model: deadlines, memory
limits and deaths are the same as locally, and so are the results. Files travel through Ray's object
store. A task whose node is lost is started again elsewhere by Ray; its answer is taken once. Every node
needs bisect-trt and the target installed.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bisect_trt.errors import TargetUnavailable
from bisect_trt.nightly import options
from bisect_trt.nightly.children import Children
from bisect_trt.nightly.runner import Cause, Checked, Reduced, Trouble
from bisect_trt.settings import Settings

RETRIES = 3  # of a task whose node or process was lost
POLL = 0.5  # seconds between two looks at a task

Files = dict[str, bytes]
Answer = Checked | Reduced | Trouble


class OnRay:
    """See `runner.Runner`; `slots` is the number of jobs that the cluster can take at the same time."""

    def __init__(self, address: str) -> None:
        """Join the cluster.

        Args:
            address: `auto` for one on this machine or named by RAY_ADDRESS, or `ray://HOST:10001`.

        Raises:
            TargetUnavailable: Ray is not installed, or no cluster answers.
        """
        try:
            import ray
        except ImportError as error:
            raise TargetUnavailable("Ray is not installed", "pip install 'bisect-trt[cluster]'") from error
        self._ray = ray
        try:
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            hint = "start one with: ray start --head; or name it: --cluster ray://HOST:10001"
            raise TargetUnavailable(f"no Ray cluster answers at {address}: {error}", hint) from error
        have = ray.cluster_resources()
        self._gpus = have.get("GPU", 0.0) >= 1
        self.slots = max(1, int(have["GPU"] if self._gpus else have.get("CPU", 1)))
        self._cancelled = threading.Event()

    def check(self, slug: str, model: Path, settings: Settings, limit: float) -> Checked | Trouble:
        """The whole model on the target, on some node."""
        try:
            files = _model_files(model)
        except OSError as error:
            return Trouble(Cause.USAGE, f"cannot read {model}: {error.strerror}")
        answer, _ = self._run("check", slug, files, {}, model.name, settings, limit, again=False)
        assert isinstance(answer, Checked | Trouble)
        return answer

    def verify(self, slug: str, repro: Path, settings: Settings, limit: float) -> Checked | Trouble:
        """A stored reproducer, on some node."""
        answer, _ = self._run("verify", slug, {}, _folder_files(repro), "", settings, limit, again=False)
        assert isinstance(answer, Checked | Trouble)
        return answer

    def reduce(
        self, slug: str, model: Path, settings: Settings, out: Path, limit: float, *, again: bool
    ) -> Reduced | Trouble:
        """Reduce on some node; the folder is fetched when it is done."""
        try:
            files = _model_files(model)
        except OSError as error:
            return Trouble(Cause.USAGE, f"cannot read {model}: {error.strerror}")
        there = {} if again else _folder_files(out)
        answer, made = self._run("reduce", slug, files, there, model.name, settings, limit, again=again)
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
        self._ray.shutdown()

    def _run(
        self,
        kind: str,
        slug: str,
        model: Files,
        out: Files,
        name: str,
        settings: Settings,
        limit: float,
        *,
        again: bool,
    ) -> tuple[Answer, Files]:
        if self._cancelled.is_set():
            return Trouble(Cause.CANCELLED, "the night was ended"), {}
        settings, inputs = _packed(settings)
        wants_gpu = self._gpus and settings.target.spec.startswith(("auto", "tensorrt"))
        task = self._ray.remote(
            num_cpus=1, num_gpus=1 if wants_gpu else 0, max_retries=RETRIES, retry_exceptions=False
        )(on_node)
        reference = task.remote(
            kind, slug, {**model, **inputs}, out, name, options.to_json(settings), limit, again
        )
        return self._wait(reference)

    def _wait(self, reference: Any) -> tuple[Answer, Files]:
        while True:
            done, _ = self._ray.wait([reference], timeout=POLL)
            if done:
                break
            if self._cancelled.is_set():
                with suppress(Exception):  # it may have ended in this moment
                    self._ray.cancel(reference, force=True)
                return Trouble(Cause.CANCELLED, "the night was ended"), {}
        try:
            answer: tuple[Answer, Files] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            return Trouble(
                Cause.DIED, f"lost on the cluster: {said[0] if said else type(error).__name__}"
            ), {}
        return answer


def on_node(
    kind: str, slug: str, files: Files, there: Files, name: str, settings: Any, limit: float, again: bool
) -> tuple[Answer, Files]:
    """One job on a node, in a scratch folder; gives the answer and, of `reduce`, the files it left."""
    with tempfile.TemporaryDirectory(prefix="bisect-trt-") as scratch:
        place = Path(scratch)
        out = place / f"{slug}-repro"
        _write(files, place / "model")
        if there:
            _write(there, out)
        runner = Children(place / "jobs", place / "model", parallel=1, logs=place / "logs")
        try:
            mine = _unpacked(options.from_json(settings), place / "model")
            model = place / "model" / name
            if kind == "check":
                return runner.check(slug, model, mine, limit), {}
            if kind == "verify":
                return runner.verify(slug, out, mine, limit), {}
            answer = runner.reduce(slug, model, mine, out, limit, again=again)
            return answer, _folder_files(out) if isinstance(answer, Reduced) else {}
        finally:
            runner.close()


def _model_files(model: Path) -> Files:
    """The model and its external data, by path relative to its folder; a broken model alone."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from bisect_trt.errors import UsageError
    from bisect_trt.model.external import referenced_files

    data = model.read_bytes()
    found = {model.name: data}
    with suppress(UsageError, ValueError, DecodeError):  # the check on the node says what is wrong
        for location, path in referenced_files(onnx.load_model_from_string(data), model).items():
            found[location] = path.read_bytes()
    return found


def _folder_files(folder: Path) -> Files:
    """Files of a reproducer; recorded tensors are not worth the way."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} if folder.is_dir() else {}


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


_SENT = "sent-"


def _packed(settings: Settings) -> tuple[Settings, Files]:
    """Input values travel with the job; other files of the settings (plugins, ...) must be on the nodes."""
    inputs = settings.run.inputs
    if not isinstance(inputs, Path) or not inputs.is_file():
        return settings, {}
    name = f"{_SENT}{inputs.name}"
    return replace(settings, run=replace(settings.run, inputs=Path(name))), {name: inputs.read_bytes()}


def _unpacked(settings: Settings, folder: Path) -> Settings:
    inputs = settings.run.inputs
    if not isinstance(inputs, Path) or not inputs.name.startswith(_SENT):
        return settings
    return replace(settings, run=replace(settings.run, inputs=folder / inputs.name))
