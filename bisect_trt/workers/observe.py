"""Keeps what a target gives, so that a report can show where it differs from the reference."""

from __future__ import annotations

from pathlib import Path

from bisect_trt.model.candidate import Candidate
from bisect_trt.model.store import Store
from bisect_trt.settings import TargetSettings
from bisect_trt.workers.jobs import opened


def outputs(settings: TargetSettings, candidate: Candidate, folder: Path) -> dict[str, Path]:
    """In a worker: outputs of the first sample as `.npy` files in `folder`; empty when there are none."""
    given = opened(settings).run(candidate).outputs
    store = Store(folder)
    return {name: store.put(name, value) for name, value in given[0].items()} if given else {}
