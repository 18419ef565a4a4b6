"""Probes and nights on a real Ray cluster of this machine, a node of which is killed on the way."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import ERROR, chain

import bisect_trt
from bisect_trt.errors import TargetUnavailable, UsageError
from bisect_trt.nightly import config, service
from bisect_trt.nightly.history import FILE, History
from bisect_trt.nightly.history_rows import Row
from bisect_trt.results import Step
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from bisect_trt.workers.ray import node
from bisect_trt.workers.ray.cluster import Cluster

ray = pytest.importorskip("ray", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STORE = 100 * 2**20  # bytes of each node's object store


class Machines:
    """A cluster with two nodes that work, beside a head that does not."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Made

        self.made = Made(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
        self.nodes = [self.add(), self.add()]
        self.address = self.made.address
        self.scratch = Path(os.environ["TMPDIR"])

    def left(self) -> list[Path]:
        """What runs have left on the nodes."""
        return list(self.scratch.glob("bisect-trt-cluster-*/*"))

    def add(self) -> Any:
        return self.made.add_node(num_cpus=2, num_gpus=1, object_store_memory=STORE)

    def kill_one(self) -> None:
        self.made.remove_node(self.nodes.pop(0), allow_graceful=False)


@pytest.fixture(scope="module")
def started() -> Iterator[Machines]:
    with (
        tempfile.TemporaryDirectory(prefix="bt-", ignore_cleanup_errors=True) as short,  # sockets lie in it
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("TMPDIR", short)  # of the nodes
        made = Machines()
        yield made
        ray.shutdown()
        made.made.shutdown()


@pytest.fixture
def machines(started: Machines) -> Machines:
    """With two nodes, whatever became of one of them before."""
    while len(started.nodes) < 2:
        started.nodes.append(started.add())
    return started


def test_one_engine_build_per_gpu(machines: Machines) -> None:
    def spans(seconds: float) -> tuple[str, str, float, float]:
        """On a node: where it was, on which GPU, from when to when. Inside, as nodes have no tests."""
        began = time.time()
        time.sleep(seconds)
        node_id = ray.get_runtime_context().get_node_id()
        return node_id, os.environ.get("CUDA_VISIBLE_DEVICES", ""), began, time.time()

    cluster = Cluster(machines.address)
    assert (cluster.slots("tensorrt"), cluster.slots("emulate:fp16")) == (2, 4)
    for spec, most in (("tensorrt", 1), ("emulate:fp16", 2)):
        tasks = [cluster.start(spec, spans, 0.3) for _ in range(6)]
        found = [cluster.wait(task, lambda: False) for task in tasks]
        at_once = max(sum(a[0] == b[0] and b[2] <= a[2] < b[3] for b in found) for a in found)
        assert at_once <= most
        assert all(gpu for _, gpu, _, _ in found) == (spec == "tensorrt")
    with pytest.raises(TargetUnavailable, match="has bisect-trt"):
        cluster.wait(cluster.start("planted:", node.require_version, "0.0"), lambda: False)
    cluster.close(node.sweep)


def test_probes_on_a_cluster_that_loses_a_node(machines: Machines, tmp_path: Path) -> None:
    ops = ["Abs"] * 14 + [ERROR] + ["Neg"] * 9 + [ERROR] + ["Abs"] * 6
    model = chain(tmp_path / "m.onnx", *ops, size=600)  # values are files of their own
    target = TargetSettings(spec=f"planted:op={ERROR},fail=error,cost=0.002")
    seen: list[int] = []

    def kill(step: Step) -> None:
        if step.probes >= 8 and not seen:
            seen.append(step.probes)
            machines.kill_one()

    def reduced(out: str, **run: Any) -> bisect_trt.results.Reduction:
        settings = Settings(target, RunSettings(simplify=False, repeats=1, **run))
        return bisect_trt.reduce(
            model, settings, out=tmp_path / out, on_event=kill if run["cluster"] else _ignore
        )

    there = reduced("there", cluster=machines.address)
    assert seen, "a node was killed in the middle"
    here = reduced("here", cluster="", workers=2)
    assert there.verified == there.repeats == 1
    for name in ("repro.onnx", "inputs.npz", "expected.npz"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    assert there.counts["probes"] == here.counts["probes"]
    ended = answers(tmp_path / "there")
    assert max(Counter(key for key, _ in ended).values()) == 1, "no probe counted twice"
    asked = dict(answers(tmp_path / "here"))
    assert {k: v for k, v in ended if k in asked}.items() <= asked.items(), "the same answers as locally"
    assert not machines.left(), "nothing is left on the nodes"


def _ignore(step: Step) -> None:
    pass


def answers(out: Path) -> list[tuple[str, str]]:
    """Key and verdict of each probe that ended."""
    lines = map(json.loads, (out / "journal.jsonl").read_text().splitlines())
    return [(line["key"], line["verdict"]) for line in lines if line["event"] == "end"]


def test_options_that_need_this_machine(tmp_path: Path) -> None:
    settings = Settings(TargetSettings(verbose_log=tmp_path / "log"), RunSettings(cluster="auto"))
    with pytest.raises(UsageError, match="--verbose-log works on this machine only"):
        bisect_trt.check(chain(tmp_path / "m.onnx"), settings)


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


@pytest.mark.long
def test_night_on_a_cluster_that_loses_a_node(tmp_path: Path, machines: Machines) -> None:
    from bisect_trt.nightly.ray import OnRay

    for k in range(5):
        chain(tmp_path / f"m{k}.onnx", "Abs", *([ERROR] if k % 2 else []))
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x01rubbish")
    runner = OnRay(machines.address, ("planted:",))
    assert runner.slots == 4

    def kill_one() -> None:
        time.sleep(6)  # while models are at work
        machines.kill_one()

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
    assert not machines.left(), "nothing is left on the nodes"


def test_no_cluster() -> None:
    with pytest.raises(TargetUnavailable, match="no Ray cluster answers at nonsense: Invalid address"):
        Cluster("nonsense")
