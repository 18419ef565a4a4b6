"""What the written files say of an accuracy failure: tensors side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from bisect_trt.diff import TensorDiff
from bisect_trt.reproducer.files import ACTUAL, EXPECTED, MODEL
from bisect_trt.settings import AccuracySettings, TargetSettings
from bisect_trt.tolerance import alone, differences, precision_rtol

Array = npt.NDArray[Any]

MOST = 1 << 24
"""Elements of a tensor that is looked at in a page."""


@dataclass(frozen=True)
class Compared:
    """The outputs of the first sample, the worst first; `reference` and `target` are of the worst one."""

    diffs: tuple[TensorDiff, ...]
    reference: Array
    target: Array


def compared(out: Path, accuracy: AccuracySettings, target: TargetSettings) -> Compared | None:
    """Compare `expected.npz` and `actual.npz`; None where these are not both there, or are too large."""
    if not (out / EXPECTED).exists() or not (out / ACTUAL).exists():
        return None
    graph = onnx.load(out / MODEL, load_external_data=False).graph
    types = {v.name: v.type.tensor_type.elem_type for v in graph.output}
    expected, actual = (_values(out / name, types) for name in (EXPECTED, ACTUAL))
    diffs = differences([expected], [actual], alone(accuracy), precision_rtol(target))
    plain = [d for d in diffs if d.name in actual and expected[d.name].shape == actual[d.name].shape]
    if not plain or expected[plain[0].name].size > MOST:
        return None
    worst = plain[0].name
    return Compared(tuple(diffs), _floats(expected[worst]), _floats(actual[worst]))


def _values(file: Path, types: Mapping[str, int]) -> dict[str, Array]:
    """Arrays in the types that the model declares; odd ones are stored as their bits."""
    found = {}
    with np.load(file, allow_pickle=False) as archive:
        for name in archive.files:
            value = archive[name]
            dtype = helper.tensor_dtype_to_np_dtype(types[name]) if types.get(name) else value.dtype
            same_bits = dtype.itemsize == value.dtype.itemsize and dtype.isbuiltin != 1
            found[name] = value.view(dtype) if same_bits else value
    return found


def _floats(value: Array) -> Array:
    plain = value.astype(np.float64) if value.dtype.kind not in "OU" else np.zeros(value.shape)
    return plain.reshape(1) if plain.ndim == 0 else plain
