"""Is each row of a batch answered alike? One JSON line for each engine in OUT/batch.jsonl.

    python bench/card_batch.py OUT [--sizes] [--target tensorrt] [--workers 4] [--seconds N]

Every row of the input is the same, so every row of the output should be. Some fifty operators, a small batch
and one beyond 65,535 rows (a limit of CUDA's grid), in FP32, TF32 and FP16, optimisation level 0. With
`--sizes` all rows differ, and each is held against what ONNX Runtime gives for it: is what is right for one
row right for 8, 64 and 4,097?
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "gpu"))

from failing_models import Net  # noqa: E402

from bisect_trt.model.candidate import Candidate  # noqa: E402
from bisect_trt.model.store import Store  # noqa: E402
from bisect_trt.outcome import Outcome  # noqa: E402
from bisect_trt.settings import AccuracySettings, TargetSettings  # noqa: E402
from bisect_trt.workers import jobs  # noqa: E402
from bisect_trt.workers.comparing import GIVEN, RIGHT  # noqa: E402
from bisect_trt.workers.pool import Pool  # noqa: E402

BATCHES, SIZES = (33, 70_001), (1, 8, 64, 4_097)
KINDS: dict[str, dict[str, Any]] = {
    "fp32": {"tf32": False},
    "tf32": {},
    "fp16": {"tf32": False, "precision": "fp16"},
}
ROW = (4, 4, 4)  # channels, height and width of one row
LIMIT = 60.0  # seconds for one engine


def _flat(net: Net, x: str, width: int = 64) -> str:
    return net.node("Reshape", x, net.const([-1, width], np.int64))


def _recurrent(net: Net, op: str, x: str) -> str:
    """Batch second, as ONNX has it; eight steps of eight values."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    steps = net.node("Transpose", net.node("Reshape", x, net.const([-1, 8, 8], np.int64)), perm=[1, 0, 2])
    y = net.node(op, steps, net.random(1, gates * 8, 8, scale=0.3), net.random(1, gates * 8, 8, scale=0.3),
                 hidden_size=8)  # fmt: skip
    return net.node("Transpose", y, perm=[2, 0, 1, 3])


def _attention(net: Net, x: str) -> str:
    tokens = net.node("Reshape", x, net.const([-1, 8, 8], np.int64))
    q, k, v = (net.node("MatMul", tokens, net.random(8, 8, scale=0.35)) for _ in range(3))
    scores = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 2, 1]))
    return net.node("MatMul", net.node("Softmax", scores, axis=-1), v)


def _norm(net: Net, x: str) -> str:
    y = _flat(net, x)
    off = net.node("Sub", y, net.node("ReduceMean", y, axes=[1], keepdims=1))
    spread = net.node("ReduceMean", net.node("Mul", off, off), axes=[1], keepdims=1)
    return net.node("Div", off, net.node("Sqrt", net.node("Add", spread, net.const(1e-5))))


def _ints(net: Net, *values: int) -> str:
    return net.const(list(values), np.int64)


def _resized(net: Net, x: str, **how: str) -> str:
    return net.node("Resize", x, "", net.const([1, 1, 2, 2]), **how)


def _quantised(net: Net, x: str) -> str:
    scale, zero = net.const(0.05), net.const(0, np.int8)
    y = net.node("DequantizeLinear", net.node("QuantizeLinear", x, scale, zero), scale, zero)
    w = net.node("DequantizeLinear", net.const(np.arange(-72, 72).reshape(4, 4, 3, 3), np.int8), scale, zero)
    return net.node("Conv", y, w, pads=[1, 1, 1, 1])


def _picked(net: Net, x: str) -> str:
    near = net.node("Clip", net.node("Abs", _flat(net, x)), net.const(0), net.const(3))
    return net.node("GatherElements", _flat(net, x), net.node("Cast", near, to=7), axis=1)


def _best(net: Net, x: str) -> str:
    net.nodes.append(
        helper.make_node("TopK", [_flat(net, x), _ints(net, 5)], ["best", "places"], "topk", axis=1)
    )
    return net.node("Neg", "best")


OPERATORS: dict[str, Callable[[Net, str], str]] = {
    "MatMul": lambda n, x: n.node("MatMul", _flat(n, x), n.random(64, 64, scale=0.125)),
    "Gemm": lambda n, x: n.node("Gemm", _flat(n, x), n.random(64, 7, scale=0.125), n.random(7)),
    "three layers": lambda n, x: n.layers(_flat(n, x), 64, 3),
    "Conv 1": lambda n, x: n.node("Conv", x, n.random(8, 4, 1, 1)),
    "Conv 3": lambda n, x: n.node("Conv", x, n.random(8, 4, 3, 3), pads=[1, 1, 1, 1]),
    "Conv 3, stride 2": lambda n, x: n.node("Conv", x, n.random(8, 4, 3, 3), strides=[2, 2]),
    "Conv in groups": lambda n, x: n.node("Conv", x, n.random(4, 1, 3, 3), pads=[1, 1, 1, 1], group=4),
    "Conv 1-D": lambda n, x: n.node("Conv", n.node("Reshape", x, _ints(n, -1, 4, 16)), n.random(8, 4, 3)),
    "ConvTranspose": lambda n, x: n.node("ConvTranspose", x, n.random(4, 4, 2, 2), strides=[2, 2]),
    "Conv and Add": lambda n, x: n.node("Relu", n.node("Add", x, n.node("Conv", x, n.random(4, 4, 1, 1)))),
    "Conv, int8": _quantised,
    "MaxPool": lambda n, x: n.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "AveragePool": lambda n, x: n.node("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "GlobalAveragePool": lambda n, x: n.node("GlobalAveragePool", x),
    "GlobalMaxPool": lambda n, x: n.node("GlobalMaxPool", x),
    "LRN": lambda n, x: n.node("LRN", x, size=3),
    "Softmax, rows": lambda n, x: n.node("Softmax", _flat(n, x), axis=1),
    "Softmax, channels": lambda n, x: n.node("Softmax", x, axis=1),
    "LogSoftmax": lambda n, x: n.node("LogSoftmax", x, axis=3),
    "norm in pieces": _norm,
    "LayerNormalization": lambda n, x: n.node("LayerNormalization", _flat(n, x), n.random(64), n.random(64)),
    "InstanceNormalization": lambda n, x: n.node("InstanceNormalization", x, n.random(4), n.random(4)),
    "BatchNormalization": lambda n, x: n.node(
        "BatchNormalization", x, n.random(4), n.random(4), n.random(4), n.const([1, 2, 3, 4])
    ),
    "ReduceMean": lambda n, x: n.node("ReduceMean", x, axes=[2, 3], keepdims=1),
    "ReduceMax": lambda n, x: n.node("ReduceMax", x, axes=[1], keepdims=1),
    "ReduceSum": lambda n, x: n.node("ReduceSum", _flat(n, x), _ints(n, 1), keepdims=1),
    "ReduceL2": lambda n, x: n.node("ReduceL2", x, axes=[1, 2, 3], keepdims=1),
    "ReduceProd": lambda n, x: n.node("ReduceProd", x, axes=[3], keepdims=1),
    "ArgMax": lambda n, x: n.node("Cast", n.node("ArgMax", _flat(n, x), axis=1), to=1),
    "TopK": _best,
    "CumSum": lambda n, x: n.node("CumSum", _flat(n, x), n.const(1, np.int32)),
    "Transpose": lambda n, x: n.node("Transpose", x, perm=[0, 2, 3, 1]),
    "Slice": lambda n, x: n.node("Slice", x, _ints(n, 1), _ints(n, 3), _ints(n, 2)),
    "Slice, backwards": lambda n, x: n.node("Slice", x, _ints(n, -1), _ints(n, 0), _ints(n, 3), _ints(n, -1)),
    "Pad": lambda n, x: n.node("Pad", x, _ints(n, 0, 0, 1, 1, 0, 0, 1, 2)),
    "Pad, reflect": lambda n, x: n.node("Pad", x, _ints(n, 0, 0, 1, 1, 0, 0, 1, 2), mode="reflect"),
    "Concat": lambda n, x: n.node("Concat", x, n.node("Tanh", x), axis=1),
    "Resize, nearest": lambda n, x: _resized(n, x, mode="nearest"),
    "Resize, linear": lambda n, x: _resized(n, x, mode="linear"),
    "Resize, cubic": lambda n, x: _resized(n, x, mode="cubic"),
    "Gather": lambda n, x: n.node("Gather", x, _ints(n, 2, 0, 3), axis=1),
    "GatherElements": _picked,
    "Einsum": lambda n, x: n.node("Einsum", _flat(n, x), n.random(64, 16), equation="bi,ij->bj"),
    "Einsum, by row": lambda n, x: n.node("Einsum", x, x, equation="bchw,bdhw->bcd"),
    "LSTM": lambda n, x: _recurrent(n, "LSTM", x),
    "GRU": lambda n, x: _recurrent(n, "GRU", x),
    "RNN": lambda n, x: _recurrent(n, "RNN", x),
    "attention": _attention,
    "DepthToSpace": lambda n, x: n.node("DepthToSpace", x, blocksize=2),
    "Tile": lambda n, x: n.node("Tile", x, _ints(n, 1, 2, 1, 1)),
    "Where": lambda n, x: n.node("Where", n.node("Greater", x, n.const(0)), x, n.node("Exp", x)),
    "Erf": lambda n, x: n.node("Erf", x),
    "HardSwish": lambda n, x: n.node("HardSwish", x),
    "PRelu": lambda n, x: n.node("PRelu", x, n.random(4, 1, 1)),
    "Mod": lambda n, x: n.node("Mod", x, n.const(0.3), fmod=1),
}  # fmt: skip


def candidate(name: str, batch: int, folder: Path, *, sizes: bool) -> Candidate:
    """A model of one operator, whose input has the same row again and again; or other ones with `sizes`."""
    net = Net(opset=17)
    rows = np.random.default_rng(3).standard_normal((batch, *ROW)).astype(np.float32)
    x = net.input("x", rows if sizes else np.repeat(rows[:1], batch, axis=0))
    model = net.model(OPERATORS[name](net, net.node("Neg", x)), [])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": Store(folder).put("x", net.values["x"])}
    return Candidate(model.SerializeToString(), folder, tuple(n.name for n in model.graph.node), (feeds,))


def told(folder: Path, outcome: Outcome, *, sizes: bool) -> dict[str, Any]:
    """How far the rows of the output are from the first one, or from those that ONNX Runtime gives."""
    if not (folder / GIVEN).exists():
        return {"result": "no output", "says": outcome.failures[0].message[:200] if outcome.failures else ""}
    y, right = (next(iter(np.load(folder / side).values())).astype(np.float64) for side in (GIVEN, RIGHT))
    if right.shape != y.shape:
        return {"result": "another shape", "shape": list(y.shape)}
    limit = 1e-4 * float(np.abs(right).max()) if sizes else 0.0
    off = np.abs(y - (right if sizes else y[:1])).reshape(len(y), -1).max(axis=1)
    finite = bool(np.isfinite(y).all())
    rows = np.flatnonzero(~(off <= limit))
    return {
        "result": "alike" if not len(rows) else "rows differ", "shape": list(y.shape), "finite": finite,
        "rows": len(rows), "first": int(rows[0]) if len(rows) else None,
        "most": float(np.nanmax(off)), "of": float(np.nanmax(np.abs(y))),
    }  # fmt: skip


def main() -> None:
    """Sweep and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", default="tensorrt")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1e9, help="no engine begins after so many")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    base = TargetSettings(spec=given.target, opt_level=0)
    with (
        tempfile.TemporaryDirectory() as scratch,
        (given.out / "batch.jsonl").open("w") as lines,
        Pool(given.workers, log_dir=Path(scratch) / "logs", warm=jobs.warm_job(base)) as pool,
    ):
        tasks: list[tuple[str, int, str, Path, Any]] = []
        for batch in SIZES if given.sizes else BATCHES:
            for name in OPERATORS:
                for kind, options in KINDS.items():
                    folder = Path(scratch) / f"{len(tasks)}"
                    folder.mkdir()
                    settings = TargetSettings(spec=given.target, opt_level=0, **options)
                    model = candidate(name, batch, folder, sizes=given.sizes)
                    work = (settings, model, AccuracySettings(), folder)
                    tasks.append((name, batch, kind, folder, pool.submit(jobs.probe, *work, timeout=LIMIT)))
        for name, batch, kind, folder, task in tasks:
            row: dict[str, Any] = {"op": name, "batch": batch, "kind": kind}
            if time.monotonic() - began > given.seconds and not task.future.done():
                task.cancel()
                row["result"] = "not reached"
            else:
                try:
                    reply = task.result()
                    ended = {"result": "ended", "says": reply.death.message} if reply.death else None
                    row |= ended or told(folder, reply.value, sizes=given.sizes)
                except Exception as error:
                    row |= {"result": "error", "says": repr(error)[:200]}
            shutil.rmtree(folder, ignore_errors=True)
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            if row["result"] not in ("alike", "not reached"):
                print(json.dumps(row), flush=True)
    print(f"{len(tasks)} engines, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
