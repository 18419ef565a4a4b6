"""Memory of the tool's own process is bounded, whatever the model is: see docs/architecture.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import model, tensor_type

ENDS = [tensor_type("x", [4]), tensor_type("y", [4])]
MEASURE = """
import json, sys
from pathlib import Path
import psutil
from bisect_trt.reduction.reduce import reduce
from bisect_trt.session.check import check
from bisect_trt.settings import RunSettings, Settings, TargetSettings
job, place, spec, out = sys.argv[1:]
before = psutil.Process().memory_info().rss
settings = Settings(TargetSettings(spec), RunSettings(timeout=300))
if job == "check":
    said = [failure.message[:40] for failure in check(Path(place), settings).outcome.failures]
else:
    said = list(reduce(Path(place), settings, out=Path(out)).nodes)
# ru_maxrss would also hold what the process that started this one had before its exec.
lines = Path("/proc/self/status").read_text().splitlines()
peak = int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) << 10
print(json.dumps([said, peak - before]))
"""


def grown(job: str, place: Path, spec: str, folder: Path) -> tuple[list[str], int]:
    """What was said, and the bytes by which the process grew at most."""
    command = [sys.executable, "-c", MEASURE, job, str(place), spec, str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, size = json.loads(done.stdout)
    return said, size


def test_a_message_of_100_megabytes(tmp_path: Path) -> None:
    script = tmp_path / "prints.sh"
    script.write_text("#!/bin/sh\nhead -c 100000000 /dev/zero | tr '\\0' a >&2\nexit 1\n")
    script.chmod(0o755)
    onnx.save(model([helper.make_node("Relu", ["x"], ["y"])], ENDS[:1], ENDS[1:]), tmp_path / "m.onnx")
    said, size = grown("check", tmp_path / "m.onnx", f"command:{script} {{model}}", tmp_path)
    assert said == ["a" * 40] and size < 50e6, (said, size)


def long_chain(place: Path, count: int) -> Path:
    """Add and Mul in turn, with one Erf."""
    nodes, weights = [], []
    for k in range(count):
        ends = [f"t{k}" if k else "x"], [f"t{k + 1}" if k < count - 1 else "y"]
        if k == count * 3 // 5:
            nodes.append(helper.make_node("Erf", *ends, "culprit"))
            continue
        weights.append(numpy_helper.from_array(np.float32([k % 7]), f"w{k}"))
        nodes.append(helper.make_node("Add" if k % 2 else "Mul", [*ends[0], f"w{k}"], ends[1], f"n{k}"))
    onnx.save(model(nodes, ENDS[:1], ENDS[1:], weights), place)
    return place


@pytest.mark.long
@pytest.mark.parametrize("job", ["check", "reduce"])
def test_ten_thousand_nodes(job: str, tmp_path: Path) -> None:
    said, size = grown(job, long_chain(tmp_path / "m.onnx", 10_000), "planted:op=Erf", tmp_path)
    assert said == (["planted error of op Erf"] if job == "check" else ["culprit"])
    assert size < 150e6, size


@pytest.mark.long
def test_a_file_of_two_gigabytes(tmp_path: Path) -> None:
    """Its weight is a hole in the file: only its length counts."""
    place = sparse(tmp_path / "m.onnx", 500_000_000)
    assert place.stat().st_size > 2_000_000_000
    said, size = grown("check", place, "planted:op=Erf", tmp_path)
    assert said == ["planted error of op Erf"] and size < 150e6, (said, size)


def sparse(place: Path, count: int) -> Path:
    """A model with a weight of `count` floats whose bytes were never written: a hole in the file."""
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["g"]),
        helper.make_node("Erf", ["x"], ["e"]),
        helper.make_node("Add", ["e", "g"], ["y"]),
    ]
    proto = model(nodes, ENDS[:1], ENDS[1:], [numpy_helper.from_array(np.int64([1, 2, 3, 4]), "i")])
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[count]).SerializeToString()
    raw = field(9, 4 * count)
    inner = field(5, len(tensor) + len(raw) + 4 * count)
    whole = len(graph) + len(inner) + len(tensor) + len(raw) + 4 * count
    head = proto.SerializeToString() + field(7, whole) + graph + inner + tensor + raw
    with place.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 4 * count)
    return place


def field(number: int, length: int) -> bytes:
    """The head of a field of bytes in a protobuf message."""
    out, left = bytearray([number << 3 | 2]), length
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    return bytes([*out, left])
