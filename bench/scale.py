"""`make bench-scale`: what large models cost, measured in fresh processes and written to bench/SCALE.md."""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import psutil
from big_models import transformer

from bisect_trt import reduce
from bisect_trt.model.cutting.cutter import Cutter
from bisect_trt.model.graph import Graph
from bisect_trt.model.load import load
from bisect_trt.model.normalise import normalise
from bisect_trt.model.store import Store
from bisect_trt.references.base import Record, Tensor
from bisect_trt.results import Step
from bisect_trt.settings import RunSettings, Settings, TargetSettings

PAGE = Path(__file__).parent / "SCALE.md"
MB = 1 << 20
Row = tuple[str, str, str]
"""What, measured, wanted."""


def forget_peak() -> None:
    """Begin a new measurement of the highest resident size."""
    Path("/proc/self/clear_refs").write_text("5")


def rss() -> float:
    """Highest resident size of this process since `forget_peak`, in MB."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def opened(path: Path, folder: Path) -> tuple[Graph, Store]:
    loaded = load(path)
    proto = normalise(loaded.proto)
    del loaded
    store = Store(folder / "work")
    store.adopt(proto, path.parent, model_file=path.name)
    return Graph(proto), store


def recorded(graph: Graph, store: Store, array: np.ndarray) -> Record:
    """As if each tensor had been recorded, with the same value: cutting looks at files only."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    one = Tensor(kind, (array.shape,), (store.put("any", array).name,))
    return Record(store.folder, 1, dict.fromkeys((*graph.graph_inputs, *graph.producer), one))


def index(nodes: int, weight_bytes: int, folder: Path) -> list[Row]:
    path = folder / "m.onnx"
    making = [sys.executable, Path(__file__).parent / "big_models.py", path, str(nodes), str(weight_bytes)]
    subprocess.run(making, check=True)  # elsewhere: its memory must not count
    gc.collect()
    forget_peak()
    size, before = path.stat().st_size / MB, rss()
    began = time.process_time()
    graph, store = opened(path, folder)
    seconds = time.process_time() - began
    peak = rss() - before
    label = f"{nodes:,} nodes, file of {size:,.0f} MB"
    most = "3 s" if nodes <= 10_000 else "works"
    held = f"{peak / size:.1f} x the file ({peak:.0f} MB)"
    rows = [(f"{label}: load, check, normalise, index (CPU)", f"{seconds:.2f} s", most)]
    rows.append((f"{label}: memory beyond the interpreter", held, "3 x"))
    return rows + cuts(graph, store, label)


def cuts(graph: Graph, store: Store, label: str) -> list[Row]:
    cutter = Cutter(graph, store, recorded(graph, store, np.zeros((1, 64), np.float32)))
    rng, order = random.Random(0), graph.order
    cutter.cut(frozenset(order))  # pieces are serialised once
    worst = {}
    for size in (1, len(order) // 100, len(order) // 2, len(order)):
        times = []
        for _ in range(9):
            start = rng.randrange(len(order) - size + 1)
            part = frozenset(order[start : start + size])
            began = time.process_time()
            cutter.cut(part)
            times.append(1000 * (time.process_time() - began))
        worst[size] = sorted(times)[len(times) // 2]
    told = ", ".join(f"{n:,}: {ms:.1f}" for n, ms in worst.items())
    return [(f"{label}: CPU of a cut, by nodes, in ms", told, "30 ms" if len(order) <= 10_000 else "works")]


def big_transformer(folder: Path, layers: int, width: int, what: str) -> list[Row]:
    path = transformer(folder / "m.onnx", layers, width)
    gc.collect()
    forget_peak()
    data = path.with_suffix(".data").stat().st_size
    label = f"transformer, {layers} layers, {data / 1e9:.2f} GB external"
    out, inode, held = folder / "out", path.with_suffix(".data").stat().st_ino, list[int]()
    spent: list[tuple[float, float, int]] = []

    def watch(step: Step) -> None:
        """Bytes in the folder after each step of the search; links to the weights are no copies."""
        if step.probes and step.phase in ("localise", "drop"):
            spent.append((time.perf_counter(), step.target_seconds, step.probes))
            files = [file.stat() for file in out.rglob("*") if file.is_file()]
            held.append(sum(file.st_size for file in files if file.st_ino != inode))

    began = time.perf_counter()
    settings = Settings(TargetSettings(what), RunSettings(repeats=1, simplify=False))
    result = reduce(path, settings, out=out, on_event=watch)
    seconds = time.perf_counter() - began
    counts = result.counts
    (start, before, first), (end_at, after, last) = spent[0], spent[-1]
    beyond = 1000 * (end_at - start - (after - before)) / max(1, last - first)
    kept = max(held[-1] - held[0], 0) / max(1, int(counts["probes"]))
    found = ", ".join(result.best.nodes)
    end = f"{result.original_nodes} to {found}, {seconds:.0f} s"
    cost = f"{counts['probes']}, {beyond:.0f} ms"
    return [
        (f"{label}, {what}: reduced end to end", end, "layer31"),
        (f"{label}: probes, and time of one beyond the target", cost, "100 ms"),
        (f"{label}: written for a probe by the tool", f"{kept / 1e3:.0f} kB", "1 MB"),
        (f"{label}: peak memory of the tool", f"{rss():.0f} MB", "400 MB"),
    ]


def one_file(folder: Path, nodes: int, weight_bytes: int) -> list[Row]:
    """A single file close to the 2 GB that protobuf ends at."""
    path = folder / "m.onnx"
    making = [sys.executable, Path(__file__).parent / "big_models.py", path, str(nodes), str(weight_bytes)]
    subprocess.run(making, check=True)
    forget_peak()
    began = time.perf_counter()
    settings = Settings(TargetSettings("planted:node=add99,fail=error,stage=build"), RunSettings(repeats=1))
    result = reduce(path, settings, out=folder / "out")
    seconds = time.perf_counter() - began
    label = f"single file of {path.stat().st_size / 1e9:.2f} GB"
    return [
        (f"{label}: reduced end to end", f"{result.best.nodes[0]}, {seconds:.0f} s", "works"),
        (f"{label}: peak memory of the tool", f"{rss():.0f} MB", "3 x"),
    ]


def shared(folder: Path) -> list[Row]:
    """Weights are linked, never copied, and a candidate carries none of them."""
    path = transformer(folder / "m.onnx", 4, 512)
    graph, store = opened(path, folder)
    data = path.with_suffix(".data")
    linked = [file for file in store.folder.iterdir() if file.stat().st_ino == data.stat().st_ino]
    copied = sum(f.stat().st_size for f in store.folder.iterdir() if f not in linked)
    cutter = Cutter(graph, store, recorded(graph, store, np.zeros((1, 16), np.int64)))
    both = cutter.cut(frozenset({"embed", "head/tied"}))
    tensors = onnx.load_model_from_string(both.model).graph.initializer
    assert [t.name for t in tensors] == ["embedding"]
    return [
        ("tied embedding cut with both users: copies, bytes of the model", f"1, {len(both.model)}", "1"),
        ("one external file of many tensors: bytes copied (small weights)", f"{copied}", "4096"),
    ]


CASES: dict[str, Callable[[Path], list[Row]]] = {
    "10k": lambda folder: index(10_000, 200 * MB, folder),
    "100k": lambda folder: index(100_000, 400 * MB, folder),
    "2GB": lambda folder: one_file(folder, 400, 1_900 * MB),
    "shared": shared,
    "build": lambda f: big_transformer(f, 48, 832, "planted:node=layer31/softmax,fail=error,stage=build"),
    "mismatch": lambda f: big_transformer(f, 48, 832, "planted:node=layer31/softmax,fail=mismatch"),
    "3GB": lambda f: big_transformer(f, 48, 1152, "planted:node=layer31/act,fail=error,stage=build"),
}


def main(names: list[str]) -> None:
    rows: list[Row] = []
    for name in names or list(CASES):
        print(f"{name} ...", flush=True)
        child = [sys.executable, __file__, "--child", name]
        done = subprocess.run(child, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            rows.append((name, f"failed with exit code {done.returncode}", "works"))
            continue
        rows += [tuple(row) for row in json.loads(done.stdout.splitlines()[-1])]
    text = [f"# Scale\n\nMeasured by `make bench-scale` on {platform.machine()}, {os.cpu_count()} cores, "
            f"{psutil.virtual_memory().total / 2**30:.0f} GB.\n"]
    text += ["| what | measured | at most |", "|---|---|---|"]
    text += [f"| {what} | {measured} | {wanted} |" for what, measured, wanted in rows]
    page = "\n".join(text) + "\n"
    print(page)
    if not names:
        PAGE.write_text(page)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        with tempfile.TemporaryDirectory(prefix="bisect-trt-scale-") as place:
            print(json.dumps(CASES[sys.argv[2]](Path(place))))
    else:
        main(sys.argv[1:])
