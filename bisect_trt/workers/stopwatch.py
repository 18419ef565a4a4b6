"""What runs in a worker process to measure time: one model on one target, opened once and run many times."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Candidate, Feeds
from bisect_trt.settings import TargetSettings
from bisect_trt.targets.base import fed
from bisect_trt.targets.timed import Layers, Opened, Timed, Whole
from bisect_trt.workers.jobs import opened

_NO_CLOCK = {
    "emulate": "computes what a precision does, not how fast",
    "planted": "runs with planted faults, not at its own speed",
}


class _Watched(Struct):
    """A model that is open in this process; `fed` are the inputs that it has now."""

    timed: Timed
    candidate: Candidate
    fed: Feeds | None = None


_open: dict[str, _Watched] = {}


def require_clock(option: str, spec: str) -> None:
    """Raise UsageError where the time of the target that an option names means nothing."""
    kind = spec.partition(":")[0]
    if kind in _NO_CLOCK:
        hint = "measure a target that is deployed: tensorrt, ort:CPU, ..."
        raise UsageError(f"{option} {spec} {_NO_CLOCK[kind]}", hint)


def open_model(key: str, settings: TargetSettings, candidate: Candidate, graph: bool = False) -> Opened:
    """Build a candidate under a key; what this process had open under another key is given back.

    Raises:
        UsageError: the time of this target means nothing, or `graph` is not for it.
        TargetUnavailable: the target cannot run models here.
        FailedError: the candidate cannot be built.
    """
    require_clock("--target", settings.spec)
    target: Any = opened(settings)
    _open.clear()
    if hasattr(target, "timed"):
        _open[key] = _Watched(target.timed(candidate, graph), candidate)
    elif graph:
        raise UsageError("--cuda-graph is for TensorRT", "leave it out")
    else:
        _open[key] = _Watched(Whole(target, candidate), candidate)
    return _open[key].timed.opened


def measure(key: str, feeds: Feeds, seconds: float, most: int) -> list[float]:
    """Return the seconds of each run on these inputs, for so long and at most so often.

    Raises:
        KeyError: this process is another one than that in which the model was opened.
        FailedError: the model fails.
    """
    return _fed(key, feeds).run(seconds, most)


def layers(key: str, feeds: Feeds, runs: int) -> Layers | None:
    """Return the target's own profile by layer; None where it has none. Raises as `measure` does."""
    return _fed(key, feeds).layers(runs)


def _fed(key: str, feeds: Feeds) -> Timed:
    held = _open[key]
    if isinstance(held.timed, Whole):
        held.timed.use(feeds)
    elif held.fed != feeds:
        held.timed.feed(fed(replace(held.candidate, feeds=(feeds,)))[0])
    held.fed = feeds
    return held.timed
