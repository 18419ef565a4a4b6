"""What `precision` costs on large models: a Llama with RMSNorm, and a stack of LayerNorm and MatMul.

    python bench/big_precision.py KIND GIGABYTES FAULT OUT [--embedded]

KIND is `llama` or `stack`; FAULT is `overflow` (squares of a large stream) or `cancellation` (an offset that
is added and taken away). Weights are external data, or embedded in the one file. The command runs as a user
would start it; seconds, CPU seconds and the highest memory of its processes together are printed, and OUT
keeps its `precision.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
from big_models import Weights
from onnx import TensorProto, helper, numpy_helper

HEADS, LENGTH = 8, 8
FAULTS = ("overflow", "cancellation")
COMMAND = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]


class Maker:
    """Adds nodes one by one; large weights go to a file at once, so they are never all in memory."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width
        self.weights = Weights(path.with_suffix(".data"))
        self.small: list[TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def w(self, value: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.small)}"
        self.small.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def large(self, *shape: int) -> str:
        return self.weights.add(f"w{len(self.weights.tensors)}", *shape)

    def __call__(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def norm(self, x: str, *, centred: bool) -> str:
        x = self("Sub", x, self("ReduceMean", x, axes=[-1])) if centred else x
        mean = self("ReduceMean", self("Pow", x, self.w(2.0)), axes=[-1])
        normal = self("Div", x, self("Sqrt", self("Add", mean, self.w(1e-5))))
        return self("Mul", normal, self.w(np.ones(self.width)))

    def faulty(self, x: str, fault: str) -> str:
        if fault == "overflow":
            return self("Mul", x, self.w(700.0))
        return self("Sub", self("Add", x, self.w(4096.0)), self.w(4096.0))

    def save(self, y: str, *, embedded: bool) -> None:
        self.weights.file.close()
        graph = helper.make_graph(
            self.nodes,
            "large",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, LENGTH, self.width])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
            [*self.weights.tensors, *self.small],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if embedded:
            onnx.load_external_data_for_model(model, str(self.path.parent))
            self.weights.path.unlink()
        self.path.write_bytes(model.SerializeToString())


def llama(path: Path, gigabytes: float, fault: str, *, embedded: bool) -> None:
    """Decoder blocks of 16 width**2 weights each; the fault is in the middle."""
    m = Maker(path, 1024)
    n, size = m.width, m.width // HEADS
    layers = max(2, round(gigabytes * 1e9 / (64 * n**2)))
    split, join = m.w([1, LENGTH, HEADS, size], np.int64), m.w([1, LENGTH, n], np.int64)
    h = "x"
    for k in range(layers):
        h = m.faulty(h, fault) if k == layers // 2 else h
        t = m.norm(h, centred=False)
        q, key, v = (m("Reshape", m("MatMul", t, m.large(n, n)), split) for _ in range(3))
        q, v = (m("Transpose", s, perm=[0, 2, 1, 3]) for s in (q, v))
        scores = m("Mul", m("MatMul", q, m("Transpose", key, perm=[0, 2, 3, 1])), m.w(size**-0.5))
        mixed = m("Transpose", m("MatMul", m("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        h = m("Add", h, m("MatMul", m("Reshape", mixed, join), m.large(n, n)))
        t = m.norm(h, centred=False)
        gate = m("MatMul", t, m.large(n, 4 * n))
        up = m("Mul", m("Mul", gate, m("Sigmoid", gate)), m("MatMul", t, m.large(n, 4 * n)))
        h = m("Add", h, m("MatMul", up, m.large(4 * n, n)))
    m.save(m("Mul", m("MatMul", m.norm(h, centred=False), m.large(n, 64)), m.w(0.05)), embedded=embedded)


def stack(path: Path, gigabytes: float, fault: str, *, embedded: bool) -> None:
    """A few layers of LayerNorm and one huge product each; the fault is in the middle."""
    m = Maker(path, 4096)
    layers = max(2, round(gigabytes * 1e9 / (4 * m.width**2)))
    h = "x"
    for k in range(layers):
        h = m.faulty(h, fault) if k == layers // 2 else h
        h = m("Add", h, m("Relu", m("MatMul", m.norm(h, centred=True), m.large(m.width, m.width))))
    m.save(m("Mul", m.norm(h, centred=True), m.w(0.05)), embedded=embedded)


class Watch:
    """The highest memory of a process and its children, in bytes, and their CPU seconds.

    `all` counts mapped files, too, pages that several share once; `own` is what is in no file.
    """

    def __init__(self) -> None:
        self.all = self.own = 0
        self._cpu: dict[int, float] = {}

    def look(self, process: psutil.Process) -> None:
        total, own = 0, 0
        for one in (process, *process.children(recursive=True)):
            try:
                memory, times = one.memory_full_info(), one.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            total += memory.pss
            own += memory.rss - memory.shared
            self._cpu[one.pid] = times.user + times.system
        self.all, self.own = max(self.all, total), max(self.own, own)

    @property
    def cpu(self) -> float:
        return sum(self._cpu.values())


def measured(command: list[str], told: Path) -> tuple[int, float, Watch]:
    """Exit code, seconds, and what was seen meanwhile."""
    began, watch = time.monotonic(), Watch()
    with told.open("w") as file:
        running = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        process = psutil.Process(running.pid)
        while running.poll() is None:
            watch.look(process)
            time.sleep(0.3)
    return running.returncode, time.monotonic() - began, watch


def main() -> None:
    """See the text of the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("llama", "stack"))
    parser.add_argument("gigabytes", type=float)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--embedded", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.out) as place:
        model, values, folder = (Path(place) / name for name in ("m.onnx", "i.npz", "found"))
        make = {"llama": llama, "stack": stack}[given.kind]
        make(model, given.gigabytes, given.fault, embedded=given.embedded)
        width = 1024 if given.kind == "llama" else 4096
        feeds = np.random.default_rng(1).standard_normal((1, LENGTH, width), np.float32)
        np.savez(values, x=feeds)
        words = ["precision", str(model), "--inputs", str(values), "--rtol", "1e-2", "--atol", "1e-3"]
        told = given.out / "told.txt"
        size = sum(file.stat().st_size for file in Path(place).iterdir())
        code, seconds, watch = measured([*COMMAND, *words, "--out", str(folder)], told)
        shutil.copy(folder / "precision.json", given.out)
    found = json.loads((given.out / "precision.json").read_text())
    row = {key: found[key] for key in ("float_nodes", "keep", "one_minimal", "verified", "evaluations")}
    row |= {"code": code, "seconds": round(seconds), "cpu_seconds": round(watch.cpu), "bytes": size}
    row |= {"most_memory": watch.all, "most_memory_in_no_file": watch.own}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
