"""Where the reference runs and where the target does: the same workers, warm ones, or nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from bisect_trt.machine.scratch import temporary_folder
from bisect_trt.session.cluster import seats_of
from bisect_trt.settings import TIMING, Settings, TargetSettings
from bisect_trt.workers import jobs
from bisect_trt.workers.pool import Pool, watching


@contextmanager
def pools(settings: Settings, on_progress: Callable[[str], None]) -> Iterator[tuple[Pool, Pool]]:
    """Open the workers of the reference and of the target until the end of the context.

    Args:
        settings: how many there are, what they may hold, and where the target's are.
        on_progress: called with how far the builds of the target are.
    """
    run = settings.run
    with (
        temporary_folder() as logs,
        Pool(run.workers, log_dir=logs, memory_limit=run.memory_limit, devices=run.devices) as here,
        target_pool(here, settings, logs, run.workers) as there,
        watching(there, on_progress),
    ):
        yield here, there


@contextmanager
def target_pool(here: Pool, settings: Settings, logs: Path, workers: int) -> Iterator[Pool]:
    """Open the pool that runs the target: that of the reference, one on the cluster, or a warm one.

    A target that takes long to open has workers of its own, which do that while the reference records.
    """
    run, target = settings.run, settings.target
    if run.cluster:
        with Pool(workers, log_dir=logs, memory_limit=run.memory_limit, seats=seats_of(settings)) as pool:
            yield pool
    elif (warm := jobs.warm_job(target)) is not None:
        place, limit = logs / "target", run.memory_limit
        with Pool(workers, log_dir=place, memory_limit=limit, devices=run.devices, warm=warm) as pool:
            yield pool
    else:
        yield here


def describing(here: Pool, there: Pool, settings: Settings) -> Pool:
    """Say which of the two pools is asked what the target is: one that need not become warm for that."""
    return there if settings.run.cluster else here


def with_timing_cache(target: TargetSettings, work: Path) -> TargetSettings:
    """Give all probes of a run one timing cache, so that TensorRT chooses the same tactics in each.

    TensorRT-RTX has none.
    """
    if target.spec != "tensorrt" or target.timing_cache is not None:
        return target
    return replace(target, timing_cache=work.absolute() / TIMING)
