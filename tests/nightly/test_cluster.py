"""A night on a real Ray cluster of this machine, one node of which is killed on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import ERROR, chain

from bisect_trt.errors import TargetUnavailable
from bisect_trt.nightly import config, service
from bisect_trt.nightly.history import FILE, History, Row

ray = pytest.importorskip("ray", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STORE = 100 * 2**20  # bytes of each node's object store


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    yield made
    ray.shutdown()
    made.shutdown()


def night(base: Path, out: str, **more: Any) -> dict[str, Row]:
    data = {
        "models": {"include": ["*.onnx"]},
        "out": out,
        "confirm": 1,
        "target": [{"spec": f"planted:op={ERROR},fail=error,cost=0.3", "name": "t"}],
        "defaults": {"repeats": 1, "timeout": 60},
        "workers": 2,
    }
    assert service.nightly(config.parse(data, base / "n.toml"), **more) == 1
    history = History(base / out / FILE, read_only=True)
    found = {r.model: r for r in history.rows(1)}
    history.close()
    return found


def same(rows: dict[str, Row]) -> dict[str, tuple[Any, ...]]:
    """What must not depend on where it was found."""
    return {
        n: (r.status, r.runs, r.key, r.shape, r.repro_nodes, r.repro, r.reduction, r.digest, r.version)
        for n, r in rows.items()
    }


def test_night_on_a_cluster_that_loses_a_node(tmp_path: Path, cluster: Any) -> None:
    from bisect_trt.nightly.cluster import OnRay

    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    for k in range(5):
        chain(tmp_path / f"m{k}.onnx", "Abs", *([ERROR] if k % 2 else []))
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x01rubbish")
    runner = OnRay(cluster.address)
    assert runner.slots == 2

    def kill_one() -> None:
        time.sleep(6)  # while models are at work
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill_one)
    killer.start()
    remote = night(tmp_path, "remote", make_runner=lambda folder, logs: runner)
    killer.join()
    local = night(tmp_path, "local")
    assert same(remote) == same(local), "the same results as locally"
    assert all(len(r.runs) <= 1 for r in remote.values()), "no check counted twice"
    for row in remote.values():
        if row.repro:
            assert (tmp_path / "remote" / row.repro / "repro.onnx").is_file()


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from bisect_trt.nightly.cluster import OnRay

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(TargetUnavailable, match="no Ray cluster answers"):
        OnRay("auto")
