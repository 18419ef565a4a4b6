"""Probes on the nodes of a Ray cluster: `--cluster`. The reference is recorded here, the target is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.references.spec import parse
from bisect_trt.settings import Settings
from bisect_trt.targets.registry import AUTO, resolve

if TYPE_CHECKING:  # 3 ms, for a run that is on this machine
    from bisect_trt.workers.ray.remote import ClusterSeats


def on_cluster(settings: Settings) -> Settings:
    """Return it with the target that `auto` stands for on the nodes, and as many workers as they can take.

    Raises:
        TargetUnavailable: no cluster answers, or its nodes have no such target.
        UsageError: an option that works on this machine only.
    """
    from bisect_trt.workers.ray import node
    from bisect_trt.workers.ray.cluster import Cluster

    _require_possible(settings)
    spec = settings.target.spec
    cluster = Cluster(settings.run.cluster)
    try:
        slots = cluster.slots(spec)
        if spec == AUTO:
            spec = cluster.wait(cluster.start(spec, resolve, spec), lambda: False)
    finally:
        cluster.close(node.sweep)
    asked = settings.run.workers
    workers = slots if asked == 1 else min(asked, slots)
    target = replace(settings.target, spec=resolve(spec))
    return replace(settings, target=target, run=replace(settings.run, workers=workers))


def seats_of(settings: Settings) -> ClusterSeats | None:
    """Return where jobs run instead of on this machine: None without `--cluster`.

    Raises:
        TargetUnavailable: there is no such cluster.
    """
    if not settings.run.cluster:
        return None
    from bisect_trt.workers.ray.remote import ClusterSeats

    return ClusterSeats(settings.run.cluster)


def _require_possible(settings: Settings) -> None:
    run, target = settings.run, settings.target
    impossible = {
        "--device": bool(run.devices),
        "--verbose-log": target.verbose_log is not None,
        f"--reference {settings.accuracy.reference}": parse(settings.accuracy.reference).kind == "target-at",
    }
    for option, given in impossible.items():
        if given:
            raise UsageError(
                f"{option} works on this machine only, not with --cluster", "leave one of them out"
            )
