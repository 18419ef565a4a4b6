"""Times on a real card, and beside them those of others: `python bench/card_profile.py OUT [PART...]`.

Parts; without a name the first two. OUT/profile.jsonl gets a line after every step, so a run that is cut
off keeps what it saw; OUT/*.txt is what was printed.
    compare     at most 100 s: a transformer (two layers, 256 wide, 8 heads, 128 tokens) and the light
                resnet50 of onnx, each in FP32, FP16 and TF32. One process, one builder. Every engine is
                built by the product, then timed in turns, twice each, by the product (`profiling.meter`, as
                `bisect-trt profile` does) and by a plain script with CUDA events that shares nothing with it
                but the engine (`Plain` below): launched kernel by kernel, and as a CUDA graph. Then
                IProfiler's layers. Lines with `result` have the ratios.
    polygraphy  at most 40 s: `polygraphy run` of both FP16 engines, which prints a mean of the host's time
    batches     at most 110 s: `bisect-trt profile` of the resnet50 with batches of 1 to 64 in FP16
    against     at most 110 s: `bisect-trt profile --against '--precision fp16'` of the transformer
    cuda        at most 80 s: ONNX Runtime's CUDA provider on both models, where it is installed
$TARGET is `tensorrt` unless it says otherwise, $LIMIT takes the place of these 110 s.
The resnet50 is built at $OPT_LEVEL (1), as six builds at
level 3 side by side took 150 s; what `compare` has not built after $LATE (55) seconds is built at level 0.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BT = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]
POLYGRAPHY = [sys.executable, "-c", "import sys; from polygraphy.tools import main; sys.exit(main())"]
TARGET = os.environ.get("TARGET", "tensorrt")
PRECISIONS = ("fp32", "fp16", "tf32")
LEVEL, LATE = int(os.environ.get("OPT_LEVEL", "1")), float(os.environ.get("LATE", "55"))
LIMIT = float(os.environ.get("LIMIT", "110"))
RUNS, WARM = 300, 50
WIDTH, HEADS, TOKENS = 256, 8, 128


def note(out: Path, **row: Any) -> None:
    """Keep a line, and print it."""
    with (out / "profile.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row)[:1500], flush=True)


def step(out: Path, name: str, words: Sequence[str | Path], limit: float) -> str:
    """Run a command in a group of its own, ended after `limit` seconds; gives what it printed."""
    began, code = time.monotonic(), None
    with (out / f"{name}.txt").open("w+") as told:
        process = subprocess.Popen(
            [str(w) for w in words],
            stdout=told,
            stderr=told,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        told.seek(0)
        text = told.read()
    note(out, step=name, seconds=round(time.monotonic() - began, 2), code=code)
    return text


def ours(out: Path, name: str, model: Path, words: Sequence[str], limit: float = 60) -> dict[str, Any]:
    """`bisect-trt profile`; gives its document."""
    place = out / f"{name}-profile"
    text = step(
        out,
        f"{name}-ours",
        [*BT, "profile", model, *words, "--out", place, "--force", "--precision-of-time", "1%", "--json"],
        limit,
    )
    try:
        found: dict[str, Any] = json.loads(text[text.index("{") :])
        points = found.get("points", [])
    except ValueError:
        note(out, name=name, tool="ours", error=text[-600:])
        return {}
    for point in points:
        times = point["times"] or {}
        note(
            out,
            name=name,
            tool="ours",
            size=point["size"],
            median_ms=_ms(times.get("median")),
            low_ms=_ms(times.get("low")),
            high_ms=_ms(times.get("high")),
            p99_ms=_ms(times.get("p99")),
            runs=times.get("runs"),
            error=point["error"],
        )
    layers = found.get("layers") or {}
    top = sorted(layers.get("layers", []), key=lambda layer: -layer["seconds"])[:5]
    note(
        out,
        name=name,
        tool="ours",
        build_seconds=found.get("build_seconds"),
        bytes=found.get("bytes"),
        cliffs=found.get("cliffs"),
        layers=[(layer["name"][:80], layer["nodes"][:4], _ms(layer["seconds"])) for layer in top],
        doubts=layers.get("doubts"),
        notes=found.get("notes"),
        error=found.get("error"),
    )
    return found


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 5)


def compare(out: Path) -> None:
    """All engines in a process of its own, which can be ended."""
    text = step(out, "compare", [sys.executable, __file__, "--engines", out], LIMIT - 10)
    print(text[-1500:], flush=True)


def engines(out: Path) -> None:
    """Build one engine after the other, and time each by both."""
    began = time.monotonic()
    for model, level in ((transformer(out), None), (resnet50(out), LEVEL)):
        for precision in PRECISIONS:
            late = time.monotonic() - began > LATE
            try:
                one_engine(out, model, precision, 0 if late else level)
            except Exception as error:  # the others go on
                note(out, name=f"{model.stem}-{precision}", error=repr(error))


def one_engine(out: Path, model: Path, precision: str, level: int | None) -> None:
    """Times of one engine by the product and by the plain script, its layers; then as a CUDA graph."""
    from bisect_trt.profiling.meter import Side
    from bisect_trt.session.prepare import load_for, prepare
    from bisect_trt.session.samples import read_samples
    from bisect_trt.settings import RunSettings, Settings, TargetSettings
    from bisect_trt.targets.tensorrt.timed import TimedEngine
    from bisect_trt.workers import stopwatch

    class Here(Side):
        """A side of the product whose worker is this process, so that its engine is at hand."""

        def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
            return function(*arguments)

    label = f"{model.stem}-{precision}"
    narrow = "fp16" if precision == "fp16" else ""
    target = TargetSettings(TARGET, tf32=precision == "tf32", precision=narrow, opt_level=level)
    loaded = load_for(model, Settings(target))
    session = prepare(loaded, read_samples(loaded, Settings(target)), out / f"{label}-work")
    feeds, here = session.feeds[0], Here(target, RunSettings(), out / f"{label}-logs")
    began = time.monotonic()
    told = here.open(session.original)
    until = round(time.monotonic() - began, 2)
    held = stopwatch._open[session.original.digest]
    assert isinstance(held.timed, TimedEngine)
    trt, cuda, engine = held.timed._trt, held.timed._cuda, held.timed._engine
    note(out, name=label, level=level, build=told.build_seconds, until_built=until, bytes=dict(told.bytes))
    (out / f"{label}.plan").write_bytes(bytes(engine.serialize()))
    both(out, label, here, feeds, trt, engine, graph=False)
    layers = here.layers(feeds, 20)
    assert layers is not None
    top = sorted(layers.layers, key=lambda layer: -layer.seconds)[:6]
    named = [(layer.name[:100], layer.op, layer.nodes[:6], _ms(layer.seconds)) for layer in top]
    nowhere = sum(not layer.nodes for layer in layers.layers)
    total = _ms(sum(layer.seconds for layer in layers.layers))
    note(out, result=label, iprofiler=len(layers.layers), without_node=nowhere, sum_ms=total,
         run_ms=_ms(layers.whole), top=named)  # fmt: skip
    content = session.original.model
    held.timed, held.fed = TimedEngine(trt, cuda, engine, content, told.build_seconds, True), None
    both(out, label, here, feeds, trt, engine, graph=True)


def both(out: Path, label: str, here: Any, feeds: Any, trt: Any, engine: Any, *, graph: bool) -> None:
    """Medians of either, in turns, twice."""
    from bisect_trt.profiling.meter import measured
    from bisect_trt.session.prober import Budget

    plain, ours, theirs = Plain(trt, engine, graph), [], []
    for _ in range(2):
        times = measured(here, feeds, 0.005, 1.0, Budget())
        ours.append(times.median * 1e3)
        theirs.append(statistics.median(plain.times()))
    name = f"{label}-graph" if graph else label
    ratio = statistics.mean(ours) / statistics.mean(theirs)
    told = {"ours_ms": ours, "events_ms": theirs, "ours_by_events": round(ratio, 4)}
    note(out, result=name, **told, last=times.to_json())


class Plain:
    """A plain script with CUDA events; times are milliseconds."""

    def __init__(self, trt: Any, engine: Any, graph: bool) -> None:
        """Give the engine inputs at random; `graph`: capture a run."""
        self.context, self.cuda, self.held = engine.create_execution_context(), _cudart(), []
        self.stream = ctypes.c_void_p()
        self.do("StreamCreate", ctypes.byref(self.stream))
        for k in range(engine.num_io_tensors):
            name = engine.get_tensor_name(k)
            shape = tuple(engine.get_tensor_shape(name))
            array, at = np.random.default_rng(0).standard_normal(shape).astype("f4"), ctypes.c_void_p()
            self.do("Malloc", ctypes.byref(at), ctypes.c_size_t(array.nbytes))
            self.do("Memcpy", at, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes), 1)
            self.context.set_tensor_address(name, at.value)
            self.held.append(array)
        self.launch()
        self.do("StreamSynchronize", self.stream)
        self.ready = ctypes.c_void_p()
        if graph:
            made = ctypes.c_void_p()
            self.do("StreamBeginCapture", self.stream, 0)
            self.launch()
            self.do("StreamEndCapture", self.stream, ctypes.byref(made))
            self.do("GraphInstantiateWithFlags", ctypes.byref(self.ready), made, ctypes.c_ulonglong(0))

    def do(self, name: str, *arguments: Any) -> None:
        """Call a function of the CUDA runtime."""
        status = getattr(self.cuda, f"cuda{name}")(*arguments)
        assert not status, (name, status)

    def launch(self) -> None:
        """Run once."""
        assert self.context.execute_async_v3(self.stream.value)

    def times(self) -> list[float]:
        """Milliseconds of RUNS runs after WARM others."""
        start, end, taken, found = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float(), []
        self.do("EventCreate", ctypes.byref(start))
        self.do("EventCreate", ctypes.byref(end))
        for _ in range(WARM + RUNS):
            self.do("EventRecord", start, self.stream)
            if self.ready:
                self.do("GraphLaunch", self.ready, self.stream)
            else:
                self.launch()
            self.do("EventRecord", end, self.stream)
            self.do("EventSynchronize", end)
            self.do("EventElapsedTime", ctypes.byref(taken), start, end)
            found.append(taken.value)
        return found[WARM:]


def _cudart() -> Any:
    """The CUDA runtime: the one that is loaded already, else whichever can be found."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    loaded = [line.split()[-1] for line in lines if "libcudart" in line]
    for name in (*dict.fromkeys(loaded), "libcudart.so.12", "libcudart.so.11.0", "libcudart.so"):
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise SystemExit("no CUDA runtime library")


def polygraphy(out: Path) -> None:
    """`polygraphy run` of the engines of `compare`: the mean that it prints, of the host's time."""
    known = step(out, "polygraphy-help", [*POLYGRAPHY, "run", "--help"], 20)
    one_by_one = ["--sequential-runners"] if "--sequential-runners" in known else []  # 0.53: for --warm-up
    for plan in sorted(out.glob("*-fp16.plan")):
        words = [*POLYGRAPHY, "run", plan, "--trt", "--model-type", "engine", *one_by_one]
        words += ["--warm-up", str(WARM)]
        text = step(out, f"{plan.stem}-polygraphy", [*words, "--iterations", str(RUNS)], 20)
        found = re.search(r"Average inference time:\s*([\d.]+)\s*ms", text)
        note(out, result=plan.stem, polygraphy_mean_ms=float(found[1]) if found else text[-300:])


# Models


def resnet50(out: Path, batch: int | str = 1) -> Path:
    """The light resnet50 of onnx, with a batch of any size where that is asked for."""
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    model = onnx.load(str(light))
    place = out / f"resnet50-{batch}.onnx"
    if isinstance(batch, str):
        for value in (*model.graph.input, *model.graph.output):
            if value.name not in {w.name for w in model.graph.initializer}:
                value.type.tensor_type.shape.dim[0].dim_param = batch
        del model.graph.value_info[:]
        for weight in model.graph.initializer:  # the shape in front of the classifier
            if weight.data_type == TensorProto.INT64 and list(weight.dims) == [2]:
                values = numpy_helper.to_array(weight)
                if values[0] == 1:
                    weight.CopyFrom(numpy_helper.from_array(np.array([0, values[1]]), weight.name))
    onnx.save(model, str(place))
    return place


def transformer(out: Path) -> Path:
    """Two layers of attention and a feed-forward part, seeded."""
    rng, nodes, weights = np.random.default_rng(0), [], []

    def weight(value: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(weights)}"))
        return weights[-1].name

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        names = [f"t{len(nodes)}"], f"{op}_{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), *names, **attributes))
        return str(nodes[-1].output[0])

    def dense(x: str, into: int, out: int) -> str:
        return node("MatMul", x, weight((rng.standard_normal((into, out)) * into**-0.5).astype("f4")))

    x = "x"
    for _ in range(2):
        split = weight(np.array([1, TOKENS, HEADS, WIDTH // HEADS]))
        q, k, v = (node("Reshape", dense(x, WIDTH, WIDTH), split) for _ in range(3))
        q, v = (node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        scores = node("MatMul", q, node("Transpose", k, perm=[0, 2, 3, 1]))
        mixed = node("MatMul", node("Softmax", node("Mul", scores, weight(np.float32(0.1))), axis=-1), v)
        whole = weight(np.array([1, TOKENS, WIDTH]))
        joined = node("Reshape", node("Transpose", mixed, perm=[0, 2, 1, 3]), whole)
        x = node("Add", x, dense(joined, WIDTH, WIDTH))
        x = node("Add", x, dense(node("Tanh", dense(x, WIDTH, 4 * WIDTH)), 4 * WIDTH, WIDTH))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, TOKENS, WIDTH]) for n in ("x", x)]
    graph = helper.make_graph(nodes, "transformer", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(out / "transformer.onnx"))
    return out / "transformer.onnx"


def batches(out: Path) -> None:
    """A range of batches on one engine."""
    model = resnet50(out, "batch")
    name = next(v.name for v in onnx.load(str(model)).graph.input if len(v.type.tensor_type.shape.dim) == 4)
    words = ["--target", TARGET, "--precision", "fp16", "--opt-level", str(LEVEL)]
    ours(out, "resnet50-batches", model, [*words, "--shapes", f"{name}:1..64x3x224x224"], LIMIT)


def against(out: Path) -> None:
    """FP32 against FP16, and the nodes that make the difference."""
    words = ["--target", TARGET, "--no-tf32", "--against", "--precision fp16"]
    found = ours(out, "transformer-against", transformer(out), words, LIMIT)
    note(out, result="against", **{k: found.get(k) for k in ("against", "finished", "stop_reason")})


def cuda(out: Path) -> None:
    """ONNX Runtime's CUDA provider, where it is there."""
    for name, model in (("resnet50", resnet50(out)), ("transformer", transformer(out))):
        ours(out, f"{name}-ort-cuda", model, ["--target", "ort:CUDA"], 40)


PARTS: dict[str, Callable[[Path], None]] = {
    "compare": compare,
    "polygraphy": polygraphy,
    "batches": batches,
    "against": against,
    "cuda": cuda,
}
FIRST = ("compare", "polygraphy")


def main() -> None:
    """See the text of the module."""
    if sys.argv[1] == "--engines":
        return engines(Path(sys.argv[2]))
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    for part in sys.argv[2:] or FIRST:
        began = time.monotonic()
        try:
            PARTS[part](out)
        except Exception as error:  # the rest goes on
            note(out, part=part, error=repr(error))
        note(out, part=part, seconds=round(time.monotonic() - began, 2))
    return None


if __name__ == "__main__":
    main()
