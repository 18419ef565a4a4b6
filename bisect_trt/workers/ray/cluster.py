"""A Ray cluster that exists already; the only module that imports `ray` (extra `cluster`).

Each job is one Ray task. It takes a CPU and, for TensorRT on a cluster that has GPUs, a GPU: no two engines
are built on one GPU at the same time. Files travel through Ray's object store. A task whose node is lost is
started again elsewhere by Ray, and its answer is taken once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bisect_trt._version import __version__
from bisect_trt.errors import ClusterLost, TargetUnavailable
from bisect_trt.machine.environment import INSTALL

RETRIES = 3  # of a task whose node or process was lost
ALONE = 60.0  # seconds without any node that could work, after which nobody waits any more
POLL = 0.2  # seconds between two looks whether an answer is still wanted
SWEEP = 10.0  # seconds for the nodes to remove what they hold of a run
_AGAIN = "see to the cluster; the same command goes on from here"
_INSTALL = f"every node needs bisect-trt {__version__}, Python and Ray in the versions used here"


class Cluster:
    """The cluster, joined; it goes on when we leave."""

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
            raise TargetUnavailable("Ray is not installed", INSTALL["ray"]) from error
        self._ray = ray
        _Membership.join(ray, address)
        self.run = uuid.uuid4().hex  # names our folder on the nodes
        self._task = ray.remote(_on_node)
        self._sent: dict[Path, Any] = {}
        self._used: set[str] = set()  # nodes that have answered
        self._lock = threading.Lock()
        self._looked = self._company = time.monotonic()
        self._have = ray.cluster_resources()
        self._asked: Future[dict[str, float]] = Future()
        self._asked.set_result(self._have)
        self._lost = False

    def slots(self, spec: str) -> int:
        """Say how many jobs on the target `spec` the cluster can take at the same time."""
        return max(1, int(self._have.get("GPU" if self._gpu(spec) else "CPU", 1)))

    def start(self, spec: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)`, importable by name, on some node; gives what `wait` wants."""
        options = {"num_cpus": 1, "num_gpus": int(self._gpu(spec)), "max_retries": RETRIES}
        return self._task.options(**options).remote(function, args)

    def wait(self, task: Any, unwanted: Callable[[], bool], *, grace: float = 0.0) -> Any:
        """Return the answer of a task.

        Args:
            task: what `start` gave.
            unwanted: asked again and again; when true the task is interrupted (KeyboardInterrupt in it),
                and killed when it has not ended after `grace` seconds.
            grace: in seconds.

        Raises:
            CancelledError: it was unwanted and gave no answer.
            ClusterLost: it was lost with its node, again and again, or the cluster is gone.
            TargetUnavailable: the nodes cannot run it.
        """
        seen = time.monotonic()
        while not self._ray.wait([task], timeout=POLL)[0]:
            if unwanted():
                return self._interrupted(task, grace)
            if self._alone(seen):
                with suppress(Exception):
                    self._ray.cancel(task, force=True)
                raise ClusterLost(f"the cluster has had no node for work for {ALONE:.0f} s", _AGAIN)
        return self._answer(task)

    def send(self, path: Path) -> Any:
        """Put a file into the object store, once; jobs take what this gives, see `fetch`."""
        with self._lock:
            if path not in self._sent:
                size = path.stat().st_size
                content = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
                self._sent[path] = self._ray.put(np.asarray(content))
            return self._sent[path]

    def forget(self, paths: Iterable[Path]) -> None:
        """Let the object store drop these files; they may have changed when they are sent again."""
        with self._lock:
            for path in paths:
                self._sent.pop(path, None)

    def close(self, sweep: Callable[[str], None]) -> None:
        """Have every node that was used do `sweep(self.run)`, and leave; one that was lost is left alone."""
        if self._lost:
            return
        with suppress(Exception):  # nodes that do not answer have nothing worth waiting for
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            task = self._ray.remote(num_cpus=0, max_retries=0)(sweep)
            used = [n["NodeID"] for n in _alive(self._ray) if n["NodeID"] in self._used]
            places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in used]
            asked = [task.options(scheduling_strategy=place).remote(self.run) for place in places]
            if asked:
                self._ray.wait(asked, num_returns=len(asked), timeout=SWEEP)
        _Membership.leave(self._ray)

    def _alone(self, since: float) -> bool:
        """Return whether there has been no node to work on since long before now, asked every few seconds."""
        now = time.monotonic()
        with self._lock:
            if self._asked.done():
                with suppress(Exception):  # a head that is gone is no company
                    if self._asked.result().get("CPU", 0.0) >= 1:
                        self._company = self._looked
                if now - self._looked > ALONE / 12:
                    self._looked, self._asked = now, self._ask()
            self._lost = now - max(since, self._company) > ALONE
            return self._lost

    def _ask(self) -> Future[dict[str, float]]:
        """Return what the cluster has. Where the head is gone Ray waits for it, so nobody waits for Ray."""
        asked: Future[dict[str, float]] = Future()

        def ask() -> None:
            try:
                asked.set_result(self._ray.cluster_resources())
            except Exception as error:
                asked.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        return asked

    def _gpu(self, spec: str) -> bool:
        return self._have.get("GPU", 0.0) >= 1 and spec.startswith(("auto", "tensorrt"))

    def _interrupted(self, task: Any, grace: float) -> Any:
        with suppress(Exception):  # it may have ended in this moment
            self._ray.cancel(task, force=grace <= 0)
            if grace > 0 and not self._ray.wait([task], timeout=grace)[0]:
                self._ray.cancel(task, force=True)
        if grace <= 0:
            raise CancelledError
        return self._answer(task)

    def _answer(self, task: Any) -> Any:
        errors = self._ray.exceptions
        try:
            node, answer = self._ray.get(task)
            self._used.add(node)
            return answer
        except errors.TaskCancelledError as error:
            raise CancelledError from error
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            said = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            raise TargetUnavailable(f"a node of the cluster cannot do this: {said}", _INSTALL) from error
        except (errors.RayError, ConnectionError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ClusterLost(f"lost on the cluster: {said}", _AGAIN) from error


class _Membership:
    """Ray is joined once a process: by the user, or by the first of us; then the last of us leaves."""

    lock = threading.Lock()
    users = 0
    ours = False

    @classmethod
    def join(cls, ray: Any, address: str) -> None:
        with cls.lock:
            if not ray.is_initialized():
                _init(ray, address)
                cls.users, cls.ours = 0, True
            cls.users += 1

    @classmethod
    def leave(cls, ray: Any) -> None:
        with cls.lock:
            cls.users -= 1
            if cls.users <= 0 and cls.ours:
                cls.ours = False
                ray.shutdown()


def _init(ray: Any, address: str) -> None:
    terminate = signal.getsignal(signal.SIGTERM)
    # Ray ends the process that asks when the head has been away for this long; `ALONE` has to come before.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(int(10 * ALONE)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what fails; the error says it too
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, terminate)  # Ray puts its own there
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        hint = "start one with: ray start --head; or name it: --cluster ray://HOST:10001"
        said = " ".join(str(error).split())[:300]
        raise TargetUnavailable(f"no Ray cluster answers at {address}: {said}", hint) from error


# On a node


def _on_node(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[str, Any]:
    """Return the task itself: which node it ran on, and what the function gave."""
    import ray

    return ray.get_runtime_context().get_node_id(), function(*args)


def fetch(sent: Iterable[Any]) -> list[Any]:
    """Return the contents of files that were sent, as arrays of bytes."""
    import ray

    found: list[Any] = ray.get(list(sent))
    return found


@cache
def jobs_beside() -> int:
    """Say how many jobs this node takes at the same time, ours among them."""
    import ray

    context = ray.get_runtime_context()
    name = "GPU" if context.get_assigned_resources().get("GPU") else "CPU"
    own = context.get_node_id()
    here = [int(n["Resources"].get(name, 1)) for n in _alive(ray) if n["NodeID"] == own]
    return max(1, *here)


def _alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
