"""What runs on a node of a cluster: jobs in a warm isolated worker, on copies of the files that they need."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bisect_trt._version import __version__
from bisect_trt.errors import TargetUnavailable
from bisect_trt.machine import limits
from bisect_trt.machine.process import Answer, Job
from bisect_trt.model.candidate import Candidate
from bisect_trt.settings import TargetSettings
from bisect_trt.workers.pool import Pool
from bisect_trt.workers.ray import cluster
from bisect_trt.workers.reply import Reply, call
from bisect_trt.writing.files import written_whole

OLD = 3600.0  # seconds after which the folder of a run that nobody holds is removed

Made = dict[str, bytes]
"""Files that a job left in its result folder, by name."""


class ResultFolder:
    """Stands for a folder of the caller that a job writes into."""


_held: dict[str, int] = {}  # locks of folders, by run
_warm: dict[tuple[str, str, int], Pool] = {}
"""The worker that this process keeps between jobs, by run, the GPU that it sees, and its memory limit."""


def run(
    name: str, version: str, job: Job, files: Mapping[str, Any], timeout: float | None, memory: int | None
) -> tuple[Answer, Made]:
    """Do one job in the isolated worker of this process.

    Args:
        name: of the run.
        version: of bisect-trt, which has to be the same here.
        job: function and arguments; paths in these are relative to the folder of the run.
        files: what was sent (see `Cluster.send`), by path relative to the folder of the run.
        timeout: seconds, as in `Pool.submit`.
        memory: bytes that the worker may hold; None: its share of the node.
    """
    require_version(version)
    place = folder(name)
    receive(files, place)
    function, packed = job
    with tempfile.TemporaryDirectory(prefix="result-", dir=place, ignore_cleanup_errors=True) as made:
        given = Path(made)
        arguments = tuple(_unpacked(argument, place, given) for argument in packed)
        answer = call(_isolated, (name, memory, function, arguments, timeout))
        return answer, {p.name: p.read_bytes() for p in given.iterdir()}


def require_version(version: str) -> None:
    """Raises TargetUnavailable when this node has another bisect-trt."""
    if version != __version__:
        raise TargetUnavailable(f"node {os.uname().nodename} has bisect-trt {__version__}")


def folder(name: str) -> Path:
    """Return this node's folder for a run; what runs that are over have left is removed.

    It is held by a lock of this process, which the kernel gives back when the process ends.
    """
    home = Path(tempfile.gettempdir()) / f"bisect-trt-cluster-{os.getuid()}"
    place = home / name
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise PermissionError(f"{home} belongs to somebody else")
    place.mkdir(exist_ok=True)
    if name not in _held:
        _held[name] = os.open(place / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(_held[name], fcntl.LOCK_SH)
        for other in home.iterdir():
            if other != place:
                _remove_if_over(other)
    return place


def sweep(name: str) -> None:
    """Remove what this node holds of a run."""
    home = Path(tempfile.gettempdir()) / f"bisect-trt-cluster-{os.getuid()}"
    shutil.rmtree(home / name, ignore_errors=True)


def receive(files: Mapping[str, Any], place: Path) -> None:
    """Write those of the files that are not there yet, each whole or not at all."""
    missing = [name for name in files if not (place / name).exists()]
    for name, content in zip(missing, cluster.fetch(files[name] for name in missing), strict=True):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as aside:
            content.tofile(aside)


def _remove_if_over(place: Path) -> None:
    with suppress(OSError):
        if time.time() - place.stat().st_mtime < OLD:
            return
        with (place / ".lock").open("r+b") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)


def _unpacked(argument: Any, place: Path, given: Path) -> Any:
    if isinstance(argument, Candidate):
        return argument.moved(lambda path: place / path)
    if isinstance(argument, ResultFolder):
        return given
    if isinstance(argument, TargetSettings) and argument.timing_cache is not None:
        return replace(argument, timing_cache=place / argument.timing_cache)
    return argument


def _isolated(name: str, memory: int | None, function: Any, args: Any, timeout: float | None) -> Reply:
    return _worker(name, memory).submit(function, *args, timeout=timeout).result()


def _worker(name: str, memory: int | None) -> Pool:
    """Return the worker of this process; a new one for another run, and for another GPU."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    memory = memory or limits.default_limit(cluster.jobs_beside())
    wanted = name, device, memory
    if wanted not in _warm:
        while _warm:
            _warm.popitem()[1].close(kill=True)
        logs = folder(name) / f"logs-{os.getpid()}"
        _warm[wanted] = Pool(1, log_dir=logs, memory_limit=memory)
    return _warm[wanted]
