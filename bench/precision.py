"""How many nodes stay in FP32: `precision` beside AutoCast, ONNX Runtime's converter and "the first k nodes".

    python bench/precision.py --autocast VENV/bin/python docs/precision-table.md

AutoCast (nvidia-modelopt) runs in an environment of its own, which is no part of this project. Models are
those of tests/precision_models.py, tests/precision_models_more.py and precision_kinds.py. Every model that
comes out is judged alike: its FP16 tensors are rounded where they are made, and its outputs compared with
those of the original at rtol 1e-2, atol 1e-3. Nodes are counted in the original model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import precision_kinds

import bisect_trt
import precision_models
import precision_models_more
from bisect_trt.references import ort
from bisect_trt.settings import AccuracySettings, RunSettings, Settings
from bisect_trt.targets.emulate.graph import emulate
from bisect_trt.targets.roles import Roles, flat, roles, with_casts

MODELS = precision_models.MODELS | precision_models_more.MODELS | precision_kinds.MODELS
RTOL, ATOL = 1e-2, 1e-3
MOST_IN_ONE = 12
HEAD = "| model | float nodes | bisect-trt | evaluations to the first set, in all | seconds | AutoCast | "
HEAD += "ONNX Runtime's converter | first k |\n|---|--:|--:|--:|--:|--:|--:|--:|"
AUTOCAST = """
import sys, onnx
from modelopt.onnx.autocast import convert_to_mixed_precision
onnx.save(convert_to_mixed_precision(sys.argv[1], low_precision_type="fp16", keep_io_types=True,
                                     calibration_data=sys.argv[2]), sys.argv[3])
"""


def right(model: onnx.ModelProto, feeds: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether a model with FP16 tensors gives the outputs that it should."""
    made = emulate(model, "typed")
    given = ort.run(made.model.SerializeToString(), Path(), [{made.inputs[k]: v for k, v in feeds.items()}])
    return all(np.allclose(given[0][name], value, RTOL, ATOL) for name, value in expected.items())


def kept(model: onnx.ModelProto, original: onnx.ModelProto) -> int:
    """Nodes of the original that compute in FP32 in a converted model, casts left out.

    A tool may have made one node of several: then those count that it stands for, between what it reads and
    what it gives.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output, *inferred.input)
    kinds = {v.name: v.type.tensor_type.elem_type for v in values}
    kinds |= {t.name: t.data_type for t in model.graph.initializer}
    makers = {name: node for node in original.graph.node for name in node.output}
    known = {node.name for node in original.graph.node}
    found: set[str] = set()
    for node in model.graph.node:
        types = {kinds.get(t) for t in (*node.input, *node.output)}
        wide = TensorProto.FLOAT in types and TensorProto.FLOAT16 not in types
        if not wide or node.op_type in ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear"):
            continue
        if node.name in known:
            found.add(node.name)
        else:
            found |= _between(makers, node)
    return len(found)


def _between(makers: Mapping[str, onnx.NodeProto], node: onnx.NodeProto) -> set[str]:
    """Names of the nodes that one stands for; its own where that cannot be told."""
    ends = {name.removesuffix("_cast_to_fp32").removesuffix("_cast_to_fp16") for name in node.input}
    found: set[str] = set()
    todo = [name for name in node.output if name in makers]
    while todo:
        name = todo.pop()
        if name not in ends and name in makers and makers[name].name not in found:
            found.add(makers[name].name)
            todo += makers[name].input
    return found if 0 < len(found) <= MOST_IN_ONE else {node.name}


def cell(model: onnx.ModelProto | str, original: onnx.ModelProto, feeds: Any, expected: Any) -> str:
    """The number of nodes kept, and whether that passes."""
    if isinstance(model, str):
        return model
    count = kept(model, original)
    try:
        passes = right(model, feeds, expected)
    except ort.OrtError:
        return f"{count}, no valid model"
    return f"{count}, {'passes' if passes else '**fails**'}"


def autocast(python: str, folder: Path) -> onnx.ModelProto | str:
    """What AutoCast makes of it, calibrated with the inputs that are judged."""
    place = folder / "autocast.onnx"
    words = [python, "-c", AUTOCAST, str(folder / "model.onnx"), str(folder / "inputs.npz"), str(place)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode or not place.exists():
        return "emits no model"
    return onnx.load(place)


def converter(model: onnx.ModelProto) -> onnx.ModelProto | str:
    """ONNX Runtime's own float16 converter with its defaults."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto.FromString(model.SerializeToString())
    try:
        return convert_float_to_float16(copy, keep_io_types=True)
    except Exception as error:
        return f"emits no model ({type(error).__name__})"


def first_k(model: onnx.ModelProto, known: Roles, feeds: Any, expected: Any) -> int:
    """The least k such that the first k float nodes in FP32 pass, by halving as Polygraphy does."""
    items, low, high = known.items, 0, len(known.items)
    while low < high:
        middle = (low + high) // 2
        made = with_casts(model.SerializeToString(), Path(), "fp16", items[:middle])
        low, high = (low, middle) if right(made, feeds, expected) else (middle + 1, high)
    return high


def row(name: str, python: str) -> str:
    """One model."""
    model, feeds = MODELS[name]()
    known = roles(flat(model), "fp16")
    expected = ort.run(model.SerializeToString(), Path(), [feeds])[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "inputs.npz", **feeds)
        accuracy = AccuracySettings(rtol=(("", RTOL),), atol=(("", ATOL),))
        settings = Settings(run=RunSettings(inputs=folder / "inputs.npz", repeats=1), accuracy=accuracy)
        began = time.monotonic()
        found = bisect_trt.precision(folder / "model.onnx", settings, out=folder / "out")
        seconds = time.monotonic() - began
        ours = cell(onnx.load(folder / "out/mixed.onnx"), model, feeds, expected)
        theirs = cell(autocast(python, folder), model, feeds, expected) if python else "not run"
    others = cell(converter(model), model, feeds, expected)
    spent = f"{found.evaluations['first']}, {found.evaluations['all']}"
    prefix = first_k(model, known, feeds, expected)
    return (
        f"| {name} | {len(known.items)} | {ours} | {spent} | {seconds:.0f} | {theirs} | {others} | {prefix} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--autocast", default="", help="Python of an environment that has nvidia-modelopt[onnx]"
    )
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    given = parser.parse_args()
    rows = []
    for name in given.models:
        rows.append(row(name, given.autocast))
        print(rows[-1], flush=True)
        given.out.write_text("\n".join([HEAD, *rows]) + "\n")


if __name__ == "__main__":
    main()
