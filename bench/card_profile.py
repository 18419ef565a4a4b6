"""Times on a real card, and beside them those of others: `python bench/card_profile.py OUT [PART...]`.

Parts, each by itself; OUT/profile.jsonl gets a line for every step, OUT/*.txt what was printed:
    compare     light resnet50 of onnx and a transformer (two layers, 256 wide, 8 heads, 128 tokens), each in
                FP32, TF32 and FP16: `profiling.meter`, which `bisect-trt profile` measures with, and a plain
                script with CUDA events that shares no line with the product (this file, `--events`). The six
                engines are built side by side, and measured one after the other. Both take one timing
                cache, so both run the same tactics.
    batches     `bisect-trt profile` of the resnet50 with batches of 1 to 64 in FP16: cliffs, layers, pictures
    graphs      `bisect-trt profile --cuda-graph` of the transformer in FP16
    polygraphy  `polygraphy run` of both models in FP16, which prints a mean of the host's time
    cuda        ONNX Runtime's CUDA provider on both models, where it is installed
$TARGET is `tensorrt` unless it says otherwise.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BT = [sys.executable, "-c", "import sys; from bisect_trt.cli.app import main; sys.exit(main())"]
POLYGRAPHY = [sys.executable, "-c", "import sys; from polygraphy.tools import main; sys.exit(main())"]
TARGET = os.environ.get("TARGET", "tensorrt")
PRECISIONS = ("fp32", "tf32", "fp16")
RUNS, WARM = 500, 100
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
    """All precisions of both models: built side by side, then measured one after the other by either."""
    models = {"resnet50": resnet50(out), "transformer": transformer(out)}
    labels = [(f"{name}-{precision}", name, precision) for name in models for precision in PRECISIONS]
    sides: dict[str, Any] = {}
    with ThreadPoolExecutor(len(labels)) as threads:
        opening = {
            label: threads.submit(opened, out, label, models[name], precision)
            for label, name, precision in labels
        }
    for label, future in opening.items():
        try:
            sides[label] = future.result()
        except Exception as error:  # the others go on
            note(out, name=label, tool="ours", error=repr(error))
    times = {label: by_the_product(out, label, *side) for label, side in sides.items()}
    words = [f"{label}={models[name]}={precision}" for label, name, precision in labels if label in sides]
    text = step(out, "events", [sys.executable, __file__, "--events", out, *words], 120)
    plain = {label: float(ms) for label, ms in re.findall(r"(\S+) median_ms ([\d.]+)", text)}
    for label in sides:
        ours_ms, events_ms = times.get(label), plain.get(label)
        ratio = ours_ms / events_ms if ours_ms and events_ms else None
        note(out, result=label, ours_ms=ours_ms, events_ms=events_ms, ours_by_events=ratio)


def opened(out: Path, label: str, model: Path, precision: str) -> tuple[Any, Any]:
    """The model built in a worker of the product, and its inputs."""
    from bisect_trt.profiling.meter import Side
    from bisect_trt.session.prepare import load_for, prepare
    from bisect_trt.session.samples import read_samples
    from bisect_trt.settings import RunSettings, Settings, TargetSettings

    target = TargetSettings(
        TARGET,
        tf32=precision == "tf32",
        precision="fp16" if precision == "fp16" else "",
        timing_cache=out / f"{label}.cache",
    )
    loaded = load_for(model, Settings(target))
    session = prepare(loaded, read_samples(loaded, Settings(target)), out / f"{label}-work")
    side = Side(target, RunSettings(), out / f"{label}-logs")
    began = time.monotonic()
    told = side.open(session.original)
    seconds = round(time.monotonic() - began, 2)
    note(out, name=label, tool="ours", build=told.build_seconds, until_built=seconds, bytes=dict(told.bytes))
    return side, session.feeds[0]


def by_the_product(out: Path, label: str, side: Any, feeds: Any) -> float | None:
    """Median milliseconds, and the layers that take longest."""
    from bisect_trt.profiling.meter import measured
    from bisect_trt.session.prober import Budget

    try:
        times = measured(side, feeds, 0.005, 3.0, Budget())
        note(out, name=label, tool="ours", times=times.to_json())
        layers = side.layers(feeds, 20)
        top = sorted(layers.layers, key=lambda layer: -layer.seconds)[:6]
        told = [(layer.name[:100], layer.nodes[:6], _ms(layer.seconds)) for layer in top]
        total = sum(layer.seconds for layer in layers.layers)
        whole = _ms(layers.whole)
        note(out, name=label, layers=len(layers.layers), sum_ms=_ms(total), run_ms=whole, top=told)
        return float(times.median * 1e3)
    except Exception as error:  # the others go on
        note(out, name=label, tool="ours", error=repr(error))
        return None
    finally:
        side.close()


def polygraphy(out: Path) -> None:
    """`polygraphy run`: the mean that it prints, of the host's time."""
    for name, model in (("resnet50", resnet50(out)), ("transformer", transformer(out))):
        cache = out / f"{name}-fp16.cache"
        known = ["--load-timing-cache", cache] if cache.exists() else []
        words = [*POLYGRAPHY, "run", model, "--trt", "--fp16", *known, "--warm-up", str(WARM)]
        text = step(out, f"{name}-fp16-polygraphy", [*words, "--iterations", "100"], 90)
        found = re.search(r"Average inference time:\s*([\d.]+)\s*ms", text)
        note(out, result=f"{name}-fp16", polygraphy_mean_ms=float(found[1]) if found else text[-300:])


# A plain script with CUDA events


def events(out: str, *models: str) -> None:
    """Build each LABEL=MODEL=PRECISION, run and time it by CUDA events; prints milliseconds."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    for words in models:
        label, model, precision = words.split("=")
        try:
            builder.reset()
            engine = _built(trt, logger, builder, model, precision, Path(out, f"{label}.cache"))
            found = _timed(trt, engine)
            least, most = min(found), max(found)
            print(f"{label} median_ms {statistics.median(found)} least {least} largest {most}", flush=True)
        except Exception as error:  # the others go on
            print(label, repr(error), flush=True)


def _built(trt: Any, logger: Any, builder: Any, model: str, precision: str, cache: Path) -> Any:
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(model), parser.get_error(0).desc()
    config = builder.create_builder_config()
    (config.set_flag if precision == "tf32" else config.clear_flag)(trt.BuilderFlag.TF32)
    if precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    known = cache.read_bytes() if cache.exists() else b""
    config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=True)
    return trt.Runtime(logger).deserialize_cuda_engine(builder.build_serialized_network(network, config))


def _timed(trt: Any, engine: Any) -> list[float]:
    context, cuda = engine.create_execution_context(), _cudart()
    stream, held = ctypes.c_void_p(), []
    cuda.cudaStreamCreate(ctypes.byref(stream))
    for k in range(engine.num_io_tensors):
        name = engine.get_tensor_name(k)
        array = np.random.default_rng(0).standard_normal(tuple(engine.get_tensor_shape(name))).astype("f4")
        at = ctypes.c_void_p()
        assert not cuda.cudaMalloc(ctypes.byref(at), ctypes.c_size_t(array.nbytes))
        cuda.cudaMemcpy(at, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes), 1)
        context.set_tensor_address(name, at.value)
        held.append((array, at))
    start, end, taken = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
    cuda.cudaEventCreate(ctypes.byref(start))
    cuda.cudaEventCreate(ctypes.byref(end))
    found = []
    for _ in range(WARM + RUNS):
        cuda.cudaEventRecord(start, stream)
        assert context.execute_async_v3(stream.value)
        cuda.cudaEventRecord(end, stream)
        cuda.cudaEventSynchronize(end)
        assert not cuda.cudaEventElapsedTime(ctypes.byref(taken), start, end)
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
    words = ["--target", TARGET, "--precision", "fp16", "--shapes", f"{name}:1..64x3x224x224"]
    ours(out, "resnet50-batches", model, words, 100)


def cuda(out: Path) -> None:
    """ONNX Runtime's CUDA provider, where it is there."""
    for name, model in (("resnet50", resnet50(out)), ("transformer", transformer(out))):
        ours(out, f"{name}-ort-cuda", model, ["--target", "ort:CUDA"], 40)


def graphs(out: Path) -> None:
    """A CUDA graph of a small model, where launches cost most."""
    words = ["--target", TARGET, "--precision", "fp16", "--cuda-graph"]
    ours(out, "transformer-graph", transformer(out), words, 60)


PARTS: dict[str, Callable[[Path], None]] = {
    "compare": compare,
    "batches": batches,
    "graphs": graphs,
    "polygraphy": polygraphy,
    "cuda": cuda,
}


def main() -> None:
    """See the text of the module."""
    if sys.argv[1] == "--events":
        return events(*sys.argv[2:])
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    for part in sys.argv[2:] or list(PARTS):
        began = time.monotonic()
        try:
            PARTS[part](out)
        except Exception as error:  # the rest goes on
            note(out, part=part, error=repr(error))
        note(out, part=part, seconds=round(time.monotonic() - began, 2))
    return None


if __name__ == "__main__":
    main()
