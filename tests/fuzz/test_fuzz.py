"""Spoiled models, inputs, reports, configurations and journals: an answer or one of our errors, nothing else.

Asked: no exception that is not ours, no example that takes long, no file outside the folder that is meant.
`make check` looks at some hundred, `make test-long` at twenty thousand. What fails is found by its seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, EncodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bisect_trt.errors import BisectError
from bisect_trt.isolation import native
from bisect_trt.model.load import load
from bisect_trt.nightly import config
from bisect_trt.reproducer import untrusted
from bisect_trt.session.journal import Journal
from bisect_trt.session.prepare import prepare
from bisect_trt.session.samples import read_samples
from bisect_trt.settings import RunSettings, Settings
from fuzz import walk

DAMAGE = 4  # changes of one example, at most
SHORT, LONG = 150, 20_000  # examples of each kind, models three times that
OURS = 70  # exit code of a bug of ours

Seed = st.integers(0, 2**32 - 1)


def examples(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@cache
def seeds() -> list[bytes]:
    return walk.corpus()


def survives(work: Callable[[], object]) -> None:
    """It answers, or raises an error of ours that is no bug."""
    try:
        work()
    except BisectError as error:
        assert error.exit_code != OURS, error
        assert error.message and "\n" not in error.message.split("\nhint")[0][:1]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which everything happens; beside it nothing may appear."""
    inside = tmp_path / "in" / "here"
    inside.mkdir(parents=True)
    (inside / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    yield inside
    assert [place.name for place in tmp_path.iterdir()] == ["in"]
    assert [place.name for place in (tmp_path / "in").iterdir()] == ["here"]


def model(seed: int) -> bytes:
    """A model of the corpus with up to `DAMAGE` changes in its fields, sometimes in its bytes."""
    random = Random(seed)
    proto = onnx.ModelProto.FromString(random.choice(seeds()))
    for _ in range(random.randrange(1, DAMAGE + 1)):
        walk.spoil_message(proto, random)
    try:
        data: bytes = proto.SerializeToString()
    except (EncodeError, ValueError):
        return b""
    return walk.spoil_bytes(data, random) if random.random() < 0.2 else data


def prepared(folder: Path, data: bytes) -> None:
    """All that happens to a model before a target or a reference sees it in a worker."""
    (folder / "m.onnx").write_bytes(data)
    loaded = load(folder / "m.onnx")
    prepare(loaded, read_samples(loaded, Settings()), folder / "work")


def models(count: int) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        @examples(count)
        @given(Seed)
        def one(seed: int) -> None:
            survives(lambda: prepared(folder, model(seed)))

        one()

    return run


def test_models(folder: Path) -> None:
    models(3 * SHORT)(folder)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_many_models(folder: Path) -> None:
    models(LONG)(folder)


@examples(SHORT)
@given(Seed)
def test_the_walk_changes_something_and_reads_back(seed: int) -> None:
    data = model(seed)
    try:
        onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    assert data not in seeds() or len(data) < 200  # a change may be undone by the next


def inputs(folder: Path, seed: int) -> None:
    random = Random(seed)
    whole = folder / "whole.npz"
    if not whole.exists():
        np.savez(whole, x=np.zeros((3, 4, 5), np.float32))
        ends = [onnx.helper.make_tensor_value_info(name, 1, [3, 4, 5]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", ends[:1], ends[1:])
        onnx.save(onnx.helper.make_model(graph), folder / "abs.onnx")
    suffix = random.choice([".npz", ".npy", ".json", ".pb"])
    (folder / f"i{suffix}").write_bytes(walk.spoil_bytes(whole.read_bytes(), random))
    given_inputs = Settings(run=RunSettings(inputs=folder / f"i{suffix}"))
    survives(lambda: read_samples(load(folder / "abs.onnx"), given_inputs))


def test_inputs(folder: Path) -> None:
    @examples(SHORT)
    @given(Seed)
    def one(seed: int) -> None:
        inputs(folder, seed)

    one()


REPORT = {
    "failure": {
        "stage": "build", "symptom": "error", "signature": "s", "message": "m", "nodes": ["n"], "op": "Relu"
    },
    "settings": {
        "target": {"spec": "planted:op=Relu", "workspace": 1 << 30, "shapes": [["x", [1, 2]]], "tf32": None},
        "run": {"timeout": 3.0, "seed": 0},
        "accuracy": {"custom_ops": []},
    },
    "compared": {"rtol": [["", 1e-3]], "metric": "max", "judge": "outputs", "reference": "ort"},
}  # fmt: skip


def test_reports(folder: Path) -> None:
    """What verify believes of a report; nothing is run."""
    (folder / "repro.onnx").write_bytes(walk.external().SerializeToString())

    @examples(SHORT)
    @given(Seed)
    def one(seed: int) -> None:
        random = Random(seed)
        report: Any = REPORT
        for _ in range(random.randrange(1, DAMAGE + 1)):
            report = walk.spoil_json(report, random)
        (folder / "report.json").write_text(json.dumps(report))

        def opened() -> None:
            found = untrusted.opened(folder, folder)[1]
            found.target(None)
            _ = (found.accuracy, found.wanted, found.timeout)

        survives(opened)

    one()


NIGHT = """
[models]
include = ["*.onnx"]
[budget]
total = "2h"
per_model = "20m"
[retention]
nights = 5
max_size = "2G"
[[target]]
spec = "emulate:fp16"
"""


def test_configurations(folder: Path) -> None:
    @examples(SHORT)
    @given(Seed)
    def one(seed: int) -> None:
        (folder / "n.toml").write_bytes(walk.spoil_bytes(NIGHT.encode(), Random(seed)))
        survives(lambda: config.load(folder / "n.toml"))

    one()


def test_journals(folder: Path) -> None:
    """A journal that was cut or spoiled is read as far as it is whole, or refused."""
    lines = [
        {"event": "run", "model": "d", "version": "1"},
        {"event": "probe", "key": "k", "nodes": ["a"], "count": 1},
        {"event": "verdict", "key": "k", "verdict": "vanishes", "failures": [], "seconds": 0.1, "facts": {}},
    ]

    @examples(SHORT)
    @given(Seed)
    def one(seed: int) -> None:
        random = Random(seed)
        spoiled = [walk.spoil_json(line, random) if random.random() < 0.4 else line for line in lines]
        data = "".join(json.dumps(line) + "\n" for line in spoiled).encode()
        place = folder / "journal.jsonl"
        place.write_bytes(walk.spoil_bytes(data, random) if random.random() < 0.5 else data)

        def read() -> None:
            head = Journal.header(place)
            with Journal.open(place, head or {}) as journal:
                journal.finished()
                journal.died()

        survives(read)

    one()


def test_onnx_is_never_asked_in_this_process() -> None:
    """What spoiled models do to onnx's native code they do to a process of its own."""
    assert not native._service.here
