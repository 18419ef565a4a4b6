"""A slot of a pool whose jobs run on a cluster: the interface of `slot.Slot`."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from onnx import TensorProto

from bisect_trt._version import __version__
from bisect_trt.machine.process import Job
from bisect_trt.model.candidate import Candidate
from bisect_trt.model.external import tensors
from bisect_trt.model.load import read_without_weights
from bisect_trt.model.store import external_info, promise_of
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.workers.ray import node
from bisect_trt.workers.ray.cluster import Cluster
from bisect_trt.workers.reply import Reply


class RemoteSlot:
    """Runs one job at a time on some node, where it is isolated as it is locally; never holds a node."""

    def __init__(
        self, number: int, cluster: Cluster, closing: threading.Event, memory_limit: int | None
    ) -> None:
        """Begin idle; `closing` set means that the pool ends, `memory_limit` None the share of the node."""
        self.number = number
        self._cluster = cluster
        self._closing = closing
        self._memory = memory_limit

    def run(self, job: Job, timeout: float | None, cancelled: threading.Event) -> Reply:
        """Run one job; its first argument are the settings of the target.

        Raises:
            CancelledError: `cancelled` was set, or the pool closes.
            ClusterLost: its nodes were lost again and again, or the cluster is gone.
            TargetUnavailable: the nodes cannot run it.
            Exception: whatever the job raised.
        """
        function, args = job
        parcel = Parcel(self._cluster)
        packed = tuple(parcel.packed(argument) for argument in args)
        name, version = self._cluster.run, __version__
        task = self._cluster.start(
            args[0].spec, node.run, name, version, (function, packed), parcel.sent, timeout, self._memory
        )
        (ok, value, _), made = self._cluster.wait(task, lambda: cancelled.is_set() or self._closing.is_set())
        result = pickle.loads(value)  # from a node of the user's cluster; never content of a model
        if not ok:
            raise result
        assert isinstance(result, Reply)
        return replace(result, value=parcel.unpacked(result.value, made))

    def stop(self) -> None:
        """Do nothing: nothing is held between jobs."""

    def progress(self) -> str:
        """Return nothing: the progress of builds on nodes is unknown."""
        return ""

    def watch(self, memory_limit: int, *, look_for_children: bool) -> float:
        """Do nothing: nodes watch their own workers."""
        return 1.0


class ClusterSeats:
    """Slots of a pool on the nodes of a Ray cluster.

    Each job's first argument has to be the settings of its target; GPUs are Ray's business.
    """

    def __init__(self, address: str) -> None:
        """Join the cluster at `address`.

        Raises:
            TargetUnavailable: there is no such cluster.
        """
        self._cluster: Cluster | None = Cluster(address)

    def slots(self, workers: int, closing: threading.Event, memory_limit: int | None) -> list[RemoteSlot]:
        """Make `workers` slots; no node is held between jobs."""
        assert self._cluster is not None
        return [RemoteSlot(n, self._cluster, closing, memory_limit) for n in range(workers)]

    def close(self) -> None:
        """Leave the cluster and remove what the nodes hold of this run."""
        if self._cluster is not None:
            self._cluster.close(node.sweep)
            self._cluster = None


class Parcel:
    """The arguments of a job with the files that they refer to."""

    def __init__(self, cluster: Cluster) -> None:
        """Begin with nothing in it."""
        self._cluster = cluster
        self.sent: dict[str, Any] = {}
        self._results: Path | None = None

    def packed(self, argument: Any) -> Any:
        """Return an argument with paths relative to the run's folder on the node."""
        if isinstance(argument, Candidate):
            for path in files_of(argument):
                self.sent[str(there(argument.folder, path))] = self._cluster.send(path)
            return argument.moved(lambda path: there(argument.folder, path))
        if isinstance(argument, Path):
            self._results = argument
            return node.ResultFolder()
        if isinstance(argument, TargetSettings):
            return _on_any_node(argument)
        if isinstance(argument, AccuracySettings):
            return replace(argument, custom_ops=tuple(p.absolute() for p in argument.custom_ops))
        return argument

    def unpacked(self, value: Any, made: node.Made) -> Any:
        """Return the job's value; files that it wrote lie in the caller's folder then."""
        if self._results is None:
            return value
        self._results.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            (self._results / name).write_bytes(content)
        if isinstance(value, dict):
            return {k: self._results / v.name if isinstance(v, Path) else v for k, v in value.items()}
        return value


def _on_any_node(target: TargetSettings) -> TargetSettings:
    """Return libraries by absolute path, as a shared folder has them; a timing cache of the node's own."""
    cache = target.timing_cache
    return replace(
        target,
        plugins=tuple(path.absolute() for path in target.plugins),
        ep_libraries=tuple((name, path.absolute()) for name, path in target.ep_libraries),
        timing_cache=Path(cache.name) if cache else None,
    )


def there(folder: Path, path: Path) -> Path:
    """Return where a file (or the folder itself) lies on a node, relative to the run's folder."""
    home = folder if path.is_relative_to(folder) else path.parent
    return Path(hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:16]) / path.relative_to(home)


def files_of(candidate: Candidate) -> Iterator[Path]:
    """Yield the files that a candidate refers to: weights, input values, expected values."""
    rest, content = candidate.rest, candidate.content
    if isinstance(content, Path):
        yield content
    for model in (content, rest.model if rest else b""):
        for tensor in tensors(read_without_weights(model)) if model else ():
            if tensor.data_location == TensorProto.EXTERNAL:
                yield candidate.folder / external_info(tensor)["location"]
    for part in (candidate, rest) if rest else (candidate,):
        for sample in (*part.feeds, *part.expected):
            yield from (path if path.exists() else promise_of(path) for path in sample.values())
