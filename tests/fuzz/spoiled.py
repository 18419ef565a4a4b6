"""Spoiled models, inputs, reports, configurations and journals, made from a seed for what reads them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from bisect_trt.model.load import load
from bisect_trt.nightly import config
from bisect_trt.reproducer import untrusted
from bisect_trt.session.journal import Journal
from bisect_trt.session.prepare import prepare
from bisect_trt.session.samples import read_samples
from bisect_trt.settings import RunSettings, Settings
from fuzz import walk

DAMAGE = 4  # changes of one example, at most
MODEL = "m.onnx"

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

LINES = [
    {"event": "run", "model": "d", "version": "1"},
    {"event": "probe", "key": "k", "nodes": ["a"], "count": 1},
    {"event": "verdict", "key": "k", "verdict": "vanishes", "failures": [], "seconds": 0.1, "facts": {}},
]


@cache
def seeds() -> list[bytes]:
    """The seed corpus: small sound models."""
    return walk.corpus()


def begin(folder: Path) -> None:
    """Write what spoiled files refer to: a weight, a sound model with its inputs, a reproducer's model."""
    seeds()
    (folder / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    np.savez(folder / "whole.npz", x=np.zeros((3, 4, 5), np.float32))
    ends = [onnx.helper.make_tensor_value_info(name, 1, [3, 4, 5]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph), folder / "abs.onnx")
    (folder / "repro.onnx").write_bytes(walk.external().SerializeToString())


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


def prepared(folder: Path, seed: int) -> None:
    """All that happens to a model before a target or a reference sees it in a worker."""
    (folder / MODEL).write_bytes(model(seed))
    loaded = load(folder / MODEL)
    prepare(loaded, read_samples(loaded, Settings()), folder / "work")


def inputs(folder: Path, seed: int) -> None:
    """Files with input values."""
    random = Random(seed)
    place = folder / f"i{random.choice(['.npz', '.npy', '.json', '.pb'])}"
    place.write_bytes(walk.spoil_bytes((folder / "whole.npz").read_bytes(), random))
    read_samples(load(folder / "abs.onnx"), Settings(run=RunSettings(inputs=place)))


def report(folder: Path, seed: int) -> None:
    """What verify believes of a report; nothing is run."""
    random = Random(seed)
    data: Any = REPORT
    for _ in range(random.randrange(1, DAMAGE + 1)):
        data = walk.spoil_json(data, random)
    (folder / "report.json").write_text(json.dumps(data))
    found = untrusted.opened(folder, folder)[1]
    found.target(None)
    _ = (found.accuracy, found.wanted, found.timeout)


def configuration(folder: Path, seed: int) -> None:
    """The configuration of a night."""
    (folder / "n.toml").write_bytes(walk.spoil_bytes(NIGHT.encode(), Random(seed)))
    config.load(folder / "n.toml")


def journal(folder: Path, seed: int) -> None:
    """A journal that was cut or spoiled is read as far as it is whole, or refused."""
    random = Random(seed)
    lines = [walk.spoil_json(line, random) if random.random() < 0.4 else line for line in LINES]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    place = folder / "journal.jsonl"
    place.write_bytes(walk.spoil_bytes(data, random) if random.random() < 0.5 else data)
    head = Journal.header(place)
    with Journal.open(place, head or {}) as opened:
        opened.finished()
        opened.deaths("key")
